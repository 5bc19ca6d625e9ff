//! The quarantine, looked at and replayed.

use super::{say, say_json};
use crate::error::Error;
use crate::ingest::quarantine::{self, Replayed};
use clap::Subcommand;
use sqlx::PgPool;

/// Entries read at once.
const PAGE: i64 = 1_000;

#[derive(Subcommand)]
pub(super) enum Quarantine {
    /// List open entries, a line of JSON each, without the raw record
    List,
    /// Show one entry whole
    Show { id: i64 },
    /// Read entries again, after an update or a fix, and store what can be taken now
    #[command(
        after_help = "Examples:\n  lumbung-cloud quarantine replay 17 18\n  lumbung-cloud quarantine replay --all"
    )]
    Replay {
        #[arg(required_unless_present = "all")]
        ids: Vec<i64>,
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

impl Quarantine {
    pub(super) async fn run(self, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::List => {
                let mut after = 0;
                loop {
                    let page = quarantine::list(pool, after, PAGE).await?;
                    let Some(last) = page.last() else { return Ok(()) };
                    after = last.id;
                    page.iter().try_for_each(say_json)?;
                }
            }
            Self::Show { id } => say(serde_json::to_string_pretty(&quarantine::show(pool, id).await?)?),
            Self::Replay { mut ids, all } => {
                let (mut after, mut stored, mut refused) = (0, 0, 0);
                loop {
                    if all {
                        ids =
                            quarantine::list(pool, after, PAGE).await?.iter().map(|entry| entry.id).collect();
                    }
                    let Some(&last) = ids.last() else { break };
                    after = last;
                    for &id in &ids {
                        match quarantine::replay(pool, id).await {
                            Ok(Replayed::Stored) => {
                                stored += 1;
                                say(format_args!("{id}: stored"))?;
                            }
                            Ok(Replayed::Refused(why)) => {
                                refused += 1;
                                say(format_args!("{id}: stays: {why}"))?;
                            }
                            // Someone else replayed it meanwhile.
                            Err(Error::NotFound(_)) if all => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                    if !all {
                        break;
                    }
                }
                say(format_args!("{stored} replayed, {refused} stay"))
            }
        }
    }
}
