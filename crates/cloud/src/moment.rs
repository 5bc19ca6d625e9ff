//! When something happened, and how that is known.

use chrono::{DateTime, Utc};
use lumbung_shared::time::ClockState;

/// How an event time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeBasis {
    /// The gateway's clock, synced or confirmed by an anchor of its boot.
    Gateway,
    /// Milliseconds since boot, tied to the time of day by an anchor of the same boot.
    Anchored,
    /// The phone that scanned, or the source that measured.
    Phone,
    /// The best guess there is.
    Uncertain,
}

impl TimeBasis {
    pub(crate) fn code(self) -> i16 {
        match self {
            Self::Gateway => 0,
            Self::Anchored => 1,
            Self::Phone => 2,
            Self::Uncertain => 3,
        }
    }

    /// The word of a stored number.
    pub(crate) fn word(code: i16) -> &'static str {
        match code {
            0 => "gateway",
            1 => "anchored",
            2 => "phone",
            _ => "uncertain",
        }
    }
}

/// What a record says of its own time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    /// Milliseconds since the gateway booted.
    pub(crate) mono_ms: i64,
    /// The gateway's wall clock, to be believed as far as `clock` says.
    pub(crate) wall_ms: i64,
    pub(crate) clock: ClockState,
    /// The moment that a phone or a source gave.
    pub(crate) at_ms: Option<i64>,
    /// When the cloud received it.
    pub(crate) received_ms: i64,
}

/// The best that is known of when a record happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct When {
    pub(crate) at: DateTime<Utc>,
    pub(crate) basis: TimeBasis,
    /// How far `at` may be from the truth; `None` where nothing tells.
    pub(crate) uncertainty_ms: Option<i32>,
}
