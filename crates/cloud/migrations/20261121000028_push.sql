-- With what this installation signs for push services, made once: browsers are subscribed to this very key.
create table push_key (
    only_one   boolean not null default true constraint push_key_pk primary key,
    pkcs8      bytea not null,
    created_at timestamptz not null default now(),
    constraint push_key_is_one check (only_one)
);

-- A browser that may be woken, at an address that its push service gave it.
create table push_subscription (
    push_subscription_id bigint generated always as identity constraint push_subscription_pk primary key,
    user_id    bigint not null constraint push_subscription_user_fk references app_user on delete cascade,
    endpoint   text not null constraint push_subscription_endpoint_key unique,
    p256dh     bytea not null,
    auth       bytea not null,
    created_at timestamptz not null default now(),
    constraint push_subscription_endpoint_length check (char_length(endpoint) <= 2048),
    constraint push_subscription_p256dh_length check (octet_length(p256dh) = 65),
    constraint push_subscription_auth_length check (octet_length(auth) = 16)
);
create index push_subscription_of_user on push_subscription (user_id);
