//! When jobs go: cron expressions in UTC, followed by the replica that leads.
//!
//! What must stay true:
//! - Rounds of one job do not pile up: a turn that comes while one is running is taken once, after it.
//! - The scheduler notes its next turn as a time of day; it is made anew when the clock was set, or it would wait
//!   for a time that went by.

use super::leader::Leader;
use super::{JOBS, Job, run_now};
use crate::state::State;
use anyhow::{Context, bail};
use chrono::{DateTime, SubsecRound, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_cron_scheduler::{Job as Bell, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

/// How often the clock is compared with the time that passed, and from which difference on it was set.
const LOOK: Duration = Duration::from_secs(5);
const SET_MS: i64 = 2_000;

/// Which job goes when; one without a time goes only when it is asked for.
pub(crate) struct Timetable(Vec<(&'static Job, Option<(String, Cron)>)>);

impl Timetable {
    /// # Errors
    /// A job that does not exist, or a time that cannot be read or never comes.
    pub(crate) fn read(config: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let names = || JOBS.iter().map(|job| job.name).collect::<Vec<_>>().join(", ");
        for name in config.keys() {
            if super::find(name).is_none() {
                bail!("jobs.{name}: there is no such job, only {}", names());
            }
        }
        let lines = JOBS.iter().map(|job| {
            let text = config.get(job.name).map_or("", String::as_str).trim();
            let cron = (!text.is_empty()).then(|| parse(text).with_context(|| format!("jobs.{}", job.name)));
            Ok((job, cron.transpose()?.map(|cron| (text.to_owned(), cron))))
        });
        Ok(Self(lines.collect::<anyhow::Result<_>>()?))
    }

    /// A job's expression and its next turn.
    pub(crate) fn of(&self, job: &str, now: DateTime<Utc>) -> Option<(&str, Option<DateTime<Utc>>)> {
        let (_, line) = self.0.iter().find(|(known, _)| known.name == job)?;
        // It would keep the fraction of the second that it is asked at.
        let now = now.trunc_subsecs(0);
        line.as_ref().map(|(text, cron)| (text.as_str(), cron.find_next_occurrence(&now, false).ok()))
    }
}

/// As the scheduler reads it.
fn parse(text: &str) -> anyhow::Result<Cron> {
    let parser = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build();
    let cron = parser.parse(text).with_context(|| {
        format!(
            "\"{text}\" cannot be read. It has six fields, second minute hour day month weekday, in UTC: \
             \"0 0 19 * * *\" is every day at 19 o'clock UTC"
        )
    })?;
    cron.find_next_occurrence(&Utc::now(), false)
        .map_err(|_| anyhow::anyhow!("\"{text}\" is a time that never comes"))?;
    Ok(cron)
}

/// Stands for leader and follows the timetable until `stop`.
pub(crate) async fn run(
    state: State,
    timetable: Arc<Timetable>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let leader = Arc::new(Leader::default());
    let mut bells = Vec::new();
    let mut tasks = JoinSet::new();
    for (job, line) in &timetable.0 {
        let Some((cron, _)) = line else { continue };
        let bell = Arc::new(Notify::new());
        bells.push((cron.clone(), Arc::clone(&bell)));
        tasks.spawn(follow(job, state.clone(), Arc::clone(&leader), bell, stop.clone()));
    }
    let options = state.gateways.connect_options();
    let standing = async {
        leader.stand(&options, &state.metrics, stop.clone()).await;
        Ok(())
    };
    // Without its scheduler a replica must not go on leading.
    tokio::try_join!(ring(&bells, &stop), standing).context("the scheduler of jobs")?;
    tasks.join_all().await;
    Ok(())
}

/// Runs one job at its turns, while this replica leads.
async fn follow(
    job: &'static Job,
    state: State,
    leader: Arc<Leader>,
    bell: Arc<Notify>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = bell.notified() => {}
        }
        if !leader.leads(Instant::now()) {
            continue;
        }
        let ran = tokio::select! {
            // What a round did not commit is undone; the next one begins anew.
            () = stop.cancelled() => return,
            ran = run_now(job, &state, "schedule") => ran,
        };
        if let Err(error) = ran {
            tracing::warn!(job = job.name, "a job could not be run: {error}");
            state.metrics.job_ran(job.name, false, Utc::now().timestamp(), Duration::ZERO);
        }
    }
}

async fn ring(bells: &[(String, Arc<Notify>)], stop: &CancellationToken) -> Result<(), JobSchedulerError> {
    while !stop.is_cancelled() {
        let mut scheduler = schedule(bells).await?;
        let begun = (Utc::now(), Instant::now());
        let was_set = async {
            loop {
                tokio::time::sleep(LOOK).await;
                if was_set((Utc::now() - begun.0).num_milliseconds(), begun.1.elapsed()) {
                    break;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = was_set => tracing::info!("the clock was set: the turns of jobs are reckoned anew"),
        }
        scheduler.shutdown().await?;
    }
    Ok(())
}

async fn schedule(bells: &[(String, Arc<Notify>)]) -> Result<JobScheduler, JobSchedulerError> {
    let mut scheduler = JobScheduler::new().await?;
    scheduler.init().await?;
    for (cron, bell) in bells {
        let bell = Arc::clone(bell);
        scheduler.add(Bell::new_tz(cron.as_str(), Utc, move |_, _| bell.notify_one())?).await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}

/// Whether the clock went another way than the time. Time servers slew it by less than this.
fn was_set(wall_ms: i64, elapsed: Duration) -> bool {
    let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
    wall_ms.saturating_sub(elapsed).saturating_abs() >= SET_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_job_has_its_time_in_the_documented_defaults() {
        let timetable = Timetable::read(&Config::load(None).unwrap().jobs).unwrap();
        for job in JOBS {
            let (_, next) = timetable.of(job.name, Utc::now()).unwrap_or_else(|| panic!("{}", job.name));
            assert!(next.is_some_and(|at| at.timestamp_subsec_nanos() == 0), "{} goes at {next:?}", job.name);
            assert_eq!(JOBS.iter().filter(|other| other.name == job.name).count(), 1);
        }
    }

    #[test]
    fn a_wrong_line_is_named_at_the_start_and_an_empty_one_is_a_job_that_rests() {
        let read = |name: &str, cron: &str| {
            Timetable::read(&BTreeMap::from([(name.to_owned(), cron.to_owned())]))
                .map_err(|error| format!("{error:#}"))
        };
        assert!(read("files_sweep", "").unwrap().of("files_sweep", Utc::now()).is_none());
        for (name, cron, words) in [
            ("files_swee", "", "no such job"),
            ("files_sweep", "* * * * *", "six fields"),
            ("files_sweep", "0 0 0 30 2 *", "never comes"),
        ] {
            let error = read(name, cron).err().unwrap_or_default();
            assert!(error.contains(name) && error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_clock_that_jumps_is_noticed_and_one_that_is_slewed_is_not() {
        assert!(!was_set(5_400, Duration::from_secs(5)));
        assert!(was_set(60_000, Duration::from_secs(5)));
        assert!(was_set(-60_000, Duration::from_secs(5)));
    }
}
