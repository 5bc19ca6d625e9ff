-- When records happened: each boot of a gateway counts milliseconds, and an anchor ties that count to the
-- time of day. gateway_id first, as in everything of a gateway's history.

-- The best anchor that is known of each boot.
create table boot_anchor (
    gateway_id     integer not null,
    boot_id        text not null,
    -- Time of day minus the boot's count of milliseconds.
    offset_ms      bigint not null,
    -- How far that may be wrong at mono_ms; the further from there, the more the boot's count has drifted.
    uncertainty_ms bigint not null,
    mono_ms        bigint not null,
    source         text not null,
    noted_at       timestamptz not null,
    constraint boot_anchor_pk primary key (gateway_id, boot_id),
    constraint boot_anchor_uncertainty_positive check (uncertainty_ms > 0),
    constraint boot_anchor_source_known check (source in ('arrival', 'record', 'cloud', 'phone', 'ntp', 'other'))
);

-- The runs of a boot, whose records an anchor corrects.
create index gateway_run_boot on gateway_run (gateway_id, boot_id);

-- How far event_time may be from the truth; null where nothing tells.
alter table scan_event add column uncertainty_ms integer;
