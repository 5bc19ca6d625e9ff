//! What the cloud does by itself: a table of jobs, each of which is one round of some module.
//!
//! What must stay true:
//! - One replica leads and is the only one that follows the timetable (`leader`). Where a replica that was paused
//!   still thinks that it leads, a job's own lock keeps two rounds of it from running side by side (`run`).
//! - A job that fails, panics or hangs is told and ended; the others go on.
//! - Jobs can be run twice: what they do, they do to rows that need it.

pub(crate) mod api;
mod check;
mod leader;
mod run;
mod turns;

pub(crate) use api::routes;
pub use check::{check, standings};
pub use run::{Ran, history, run_now};
pub(crate) use turns::{Timetable, run};

use crate::audit::{Action, By, Entry, Object, Outcome};
use crate::error::Result;
use crate::state::State;
use crate::{audit, files, guards, identity, notify, privacy};
use serde_json::json;
use sqlx::PgPool;
use std::pin::Pin;
use std::time::Duration;

type Work = Pin<Box<dyn Future<Output = anyhow::Result<String>> + Send>>;

/// A line of the table.
pub struct Job {
    pub name: &'static str,
    /// How long a round may take.
    patience: Duration,
    /// One round; what it did.
    round: fn(State) -> Work,
}

const fn job(name: &'static str, round: fn(State) -> Work) -> Job {
    Job { name, patience: Duration::from_secs(60), round }
}

/// Every job. When each goes stands in the configuration under `[jobs]`.
pub const JOBS: &[Job] = &[
    job("audit_retire", |state| Box::pin(audit_retire(state))),
    job("sessions_purge", |state| {
        Box::pin(async move { gone(identity::purge_sessions(&state.gateways).await?) })
    }),
    job("sign_in_failures_purge", |state| {
        Box::pin(async move { gone(identity::purge_failures(&state.gateways).await?) })
    }),
    job("answers_purge", |state| {
        Box::pin(async move { gone(guards::forget_answers(&state.gateways).await?) })
    }),
    job("claims_purge", |state| {
        Box::pin(async move { gone(identity::purge_claims(&state.gateways).await?) })
    }),
    job("mail_tokens_purge", |state| {
        Box::pin(async move { gone(identity::purge_mail_tokens(&state.gateways).await?) })
    }),
    Job { patience: Duration::from_secs(1_800), ..job("files_sweep", |state| Box::pin(files_sweep(state))) },
    job("erasures_repeat", |state| Box::pin(erasures_repeat(state))),
    job("messages_purge", |state| {
        Box::pin(async move { gone(notify::retention::one_round(&state.gateways).await?) })
    }),
    job("bans_purge", |state| Box::pin(async move { gone(identity::purge_bans(&state.gateways).await?) })),
    job("privacy_purge", |state| {
        Box::pin(async move { gone(privacy::retention::one_round(&state.gateways).await?) })
    }),
    Job { patience: Duration::from_secs(1_800), ..job("exports", |state| Box::pin(exports(state))) },
    job("job_history_purge", |state| Box::pin(async move { gone(run::purge(&state.gateways).await?) })),
];

pub fn find(name: &str) -> Option<&'static Job> {
    JOBS.iter().find(|job| job.name == name)
}

/// Somebody had a round run: who, and how it ended.
///
/// # Errors
/// The database's.
pub async fn told(pool: &PgPool, by: &By, round: &Ran) -> Result<()> {
    let outcome = if round.outcome == "success" { Outcome::Success } else { Outcome::Failed };
    let object = Some(Object::new("job", &round.job));
    let detail = json!({ "ended": round.outcome, "did": round.did });
    let entry = Entry { object, outcome, detail, ..by.entry(Action::JobRun) };
    audit::record(&mut *pool.acquire().await?, &entry).await
}

fn gone(rows: u64) -> anyhow::Result<String> {
    Ok(format!("{rows} rows removed"))
}

async fn audit_retire(state: State) -> anyhow::Result<String> {
    let keep = state.config.audit.keep;
    Ok(format!("{} entries given up", audit::retention::one_round(&state.gateways, keep).await?))
}

async fn files_sweep(state: State) -> anyhow::Result<String> {
    let swept = files::sweep::one_round(&files::Files::open(&state)?).await?;
    Ok(format!("{} dropped files and {} strays removed", swept.files, swept.strays))
}

async fn erasures_repeat(state: State) -> anyhow::Result<String> {
    Ok(format!("{} erasures repeated", privacy::leave::one_round(&state).await?))
}

async fn exports(state: State) -> anyhow::Result<String> {
    let files = files::Files::open(&state)?;
    let round = privacy::export::one_round(&state, &files).await?;
    Ok(format!("{} copies made, {} expired ones removed", round.made, round.expired))
}
