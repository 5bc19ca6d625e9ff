-- Goods on the move. scan_event is the big table: gateway_id first in its key, no foreign keys,
-- no triggers, never partitioned by time (the key must hold for ever).

create table scan_event (
    gateway_id  integer not null,
    epoch       bigint not null,
    seq         bigint not null,
    -- Frozen when the record arrives: moving a gateway changes nothing in the past.
    site_id     integer not null,
    nfc_tag_id  text not null,
    status_scan text not null,
    -- As the gateway or the phone told it.
    "timestamp" timestamptz not null,
    -- The best that is known of when it happened (EPCIS eventTime), and how it is known.
    event_time  timestamptz not null,
    time_basis  smallint not null,
    received_at timestamptz not null,
    -- The site's own day of event_time.
    local_day   date not null,
    mono_ms     bigint not null,
    clock_state smallint not null,
    source      smallint not null,
    note        text,
    officer     text,
    quantity    double precision,
    client_ref  uuid,
    constraint scan_event_pk primary key (gateway_id, epoch, seq)
);
-- A tag's history, and the newest scans of all: what people ask for.
create index scan_event_tag on scan_event (nfc_tag_id, event_time);
create index scan_event_time on scan_event (event_time);

-- A phone's own key is one scan, whichever gateway it was posted to.
create table scan_client_ref (
    client_ref uuid not null constraint scan_client_ref_pk primary key,
    gateway_id integer not null,
    epoch      bigint not null,
    seq        bigint not null
);

-- Scans per gateway, site, day and status, kept in the transaction that stores them.
create table scan_day (
    gateway_id  integer not null,
    site_id     integer not null,
    local_day   date not null,
    status_scan text not null,
    scans       bigint not null,
    constraint scan_day_pk primary key (gateway_id, site_id, local_day, status_scan)
);
create index scan_day_day on scan_day (local_day);
-- Which gateways have scans of a site, so that a site's scans are found without an index on the big table.
create index scan_day_site on scan_day (site_id, gateway_id);
