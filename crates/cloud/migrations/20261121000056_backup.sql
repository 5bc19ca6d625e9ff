-- Backups that were made, so that an operator is told when they stop.
create table backup (
    backup_id bigint generated always as identity constraint backup_pk primary key,
    -- The moment that it shows.
    made_at   timestamptz not null,
    bytes     bigint not null
);
