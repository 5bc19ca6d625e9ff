-- What ran by itself, and how it ended. Kept for 30 days.
create table job_run (
    job_run_id bigint generated always as identity constraint job_run_pk primary key,
    job        text not null,
    -- schedule, person or command.
    cause      text not null,
    replica    text not null,
    started_at timestamptz not null default clock_timestamp(),
    ended_at   timestamptz,
    -- running until it ends; abandoned when its replica ended first.
    outcome    text not null default 'running',
    -- Jobs that go every few seconds share a row per hour as long as they go well.
    rounds     integer not null default 1,
    did        text,
    error      text,
    constraint job_run_outcome_known
        check (outcome in ('running', 'success', 'failed', 'timed_out', 'panicked', 'abandoned')),
    constraint job_run_ended check ((outcome = 'running') = (ended_at is null))
);
create index job_run_latest on job_run (job, job_run_id);
create index job_run_started on job_run (started_at);
