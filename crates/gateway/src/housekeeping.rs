//! What has to be looked after now and then, whether anybody scans or not.

use crate::board::{Board, BoardLook};
use crate::capture::Capture;
use crate::clock::Clock;
use crate::outbox::{Outbox, OutboxError};
use crate::phones::Phones;
use lumbung_shared::time::ClockState;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often.
const EVERY: Duration = Duration::from_secs(30);
/// Between two bites of old records the card belongs to everybody else.
const BETWEEN_BITES: Duration = Duration::from_millis(200);

/// The part of the program that does it.
pub struct Housekeeping {
    pub board: Arc<Board>,
    pub capture: Capture,
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
        let mut seen = BoardLook::default();
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
            seen = self.look_at_board(seen, stopping).await;
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

    /// Tells the cloud when the power begins to sag or is good again.
    async fn look_at_board(&self, before: BoardLook, last: bool) -> BoardLook {
        let board = Arc::clone(&self.board);
        let Ok(look) = tokio::task::spawn_blocking(move || board.look(last)).await else { return before };
        self.capture.metrics.board(look.card_written_bytes, look.undervoltage, look.read_only);
        if look.read_only && !before.read_only {
            tracing::error!("the store's file system has become read-only: the card may be worn out");
        }
        let power =
            |look: BoardLook| (look.undervoltage == Some(true), look.undervoltage_since_boot == Some(true));
        if power(look) != power(before) && !last {
            let (now, since_boot) = power(look);
            tracing::warn!(now, since_boot, "undervoltage: a weak supply or cable corrupts cards");
            let body = json!({ "now": now, "since_boot": since_boot });
            if let Err(error) = self.capture.note("undervoltage", body).await {
                tracing::warn!(%error, "the undervoltage could not be noted");
                let BoardLook { undervoltage, undervoltage_since_boot, .. } = before;
                return BoardLook { undervoltage, undervoltage_since_boot, ..look };
            }
        }
        look
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
