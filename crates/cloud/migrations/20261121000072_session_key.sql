-- Which key the tokens of a session were signed with: under another one they open nothing, and are not to be listed.
-- Null: signed in before this was kept.
alter table user_session add column token_key_mark bytea,
    add constraint user_session_token_key_mark_length check (octet_length(token_key_mark) = 8);
