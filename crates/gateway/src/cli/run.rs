//! `run`

use super::{Failure, Outcome};
use crate::app;
use crate::config::Config;
use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub(super) async fn run(config: Config) -> Result<Outcome, Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let stop = CancellationToken::new();
    let gateway = app::build(config).await.map_err(anyhow::Error::from)?;
    let signalled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => tracing::info!("SIGINT"),
        }
        signalled.cancel();
    });
    gateway.run(stop).await.map_err(anyhow::Error::from)?;
    Ok(Outcome::Done)
}
