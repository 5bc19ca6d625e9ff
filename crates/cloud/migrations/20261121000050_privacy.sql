-- What people agreed to, what they asked of us about their own data, and what came of it. docs/privacy.md says what
-- happens to every table that knows a person.

-- Kept after the account is erased, without the address: that there was consent must stay provable.
create table consent (
    consent_id   bigint generated always as identity constraint consent_pk primary key,
    user_id      bigint not null constraint consent_user_fk references app_user,
    purpose      text not null,
    -- Of the text that was shown, and in which language.
    version      integer not null,
    language     text not null,
    -- Cut, as in the audit log.
    address      text,
    given_at     timestamptz not null default now(),
    withdrawn_at timestamptz,
    constraint consent_purpose_form check (purpose ~ '^[a-z_]{1,32}$'),
    constraint consent_language_known check (language in ('id', 'en'))
);
create unique index consent_in_force on consent (user_id, purpose) where withdrawn_at is null;

-- A copy of everything about a person, made for them. The object goes before the row does.
create table data_export (
    data_export_id bigint generated always as identity constraint data_export_pk primary key,
    user_id        bigint not null constraint data_export_user_fk references app_user,
    -- The object in the file store: known before it is made, so that no half-made one is forgotten.
    name           text not null constraint data_export_name_key unique,
    requested_at   timestamptz not null default now(),
    ready_at       timestamptz,
    expires_at     timestamptz,
    bytes          bigint,
    constraint data_export_ready_is_whole check ((ready_at is null) = (bytes is null))
);
create unique index data_export_waiting on data_export (user_id) where ready_at is null and expires_at is null;

-- Requests that a person here has to answer, and receipts of what was answered at once. Within three times 24 hours.
create table privacy_request (
    privacy_request_id bigint generated always as identity constraint privacy_request_pk primary key,
    user_id      bigint not null constraint privacy_request_user_fk references app_user,
    kind         text not null,
    -- What the person wrote; gone when the account is erased.
    content      text,
    requested_at timestamptz not null default now(),
    due_at       timestamptz not null default now() + interval '72 hours',
    answered_at  timestamptz,
    granted      boolean,
    answer       text,
    answered_by  bigint constraint privacy_request_answered_by_fk references app_user,
    constraint privacy_request_kind_known
        check (kind in ('access', 'correction', 'erasure', 'restriction', 'objection')),
    constraint privacy_request_answer_is_whole check ((answered_at is null) = (granted is null)),
    constraint privacy_request_lengths check (char_length(content) <= 2000 and char_length(answer) <= 2000)
);
create index privacy_request_open on privacy_request (due_at) where answered_at is null;
create index privacy_request_of_user on privacy_request (user_id);

alter table app_user add column erased_at timestamptz;
