-- By the word of which event a part is as it is: within a run the number says which word is newer, never the
-- clock, and a time that is corrected later moves along.
alter table gateway_part
    add column epoch bigint not null default 0,
    add column seq   bigint not null default 0;
