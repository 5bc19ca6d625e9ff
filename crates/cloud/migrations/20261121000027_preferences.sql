-- In which language somebody is written to when it is not they who ask.
alter table app_user add column language text not null default 'id'
    constraint app_user_language_known check (language in ('id', 'en'));

-- Where a person's wish differs from what a kind of message does by itself.
create table notification_preference (
    user_id bigint not null constraint notification_preference_user_fk references app_user on delete cascade,
    kind    text not null,
    channel text not null,
    wanted  boolean not null,
    constraint notification_preference_pk primary key (user_id, kind, channel),
    constraint notification_preference_channel_known check (channel in ('in_app', 'email', 'push', 'sms'))
);
