//! When a sensor is read.
//!
//! What must stay true:
//! - Turns do not pile up: one that could not be taken is taken once, later, or not at all.
//! - An interval goes by the time since boot. The cron scheduler goes by the wall clock, also where it repeats
//!   at an interval: its next turn is a time of day that it wrote down, so that a clock that jumps ahead (a Pi
//!   that wakes in 1970 and hears of 2026) makes it skip every further turn, and one that is set back makes it
//!   wait for years. Hence tokio's interval for intervals, and a scheduler that is made anew when the clock
//!   was set for the turns that people give as times of the day.

use crate::config::Turns;
use chrono::{Local, Utc};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

/// How often the clock is compared with the time since boot, and from which difference on it was set.
const LOOK: Duration = Duration::from_secs(5);
const SET_MS: i64 = 2_000;

/// A sensor's turns as they come.
pub(super) enum Beat {
    Every(Interval),
    Cron(Arc<Notify>),
}

impl Beat {
    /// Waits for the next turn.
    pub(super) async fn next(&mut self) {
        match self {
            Self::Every(interval) => {
                interval.tick().await;
            }
            Self::Cron(rung) => rung.notified().await,
        }
    }

    /// Whether a turn has come already; it counts as taken then.
    pub(super) async fn has_come(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.next() => true,
            () = std::future::ready(()) => false,
        }
    }
}

/// The bells that the cron scheduler rings.
#[derive(Default)]
pub(super) struct Bells(Vec<(String, Arc<Notify>)>);

impl Bells {
    /// The turns by a plan; the first one of an interval comes at once.
    pub(super) fn beat(&mut self, turns: &Turns) -> Beat {
        match turns {
            Turns::Every(every) => {
                let mut interval = interval(*every);
                interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
                Beat::Every(interval)
            }
            Turns::Cron(cron) => {
                let bell = Arc::new(Notify::new());
                self.0.push((cron.clone(), Arc::clone(&bell)));
                Beat::Cron(bell)
            }
        }
    }

    /// Rings until `stop`.
    pub(super) async fn ring(self, stop: CancellationToken) -> Result<(), String> {
        while !self.0.is_empty() && !stop.is_cancelled() {
            let mut scheduler = self.schedule().await.map_err(|error| error.to_string())?;
            let begun = (Utc::now(), Instant::now());
            let was_set = async {
                loop {
                    tokio::time::sleep(LOOK).await;
                    if was_set((Utc::now() - begun.0).num_milliseconds(), begun.1.elapsed()) {
                        break;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = was_set => tracing::info!("the clock was set: turns by the time of day are reckoned anew"),
            }
            scheduler.shutdown().await.map_err(|error| error.to_string())?;
        }
        stop.cancelled().await;
        Ok(())
    }

    async fn schedule(&self) -> Result<JobScheduler, JobSchedulerError> {
        let mut scheduler = JobScheduler::new().await?;
        scheduler.init().await?;
        for (cron, bell) in &self.0 {
            let bell = Arc::clone(bell);
            // The Pi's own time zone, as it stands now: Indonesia's clocks are never put forward.
            scheduler.add(Job::new_tz(cron, Local, move |_, _| bell.notify_one())?).await?;
        }
        scheduler.start().await?;
        Ok(scheduler)
    }
}

/// Whether the clock went another way than the time since boot. Time servers slew it by less than this.
fn was_set(wall_ms: i64, elapsed: Duration) -> bool {
    let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
    wall_ms.saturating_sub(elapsed).saturating_abs() >= SET_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_that_were_missed_do_not_pile_up() {
        let mut beat = Bells::default().beat(&Turns::Every(Duration::from_secs(60)));
        beat.next().await;
        assert!(!beat.has_come().await);
        tokio::time::advance(Duration::from_secs(330)).await;
        assert!(beat.has_come().await);
        assert!(!beat.has_come().await, "five were missed, one is taken");
        let before = Instant::now();
        beat.next().await;
        assert_eq!(before.elapsed().as_secs(), 30, "and the rhythm is kept");
    }

    #[tokio::test]
    async fn a_cron_expression_rings_and_waits_for_who_is_late() {
        let mut bells = Bells::default();
        let mut beat = bells.beat(&Turns::Cron("* * * * * *".to_owned()));
        let stop = CancellationToken::new();
        let ringing = tokio::spawn(bells.ring(stop.clone()));
        beat.next().await;
        beat.next().await;
        stop.cancel();
        assert_eq!(ringing.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn without_a_cron_expression_nothing_is_scheduled_until_the_end() {
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(Bells::default().ring(stop).await, Ok(()));
    }

    #[test]
    fn a_clock_that_jumps_was_set_and_one_that_is_slewed_was_not() {
        let minute = Duration::from_secs(60);
        assert!(!was_set(60_000, minute) && !was_set(60_040, minute) && !was_set(59_000, minute));
        let years = 50 * 365 * 86_400_000;
        assert!(was_set(years, minute) && was_set(-years, minute) && was_set(57_999, minute));
    }
}
