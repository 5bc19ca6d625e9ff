-- What would have left this system where nothing is set up to carry it: shown on a page, never sent.
create table kept_message (
    kept_message_id bigint generated always as identity constraint kept_message_pk primary key,
    channel    text not null,
    address    text not null,
    title      text not null,
    content    text not null,
    message_id uuid not null constraint kept_message_message_key unique,
    created_at timestamptz not null default now()
);
