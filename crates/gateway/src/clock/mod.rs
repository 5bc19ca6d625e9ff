//! What time it is, and how far that is to be believed. A Pi has no clock of its own.
//!
//! What must stay true:
//! - `mono_ms` (CLOCK_BOOTTIME) never goes back within a boot and counts while the board sleeps.
//! - `wall_ms - mono_ms` stays one number until the clock is really stepped or has drifted visibly: the
//!   wire then needs a single offset for a whole batch.
//! - Every reading compares with the system clock, so a step in either direction is followed at once, but
//!   not below the floor. Who is believed before whom, and what the floor is, stands in `belief`.
//! - Nothing waits for a time source: the first scan after boot is stored with the clock there is.

mod belief;
mod memory;
mod ntp;

pub use belief::Unbelieved;
pub use memory::{ClockFile, Known, Stored};
pub use ntp::KernelWatch;

use belief::{Belief, Donation};
use lumbung_shared::time::ClockState;
use memory::Last;
use nix::time::{ClockId, clock_gettime};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    /// Milliseconds since 1970, as well as the gateway knows, steadied.
    pub wall_ms: i64,
    pub state: ClockState,
}

/// Who told the gateway the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeSource {
    Ntp,
    Cloud,
    Phone,
}

/// The clock was set while the gateway ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    pub from_ms: i64,
    pub to_ms: i64,
}

/// This boot's milliseconds are tied to the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Anchor {
    pub mono_ms: i64,
    pub wall_ms: i64,
    pub uncertainty_ms: i64,
    pub source: TimeSource,
}

/// What the cloud should hear of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    Step(Step),
    Anchor(Anchor),
}

/// How certificates are to be judged: docs/decisions/ has the reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedTime {
    pub now_ms: i64,
    /// It is proven to be later than this.
    pub earliest_ms: i64,
    pub latest_ms: i64,
    /// Whether ntp or the cloud stands behind `now_ms`.
    pub confirmed: bool,
}

/// The clock as people see it.
#[derive(Debug, Clone, Copy)]
pub struct ClockView {
    pub now: Moment,
    pub source: Option<TimeSource>,
    pub uncertainty_ms: Option<i64>,
    pub floor_ms: i64,
}

/// Where times come from; tests bring their own.
struct Sources {
    /// Milliseconds since 1970 by the system clock.
    system: Box<dyn Fn() -> i64 + Send + Sync>,
    /// Milliseconds since boot.
    boot: Box<dyn Fn() -> i64 + Send + Sync>,
    /// The file that says that the kernel's clock is synchronised.
    flag: PathBuf,
}

/// The gateway's clock; one per program, shared by everything that needs a time.
pub struct Clock {
    sources: Sources,
    belief: Mutex<Belief>,
    synchronised: AtomicBool,
    looked_at_ms: AtomicI64,
    /// What the kernel said when it was asked otherwise than by the flag.
    kernel_said: AtomicBool,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("belief", &self.belief).finish_non_exhaustive()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::knowing(&Known::default())
    }
}

impl Clock {
    /// The clock of a gateway that remembers what it knew before.
    pub fn knowing(known: &Known) -> Self {
        let flag = SYNCHRONISED.into();
        Self::with(Sources { system: Box::new(system_ms), boot: Box::new(boot_ms), flag }, known)
    }

    fn with(sources: Sources, known: &Known) -> Self {
        let belief = Mutex::new(Belief::new((sources.boot)(), built_ms(), known));
        Self {
            sources,
            belief,
            synchronised: AtomicBool::new(false),
            looked_at_ms: AtomicI64::new(NEVER),
            kernel_said: AtomicBool::new(false),
        }
    }

    /// A clock whose system clock stands still.
    #[cfg(test)]
    pub(crate) fn stopped_at(system_ms: i64) -> Self {
        let sources =
            Sources { system: Box::new(move || system_ms), boot: Box::new(|| 0), flag: "/nowhere".into() };
        Self::with(sources, &Known::default())
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        self.read().0
    }

    /// Milliseconds since boot, for measuring how long a question took.
    pub fn mono_ms(&self) -> i64 {
        (self.sources.boot)()
    }

    /// The clock as people see it.
    pub fn view(&self) -> ClockView {
        let (now, belief) = self.read();
        let source = belief.source(now.mono_ms);
        ClockView {
            now,
            source: source.map(|(source, _)| source),
            uncertainty_ms: source.map(|(_, uncertainty_ms)| uncertainty_ms),
            floor_ms: belief.floor_ms(),
        }
    }

    /// How certificates are to be judged now.
    pub fn trusted_time(&self) -> TrustedTime {
        let (now, belief) = self.read();
        belief.trusted_time(now)
    }

    /// The cloud said `wall_ms` between two moments of this boot. `proven`: inside its certificate's validity.
    pub fn hear_cloud(
        &self,
        asked_mono_ms: i64,
        heard_mono_ms: i64,
        wall_ms: i64,
        proven: bool,
    ) -> Result<(), Unbelieved> {
        let way = heard_mono_ms.saturating_sub(asked_mono_ms).max(0);
        let mono_ms = asked_mono_ms.saturating_add(way / 2);
        // Half the way, a millisecond of ours and one of the cloud's.
        let uncertainty_ms = way / 2 + 2;
        self.donated(TimeSource::Cloud, mono_ms, wall_ms, uncertainty_ms)?;
        if proven {
            self.locked().prove(wall_ms);
        }
        Ok(())
    }

    /// A phone says that it is `wall_ms` now.
    pub fn hear_phone(&self, wall_ms: i64, uncertainty_ms: i64) -> Result<(), Unbelieved> {
        self.donated(TimeSource::Phone, self.mono_ms(), wall_ms, uncertainty_ms)
    }

    fn donated(
        &self,
        source: TimeSource,
        mono_ms: i64,
        wall_ms: i64,
        uncertainty_ms: i64,
    ) -> Result<(), Unbelieved> {
        let offset_ms = wall_ms.saturating_sub(mono_ms);
        // Read first: what the kernel says by now counts before what is donated.
        self.read().1.donate(Donation { source, offset_ms, uncertainty_ms, mono_ms })
    }

    /// What became known of the clock since the last call.
    pub fn take_news(&self) -> Vec<News> {
        self.read().1.take_news()
    }

    /// What is worth remembering over a restart.
    fn known(&self) -> Known {
        let (now, belief) = self.read();
        let trusted = belief.trusted_time(now).confirmed;
        let last = Some(Last { wall_ms: now.wall_ms, mono_ms: now.mono_ms, trusted });
        let (donated, ntp_told) = (belief.donated(), belief.ntp_told());
        Known { last, proven_ms: belief.proven_ms(), donated, ntp_told }
    }

    fn read(&self) -> (Moment, MutexGuard<'_, Belief>) {
        let mut belief = self.locked();
        // Under the lock, so that readings never overtake each other.
        let mono_ms = self.mono_ms();
        let synchronised = self.is_synchronised(mono_ms);
        let now = belief.read(mono_ms, (self.sources.system)(), synchronised);
        (now, belief)
    }

    fn locked(&self) -> MutexGuard<'_, Belief> {
        // Nothing done under this lock can leave the belief half changed.
        self.belief.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_synchronised(&self, mono_ms: i64) -> bool {
        if mono_ms.saturating_sub(self.looked_at_ms.load(Relaxed)) >= LOOK_EVERY_MS {
            let flagged = self.sources.flag.exists();
            self.synchronised.store(flagged || self.kernel_said.load(Relaxed), Relaxed);
            self.looked_at_ms.store(mono_ms, Relaxed);
        }
        self.synchronised.load(Relaxed)
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
    let now = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    now.saturating_add(jump_ms())
}

/// How far the durability harness has turned this process's clock: the milliseconds in the file that
/// `LUMBUNG_CLOCK_JUMP` names, read anew at each reading.
#[cfg(feature = "mutants")]
fn jump_ms() -> i64 {
    let path = std::env::var_os("LUMBUNG_CLOCK_JUMP");
    let text = path.and_then(|path| std::fs::read_to_string(path).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Nobody turns the clock of a build that people use.
#[cfg(not(feature = "mutants"))]
const fn jump_ms() -> i64 {
    0
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
#[path = "tests.rs"]
mod tests;
