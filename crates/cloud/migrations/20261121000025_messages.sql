-- Messages to people. A message is rows first, written in the transaction of what it tells of; what leaves this
-- system is sent from them afterwards.

-- What a person finds in the app. Secrets (links and codes that open an account) are never here.
create table notification (
    notification_id bigint generated always as identity constraint notification_pk primary key,
    user_id      bigint not null constraint notification_user_fk references app_user on delete cascade,
    kind         text not null,
    -- As it was rendered in the person's language.
    title        text not null,
    content      text not null,
    -- What it is about.
    related_kind text,
    related_id   bigint,
    -- Like events of one key are one row as long as it is unread, and are counted.
    group_key    text,
    times        integer not null default 1,
    read_at      timestamptz,
    created_at   timestamptz not null default now(),
    constraint notification_title_length check (char_length(title) <= 255),
    constraint notification_related_whole check ((related_kind is null) = (related_id is null)),
    constraint notification_times_positive check (times >= 1)
);
create index notification_of_user on notification (user_id, notification_id desc);
create index notification_unread on notification (user_id) where read_at is null;
create unique index notification_unread_group on notification (user_id, kind, group_key)
    where read_at is null and group_key is not null;

-- One message on its way by one channel to one address.
create table delivery (
    delivery_id     bigint generated always as identity constraint delivery_pk primary key,
    -- Null where nothing stands in the app: an address without an account, a link that opens one.
    notification_id bigint constraint delivery_notification_fk references notification on delete cascade,
    user_id         bigint constraint delivery_user_fk references app_user on delete cascade,
    kind            text not null,
    channel         text not null,
    address         text not null,
    title           text not null,
    -- Gone as soon as it was sent.
    content         text,
    html            text,
    state           text not null default 'queued',
    attempts        integer not null default 0,
    next_try_at     timestamptz not null default now(),
    -- While it is being sent: until when nobody else may.
    leased_until    timestamptz,
    last_error      text,
    -- The same at every try, so that a second copy is known for what it is.
    message_id      uuid not null default gen_random_uuid() constraint delivery_message_key unique,
    created_at      timestamptz not null default now(),
    ended_at        timestamptz,
    constraint delivery_channel_known check (channel in ('email', 'push', 'sms', 'webhook')),
    constraint delivery_state_known check (state in ('queued', 'sending', 'sent', 'dead')),
    constraint delivery_sending_is_leased check ((state = 'sending') = (leased_until is not null)),
    constraint delivery_end_is_dated check ((state in ('sent', 'dead')) = (ended_at is not null)),
    constraint delivery_sent_is_empty check (state <> 'sent' or (content is null and html is null)),
    constraint delivery_address_length check (char_length(address) between 1 and 2048)
);
create index delivery_due on delivery (next_try_at) where state in ('queued', 'sending');
create index delivery_of_user on delivery (user_id);
create index delivery_of_notification on delivery (notification_id);
create index delivery_ended on delivery (state, ended_at) where state in ('sent', 'dead');
