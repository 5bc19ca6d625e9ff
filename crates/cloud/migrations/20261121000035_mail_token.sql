-- Secrets that were sent to somebody's mailbox: whoever has one reads that mailbox. Single use, known by hash.
create table mail_token (
    token_hash bytea not null constraint mail_token_pk primary key,
    user_id    bigint not null constraint mail_token_user_fk references app_user on delete cascade,
    purpose    text not null,
    -- Where it went. It says nothing of an address that the account had earlier or got since.
    email      text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint mail_token_purpose_known check (purpose in ('verify_email', 'reset_password')),
    constraint mail_token_length check (octet_length(token_hash) = 32)
);
create index mail_token_of_user on mail_token (user_id, purpose);
