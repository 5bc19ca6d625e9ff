-- From which network somebody signed in, cut to a /24 or a /48: enough to tell them of one that is new. Null: before
-- this was kept.
alter table user_session add column network text;
