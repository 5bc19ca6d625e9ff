-- A telephone to which a person has text messages sent. The number is personal data: it stands in the person's export,
-- and goes with the account.
create table phone (
    user_id         bigint not null constraint phone_pk primary key
                        constraint phone_user_fk references app_user on delete cascade,
    -- +62812…
    number          text not null,
    -- Since when a code that was sent there is known to have arrived; until then nothing but codes is sent.
    verified_at     timestamptz,
    -- Of the code on its way, its hash.
    code_hash       bytea,
    code_expires_at timestamptz,
    code_tries      integer not null default 0,
    created_at      timestamptz not null default now(),
    constraint phone_number_form check (number ~ '^\+[1-9][0-9]{6,14}$'),
    constraint phone_code_hash_length check (octet_length(code_hash) = 32),
    constraint phone_code_ends check ((code_hash is null) = (code_expires_at is null))
);

-- Text messages cost money: how many a person and a number were sent within a day is asked before each is written,
create index delivery_sms_of_user on delivery (user_id, created_at) where channel = 'sms';
create index delivery_sms_to on delivery (address, created_at) where channel = 'sms';

-- and how many this cloud sent on a day (UTC), whoever was erased since, is counted before each leaves.
create table text_day (
    day  date not null constraint text_day_pk primary key,
    sent integer not null,
    constraint text_day_sent_positive check (sent >= 0)
);
