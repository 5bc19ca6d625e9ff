-- What a request with an Idempotency-Key was answered, so that the same one sent again is not done again.
create table idempotent_request (
    -- SHA-256 over who asked, the method, the path and the key: the key itself is not kept.
    request_hash bytea not null constraint idempotent_request_pk primary key,
    body_hash    bytea not null,
    -- Whose turn it is to do it, and until when nobody else may try.
    turn         uuid not null,
    turn_ends_at timestamptz not null,
    begun_at     timestamptz not null default now(),
    -- The answer, once it is known.
    status       smallint,
    content_type text,
    body         bytea,
    constraint idempotent_request_hash_length check (octet_length(request_hash) = 32),
    constraint idempotent_request_body_hash_length check (octet_length(body_hash) = 32),
    constraint idempotent_request_answer check ((status is null) = (body is null)),
    constraint idempotent_request_body_size check (octet_length(body) <= 65536)
);
create index idempotent_request_begun on idempotent_request (begun_at);
