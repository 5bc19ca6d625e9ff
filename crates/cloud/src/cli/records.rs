//! The quarantine, looked at and replayed.

use super::{say, say_json};
use crate::error::Error;
use crate::ingest::quarantine::{self, Replayed};
use clap::Subcommand;
use sqlx::PgPool;

/// Entries listed or replayed in one call.
const MOST: i64 = 10_000;

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
                for entry in quarantine::list(pool, None, MOST).await? {
                    let mut line = serde_json::to_value(&entry)?;
                    if let Some(line) = line.as_object_mut() {
                        line.remove("raw");
                    }
                    say_json(&line)?;
                }
                Ok(())
            }
            Self::Show { id } => {
                let entry =
                    quarantine::list(pool, Some(id), 1).await?.pop().ok_or(Error::NotFound("not_found"))?;
                say(serde_json::to_string_pretty(&entry)?)
            }
            Self::Replay { ids, all } => {
                let ids = if all {
                    quarantine::list(pool, None, MOST).await?.into_iter().map(|entry| entry.id).collect()
                } else {
                    ids
                };
                let mut refused = 0;
                for &id in &ids {
                    match quarantine::replay(pool, id).await? {
                        Replayed::Stored => say(format_args!("{id}: stored"))?,
                        Replayed::Refused(why) => {
                            refused += 1;
                            say(format_args!("{id}: stays: {why}"))?;
                        }
                    }
                }
                say(format_args!("{} replayed, {refused} stay", ids.len() - refused))
            }
        }
    }
}
