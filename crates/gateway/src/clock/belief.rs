//! What the gateway makes of all it hears about the time. Pure: every time is handed in.
//!
//! The rule, strongest first:
//! 1. **ntp**: the kernel says that its clock is synchronised. It is followed whatever was believed before.
//! 2. **cloud**: an answered sync told the time, over verified TLS or from this very machine.
//! 3. **phone**: a paired phone told it. It never beats the two above, nor takes time back before something
//!    that one of them witnessed.
//! 4. The system clock, unless it is before the **floor**: then time counts up from the floor.
//!
//! What must stay true:
//! - The floor is the last thing this gateway knew (its last stored record, or its clock file if that is
//!   younger), never the largest: a clock that once ran years ahead is forgotten with the next record made
//!   by a right one. A trusted source (ntp, cloud) that is behind the floor takes it back at once.
//! - What lies years ahead of anything proven makes no floor, and no phone is believed that far.
//! - What is *proven* only rises, and only to times that the cloud told inside the validity of its own
//!   certificate: so it can never shut out the cloud's next certificate.

use super::memory::Known;
use super::{Anchor, Moment, News, Step, TimeSource, TrustedTime};
use lumbung_shared::time::ClockState;

/// Smaller differences between two readings are jitter and slow slewing, not a step.
const STEP_MS: i64 = 20;
/// A step that is worth an event.
const TOLD_STEP_MS: u64 = 1_000;
/// 2026-01-01T00:00:00Z: no gateway ran before.
const EARLIEST_MS: i64 = 1_767_225_600_000;
const DAY_MS: i64 = 86_400_000;
const YEAR_MS: i64 = 366 * DAY_MS;
/// A stored time further ahead of what is proven makes no floor, and no phone is believed that far.
const PLAUSIBLE_AHEAD_MS: i64 = 5 * YEAR_MS;
/// A certificate that begins further ahead of what is proven is refused.
const CERTIFICATE_AHEAD_MS: i64 = 10 * YEAR_MS;
/// Boards count milliseconds with crystals that are off by up to this: one in so many.
const DRIFT: i64 = 10_000;
/// A donation that differs by less from the last one told is no news.
const NOTICEABLE_MS: i64 = 250;
/// What a kernel that calls itself synchronised may be off by.
const NTP_UNCERTAINTY_MS: i64 = 1_000;

/// A tie between this boot's milliseconds and the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Donation {
    pub(super) source: TimeSource,
    /// Wall minus mono.
    pub(super) offset_ms: i64,
    /// At `mono_ms`; it grows from there.
    pub(super) uncertainty_ms: i64,
    pub(super) mono_ms: i64,
}

impl Donation {
    /// How far it may be wrong by now.
    fn uncertainty_at(&self, mono_ms: i64) -> i64 {
        self.uncertainty_ms.saturating_add(mono_ms.saturating_sub(self.mono_ms).max(0) / DRIFT)
    }

    fn anchor(&self) -> News {
        News::Anchor(Anchor {
            mono_ms: self.mono_ms,
            wall_ms: self.mono_ms.saturating_add(self.offset_ms),
            uncertainty_ms: self.uncertainty_ms,
            source: self.source,
        })
    }

    fn differs_from(&self, other: &Self) -> i64 {
        i64::try_from(self.offset_ms.abs_diff(other.offset_ms)).unwrap_or(i64::MAX)
    }
}

/// The time before which it cannot be.
#[derive(Debug, Clone, Copy)]
struct Floor {
    wall_ms: i64,
    /// The count of this boot at which it was that time.
    mono_ms: i64,
    /// Whether ntp or the cloud stood behind it.
    trusted: bool,
}

/// Why a donated time was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unbelieved {
    #[error("that is before this program was built, or before what the gateway knows for certain")]
    TooEarly,
    #[error("that is years ahead of all this gateway knows")]
    TooLate,
}

#[derive(Debug)]
pub(super) struct Belief {
    built_ms: i64,
    proven_ms: i64,
    floor: Floor,
    /// The offset that readings go on with.
    offset_ms: Option<i64>,
    donated: Option<Donation>,
    /// The last donation that became an event.
    told: Option<Donation>,
    ntp_told: bool,
    synced: bool,
    news: Vec<News>,
}

impl Belief {
    /// Begun at `mono_ms` by a program that was built at `built_ms`.
    pub(super) fn new(mono_ms: i64, built_ms: i64, known: &Known) -> Self {
        // A day less: the machine that built it may have been ahead.
        let built_ms = EARLIEST_MS.max(built_ms.saturating_sub(DAY_MS));
        let proven_ms = known.proven_ms.max(built_ms);
        let built = Floor { wall_ms: built_ms, mono_ms, trusted: true };
        let plausible = built_ms..=proven_ms.saturating_add(PLAUSIBLE_AHEAD_MS);
        let last = known.last.filter(|last| plausible.contains(&last.wall_ms));
        let floor = last.map_or(built, |last| Floor {
            wall_ms: last.wall_ms,
            mono_ms: last.mono_ms,
            trusted: last.trusted,
        });
        Self {
            built_ms,
            proven_ms,
            floor,
            offset_ms: None,
            donated: known.donated,
            told: known.donated,
            ntp_told: known.ntp_told,
            synced: false,
            news: Vec::new(),
        }
    }

    /// The moment at `mono_ms` since boot, with the system clock at `system_ms`; `synced` is the kernel's word.
    pub(super) fn read(&mut self, mono_ms: i64, system_ms: i64, synced: bool) -> Moment {
        let fresh = system_ms.saturating_sub(mono_ms);
        // A kernel that was told a time before this program was built has heard a broken server.
        self.synced = synced && system_ms >= self.built_ms;
        let (target, state) = if self.synced {
            (fresh, ClockState::Synced)
        } else if let Some(donated) = self.donated {
            (donated.offset_ms, ClockState::Held)
        } else if system_ms >= self.floor.wall_ms {
            (fresh, ClockState::Held)
        } else {
            (self.floor.wall_ms.saturating_sub(self.floor.mono_ms.min(mono_ms)), ClockState::Unset)
        };
        let offset_ms = steadied(self.offset_ms, target);
        if let Some(kept) = self.offset_ms
            && kept.abs_diff(offset_ms) >= TOLD_STEP_MS
        {
            let (from_ms, to_ms) = (mono_ms.saturating_add(kept), mono_ms.saturating_add(offset_ms));
            self.tell(News::Step(Step { from_ms, to_ms }));
        }
        self.offset_ms = Some(offset_ms);
        let wall_ms = mono_ms.saturating_add(offset_ms);
        if self.synced {
            self.floor = Floor { wall_ms, mono_ms, trusted: true };
            if !self.ntp_told {
                self.ntp_told = true;
                let uncertainty_ms = NTP_UNCERTAINTY_MS;
                self.tell(Donation { source: TimeSource::Ntp, offset_ms, uncertainty_ms, mono_ms }.anchor());
            }
        }
        Moment { mono_ms, wall_ms, state }
    }

    /// Takes a donated time if it is better than what is believed.
    pub(super) fn donate(&mut self, new: Donation) -> Result<(), Unbelieved> {
        let wall_ms = new.mono_ms.saturating_add(new.offset_ms);
        if wall_ms < self.built_ms {
            return Err(Unbelieved::TooEarly);
        }
        if new.source == TimeSource::Phone {
            if wall_ms > self.proven_ms.saturating_add(PLAUSIBLE_AHEAD_MS) {
                return Err(Unbelieved::TooLate);
            }
            if self.synced || self.donated.is_some_and(|donated| donated.source == TimeSource::Cloud) {
                return Ok(());
            }
            let behind = self.floor.wall_ms.saturating_sub(wall_ms);
            if behind > 0 && self.floor.trusted && behind > new.uncertainty_ms.min(DAY_MS) {
                return Err(Unbelieved::TooEarly);
            }
            // A phone that is a little slow is no reason to go back before a stored record.
            if behind > 0 && behind <= DAY_MS {
                return Ok(());
            }
        }
        if let Some(old) = self.donated
            && old.source == new.source
        {
            let both = old.uncertainty_at(new.mono_ms).saturating_add(new.uncertainty_ms);
            let agree = old.differs_from(&new) <= both;
            if agree && new.uncertainty_ms > old.uncertainty_at(new.mono_ms) {
                return Ok(());
            }
        }
        let trusted = new.source == TimeSource::Cloud;
        if trusted || wall_ms < self.floor.wall_ms {
            self.floor = Floor { wall_ms, mono_ms: new.mono_ms, trusted };
        }
        self.donated = Some(new);
        let is_news = self.told.is_none_or(|told| {
            let noticeable = NOTICEABLE_MS.max(told.uncertainty_ms.saturating_add(new.uncertainty_ms));
            told.source != new.source
                || new.uncertainty_ms.saturating_mul(2) <= told.uncertainty_ms
                || told.differs_from(&new) > noticeable
        });
        if is_news {
            self.told = Some(new);
            self.tell(new.anchor());
        }
        Ok(())
    }

    /// The cloud told this time inside the validity of its own certificate.
    pub(super) fn prove(&mut self, wall_ms: i64) {
        self.proven_ms = self.proven_ms.max(wall_ms);
    }

    /// How certificates are to be judged now.
    pub(super) fn trusted_time(&self, now: Moment) -> TrustedTime {
        // Not the floor: one false word of an NTP server, which nobody signs, would shut out the cloud.
        let earliest_ms = self.proven_ms;
        let cloud = self.donated.is_some_and(|donated| donated.source == TimeSource::Cloud);
        TrustedTime {
            now_ms: now.wall_ms.max(earliest_ms),
            earliest_ms,
            latest_ms: earliest_ms.saturating_add(CERTIFICATE_AHEAD_MS),
            confirmed: now.state == ClockState::Synced || cloud,
        }
    }

    /// Who stands behind the present time, and how far it may be wrong.
    pub(super) fn source(&self, mono_ms: i64) -> Option<(TimeSource, i64)> {
        if self.synced {
            return Some((TimeSource::Ntp, NTP_UNCERTAINTY_MS));
        }
        self.donated.map(|donated| (donated.source, donated.uncertainty_at(mono_ms)))
    }

    pub(super) fn floor_ms(&self) -> i64 {
        self.floor.wall_ms
    }

    pub(super) fn proven_ms(&self) -> i64 {
        self.proven_ms
    }

    pub(super) fn donated(&self) -> Option<Donation> {
        self.donated
    }

    pub(super) fn ntp_told(&self) -> bool {
        self.ntp_told
    }

    /// What became known since the last call.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    fn tell(&mut self, news: News) {
        // A clock that swings all day while nobody listens must not fill the memory.
        const MOST_NEWS: usize = 64;
        if self.news.len() < MOST_NEWS {
            self.news.push(news);
        }
    }
}

/// The offset to go on with: the one kept, unless the fresh one says that the clock was stepped.
fn steadied(kept_ms: Option<i64>, fresh_ms: i64) -> i64 {
    kept_ms.filter(|kept| kept.abs_diff(fresh_ms) <= STEP_MS.unsigned_abs()).unwrap_or(fresh_ms)
}

#[cfg(test)]
#[path = "belief_tests.rs"]
mod tests;
