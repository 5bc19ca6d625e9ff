-- An operator's own program that is told what happens here, by a signed request.
create table webhook (
    webhook_id  bigint generated always as identity constraint webhook_pk primary key,
    url         text not null,
    -- What both sides sign with; ours has to be readable for that, so it is kept as it is.
    secret      bytea not null,
    -- The one before, with which it is signed too until the operator's program knows the new one.
    old_secret  bytea,
    old_until   timestamptz,
    -- What it is told of.
    kinds       text[] not null,
    -- Null when it was made by somebody who is no more.
    made_by     bigint constraint webhook_made_by_fk references app_user on delete set null,
    created_at  timestamptz not null default now(),
    -- Since when it says that it is gone for good.
    gone_at     timestamptz,
    constraint webhook_url_length check (char_length(url) between 1 and 2048),
    constraint webhook_secret_length check (octet_length(secret) between 24 and 64),
    constraint webhook_old_secret_length check (octet_length(old_secret) between 24 and 64),
    constraint webhook_old_secret_ends check ((old_secret is null) = (old_until is null)),
    constraint webhook_kinds_some check (cardinality(kinds) between 1 and 50)
);
create index webhook_made_by on webhook (made_by);
