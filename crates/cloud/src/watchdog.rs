//! What systemd is told: that the cloud is ready, and again and again that it truly lives.
//!
//! What must stay true:
//! - A ping means that the runtime had time for this and that the database did not hang. A database that
//!   refuses, is away or is replaying its log does not hang: a restart of ours would cure nothing.
//! - The question goes over a connection of its own: pools that are busy are no reason to start anew.
//! - Without systemd (no NOTIFY_SOCKET) nothing happens.

use sd_notify::NotifyState;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

/// Looks within the time that systemd allows without a ping: one that comes late costs no restart.
const LOOKS: u32 = 3;

/// Says that the cloud serves, then looks after it until `stop`.
pub(crate) async fn run(database: PgConnectOptions, stop: CancellationToken) {
    tell(&[NotifyState::Ready]);
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let mut look = tokio::time::interval(within / LOOKS);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => {}
        }
        match tokio::time::timeout(within / LOOKS, answer(&database)).await {
            Ok(answer) => {
                if let Err(error) = answer {
                    tracing::debug!("the database answers, if only with {error}");
                }
                tell(&[NotifyState::Watchdog]);
            }
            Err(_) => tracing::error!("the database hangs: systemd gets no sign of life"),
        }
    }
}

/// The program ends in order: no restart is needed for it.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

async fn answer(database: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(database).await?;
    connection.ping().await?;
    connection.close().await
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd cannot be told how the cloud is: {error}");
    }
}
