//! What every part of the cloud is handed.

use crate::config::Config;
use crate::metrics::Metrics;
use sqlx::PgPool;
use std::sync::Arc;

#[derive(Clone)]
pub struct State {
    pub config: Arc<Config>,
    /// For people's requests; statements are bounded in time.
    pub people: PgPool,
    /// For gateways: a reconnect storm must not make people wait.
    pub gateways: PgPool,
    pub metrics: Arc<Metrics>,
}
