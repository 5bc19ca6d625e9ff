-- Records that people carry from a gateway without a network: who may sign them, and with what the cloud
-- signs the receipt. Small tables; none of them is distributed.

-- The cloud's own key, made once. Here rather than in a data directory: every replica signs with it, and a
-- restored backup of the database goes on with the key that gateways have pinned.
create table receipt_key (
    only_one   boolean not null default true constraint receipt_key_pk primary key,
    seed       bytea not null,
    created_at timestamptz not null default now(),
    constraint receipt_key_is_one check (only_one),
    constraint receipt_key_seed_length check (octet_length(seed) = 32)
);

create table gateway_signing_key (
    public_key    bytea not null constraint gateway_signing_key_pk primary key,
    gateway_id    integer not null constraint gateway_signing_key_gateway_fk references gateway,
    registered_at timestamptz not null default now(),
    -- Another box or card took this one's place: it still speaks for what its card holds, see carried_run.
    retired_at    timestamptz,
    -- Shut out with its gateway: what it signs is refused, also after the gateway was let in again.
    revoked_at    timestamptz,
    constraint gateway_signing_key_length check (octet_length(public_key) = 32)
);
create index gateway_signing_key_gateway on gateway_signing_key (gateway_id);

-- The runs that a bundle first brought, and whose signature it had: a retired key may speak of these and of
-- runs that the cloud heard of before the key was retired, and of no run that a newer card began.
create table carried_run (
    gateway_id integer not null,
    epoch      bigint not null,
    public_key bytea not null,
    constraint carried_run_pk primary key (gateway_id, epoch)
);
