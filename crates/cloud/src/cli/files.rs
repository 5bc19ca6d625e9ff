//! Uploads: making the store what the table says.

use super::say;
use crate::config::Config;
use crate::files::{Files as Uploads, sweep};
use crate::state::State;
use clap::Subcommand;
use sqlx::PgPool;

#[derive(Subcommand)]
pub(super) enum Files {
    /// Take dropped uploads out of the store, and objects that nothing has named for a day
    #[command(
        after_help = "A running cloud does this by itself every hour; after a restore, once both database and store are back, it may be wanted at once."
    )]
    Sweep,
}

impl Files {
    pub(super) async fn run(self, config: &Config, pool: &PgPool) -> anyhow::Result<()> {
        let state = State::alone(config, pool);
        let swept = sweep::one_round(&Uploads::open(&state)?).await?;
        say(format_args!("{} dropped files and {} strays removed", swept.files, swept.strays))
    }
}
