-- What happened to the gateways themselves. gateway_id first, as in everything of a gateway's history.

create table gateway_event (
    gateway_id     integer not null,
    epoch          bigint not null,
    seq            bigint not null,
    -- Unknown kinds are kept.
    kind           text not null,
    -- The text of a JSON object, as it came.
    body           text not null,
    -- As the gateway told it.
    "timestamp"    timestamptz not null,
    event_time     timestamptz not null,
    time_basis     smallint not null,
    uncertainty_ms integer,
    received_at    timestamptz not null,
    mono_ms        bigint not null,
    clock_state    smallint not null,
    constraint gateway_event_pk primary key (gateway_id, epoch, seq)
);
create index gateway_event_time on gateway_event (gateway_id, event_time);

-- Which sensors and readers of a gateway are silent, by the latest word of each.
create table gateway_part (
    gateway_id integer not null,
    -- sensor or reader
    part       text not null,
    name       text not null,
    down       boolean not null,
    reason     text,
    since      timestamptz not null,
    constraint gateway_part_pk primary key (gateway_id, part, name),
    constraint gateway_part_known check (part in ('sensor', 'reader'))
);

alter table gateway_state
    -- Not yet sent, after the batch that told of it.
    add column unsent_readings bigint not null default 0,
    add column unsent_events bigint not null default 0,
    -- Readings the cloud keeps from it, in whatever run.
    add column readings bigint not null default 0,
    -- Numbers that the cloud holds, over all runs: what is missing between them is a gap.
    add column held_readings int8multirange not null default '{}',
    add column held_events int8multirange not null default '{}';

-- How many numbers a multirange holds, and how many are missing between its ends.
create function numbers_held(numbers int8multirange) returns bigint language sql immutable parallel safe as
    $$ select coalesce(sum(upper(r) - lower(r)), 0)::bigint from unnest(numbers) as r $$;
create function numbers_missing(numbers int8multirange) returns bigint language sql immutable parallel safe as
    $$ select coalesce(upper(numbers) - lower(numbers), 0) - numbers_held(numbers) $$;
