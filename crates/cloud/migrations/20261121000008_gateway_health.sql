-- All that a gateway said of itself with its last batch, as JSON text: what a newer gateway tells of its card,
-- its power or its sensors is shown before anything here counts with it.
alter table gateway_state add column health text;
