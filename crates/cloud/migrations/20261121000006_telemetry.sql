-- What sensors and meters say. reading is a big table: series_id is its distribution column and comes first in
-- its key, no foreign keys, no triggers.

-- One measured quantity of one gateway at one site. The site is part of it: a gateway that moves begins new
-- series and changes nothing in the past.
create table series (
    series_id  bigint generated always as identity constraint series_pk primary key,
    gateway_id integer not null constraint series_gateway_fk references gateway,
    site_id    integer not null constraint series_site_fk references site,
    -- ASCII by rule: bytes in order serve every prefix.
    name       text collate "C" not null,
    unit       text collate "C" not null,
    created_at timestamptz not null default now(),
    constraint series_once unique (gateway_id, site_id, name, unit),
    constraint series_name_length check (char_length(name) between 1 and 128),
    constraint series_unit_length check (char_length(unit) between 1 and 32)
);
create index series_name on series (name, series_id);

create table reading (
    series_id      bigint not null,
    -- The best that is known of when it was measured, and how it is known.
    reading_time   timestamptz not null,
    epoch          bigint not null,
    seq            bigint not null,
    value          double precision not null,
    -- 0 good, 1 implausible: kept and marked.
    quality        smallint not null,
    time_basis     smallint not null,
    clock_state    smallint not null,
    -- How far reading_time may be from the truth; null where nothing tells.
    uncertainty_ms integer,
    -- As the gateway or the source told it.
    "timestamp"    timestamptz not null,
    received_at    timestamptz not null,
    mono_ms        bigint not null,
    -- The only unique index. That a reading is stored once is kept by run_stream.taken instead, which stays
    -- true when readings are packed later.
    constraint reading_pk primary key (series_id, reading_time, epoch, seq)
);
-- What an anchor of its boot may still correct. Readings of a clock that is known to be good are not in it.
create index reading_doubtful on reading (epoch, seq) where time_basis in (1, 3);

-- Readings of a clock that stood at no time at all, until their boot is tied to the time of day: at any
-- guessed moment they would spoil a series.
create table waiting_reading (
    gateway_id  integer not null,
    epoch       bigint not null,
    seq         bigint not null,
    series_id   bigint not null,
    value       double precision not null,
    quality     smallint not null,
    clock_state smallint not null,
    "timestamp" timestamptz not null,
    received_at timestamptz not null,
    mono_ms     bigint not null,
    constraint waiting_reading_pk primary key (gateway_id, epoch, seq)
);

-- The newest reading of each series, kept in the transaction that stores it.
create table series_latest (
    series_id      bigint not null constraint series_latest_pk primary key,
    reading_time   timestamptz not null,
    epoch          bigint not null,
    seq            bigint not null,
    value          double precision not null,
    quality        smallint not null,
    time_basis     smallint not null,
    uncertainty_ms integer,
    received_at    timestamptz not null
);

-- The numbers of a run's stream that were given to a domain which keeps no unique key of its own. A number
-- may be held (in quarantine) and not taken yet.
alter table run_stream add column taken int8multirange not null default '{}';
