//! When a scan happened, as well as can be known the moment it arrives. Pure.

use crate::distribution::record::TimeBasis;
use chrono::{DateTime, Utc};
use lumbung_shared::scan::Scan;
use lumbung_shared::time::{ClockState, from_ms};

/// 2020-01-01: no field programme of ours was running before.
const EARLIEST_MS: i64 = 1_577_836_800_000;
/// How far a clock may run ahead of ours and still be believed.
const AHEAD_MS: i64 = 10 * 60 * 1_000;
/// How far a clock may stand from what the boot's own count of milliseconds says and still be believed:
/// that count is tied to ours by a batch whose journey may have taken a while.
const LYING_MS: i64 = 2 * 60 * 1_000;

/// The batch's tie between the sender's count of milliseconds and the cloud's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    pub(super) mono_ms: i64,
    pub(super) received_ms: i64,
}

/// The best event time of a scan. `anchor` is there when the scan was made in the boot that sends it.
pub(super) fn event_time(
    scan: &Scan,
    anchor: Option<Anchor>,
    received_ms: i64,
) -> (DateTime<Utc>, TimeBasis) {
    let plausible = |ms: i64| ms >= EARLIEST_MS && ms <= received_ms.saturating_add(AHEAD_MS);
    let anchored = anchor
        .map(|a| a.received_ms.saturating_sub(a.mono_ms.saturating_sub(scan.mono_ms)))
        .filter(|ms| plausible(*ms));
    let (ms, basis) = match (scan.content.at_ms, anchored) {
        (Some(at), _) if plausible(at) => (at, TimeBasis::Phone),
        (_, Some(ms)) if scan.clock == ClockState::Unset || ms.abs_diff(scan.wall_ms) > LYING_MS as u64 => {
            (ms, TimeBasis::Anchored)
        }
        (_, Some(_)) => (scan.wall_ms, TimeBasis::Gateway),
        (_, None) if scan.clock == ClockState::Synced && plausible(scan.wall_ms) => {
            (scan.wall_ms, TimeBasis::Gateway)
        }
        (_, None) if plausible(scan.wall_ms) => (scan.wall_ms, TimeBasis::Uncertain),
        // It cannot have happened later than it arrived.
        (_, None) => (received_ms, TimeBasis::Uncertain),
    };
    (from_ms(ms), basis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumbung_shared::scan::{ScanContent, Source};
    use lumbung_shared::tag::TagId;

    const NOW: i64 = 1_795_228_200_000;
    const HOUR: i64 = 3_600_000;

    fn scan(wall_ms: i64, clock: ClockState, at_ms: Option<i64>) -> Scan {
        let tag = TagId::parse("A").unwrap();
        let status = "s".to_owned();
        let content =
            ScanContent { tag, status, at_ms, note: None, officer: None, quantity: None, client_ref: None };
        Scan { seq: 1, mono_ms: 10_000, wall_ms, clock, source: Source::Reader, content }
    }

    /// The batch came an hour of the boot's own time after the scan.
    const ANCHOR: Option<Anchor> = Some(Anchor { mono_ms: 10_000 + HOUR, received_ms: NOW });

    #[test]
    fn a_clock_that_stands_in_1970_or_a_month_ahead_is_corrected_by_the_batch() {
        for wall in [0, NOW - HOUR + 30 * 24 * HOUR, i64::MAX, i64::MIN] {
            for clock in [ClockState::Unset, ClockState::Held, ClockState::Synced] {
                let (time, basis) = event_time(&scan(wall, clock, None), ANCHOR, NOW);
                assert_eq!((time.timestamp_millis(), basis), (NOW - HOUR, TimeBasis::Anchored));
            }
        }
    }

    #[test]
    fn a_clock_that_the_batch_confirms_is_believed_to_the_millisecond() {
        let wall = NOW - HOUR + 700;
        for (clock, anchor) in
            [(ClockState::Synced, ANCHOR), (ClockState::Synced, None), (ClockState::Held, ANCHOR)]
        {
            let (time, basis) = event_time(&scan(wall, clock, None), anchor, NOW);
            assert_eq!((time.timestamp_millis(), basis), (wall, TimeBasis::Gateway));
        }
        let (time, basis) = event_time(&scan(wall, ClockState::Unset, None), ANCHOR, NOW);
        assert_eq!((time.timestamp_millis(), basis), (NOW - HOUR, TimeBasis::Anchored));
    }

    #[test]
    fn a_phone_is_believed_before_the_gateway_unless_it_is_absurd() {
        let phone = NOW - 3 * HOUR;
        assert_eq!(event_time(&scan(0, ClockState::Unset, Some(phone)), ANCHOR, NOW).1, TimeBasis::Phone);
        let future = NOW + HOUR;
        assert_eq!(event_time(&scan(0, ClockState::Unset, Some(future)), ANCHOR, NOW).1, TimeBasis::Anchored);
    }

    #[test]
    fn without_any_tie_the_guess_is_never_later_than_the_arrival() {
        let (time, basis) = event_time(&scan(0, ClockState::Unset, None), None, NOW);
        assert_eq!((time.timestamp_millis(), basis), (NOW, TimeBasis::Uncertain));
        let (time, basis) = event_time(&scan(NOW - HOUR, ClockState::Held, None), None, NOW);
        assert_eq!((time.timestamp_millis(), basis), (NOW - HOUR, TimeBasis::Uncertain));
    }
}
