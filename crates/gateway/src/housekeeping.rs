//! What has to be looked after now and then, whether anybody scans or not.

use crate::clock::Clock;
use crate::outbox::{Outbox, OutboxError};
use crate::phones::Phones;
use lumbung_shared::time::ClockState;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often.
const EVERY: Duration = Duration::from_secs(30);
/// Between two bites of old records the card belongs to everybody else.
const BETWEEN_BITES: Duration = Duration::from_millis(200);

/// The part of the program that does it.
#[derive(Debug)]
pub struct Housekeeping {
    pub outbox: Outbox,
    pub clock: Arc<Clock>,
    pub phones: Arc<Phones>,
    /// How long records that the cloud holds are kept.
    pub keep_synced: Duration,
}

impl Housekeeping {
    /// Runs until `stop`, or until the store has ended.
    pub async fn run(self, stop: CancellationToken) -> Result<(), OutboxError> {
        let mut round = tokio::time::interval(EVERY);
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                _ = round.tick() => false,
            };
            let phones = Arc::clone(&self.phones);
            let written = tokio::task::spawn_blocking(move || phones.write_last_use(stopping)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "when phones were last used could not be kept");
            }
            if stopping {
                return Ok(());
            }
            while self.bite().await? {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(BETWEEN_BITES) => {}
                }
            }
        }
    }

    /// One command to the writer. True: there may be more to do.
    async fn bite(&self) -> Result<bool, OutboxError> {
        let now = self.clock.now();
        let keep_ms = i64::try_from(self.keep_synced.as_millis()).unwrap_or(i64::MAX);
        // Nothing is old by a clock that may be wrong.
        let before_ms = (now.state == ClockState::Synced).then(|| now.wall_ms.saturating_sub(keep_ms));
        match self.outbox.maintain(before_ms).await {
            Err(OutboxError::Closed) => Err(OutboxError::Closed),
            Err(error) => {
                tracing::warn!(%error, "housekeeping failed");
                Ok(false)
            }
            more => more,
        }
    }
}
