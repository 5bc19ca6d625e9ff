-- Every round has its row: no job goes so often that rows need to be shared.
alter table job_run drop column rounds;
