//! One round of a job, under its lock and with its line in the history.

use super::Job;
use crate::error::Result;
use crate::state::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use utoipa::ToSchema;

/// The first half of every job's lock; its name's hash is the second.
const LOCKS: i32 = 0x6a6f_6273;
/// How much longer than a job's patience its lock outlives a replica that stands still.
const GRACE: Duration = Duration::from_secs(10);

/// How a round ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = JobRound)]
pub struct Ran {
    #[schema(example = "sessions_purge")]
    pub job: String,
    /// running, success, failed, `timed_out`, panicked or abandoned.
    #[schema(example = "success")]
    pub outcome: String,
    #[schema(example = "3 rows removed")]
    pub did: Option<String>,
    pub error: Option<String>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// schedule, person or command.
    #[schema(example = "schedule")]
    pub cause: String,
    /// Which program ran it.
    #[schema(example = "lumbung:8000 (4711)")]
    pub replica: String,
}

/// Runs a round now, wherever that is asked; none when one is running already.
///
/// # Errors
/// The database's. What the job itself suffers is in the answer.
pub async fn run_now(job: &'static Job, state: &State, cause: &'static str) -> Result<Option<Ran>> {
    // Beside the pool, so that jobs that wait for each other's connections are no concern.
    let mut connection = PgConnection::connect_with(&state.gateways.connect_options()).await?;
    let mut lease = connection.begin().await?;
    let borne = (job.patience + GRACE).as_millis().to_string();
    let ours = sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock($1, hashtext($2)) as "ours!"
           from set_config('idle_in_transaction_session_timeout', $3, true)"#,
        LOCKS,
        job.name,
        borne
    )
    .fetch_one(&mut *lease)
    .await?;
    if !ours {
        return Ok(None);
    }
    sqlx::query!(
        "update job_run set outcome = 'abandoned', ended_at = clock_timestamp() where job = $1 and outcome = 'running'",
        job.name
    )
    .execute(&state.gateways)
    .await?;
    let line = sqlx::query_scalar!(
        "insert into job_run (job, cause, replica) values ($1, $2, $3) returning job_run_id",
        job.name,
        cause,
        replica(state)
    )
    .fetch_one(&state.gateways)
    .await?;
    let started = Instant::now();
    // On a task of its own, so that a panic ends there; it ends with the set.
    let mut work = JoinSet::new();
    work.spawn((job.round)(state.clone()));
    let (outcome, did, error) = match tokio::time::timeout(job.patience, work.join_next()).await {
        Ok(Some(Ok(Ok(did)))) => ("success", Some(did), None),
        Ok(Some(Ok(Err(error)))) => ("failed", None, Some(format!("{error:#}"))),
        Ok(_) => ("panicked", None, Some("the job panicked; the log says where".to_owned())),
        Err(_) => ("timed_out", None, Some(format!("it took longer than {} s", job.patience.as_secs()))),
    };
    let well = outcome == "success";
    state.metrics.job_ran(job.name, well, Utc::now().timestamp(), started.elapsed());
    if !well {
        tracing::error!(job = job.name, outcome, "a job did not go well: {}", error.as_deref().unwrap_or(""));
    }
    let ran = sqlx::query_as!(
        Ran,
        "update job_run set ended_at = clock_timestamp(), outcome = $2, did = $3, error = $4 where job_run_id = $1
         returning job, outcome, did, error, started_at, ended_at, cause, replica",
        line,
        outcome,
        did,
        error
    )
    .fetch_one(&state.gateways)
    .await?;
    lease.commit().await?;
    connection.close().await?;
    Ok(Some(ran))
}

/// The latest rounds of each job, at most `each` of them.
///
/// # Errors
/// The database's.
pub async fn history(pool: &PgPool, each: i64) -> Result<Vec<Ran>> {
    let names: Vec<String> = super::JOBS.iter().map(|job| job.name.to_owned()).collect();
    Ok(sqlx::query_as!(
        Ran,
        r#"select r.job as "job!", r.outcome as "outcome!", r.did, r.error, r.started_at as "started_at!", r.ended_at,
               r.cause as "cause!", r.replica as "replica!"
           from unnest($1::text[]) name cross join lateral (
               select * from job_run where job = name order by job_run_id desc limit $2) r
           order by r.job_run_id desc"#,
        &names,
        each
    )
    .fetch_all(pool)
    .await?)
}

/// Forgets what is older than 30 days.
pub(super) async fn purge(pool: &PgPool) -> Result<u64> {
    let old = sqlx::query!("delete from job_run where started_at < now() - interval '30 days'");
    Ok(old.execute(pool).await?.rows_affected())
}

/// This program, among others on this machine and elsewhere.
fn replica(state: &State) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{} ({})", host.trim(), state.config.http.listen.port(), std::process::id())
}
