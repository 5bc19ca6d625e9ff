-- What the admins' dashboard counts over the last days, so that it reads as many rows as it counts and no more.

create index app_user_created on app_user (created_at);
create index user_session_seen on user_session (last_seen_at, user_id);
create index file_created on file (created_at) include (bytes);
create index gateway_event_received on gateway_event (received_at);
