-- What is looked for when it has been kept long enough, or goes with its person.

-- Whose answer it is; null for a key's.
alter table idempotent_request
    add column user_id bigint constraint idempotent_request_user_fk references app_user on delete cascade;
create index idempotent_request_of_user on idempotent_request (user_id);

create index notification_created on notification (created_at);
create index data_export_expires on data_export (expires_at);
create index app_user_erased on app_user (erased_at) where erased_at is not null;
