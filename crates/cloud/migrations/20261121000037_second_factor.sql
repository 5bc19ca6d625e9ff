-- A second factor: the codes of an authenticator app (RFC 6238).
create table user_totp (
    user_id       bigint not null constraint user_totp_pk primary key
        constraint user_totp_user_fk references app_user on delete cascade,
    -- Encrypted with people.totp_key, which is not in the database; bound to the account.
    sealed_secret bytea not null,
    -- Null until a code has shown that the app has it; until then it does not count.
    confirmed_at  timestamptz,
    -- The step of the last code that was taken: none of it or before it is taken again.
    used_step     bigint not null default 0,
    created_at    timestamptz not null default now()
);

-- For when the app is lost: each good once, and gone then. 128 random bits, known by hash.
create table recovery_code (
    user_id   bigint not null constraint recovery_code_totp_fk references user_totp on delete cascade,
    code_hash bytea not null,
    constraint recovery_code_pk primary key (user_id, code_hash),
    constraint recovery_code_length check (octet_length(code_hash) = 32)
);

-- Sign-ins whose first step was right and whose second is awaited, on whichever replica. Known by hash.
create table sign_in_challenge (
    challenge_hash bytea not null constraint sign_in_challenge_pk primary key,
    user_id        bigint not null constraint sign_in_challenge_user_fk references app_user on delete cascade,
    -- What the first step asked for.
    refresh        boolean not null,
    expires_at     timestamptz not null,
    constraint sign_in_challenge_length check (octet_length(challenge_hash) = 32)
);
create index sign_in_challenge_of_user on sign_in_challenge (user_id);
