-- All answers that are given again are JSON; since 20261121000070 no program names the column.
alter table idempotent_request drop column content_type;
