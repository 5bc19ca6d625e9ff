//! What time it is, and how far that is to be believed. A Pi has no clock of its own.
//!
//! What must stay true:
//! - `mono_ms` (CLOCK_BOOTTIME) never goes back within a boot and counts while the board sleeps.
//! - `wall_ms - mono_ms` stays one number until the system clock is really stepped or has drifted
//!   visibly: the wire then needs a single offset for a whole batch.
//! - Every reading compares with the system clock, so a step in either direction is followed at once.
//! - Nothing waits for a time source: the first scan after boot is stored with the clock there is.

use lumbung_shared::time::ClockState;
use nix::time::{ClockId, clock_gettime};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Smaller differences between two readings are jitter and slow slewing, not a step.
const STEP_MS: i64 = 20;
/// 2026-01-01T00:00:00Z: no gateway ran before.
const EARLIEST_MS: i64 = 1_767_225_600_000;
const DAY_MS: i64 = 86_400_000;
/// systemd-timesyncd makes this file when it has heard a time server in this boot.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";
/// How long one look at that file counts, so that a burst of scans does not ask the kernel each time.
const LOOK_EVERY_MS: i64 = 1_000;
const NEVER: i64 = i64::MIN;

/// One reading of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since boot, sleep included.
    pub mono_ms: i64,
    /// Milliseconds since 1970 by the system clock, steadied.
    pub wall_ms: i64,
    pub state: ClockState,
}

/// The gateway's clock; one per program, shared by everything that needs a time.
#[derive(Debug)]
pub struct Clock {
    offset_ms: AtomicI64,
    synchronised: AtomicBool,
    looked_at_ms: AtomicI64,
    flag: PathBuf,
}

impl Default for Clock {
    fn default() -> Self {
        Self::with_flag(Path::new(SYNCHRONISED))
    }
}

impl Clock {
    fn with_flag(flag: &Path) -> Self {
        Self {
            offset_ms: AtomicI64::new(NEVER),
            synchronised: AtomicBool::new(false),
            looked_at_ms: AtomicI64::new(NEVER),
            flag: flag.to_owned(),
        }
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        let mono_ms = boot_ms();
        let offset_ms = steadied(self.offset_ms.load(Relaxed), system_ms().saturating_sub(mono_ms));
        self.offset_ms.store(offset_ms, Relaxed);
        let wall_ms = mono_ms.saturating_add(offset_ms);
        let state = judged(wall_ms, built_ms(), self.is_synchronised(mono_ms));
        Moment { mono_ms, wall_ms, state }
    }

    fn is_synchronised(&self, mono_ms: i64) -> bool {
        if mono_ms.saturating_sub(self.looked_at_ms.load(Relaxed)) >= LOOK_EVERY_MS {
            self.synchronised.store(self.flag.exists(), Relaxed);
            self.looked_at_ms.store(mono_ms, Relaxed);
        }
        self.synchronised.load(Relaxed)
    }
}

/// The offset to go on with: the one kept, unless the fresh one says that the clock was stepped.
fn steadied(kept_ms: i64, fresh_ms: i64) -> i64 {
    if kept_ms != NEVER && kept_ms.abs_diff(fresh_ms) <= STEP_MS.unsigned_abs() { kept_ms } else { fresh_ms }
}

/// How far a wall time can be trusted.
fn judged(wall_ms: i64, built_ms: i64, synchronised: bool) -> ClockState {
    // The day, not the second, of the build: a clock that is an hour slow is held, not unset.
    let built_day_ms = built_ms - built_ms.rem_euclid(DAY_MS);
    if wall_ms < EARLIEST_MS.max(built_day_ms) {
        ClockState::Unset
    } else if synchronised {
        ClockState::Synced
    } else {
        ClockState::Held
    }
}

/// When this program was built, milliseconds since 1970.
fn built_ms() -> i64 {
    env!("LUMBUNG_BUILT_AT").parse::<i64>().map_or(0, |seconds| seconds.saturating_mul(1_000))
}

fn boot_ms() -> i64 {
    // Linux always has CLOCK_BOOTTIME; zero would only cost the correction of times, never a scan.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |t| i64::try_from(Duration::from(t).as_millis()).unwrap_or(i64::MAX))
}

fn system_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

/// The kernel's name for this boot; `unknown` where /proc does not tell.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .ok()
        .filter(|text| !text.is_empty() && text.len() <= 64)
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_keeps_the_offset_and_a_step_either_way_is_followed_at_once() {
        assert_eq!(steadied(NEVER, 5_000), 5_000);
        assert_eq!(steadied(5_000, 5_020), 5_000);
        assert_eq!(steadied(5_000, 4_980), 5_000);
        assert_eq!(steadied(5_000, 5_021), 5_021);
        assert_eq!(steadied(5_000, 4_979), 4_979);
        let hour = 3_600_000;
        assert_eq!(steadied(5_000, 5_000 - hour), 5_000 - hour);
        assert_eq!(steadied(5_000, 5_000 + 30 * DAY_MS), 5_000 + 30 * DAY_MS);
    }

    #[test]
    fn a_clock_from_before_the_program_was_built_is_unset() {
        let built = EARLIEST_MS + 100 * DAY_MS + 7_000;
        assert_eq!(judged(0, built, true), ClockState::Unset);
        assert_eq!(judged(1_456_000_000_000, built, true), ClockState::Unset); // 2016
        assert_eq!(judged(built - DAY_MS, built, false), ClockState::Unset);
        assert_eq!(judged(built - 6_000, built, false), ClockState::Held);
        assert_eq!(judged(built + DAY_MS, built, true), ClockState::Synced);
        assert_eq!(judged(EARLIEST_MS - 1, 0, true), ClockState::Unset);
    }

    #[test]
    fn readings_rise_and_share_one_offset() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::with_flag(&dir.path().join("synchronized"));
        let (a, b) = (clock.now(), clock.now());
        assert!(b.mono_ms >= a.mono_ms);
        assert_eq!(a.wall_ms - a.mono_ms, b.wall_ms - b.mono_ms);
        assert_eq!(a.state, ClockState::Held);
        std::fs::write(dir.path().join("synchronized"), "").unwrap();
        clock.looked_at_ms.store(NEVER, Relaxed);
        assert_eq!(clock.now().state, ClockState::Synced);
    }
}
