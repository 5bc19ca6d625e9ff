-- What a session's short tokens are renewed with. Each is good once; a used one is kept as long as its session, so
-- that somebody who comes with a copy is noticed.
create table refresh_token (
    session_id  bigint not null constraint refresh_token_session_fk references user_session on delete cascade,
    secret_hash bytea not null,
    -- When it, or another of its session, was first exchanged.
    used_at     timestamptz,
    constraint refresh_token_pk primary key (session_id, secret_hash),
    constraint refresh_token_secret_length check (octet_length(secret_hash) = 32)
);
create index refresh_token_unused on refresh_token (session_id) where used_at is null;
