//! Tags held to the gateway's own reader.
//!
//! What must stay true:
//! - One thread owns the reader, from the first look to the last repair.
//! - The next tag is looked for when the last tap is stored or refused: who taps wants the answer to
//!   this tap, not to one of a minute ago.
//! - A reader that fails is repaired for as long as that may help; then the program ends, and whoever
//!   started it starts it again.

use super::{Action, Capture};
use crate::hardware::{Light, ReaderError, ReaderHealth, Rung, Seen, TagReader};
use lumbung_shared::scan::{ScanContent, Source};
use lumbung_shared::tag::TagId;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long the reader's thread waits before it looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(250);
/// Pauses before the repairs of one fault; the last one goes on.
const PAUSES_MS: [u64; 5] = [0, 250, 500, 1_000, 2_000];
/// A fault that lasts is logged again after so many attempts.
const REMIND: u32 = 30;

/// Waits for tags on a thread of its own and keeps a scan for each.
pub struct ReaderLoop {
    pub reader: Box<dyn TagReader>,
    /// Names the reader in metrics.
    pub kind: &'static str,
    pub health: Arc<ReaderHealth>,
    /// What a tap means at the moment.
    pub action: Arc<Action>,
    /// Failures in a row after which the loop ends; 0: never.
    pub give_up_after: u32,
    pub capture: Capture,
}

/// A tap, and where its outcome is awaited: whether it was stored.
type Tap = (TagId, oneshot::Sender<bool>);

impl ReaderLoop {
    /// Runs until `stop`; an error when the reader's thread has ended before.
    pub async fn run(self, stop: CancellationToken) -> Result<(), &'static str> {
        let (taps, mut tapped) = mpsc::channel(1);
        let (capture, action) = (self.capture.clone(), Arc::clone(&self.action));
        let (thread_stop, handle) = (stop.clone(), Handle::current());
        std::thread::Builder::new()
            .name("tag-reader".to_owned())
            .spawn(move || self.listen(&taps, &handle, &thread_stop))
            .map_err(|_| "the tag reader's thread could not be started")?;
        while let Some((tag, outcome)) = tapped.recv().await {
            let kept = capture.take(content(tag, action.current()), Source::Reader).await;
            match &kept {
                Ok(kept) => tracing::debug!(seq = kept.seq, "a tap is stored"),
                Err(error) => tracing::error!(%error, "a tap was not stored"),
            }
            // The thread may have ended meanwhile.
            let _ = outcome.send(kept.is_ok());
        }
        if stop.is_cancelled() { Ok(()) } else { Err("the tag reader's thread has ended") }
    }

    fn listen(mut self, taps: &mpsc::Sender<Tap>, handle: &Handle, stop: &CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            self.health.turn();
            match self.reader.next(PATIENCE) {
                Ok(seen) => {
                    self.works(failures);
                    failures = 0;
                    if let Some(seen) = seen
                        && !self.hand_on(seen, taps)
                    {
                        return;
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.fails(failures, &error);
                    if self.give_up_after > 0 && failures > self.give_up_after {
                        tracing::error!(failures, "the tag reader cannot be repaired from here");
                        return;
                    }
                    // The timer belongs to the runtime, so it is made inside it.
                    let waited = async { tokio::time::timeout(pause(failures), stop.cancelled()).await };
                    if handle.block_on(waited).is_ok() {
                        return;
                    }
                    let rung = self.reader.repair(failures);
                    if rung != Rung::None {
                        self.capture.metrics.count_reader_reset(rung.name());
                    }
                }
            }
        }
    }

    fn works(&self, failures: u32) {
        self.health.ok();
        self.capture.metrics.reader_up(self.kind, true);
        if failures > 0 {
            tracing::info!(failures, "the tag reader reads again");
            self.capture.signal.show(Light::Working);
        }
    }

    fn fails(&self, failures: u32, error: &ReaderError) {
        self.health.down();
        self.capture.metrics.reader_up(self.kind, false);
        if failures == 1 {
            self.capture.signal.show(Light::Trouble);
        }
        if failures % REMIND == 1 {
            tracing::error!(failures, %error, "the tag reader is down; repairing it");
        }
    }

    /// Waits for the outcome of one tap; false when nobody takes taps any more.
    fn hand_on(&mut self, seen: Seen, taps: &mpsc::Sender<Tap>) -> bool {
        let Seen::Tag(tag) = seen else {
            self.capture.signal.show(Light::Red);
            self.capture.metrics.count_refused("unreadable");
            return true;
        };
        let (outcome, stored) = oneshot::channel();
        if taps.blocking_send((tag, outcome)).is_err() {
            return false;
        }
        match stored.blocking_recv() {
            Ok(true) => true,
            Ok(false) => {
                self.reader.refused();
                true
            }
            Err(_) => false,
        }
    }
}

fn content(tag: TagId, status: String) -> ScanContent {
    ScanContent { tag, status, at_ms: None, note: None, officer: None, quantity: None, client_ref: None }
}

fn pause(failures: u32) -> Duration {
    let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(PAUSES_MS.len() - 1);
    Duration::from_millis(PAUSES_MS.get(at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repair_is_immediate_and_pauses_stay_short() {
        assert_eq!(pause(1), Duration::ZERO);
        assert_eq!(pause(2), Duration::from_millis(250));
        assert_eq!(pause(1_000_000), Duration::from_secs(2));
    }
}
