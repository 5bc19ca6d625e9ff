//! Tags held to the gateway's own reader.

use super::Capture;
use crate::hardware::{ReaderHealth, TagReader};
use lumbung_shared::scan::{ScanContent, Source};
use lumbung_shared::tag::TagId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long the reader's thread waits before it looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(250);
/// A reader that fails is asked again after this.
const RECOVERY: Duration = Duration::from_secs(2);

/// Waits for tags on a thread of its own and keeps a scan for each.
pub struct ReaderLoop {
    pub reader: Box<dyn TagReader>,
    pub health: Arc<ReaderHealth>,
    /// The status that every tap at this reader means.
    pub status: String,
    pub capture: Capture,
}

impl ReaderLoop {
    /// Runs until `stop`; an error when the reader's thread has died.
    pub async fn run(self, stop: CancellationToken) -> Result<(), &'static str> {
        let Self { reader, health, status, capture } = self;
        // One tap waits at most: who taps wants the answer to this tap, not to one of a minute ago.
        let (taps, mut tapped) = mpsc::channel(1);
        let thread_stop = stop.clone();
        std::thread::Builder::new()
            .name("tag-reader".to_owned())
            .spawn(move || listen(reader, &health, &taps, &thread_stop))
            .map_err(|_| "the tag reader's thread could not be started")?;
        while let Some(tag) = tapped.recv().await {
            let content = ScanContent {
                tag,
                status: status.clone(),
                at_ms: None,
                note: None,
                officer: None,
                quantity: None,
                client_ref: None,
            };
            match capture.take(content, Source::Reader).await {
                Ok(kept) => tracing::debug!(seq = kept.seq, "a tap is stored"),
                Err(error) => tracing::error!(%error, "a tap was not stored"),
            }
        }
        if stop.is_cancelled() { Ok(()) } else { Err("the tag reader's thread has ended") }
    }
}

fn listen(
    mut reader: Box<dyn TagReader>,
    health: &ReaderHealth,
    taps: &mpsc::Sender<TagId>,
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        match reader.next(PATIENCE) {
            Ok(tag) => {
                health.ok();
                if let Some(tag) = tag
                    && taps.blocking_send(tag).is_err()
                {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "the reader is down; trying again");
                health.down();
                // Between two attempts, not instead of an event: there is nothing to wait for.
                std::thread::sleep(RECOVERY);
            }
        }
    }
}
