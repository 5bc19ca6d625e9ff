//! What to do after each answer. Pure: no clock, no network, no randomness of its own.
//!
//! What must stay true:
//! - Whatever the answer, there is a next attempt: every wait ends by itself.
//! - A fault of a batch is never held against its records. One is parked only when it was refused
//!   alone, the same envelope without it was accepted right after, and it was refused alone once more.
//! - While the key is refused nothing but an empty batch travels, and new scans do not hurry it.
//! - A failure never makes the next attempt come sooner than `Retry-After`; while the key is refused the
//!   probe's own interval counts instead.

use crate::config;
use std::time::Duration;

/// Records of the first batch: what a bad link carries, doubled with every success.
const FIRST_LIMIT: usize = 500;
/// A link that times out gets smaller batches, but not so small that nothing moves.
const SLOWEST_LIMIT: usize = 16;
/// After a success, scans that arrive one by one are gathered for this long.
const GATHER: Duration = Duration::from_millis(200);
/// No cloud may silence a gateway for longer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);
/// Successes after which a batch size that was too large once is tried again.
const FORGET_CEILING_AFTER: u32 = 50;

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Send {
    /// Up to so many of the oldest records.
    Records { limit: usize },
    /// The batch that was refused, without its one record.
    Envelope,
    /// Nothing but the question whether the key is good.
    Probe,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Records { count: usize },
    Envelope,
    Probe,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// The cloud took it. `more`: there are further records to send.
    Settled { more: bool, retry_after: Option<Duration> },
    /// The cloud answered and said nothing about what was sent.
    SettledNothing { retry_after: Option<Duration> },
    /// 413
    TooLarge,
    /// 400, 422
    Refused,
    /// 401
    Unauthorised,
    /// 403
    Revoked,
    /// 408, 429, 5xx
    Busy { retry_after: Option<Duration> },
    /// The cloud took it, and the store had no room for its verdicts.
    NotKept,
    /// No answer, or one that makes no sense.
    Failed { timed_out: bool },
}

/// How far the question is whether a record that was refused alone is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// The envelope without it is asked for.
    Envelope,
    /// The envelope is fine; the record alone is asked for once more: the refusal may have been a passing
    /// one.
    Again,
}

/// Why a record is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParkReason {
    Refused,
    TooLarge,
}

/// What the gateway does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Set the one record aside that was sent alone before.
    pub(super) park: Option<ParkReason>,
    pub(super) wait: Wait,
}

/// How long to wait, and what may end it early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) long: Duration,
    /// Nothing ends the wait before this.
    pub(super) at_least: Duration,
    /// Whether a new scan or a new link ends it; a person always can.
    pub(super) by_scan: bool,
}

impl Wait {
    const NONE: Self = Self { long: Duration::ZERO, at_least: Duration::ZERO, by_scan: true };
}

/// Why nothing but probes travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Unauthorised,
    Revoked,
}

/// What is remembered from answer to answer.
#[derive(Debug)]
pub(super) struct Rules {
    interval: Duration,
    probe_interval: Duration,
    backoff_base: Duration,
    backoff_max: Duration,
    batch_max: usize,
    limit: usize,
    /// What the cloud, or something on the way, found too large less one half.
    ceiling: usize,
    successes: u32,
    failures: u32,
    /// So many of the oldest records have the one among them that spoils a batch.
    suspects: Option<usize>,
    confirming: Option<Doubt>,
    lock: Option<Lock>,
}

impl Rules {
    pub(super) fn new(config: &config::Sync) -> Self {
        Self {
            interval: config.interval,
            probe_interval: config.probe_interval,
            backoff_base: config.backoff_base,
            backoff_max: config.backoff_max,
            batch_max: config.batch_max,
            limit: FIRST_LIMIT.min(config.batch_max),
            ceiling: config.batch_max,
            successes: 0,
            failures: 0,
            suspects: None,
            confirming: None,
            lock: None,
        }
    }

    /// What goes out next.
    pub(super) fn send(&self) -> Send {
        if self.lock.is_some() {
            return Send::Probe;
        }
        if self.confirming == Some(Doubt::Envelope) {
            return Send::Envelope;
        }
        let limit = match self.suspects {
            Some(suspects) => (suspects / 2).max(1),
            None => self.limit,
        };
        Send::Records { limit }
    }

    pub(super) fn lock(&self) -> Option<Lock> {
        self.lock
    }

    #[cfg(test)]
    fn is_backing_off(&self) -> bool {
        self.failures > 0
    }

    /// There is another key or another cloud: whatever was held against the last is forgotten.
    pub(super) fn identity_changed(&mut self) {
        self.lock = None;
        self.failures = 0;
    }

    /// The step after an answer; `dice` in 0..1 spreads the gateways.
    pub(super) fn after(&mut self, sent: Sent, reply: Reply, dice: f64) -> Step {
        let confirmed = self.confirming.take();
        match reply {
            Reply::Settled { more, retry_after } => self.settled(sent, more, retry_after),
            Reply::SettledNothing { retry_after } => self.back_off(retry_after, dice),
            Reply::TooLarge => self.spoilt(sent, confirmed, ParkReason::TooLarge, dice),
            Reply::Refused => self.spoilt(sent, confirmed, ParkReason::Refused, dice),
            Reply::Unauthorised => self.locked(Lock::Unauthorised),
            Reply::Revoked => self.locked(Lock::Revoked),
            Reply::Busy { retry_after } => self.failed(confirmed, retry_after, dice),
            Reply::NotKept => {
                // Fewer verdicts need less room.
                self.limit = (self.limit / 2).max(SLOWEST_LIMIT).min(self.limit);
                self.failed(confirmed, None, dice)
            }
            Reply::Failed { timed_out } => {
                if timed_out {
                    self.limit = (self.limit / 2).max(SLOWEST_LIMIT).min(self.limit);
                }
                self.failed(confirmed, None, dice)
            }
        }
    }

    fn settled(&mut self, sent: Sent, more: bool, retry_after: Option<Duration>) -> Step {
        self.failures = 0;
        self.lock = None;
        match sent {
            Sent::Records { count } => {
                // An answer on no record at all has nothing to say of suspects: they are looked for anew.
                self.suspects = self
                    .suspects
                    .filter(|_| count > 0)
                    .and_then(|suspects| suspects.checked_sub(count))
                    .filter(|&left| left > 0);
                if self.suspects.is_none() && count > 0 {
                    self.grow();
                }
            }
            Sent::Envelope => {
                // The envelope is fine, so it seems to be the record.
                self.suspects = Some(1);
                self.confirming = Some(Doubt::Again);
            }
            Sent::Probe => {}
        }
        let at_once = more || sent == Sent::Probe || self.suspects.is_some();
        let wait = match retry_after {
            Some(asked) => {
                let asked = asked.min(LONGEST_RETRY_AFTER);
                Wait { long: asked, at_least: asked, by_scan: true }
            }
            None if at_once => Wait::NONE,
            None => Wait { long: self.interval, at_least: GATHER.min(self.interval), by_scan: true },
        };
        Step { park: None, wait }
    }

    fn grow(&mut self) {
        self.successes += 1;
        if self.successes >= FORGET_CEILING_AFTER {
            self.successes = 0;
            self.ceiling = self.ceiling.saturating_mul(2).min(self.batch_max);
        }
        self.limit = self.limit.saturating_mul(2).min(self.ceiling);
    }

    /// The batch as such was refused.
    fn spoilt(&mut self, sent: Sent, doubt: Option<Doubt>, reason: ParkReason, dice: f64) -> Step {
        let count = match sent {
            Sent::Records { count } => count,
            Sent::Envelope | Sent::Probe => 0,
        };
        match count {
            // Nothing was in it that could be at fault.
            0 => {
                self.suspects = None;
                if reason == ParkReason::TooLarge {
                    // The runs alone were too many.
                    self.limit = (self.limit / 2).max(1);
                }
                return self.back_off(None, dice);
            }
            1 if doubt == Some(Doubt::Again) => {
                self.suspects = None;
                // Where one bad record is there may be many: smaller batches find the next sooner.
                self.limit = (self.limit / 8).max(1);
                return Step { park: Some(reason), wait: Wait::NONE };
            }
            1 => {
                self.suspects = Some(1);
                self.confirming = Some(Doubt::Envelope);
            }
            _ if reason == ParkReason::TooLarge => {
                self.limit = count / 2;
                self.ceiling = self.limit;
                self.successes = 0;
                self.suspects = None;
            }
            _ => self.suspects = Some(count),
        }
        Step { park: None, wait: Wait::NONE }
    }

    fn locked(&mut self, lock: Lock) -> Step {
        self.lock = Some(lock);
        Step { park: None, wait: self.until_probe() }
    }

    fn until_probe(&self) -> Wait {
        Wait { long: self.probe_interval, at_least: Duration::ZERO, by_scan: false }
    }

    fn failed(&mut self, confirmed: Option<Doubt>, retry_after: Option<Duration>, dice: f64) -> Step {
        if confirmed.is_some() {
            // The question stays open: the record is sent alone again.
            self.suspects = Some(1);
        }
        self.back_off(retry_after, dice)
    }

    /// Full jitter: anything between nothing and the ceiling, which doubles with each failure in a row.
    fn back_off(&mut self, retry_after: Option<Duration>, dice: f64) -> Step {
        let doublings = self.failures.min(20);
        self.failures = self.failures.saturating_add(1);
        let ceiling = self.backoff_base.saturating_mul(1 << doublings).min(self.backoff_max);
        let drawn = ceiling.mul_f64(dice.clamp(0.0, 1.0));
        let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        // Those who were told the same second must not all come back in it.
        let asked = asked + asked.mul_f64(dice.clamp(0.0, 1.0) / 10.0);
        let long = drawn.max(asked);
        let wait = Wait { long, at_least: asked.max(self.backoff_base.min(long)), by_scan: true };
        let wait = if self.lock.is_some() { self.until_probe() } else { wait };
        Step { park: None, wait }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
