-- What the cloud knows of each gateway's history. The distribution column of everything here is
-- gateway_id, and it comes first in every key.

create table gateway_run (
    gateway_id     integer not null,
    -- The run's random 64-bit name as a signed number; 0 for clients that know nothing of runs.
    epoch          bigint not null,
    -- Null until the gateway has told how the run began.
    previous_epoch bigint,
    boot_id        text,
    site_id        integer not null,
    started_at     timestamptz,
    mono_ms        bigint,
    clock_state    smallint,
    version        text,
    introduced     boolean not null,
    first_heard_at timestamptz not null,
    constraint gateway_run_pk primary key (gateway_id, epoch)
);
-- Two runs that name the same predecessor are a fork.
create index gateway_run_previous on gateway_run (gateway_id, previous_epoch);

create table run_stream (
    gateway_id integer not null,
    epoch      bigint not null,
    stream     text not null,
    -- Every number the cloud holds, stored or quarantined: gaps are arithmetic.
    held       int8multirange not null,
    constraint run_stream_pk primary key (gateway_id, epoch, stream)
);

-- The latest that each gateway said of itself.
create table gateway_state (
    gateway_id       integer not null constraint gateway_state_pk primary key,
    last_heard_at    timestamptz not null,
    epoch            bigint not null,
    clock_state      smallint not null,
    -- Gateway's clock minus the cloud's, milliseconds.
    clock_skew_ms    bigint not null,
    -- Scans not yet sent, after the batch that told of it.
    unsent           bigint not null,
    oldest_unsent_at timestamptz,
    parked           bigint not null,
    disk_free_bytes  bigint,
    reader           text,
    undervoltage     boolean,
    version          text not null,
    salvaged         bigint,
    -- Scans the cloud keeps from it, in whatever run.
    scans            bigint not null,
    -- Numbers of scans that the cloud holds, over all runs: what is missing between them is a gap.
    held_scans       int8multirange not null
);

-- What an operator must look at. Told once per cause.
create table gateway_incident (
    incident_id bigint generated always as identity,
    gateway_id  integer not null,
    kind        text not null,
    epoch       bigint not null,
    other_epoch bigint,
    detail      text not null,
    raised_at   timestamptz not null,
    constraint gateway_incident_pk primary key (gateway_id, incident_id),
    constraint gateway_incident_once unique (gateway_id, kind, epoch),
    constraint gateway_incident_kind_known check (kind in ('fork', 'conflict'))
);

-- What the cloud could not take as it came, whole, until someone replays it.
create table quarantine (
    quarantine_id bigint generated always as identity,
    gateway_id    integer not null,
    epoch         bigint not null,
    stream        text not null,
    seq           bigint not null,
    -- The last number it stands for; seq for a single record.
    through       bigint not null,
    reason        text not null,
    detail        text not null,
    -- JSON text rather than json or jsonb: those refuse some of what this must hold.
    raw           text not null,
    raw_hash      bytea not null,
    received_at   timestamptz not null,
    replayed_at   timestamptz,
    constraint quarantine_pk primary key (gateway_id, quarantine_id),
    -- The same refusal sent twice is kept once.
    constraint quarantine_once unique (gateway_id, epoch, stream, seq, raw_hash)
);
create index quarantine_open on quarantine (quarantine_id) where replayed_at is null;
