//! When a record happened, as well as can be known. Pure.
//!
//! What must stay true:
//! - A boot counts milliseconds; an [`Anchor`] ties that count to the time of day, and the one with the
//!   smallest uncertainty wins. Where two cannot both be true the better witness does: the cloud's own (a
//!   batch that arrives) before a time server's word, and that before a person's phone, however sure it is.
//! - The uncertainty that is stated is one we can stand by: where nothing tells, none is stated.
//! - No time refuses, drops or reorders a record.

use crate::moment::{TimeBasis, Told, When};
use lumbung_shared::time::{ClockState, from_ms};

/// 2020-01-01: no field programme of ours was running before.
const EARLIEST_MS: i64 = 1_577_836_800_000;
/// How far a clock may run ahead of ours and still be believed.
const AHEAD_MS: i64 = 10 * 60 * 1_000;
/// A batch may have been held up this long on its way, so what it tells is no better than this.
const JOURNEY_MS: i64 = 2 * 60 * 1_000;
/// A clock that calls itself synced may be this wrong.
const SYNCED_MS: i64 = 1_000;
/// Nothing that is donated to a gateway is better than this.
const DONATED_MS: i64 = 500;
/// What is donated with more doubt than this ties nothing.
const DOUBTFUL_MS: i64 = 24 * 60 * 60 * 1_000;
/// A boot's count of milliseconds runs fast or slow by at most one in this many: crystals of small boards
/// are good to 50 millionths, and a cold or hot shed takes some more.
const DRIFT: i64 = 10_000;
/// A better anchor that moves times by less than this, and is not surer by far, corrects nothing that is stored.
const NOTICEABLE_MS: u64 = 1_000;
/// So many times surer is surer by far: a boot's records are looked at a few times at most.
const SURER: i64 = 4;

/// Who tied a boot's milliseconds to the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Witness {
    /// A batch of the boot arrived here.
    Arrival,
    /// A record whose clock was synced.
    Record,
    /// A clock that was donated to the gateway.
    Cloud,
    Phone,
    Ntp,
    Other,
}

impl Witness {
    /// Whose word counts where two contradict each other: the greater.
    fn standing(self) -> u8 {
        match self {
            Self::Arrival => 2,
            Self::Record | Self::Cloud | Self::Ntp => 1,
            Self::Phone | Self::Other => 0,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::Record => "record",
            Self::Cloud => "cloud",
            Self::Phone => "phone",
            Self::Ntp => "ntp",
            Self::Other => "other",
        }
    }

    pub(super) fn of_word(word: &str) -> Self {
        match word {
            "arrival" => Self::Arrival,
            "record" => Self::Record,
            "cloud" => Self::Cloud,
            "phone" => Self::Phone,
            "ntp" => Self::Ntp,
            _ => Self::Other,
        }
    }
}

/// A tie between a boot's count of milliseconds and the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    /// Time of day minus the boot's count.
    pub(super) offset_ms: i64,
    /// How far the offset may be wrong at `mono_ms`.
    pub(super) uncertainty_ms: i64,
    /// Where on the boot's count the anchor was taken.
    pub(super) mono_ms: i64,
    pub(super) witness: Witness,
}

impl Anchor {
    /// From a batch that its boot sent at `mono_ms` and that came straight here.
    pub(super) fn of_arrival(mono_ms: i64, received_ms: i64) -> Self {
        Self {
            offset_ms: received_ms.saturating_sub(mono_ms),
            uncertainty_ms: JOURNEY_MS,
            mono_ms,
            witness: Witness::Arrival,
        }
    }

    /// From a record whose clock was synced and stood at a time that can be.
    pub(super) fn of_record(told: Told) -> Option<Self> {
        (told.clock == ClockState::Synced && plausible(told.wall_ms, told.received_ms)).then(|| Self {
            offset_ms: told.wall_ms.saturating_sub(told.mono_ms),
            uncertainty_ms: SYNCED_MS,
            mono_ms: told.mono_ms,
            witness: Witness::Record,
        })
    }

    /// From what a gateway says of a clock that was donated to it.
    pub(super) fn of_donation(
        mono_ms: i64,
        wall_ms: i64,
        uncertainty_ms: i64,
        source: &str,
        received_ms: i64,
    ) -> Option<Self> {
        let believable = plausible(wall_ms, received_ms) && (0..=DOUBTFUL_MS).contains(&uncertainty_ms);
        believable.then(|| Self {
            offset_ms: wall_ms.saturating_sub(mono_ms),
            uncertainty_ms: uncertainty_ms.max(DONATED_MS),
            mono_ms,
            witness: match source {
                "cloud" => Witness::Cloud,
                "phone" => Witness::Phone,
                "ntp" => Witness::Ntp,
                _ => Witness::Other,
            },
        })
    }

    fn drift_to(self, mono_ms: i64) -> i64 {
        i64::try_from(self.mono_ms.abs_diff(mono_ms)).unwrap_or(i64::MAX) / DRIFT
    }

    /// How far [`Self::time_at`] may be wrong.
    fn uncertainty_at(self, mono_ms: i64) -> i64 {
        self.uncertainty_ms.saturating_add(self.drift_to(mono_ms))
    }

    fn time_at(self, mono_ms: i64) -> i64 {
        self.offset_ms.saturating_add(mono_ms)
    }

    /// Whether both cannot be true.
    fn contradicts(self, other: Self) -> bool {
        let both = self.uncertainty_ms.saturating_add(other.uncertainty_at(self.mono_ms));
        self.offset_ms.abs_diff(other.offset_ms) > both.unsigned_abs()
    }

    /// Whether this one takes the other's place as what is known of the boot.
    pub(super) fn beats(self, known: Option<Self>) -> bool {
        let Some(known) = known else { return true };
        match (self.witness, known.witness) {
            // Both arrived: the one that seems earlier was held up less.
            (Witness::Arrival, Witness::Arrival) if self.contradicts(known) => {
                self.offset_ms < known.offset_ms
            }
            (mine, its) if mine.standing() != its.standing() && self.contradicts(known) => {
                mine.standing() > its.standing()
            }
            _ => self.uncertainty_ms < known.uncertainty_ms,
        }
    }

    /// Whether stored records of the boot are to be corrected when this one takes the other's place.
    pub(super) fn corrects(self, known: Option<Self>) -> bool {
        known.is_none_or(|known| {
            known.offset_ms.abs_diff(self.offset_ms) > NOTICEABLE_MS
                || self.uncertainty_ms.saturating_mul(SURER) <= known.uncertainty_ms
        })
    }
}

fn plausible(ms: i64, received_ms: i64) -> bool {
    ms >= EARLIEST_MS && ms <= received_ms.saturating_add(AHEAD_MS)
}

/// The best time of a record, by the anchors of its own boot.
pub(super) fn when(told: Told, anchors: impl IntoIterator<Item = Anchor>) -> When {
    let possible = |ms: i64| plausible(ms, told.received_ms);
    let anchored = anchors
        .into_iter()
        .map(|anchor| (anchor.time_at(told.mono_ms), anchor.uncertainty_at(told.mono_ms)))
        .filter(|(ms, _)| possible(*ms))
        .min_by_key(|(_, uncertainty)| *uncertainty);
    let known = |ms: i64, basis, uncertainty: Option<i64>| When {
        at: from_ms(ms),
        basis,
        uncertainty_ms: uncertainty.map(|ms| i32::try_from(ms).unwrap_or(i32::MAX)),
    };
    if let Some(at) = told.at_ms.filter(|at| possible(*at)) {
        return known(at, TimeBasis::Phone, None);
    }
    match (anchored, told.clock) {
        (Some((ms, uncertainty)), clock) => {
            let apart = i64::try_from(ms.abs_diff(told.wall_ms)).unwrap_or(i64::MAX);
            match clock {
                // Between two clocks that are both good, the record's own tells its own moment best.
                ClockState::Synced if apart <= uncertainty.max(JOURNEY_MS) => {
                    known(told.wall_ms, TimeBasis::Gateway, Some(SYNCED_MS))
                }
                ClockState::Held if apart <= uncertainty => {
                    known(told.wall_ms, TimeBasis::Gateway, Some(uncertainty.saturating_add(apart)))
                }
                _ => known(ms, TimeBasis::Anchored, Some(uncertainty)),
            }
        }
        (None, ClockState::Synced) if possible(told.wall_ms) => {
            known(told.wall_ms, TimeBasis::Gateway, Some(SYNCED_MS))
        }
        (None, _) if possible(told.wall_ms) => known(told.wall_ms, TimeBasis::Uncertain, None),
        // It cannot have happened later than it arrived.
        (None, _) => known(told.received_ms, TimeBasis::Uncertain, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_228_200_000;
    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    /// Ten seconds into the boot.
    fn told(wall_ms: i64, clock: ClockState, at_ms: Option<i64>) -> Told {
        Told { mono_ms: 10_000, wall_ms, clock, at_ms, received_ms: NOW }
    }

    /// The batch came an hour of the boot's own time after the record.
    fn arrival() -> Anchor {
        Anchor::of_arrival(10_000 + HOUR, NOW)
    }

    fn anchor(offset_ms: i64, uncertainty_ms: i64, witness: Witness) -> Anchor {
        Anchor { offset_ms, uncertainty_ms, mono_ms: 10_000, witness }
    }

    fn brief(when: When) -> (i64, TimeBasis, Option<i32>) {
        (when.at.timestamp_millis(), when.basis, when.uncertainty_ms)
    }

    #[test]
    fn a_clock_that_stands_in_1970_or_a_month_ahead_is_corrected_by_the_batch() {
        for wall in [0, NOW - HOUR + 30 * DAY, i64::MAX, i64::MIN] {
            for clock in [ClockState::Unset, ClockState::Held, ClockState::Synced] {
                let when = when(told(wall, clock, None), [arrival()]);
                // Two minutes for the journey, and an hour's drift.
                assert_eq!(brief(when), (NOW - HOUR, TimeBasis::Anchored, Some(120_360)));
            }
        }
    }

    #[test]
    fn a_clock_that_the_batch_confirms_is_believed_to_the_millisecond() {
        let wall = NOW - HOUR + 700;
        for (clock, anchors, uncertainty) in [
            (ClockState::Synced, vec![arrival()], 1_000),
            (ClockState::Synced, vec![], 1_000),
            (ClockState::Held, vec![arrival()], 121_060),
        ] {
            let when = when(told(wall, clock, None), anchors);
            assert_eq!(brief(when), (wall, TimeBasis::Gateway, Some(uncertainty)));
        }
        let when = when(told(wall, ClockState::Unset, None), [arrival()]);
        assert_eq!(brief(when), (NOW - HOUR, TimeBasis::Anchored, Some(120_360)));
    }

    #[test]
    fn a_phone_is_believed_before_the_gateway_unless_it_is_absurd() {
        let phone = NOW - 3 * HOUR;
        let believed = when(told(0, ClockState::Unset, Some(phone)), [arrival()]);
        assert_eq!(brief(believed), (phone, TimeBasis::Phone, None));
        let future = when(told(0, ClockState::Unset, Some(NOW + HOUR)), [arrival()]);
        assert_eq!(future.basis, TimeBasis::Anchored);
    }

    #[test]
    fn without_any_tie_the_guess_is_never_later_than_the_arrival() {
        assert_eq!(brief(when(told(0, ClockState::Unset, None), [])), (NOW, TimeBasis::Uncertain, None));
        let guess = when(told(NOW - HOUR, ClockState::Held, None), []);
        assert_eq!(brief(guess), (NOW - HOUR, TimeBasis::Uncertain, None));
        // An anchor that would put it into the future ties nothing.
        let absurd = anchor(NOW + DAY, 1_000, Witness::Phone);
        assert_eq!(when(told(0, ClockState::Unset, None), [absurd]).basis, TimeBasis::Uncertain);
    }

    #[test]
    fn of_several_anchors_the_one_that_is_surest_at_that_moment_tells() {
        let phone = anchor(NOW - 2 * DAY, 5_000, Witness::Phone);
        let sure = when(told(0, ClockState::Unset, None), [arrival(), phone]);
        assert_eq!(brief(sure), (NOW - 2 * DAY + 10_000, TimeBasis::Anchored, Some(5_000)));
        // A month later the count has drifted further than a batch may be late.
        let late = Told { mono_ms: 30 * DAY, ..told(0, ClockState::Unset, None) };
        let batch = Anchor::of_arrival(30 * DAY, NOW);
        let old = Anchor { offset_ms: NOW - 30 * DAY, ..phone };
        assert_eq!(when(late, [batch, old]).uncertainty_ms, Some(120_000));
    }

    #[test]
    fn a_synced_record_is_an_anchor_and_an_implausible_one_is_none() {
        let good = Anchor::of_record(told(NOW - HOUR, ClockState::Synced, None)).unwrap();
        assert_eq!((good.offset_ms, good.uncertainty_ms), (NOW - HOUR - 10_000, 1_000));
        for (wall, clock) in
            [(0, ClockState::Synced), (NOW + HOUR, ClockState::Synced), (NOW - HOUR, ClockState::Held)]
        {
            assert_eq!(Anchor::of_record(told(wall, clock, None)), None);
        }
    }

    #[test]
    fn a_donated_clock_is_believed_within_bounds() {
        let donated = |wall, uncertainty| Anchor::of_donation(10_000, wall, uncertainty, "phone", NOW);
        let phone = donated(NOW - HOUR, 2_000).unwrap();
        assert_eq!((phone.offset_ms, phone.uncertainty_ms), (NOW - HOUR - 10_000, 2_000));
        assert_eq!(phone.witness, Witness::Phone);
        assert_eq!(donated(NOW - HOUR, 0).unwrap().uncertainty_ms, 500);
        for (wall, uncertainty) in
            [(0, 1_000), (NOW + DAY, 1_000), (NOW, -1), (NOW, 2 * DAY), (NOW, i64::MAX)]
        {
            assert_eq!(donated(wall, uncertainty), None, "{wall} {uncertainty}");
        }
    }

    #[test]
    fn the_surest_anchor_wins_and_none_overrules_what_the_cloud_saw_itself() {
        let arrived = anchor(NOW, 120_000, Witness::Arrival);
        let record = anchor(NOW - 3_000, 1_000, Witness::Record);
        assert!(arrived.beats(None) && record.beats(Some(arrived)) && !arrived.beats(Some(record)));
        assert!(!record.beats(Some(record)), "nothing changes when nothing is better");
        // A phone or a clock that says it is yesterday.
        for liar in [anchor(NOW - DAY, 1_000, Witness::Phone), anchor(NOW - DAY, 1_000, Witness::Record)] {
            assert!(!liar.beats(Some(arrived)) && arrived.beats(Some(liar)));
        }
        // A phone is not believed against a time server, however sure it is of itself.
        let phone = anchor(NOW - DAY, 500, Witness::Phone);
        for server in [Witness::Record, Witness::Cloud, Witness::Ntp] {
            let told = anchor(NOW, 2_000, server);
            assert!(!phone.beats(Some(told)) && told.beats(Some(phone)), "{server:?}");
        }
        // A batch that was held up for an hour gives way to the next one.
        let late = anchor(NOW + HOUR, 120_000, Witness::Arrival);
        assert!(arrived.beats(Some(late)) && !late.beats(Some(arrived)));
    }

    #[test]
    fn stored_records_are_corrected_by_the_first_anchor_and_by_one_that_moves_them() {
        let arrived = anchor(NOW, 120_000, Witness::Arrival);
        assert!(arrived.corrects(None));
        assert!(anchor(NOW - 1_001, 1_000, Witness::Record).corrects(Some(arrived)));
        assert!(anchor(NOW - 999, 1_000, Witness::Record).corrects(Some(arrived)), "much surer");
        assert!(!anchor(NOW - 999, 31_000, Witness::Record).corrects(Some(arrived)));
    }
}
