-- Each channel is looked through by itself, so that what waits for one road is not stepped over on the way to another's.
create index delivery_due_of on delivery (channel, next_try_at) where state in ('queued', 'sending');
drop index delivery_due;
