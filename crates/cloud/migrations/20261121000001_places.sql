-- Programmes and their sites. Small tables: they may be joined from anywhere.

create table programme (
    programme_id integer generated always as identity constraint programme_pk primary key,
    code         text not null constraint programme_code_key unique,
    name         text not null,
    created_at   timestamptz not null default now(),
    constraint programme_code_form check (code ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'),
    constraint programme_name_length check (char_length(name) between 1 and 200)
);

create table site (
    site_id      integer generated always as identity constraint site_pk primary key,
    programme_id integer not null constraint site_programme_fk references programme,
    code         text not null constraint site_code_key unique,
    name         text not null,
    kind         text not null,
    -- IANA name; "today" at a site is its own day.
    time_zone    text not null,
    created_at   timestamptz not null default now(),
    constraint site_code_form check (code ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'),
    constraint site_name_length check (char_length(name) between 1 and 200),
    constraint site_kind_known check (kind in ('kitchen', 'school', 'warehouse', 'farm', 'office'))
);
