//! The ports to the board: what reads tags and what tells the officer. Each has a simulator here; the
//! PN532 reader, the light and the buzzer come beside them as files of their own.

mod simulated;

pub use simulated::{LoggedSignal, SimulatedReader};

use lumbung_shared::tag::TagId;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

/// Waits for tags. Blocks, so it runs on a thread of its own.
pub trait TagReader: Send {
    /// The next tag that is held to the reader, or `None` when `patience` is over without one.
    fn next(&mut self, patience: Duration) -> Result<Option<TagId>, ReaderError>;
}

/// The reader does not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("the tag reader failed: {0}")]
pub struct ReaderError(pub String);

/// Tells the officer how a scan went. Must return at once.
pub trait Signal: Send + Sync {
    fn show(&self, light: Light);
}

/// What the officer sees and hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Light {
    /// The scan is durable: it will reach the cloud.
    Green,
    /// The scan was not kept: do it again, or write it down.
    Red,
}

/// How the reader is, for status and health.
#[derive(Debug, Default)]
pub struct ReaderHealth(AtomicU8);

impl ReaderHealth {
    const NONE: u8 = 0;
    const OK: u8 = 1;

    pub fn ok(&self) {
        self.0.store(Self::OK, Relaxed);
    }

    pub fn down(&self) {
        self.0.store(2, Relaxed);
    }

    /// `ok`, `down`, or `none` for a gateway without a reader.
    pub fn as_str(&self) -> &'static str {
        match self.0.load(Relaxed) {
            Self::NONE => "none",
            Self::OK => "ok",
            _ => "down",
        }
    }
}
