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

impl When {
    /// Whether this, found later, takes the place of what is stored of the same record: (time, basis,
    /// uncertainty). What is surer already and agrees stays, such as by the batch that brought the record.
    pub(crate) fn replaces(self, (at, basis, uncertainty_ms): (DateTime<Utc>, i16, Option<i32>)) -> bool {
        if (self.at, self.basis.code(), self.uncertainty_ms) == (at, basis, uncertainty_ms) {
            return false;
        }
        let (Some(new), Some(old)) = (self.uncertainty_ms, uncertainty_ms) else { return true };
        let apart = (self.at - at).num_milliseconds().unsigned_abs();
        let agree = apart <= u64::from(new.unsigned_abs()) + u64::from(old.unsigned_abs());
        !(agree && old < new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumbung_shared::time::from_ms;

    #[test]
    fn a_time_gives_way_to_a_surer_one_or_to_one_that_contradicts_it() {
        let when = |ms, uncertainty_ms| When { at: from_ms(ms), basis: TimeBasis::Anchored, uncertainty_ms };
        let stored = (from_ms(100_000), TimeBasis::Anchored.code(), Some(5_000));
        assert!(!when(100_000, Some(5_000)).replaces(stored), "the same");
        assert!(when(101_000, Some(1_000)).replaces(stored), "surer");
        assert!(!when(101_000, Some(6_000)).replaces(stored), "less sure, and both may be true");
        assert!(when(200_000, Some(6_000)).replaces(stored), "both cannot be true");
        assert!(when(101_000, None).replaces((from_ms(0), TimeBasis::Uncertain.code(), None)));
        assert!(when(101_000, Some(9)).replaces((from_ms(0), TimeBasis::Uncertain.code(), None)));
    }
}
