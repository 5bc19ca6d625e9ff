-- Who is asking: gateways and readers. Keys and claims are random and long, so SHA-256 of them is
-- enough to keep; the value itself is never stored.

create table gateway (
    gateway_id    integer generated always as identity constraint gateway_pk primary key,
    -- What people and JSON call it.
    code          text not null constraint gateway_code_key unique,
    site_id       integer not null constraint gateway_site_fk references site,
    hardware      text,
    created_at    timestamptz not null default now(),
    revoked_at    timestamptz,
    revoke_reason text,
    constraint gateway_code_form check (code ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    constraint gateway_hardware_length check (char_length(hardware) <= 128)
);

-- An operator's leave for one box to become this gateway. Single use, short-lived.
create table gateway_claim (
    claim_hash        bytea not null constraint gateway_claim_pk primary key,
    gateway_id        integer not null constraint gateway_claim_gateway_fk references gateway,
    created_at        timestamptz not null default now(),
    expires_at        timestamptz not null,
    -- The key it was redeemed with: the same claim with the same key is the same enrolment,
    -- so that a lost answer can be asked for again.
    redeemed_at       timestamptz,
    redeemed_key_hash bytea
);

create table gateway_key (
    key_hash      bytea not null constraint gateway_key_pk primary key,
    gateway_id    integer not null constraint gateway_key_gateway_fk references gateway,
    created_at    timestamptz not null default now(),
    -- A new key replaces the older ones when it is first used, not when it is made.
    first_used_at timestamptz,
    retired_at    timestamptz
);
create index gateway_key_gateway on gateway_key (gateway_id);

create table access_key (
    access_key_id integer generated always as identity constraint access_key_pk primary key,
    name          text not null,
    key_hash      bytea not null constraint access_key_hash_key unique,
    scope         text not null,
    created_at    timestamptz not null default now(),
    revoked_at    timestamptz,
    constraint access_key_name_length check (char_length(name) between 1 and 100),
    constraint access_key_scope_known check (scope in ('read'))
);
