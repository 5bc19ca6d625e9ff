//! What every part of the cloud is handed.

use crate::config::Config;
use crate::metrics::Metrics;
use sqlx::PgPool;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Clone)]
pub struct State {
    pub config: Arc<Config>,
    /// For people's requests; statements are bounded in time.
    pub people: PgPool,
    /// For gateways: a reconnect storm must not make people wait.
    pub gateways: PgPool,
    pub metrics: Arc<Metrics>,
    /// Cancelled when the program is about to stop: it serves on, and whoever sends it requests should ask another.
    pub leaving: CancellationToken,
    /// Everybody's connection, and what goes on without one: while any is left, every worker stays.
    pub unfinished: TaskTracker,
}

impl State {
    /// A command's, which serves nobody.
    #[must_use]
    pub fn alone(config: &Config, pool: &PgPool) -> Self {
        Self {
            config: Arc::new(config.clone()),
            people: pool.clone(),
            gateways: pool.clone(),
            metrics: Arc::new(Metrics::new()),
            leaving: CancellationToken::new(),
            unfinished: TaskTracker::new(),
        }
    }
}
