//! The ports to the board: what reads tags and what tells the officer. Each has its device and its
//! simulator here.

mod gpio;
mod i2c;
mod lights;
pub mod pn532;
pub mod sensors;
mod simulated;

pub use gpio::{PinError, output, reset_line};
pub use lights::{Lights, Pins};
pub use simulated::{LoggedSignal, SimulatedReader};

use lumbung_shared::tag::TagId;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Waits for tags. Blocks, so it runs on a thread of its own.
pub trait TagReader: Send {
    /// The next tag that is held to the reader, or `None` when `patience` is over without one.
    /// An error means that the reader itself is down.
    fn next(&mut self, patience: Duration) -> Result<Option<Seen>, ReaderError>;

    /// The tap that was handed out last came to nothing: the officer may repeat it at once.
    fn refused(&mut self) {}

    /// Tries to bring a reader back that is down, harder with each attempt; the first is 1.
    fn repair(&mut self, _attempt: u32) -> Rung {
        Rung::None
    }
}

/// What is held to the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Tag(TagId),
    /// A tag without a name of its own, or one that was lifted too early.
    Unreadable,
}

/// What a repair did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    None,
    Soft,
    ResetPin,
    Reopen,
}

impl Rung {
    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Soft => "soft",
            Self::ResetPin => "reset_pin",
            Self::Reopen => "reopen",
        }
    }
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
    /// The reader is down; shown until `Working`.
    Trouble,
    /// The reader reads again.
    Working,
}

/// How the reader is, for status and health.
#[derive(Debug, Default)]
pub struct ReaderHealth {
    state: AtomicU8,
    turns: AtomicU64,
}

impl ReaderHealth {
    const NONE: u8 = 0;
    const OK: u8 = 1;
    const DOWN: u8 = 2;

    /// Returns whether it was down before.
    pub fn ok(&self) -> bool {
        self.state.swap(Self::OK, Relaxed) == Self::DOWN
    }

    /// Returns whether it is so newly.
    pub fn down(&self) -> bool {
        self.state.swap(Self::DOWN, Relaxed) != Self::DOWN
    }

    /// The reader's thread has come round once more, whether the reader works or not.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Relaxed);
    }

    /// How often the reader's thread has come round.
    pub fn turns(&self) -> u64 {
        self.turns.load(Relaxed)
    }

    /// `ok`, `down`, or `none` for a gateway without a reader.
    pub fn as_str(&self) -> &'static str {
        match self.state.load(Relaxed) {
            Self::NONE => "none",
            Self::OK => "ok",
            _ => "down",
        }
    }
}
