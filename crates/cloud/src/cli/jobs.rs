//! What the cloud does by itself, looked at and done at once.

use super::say;
use crate::audit::By;
use crate::config::Config;
use crate::error::Error;
use crate::jobs::{self, JOBS, Timetable};
use crate::state::State;
use anyhow::{anyhow, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use sqlx::PgPool;

#[derive(Subcommand)]
pub(super) enum Jobs {
    /// List jobs: name, next turn, latest round, how it ended, what it did
    List,
    /// Run one round of a job and say what it did
    #[command(after_help = "Example:\n  lumbung-cloud jobs run sessions_purge")]
    Run { name: String },
}

impl Jobs {
    pub(super) async fn run(self, config: &Config, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::List => {
                let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
                let timetable = Timetable::read(&config.jobs)?;
                let rounds = jobs::history(pool, 1).await?;
                for job in JOBS {
                    let next = timetable.of(job.name, Utc::now()).and_then(|(_, next)| next);
                    let next = next.map_or_else(|| "when asked".into(), time);
                    let round = rounds.iter().find(|round| round.job == job.name);
                    let told = round.map_or_else(
                        || "never\t\t".to_owned(),
                        |round| {
                            let told = round.error.as_ref().or(round.did.as_ref()).map_or("", String::as_str);
                            let at = time(round.ended_at.unwrap_or(round.started_at));
                            format!("{at}\t{}\t{told}", round.outcome)
                        },
                    );
                    say(format_args!("{}\t{next}\t{told}", job.name))?;
                }
                Ok(())
            }
            Self::Run { name } => {
                let job = jobs::find(&name).ok_or_else(|| {
                    anyhow!(Error::NotFound("NOT_FOUND")).context("`lumbung-cloud jobs list` shows the jobs")
                })?;
                let state = State::alone(config, pool);
                let ran = jobs::run_now(job, &state, "command").await?;
                if let Some(round) = &ran {
                    jobs::told(pool, &By::command(), round).await?;
                }
                match ran {
                    None => bail!("{name} is running at this moment"),
                    Some(round) if round.outcome == "success" => say(round.did.unwrap_or_default()),
                    Some(round) => bail!("{name} {}: {}", round.outcome, round.error.unwrap_or_default()),
                }
            }
        }
    }
}
