//! From the outbox to the cloud; the only HTTP client.
//!
//! What must stay true:
//! - A record counts as sent only by the cloud's verdict on it, and all of one answer's verdicts are kept
//!   in one transaction. Anything sent may be sent twice.
//! - One request at a time, never more than one batch in memory. Scans go first, then events, then readings;
//!   within a stream the oldest.
//! - What follows an answer is decided by [`rules`], which never leaves the loop without a next attempt.
//! - A refused key loses nothing: the records wait, and the file with the key is read again.

mod batch;
mod client;
mod enrol;
mod export;
mod known;
mod link;
mod local;
mod receipt;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod tls;
mod verdicts;
mod work;

pub use client::{ClientError, CloudClient, DateDoubt, http_client};
pub use enrol::{EnrolError, EnrolLink, enrol, rotate};
pub use export::{ExportError, Exported, export};
pub use local::{LocalError, LocalGateway};
pub use receipt::{Receipts, SettleError};
pub use state::{LastAnswer, SyncHandle, SyncState, SyncView};
#[cfg(fuzzing)]
pub use verdicts::must_hold;
pub use work::SyncWorker;
