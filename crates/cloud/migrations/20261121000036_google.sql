-- Who signs in with Google has an account without a password until they choose one by mail.
alter table app_user alter column password_hash drop not null;

-- By Google's own id of a person: addresses change hands, that never does.
create table user_google (
    google_sub text not null constraint user_google_pk primary key,
    user_id    bigint not null constraint user_google_user_fk references app_user on delete cascade,
    created_at timestamptz not null default now(),
    constraint user_google_sub_length check (char_length(google_sub) between 1 and 255)
);
create index user_google_of_user on user_google (user_id);
