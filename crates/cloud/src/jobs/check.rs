//! Whether jobs go when they should and end well.

use super::{JOBS, Timetable, history};
use crate::config::Config;
use crate::error::Result;
use crate::finding::Finding;
use chrono::{DateTime, Duration, Utc};
use sqlx::PgPool;
use std::collections::BTreeMap;

/// How much later than its turn a round may begin: the leader may just have changed.
const LATE: Duration = Duration::minutes(10);

/// How a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub job: &'static str,
    /// Its last round did not end well.
    pub failed: bool,
    /// A turn went by and no round began.
    pub overdue: bool,
}

/// How every job does.
///
/// # Errors
/// A time in the configuration that cannot be read, or the database's.
pub async fn standings(pool: &PgPool, times: &BTreeMap<String, String>) -> anyhow::Result<Vec<Standing>> {
    let timetable = Timetable::read(times)?;
    let rounds = history(pool, 1).await?;
    let installed = installed(pool).await?;
    let now = Utc::now();
    let standing = |job: &'static str| {
        let last = rounds.iter().find(|round| round.job == job);
        let since = last.map_or(installed, |round| round.started_at.max(installed));
        Standing {
            job,
            failed: last.is_some_and(|round| !["success", "running"].contains(&round.outcome.as_str())),
            overdue: is_overdue(timetable.of(job, since).and_then(|(_, turn)| turn), now),
        }
    };
    Ok(JOBS.iter().map(|job| standing(job.name)).collect())
}

/// By the first turn after the last round.
fn is_overdue(turn: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    turn.is_some_and(|turn| turn + LATE < now)
}

/// Since when the schema is as it is: no turn of a job that came with an update was before.
async fn installed(pool: &PgPool) -> Result<DateTime<Utc>> {
    // Not `query!`: the table is sqlx's own and not there where queries are checked.
    let at: Option<DateTime<Utc>> =
        sqlx::query_scalar("select max(installed_on) from _sqlx_migrations").fetch_one(pool).await?;
    Ok(at.unwrap_or_else(Utc::now))
}

/// What an operator must know of them.
pub async fn check(config: &Config, pool: &PgPool) -> Finding {
    let standings = match standings(pool, &config.jobs).await {
        Ok(standings) => standings,
        Err(error) => return Finding::fail("jobs", format!("{error:#}"), "see [jobs], and the database"),
    };
    let named = |which: fn(&Standing) -> bool| {
        standings.iter().filter(|job| which(job)).map(|job| job.job).collect::<Vec<_>>().join(", ")
    };
    let (failed, overdue) = (named(|job| job.failed), named(|job| job.overdue));
    let mut words = Vec::new();
    if !failed.is_empty() {
        words.push(format!("the last round did not go well of {failed}"));
    }
    if !overdue.is_empty() {
        words.push(format!("a turn went by without a round of {overdue}"));
    }
    if words.is_empty() {
        return Finding::ok("jobs", format!("{} jobs went when they should, and well", standings.len()));
    }
    let advice = "`lumbung-cloud jobs list` says why, `lumbung-cloud jobs run NAME` does it now; no job goes while no cloud runs";
    Finding::warn("jobs", words.join("; "), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_went_by_is_overdue_after_a_while_and_a_job_without_turns_never() {
        let now = Utc::now();
        assert!(is_overdue(Some(now - LATE - Duration::seconds(1)), now));
        assert!(!is_overdue(Some(now - LATE + Duration::seconds(1)), now));
        assert!(!is_overdue(Some(now + LATE), now));
        assert!(!is_overdue(None, now));
    }
}
