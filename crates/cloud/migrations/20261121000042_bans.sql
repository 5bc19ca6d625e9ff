-- Why an account is shut, by whom, and until when. An account that is shut has is_active false; what runs out
-- is lifted when its owner next signs in.

create table user_ban (
    ban_id     bigint generated always as identity constraint user_ban_pk primary key,
    user_id    bigint not null constraint user_ban_user_fk references app_user on delete cascade,
    -- Told to the person. Null: nobody gave one, at the command line.
    reason     text,
    -- Null: from the command line, or by somebody who is gone.
    banned_by  bigint constraint user_ban_by_fk references app_user on delete set null,
    banned_at  timestamptz not null default now(),
    -- Null: until somebody lifts it.
    expires_at timestamptz,
    lifted_at  timestamptz,
    constraint user_ban_reason_length check (char_length(reason) between 1 and 500)
);
create unique index user_ban_open on user_ban (user_id) where lifted_at is null;
