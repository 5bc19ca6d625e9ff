//! Times as the wire and the stores write them, and how far a gateway's clock is to be trusted.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// How far the clock of a gateway could be trusted at one moment. A Pi has no clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockState {
    /// Before anything plausible was known: the time of day is meaningless.
    Unset,
    /// Plausible, carried on from earlier, not confirmed in this boot.
    Held,
    /// Confirmed by a time source.
    Synced,
}

impl ClockState {
    /// The small number stores keep.
    pub const fn code(self) -> i16 {
        match self {
            Self::Unset => 0,
            Self::Held => 1,
            Self::Synced => 2,
        }
    }

    /// The state behind a stored number; anything unknown is not trusted.
    pub fn from_code(code: i16) -> Self {
        match code {
            2 => Self::Synced,
            1 => Self::Held,
            _ => Self::Unset,
        }
    }
}

/// RFC 3339, UTC, milliseconds: `2026-11-21T02:30:00.000Z`. A time beyond chrono's range
/// (a broken clock) is written as the nearest end of it.
pub fn rfc3339(ms: i64) -> String {
    from_ms(ms).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The moment `ms` milliseconds after 1970-01-01T00:00:00Z, kept between the years 1 and 9999 so that
/// every store and every reader of RFC 3339 can hold it.
pub fn from_ms(ms: i64) -> DateTime<Utc> {
    const YEAR_1: i64 = -62_135_596_800_000;
    const YEAR_9999_END: i64 = 253_402_300_799_999;
    DateTime::from_timestamp_millis(ms.clamp(YEAR_1, YEAR_9999_END)).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Milliseconds since 1970 of an RFC 3339 time that states its offset; `None` for anything else.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_round_trip_in_utc_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            parse_rfc3339("2026-11-21T09:30:00.5+07:00").map(rfc3339).unwrap(),
            "2026-11-21T02:30:00.500Z"
        );
        assert_eq!(parse_rfc3339("2026-11-21T09:30:00"), None);
    }

    #[test]
    fn an_impossible_clock_still_gives_a_time() {
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(i64::MIN), "0001-01-01T00:00:00.000Z");
    }
}
