//! Messages on their way.

use super::{say, say_json};
use crate::audit::By;
use crate::notify::undelivered::{self, STATES};
use crate::page::Page;
use clap::Subcommand;
use serde_json::json;
use sqlx::PgPool;

#[derive(Subcommand)]
pub(super) enum Message {
    /// List messages by where they stand, the newest first, a line of JSON each
    List {
        #[arg(long, default_value = "dead", value_parser = STATES)]
        state: String,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
    },
    /// Give a dead message all of its tries anew
    Retry { id: i64 },
}

impl Message {
    pub(super) async fn run(self, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::List { state, limit } => {
                for one in undelivered::list(pool, &state, Page { most: limit, ..Page::ALL }).await? {
                    say_json(&json!({
                        "id": one.delivery_id,
                        "user_id": one.user_id,
                        "channel": one.channel,
                        "type": one.kind,
                        "state": one.state,
                        "attempts": one.attempts,
                        "last_error": one.last_error,
                        "created_at": one.created_at,
                    }))?;
                }
                Ok(())
            }
            Self::Retry { id } => {
                let mut tx = pool.begin().await?;
                undelivered::retry(&mut tx, id, &By::command()).await?;
                tx.commit().await?;
                say(format_args!("message {id} is tried again"))
            }
        }
    }
}
