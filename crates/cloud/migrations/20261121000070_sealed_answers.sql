-- What requests with an Idempotency-Key were answered is kept sealed from now on, and found by keyed hashes. What lies
-- here in clear goes; its keys are free again.
delete from idempotent_request;
comment on column idempotent_request.request_hash is
    'HMAC-SHA256 with the client''s key over who asked, the method and the path: the key itself is not kept';
comment on column idempotent_request.body_hash is 'HMAC-SHA256 with the client''s key: a body may hold a password';
comment on column idempotent_request.body is
    'sealed (ChaCha20-Poly1305) with a key made of the client''s key and the request''s body, which are not kept';
comment on column idempotent_request.content_type is
    'no longer written, for all answers are JSON; here while programs of before run beside new ones';
