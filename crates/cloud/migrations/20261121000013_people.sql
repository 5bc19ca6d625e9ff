-- Who is asking: people. Small tables; none of them is distributed.

create table app_user (
    user_id       bigint generated always as identity constraint app_user_pk primary key,
    -- As it was typed; one account per address, whatever its case.
    email         text not null,
    username      text not null,
    -- Argon2id as a PHC string.
    password_hash text not null,
    role          text not null default 'user',
    full_name     text,
    bio           text,
    phone_number  text,
    address       text,
    city          text,
    country       text,
    is_verified   boolean not null default false,
    -- A banned account is not active: no sign-in, and none of its sessions is good.
    is_active     boolean not null default true,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    constraint app_user_role_known check (role in ('user', 'volunteer', 'ambassador', 'admin')),
    constraint app_user_email_length check (char_length(email) between 3 and 255),
    constraint app_user_username_form check (username ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{2,99}$')
);
create unique index app_user_email_key on app_user (lower(email));
create unique index app_user_username_key on app_user (lower(username));

-- One sign-in. The token that was handed out names it by a random id, of which only the hash is kept.
create table user_session (
    session_id    bigint generated always as identity constraint user_session_pk primary key,
    user_id       bigint not null constraint user_session_user_fk references app_user on delete cascade,
    token_id_hash bytea not null constraint user_session_token_key unique,
    user_agent    text,
    created_at    timestamptz not null default now(),
    last_seen_at  timestamptz not null default now(),
    expires_at    timestamptz not null,
    revoked_at    timestamptz,
    constraint user_session_token_length check (octet_length(token_id_hash) = 32),
    constraint user_session_agent_length check (char_length(user_agent) <= 128)
);
create index user_session_user on user_session (user_id);

-- Tries to sign in that have not succeeded. By the hash of the address, known or not: both are slowed alike,
-- and no address that somebody merely typed is kept.
create table sign_in_failure (
    address_hash bytea not null constraint sign_in_failure_pk primary key,
    failures     integer not null,
    last_at      timestamptz not null,
    -- When the next try is let through.
    free_at      timestamptz not null
);
create index sign_in_failure_last on sign_in_failure (last_at);

-- What tokens are signed with unless the configuration says, made once: every replica signs with it.
create table token_key (
    only_one   boolean not null default true constraint token_key_pk primary key,
    secret     bytea not null,
    created_at timestamptz not null default now(),
    constraint token_key_is_one check (only_one),
    constraint token_key_length check (octet_length(secret) = 32)
);
