//! What the rest of the program may know of the sync, and how it wakes it.

use serde::Serialize;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What the sync is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// Nothing to do until the next scan or interval.
    Idle,
    Sending,
    /// The last attempt failed; another follows.
    BackingOff,
    /// The cloud does not know this gateway's key.
    Unauthorised,
    /// The cloud has revoked this gateway.
    Revoked,
    #[default]
    NotEnrolled,
}

/// The last answer, or why there was none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastAnswer {
    /// RFC 3339, the gateway's clock.
    pub at: String,
    /// HTTP status; absent when no answer came.
    pub status: Option<u16>,
    pub message: String,
}

/// A look at the sync.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SyncView {
    pub state: SyncState,
    /// RFC 3339: when the cloud last confirmed records.
    pub last_sent_at: Option<String>,
    pub last_answer: Option<LastAnswer>,
    /// RFC 3339: when the next attempt is due if nothing wakes it.
    pub next_attempt_at: Option<String>,
    /// What the cloud asks people to look at: `fork`, `conflict`.
    pub alarms: Vec<String>,
    pub gateway_id: Option<String>,
    pub site: Option<String>,
    /// The cloud's base address.
    pub cloud: Option<String>,
}

/// Shared between the sync, the capture and the API.
#[derive(Debug, Default)]
pub struct SyncHandle {
    view: Mutex<SyncView>,
    scan: Arc<Notify>,
    hand: Notify,
}

impl SyncHandle {
    /// What is rung after a scan or an event was stored.
    pub fn doorbell(&self) -> Arc<Notify> {
        Arc::clone(&self.scan)
    }

    /// A person says: send now.
    pub fn send_now(&self) {
        self.hand.notify_one();
    }

    pub fn view(&self) -> SyncView {
        self.locked().clone()
    }

    pub(super) async fn scan_woke(&self) {
        self.scan.notified().await;
    }

    pub(super) async fn hand_woke(&self) {
        self.hand.notified().await;
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut SyncView)) {
        change(&mut self.locked());
    }

    fn locked(&self) -> MutexGuard<'_, SyncView> {
        // Nothing done under this lock can leave the view half changed.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
