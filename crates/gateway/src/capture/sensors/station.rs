//! One sensor: read when its turn comes, told when it dies and when it is back.
//!
//! What must stay true:
//! - There is no silent gap. A sensor that cannot be read is told (`sensor_down`, `sensor_up`), and so is a
//!   time in which its values could not be stored (`readings_missed`), as soon as the store takes that.
//! - What the cloud was told is remembered only once it is durable; until then it is tried again.
//! - A reading carries the time it was measured at: what could not be stored is measured anew.

use super::board::{Place, SensorBoard, SensorState};
use super::report::{Reporter, readings};
use super::turns::Beat;
use crate::capture::{Capture, Refused};
use crate::config::SensorPlan;
use crate::hardware::sensors::{Sample, SensorError};
use crate::outbox::OutboxError;
use lumbung_shared::time::rfc3339;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Failures in a row after which a sensor is down.
const DOWN_AFTER: u32 = 3;
const LONGEST_RETRY: Duration = Duration::from_secs(60);

pub(super) struct Station {
    /// Its number on the board.
    at: usize,
    plan: SensorPlan,
    place: Place,
    beat: Beat,
    board: Arc<SensorBoard>,
    capture: Capture,
    reporter: Reporter,
    first_retry: Duration,
    /// Attempts in a row that gave no values.
    failures: u32,
    /// Attempts in a row whose values could not be stored. They say nothing against the sensor.
    refusals: u32,
    /// Whether the cloud was told that it is up; `None`: nothing yet in this run.
    told_up: Option<bool>,
    gap: Option<Gap>,
}

/// A time in which values could not be stored.
struct Gap {
    since_ms: i64,
    reason: &'static str,
    /// Whether a turn came and went meanwhile; before that nothing is missed.
    missed: bool,
}

/// The store is closed: the program is ending, or will.
pub(super) struct StoreClosed;

impl Station {
    pub(super) fn new(
        at: usize,
        plan: SensorPlan,
        place: Place,
        beat: Beat,
        board: Arc<SensorBoard>,
        capture: Capture,
        first_retry: Duration,
    ) -> Self {
        let reporter = Reporter::new(&plan);
        Self {
            at,
            plan,
            place,
            beat,
            board,
            capture,
            reporter,
            first_retry,
            failures: 0,
            refusals: 0,
            told_up: None,
            gap: None,
        }
    }

    /// Runs until `stop`; an error when the bus's thread has ended.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.wait() => {}
            }
            let answer = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                answer = self.place.bus.read(self.place.number) => answer.map_err(|error| error.to_string())?,
            };
            let done = match answer {
                Ok(samples) => self.works(&samples).await,
                Err(error) => self.fails(&error).await,
            };
            if let Err(StoreClosed) = done {
                // Why it closed is for the store to say.
                stop.cancelled().await;
                return Ok(());
            }
        }
    }

    /// Until the next turn, or the next attempt after a failure.
    async fn wait(&mut self) {
        let attempts = self.failures.max(self.refusals);
        if attempts == 0 {
            return self.beat.next().await;
        }
        tokio::time::sleep(backoff(self.first_retry, attempts)).await;
        let turn_passed = self.beat.has_come().await;
        if let Some(gap) = &mut self.gap {
            gap.missed |= turn_passed;
        }
    }

    async fn works(&mut self, samples: &[Sample]) -> Result<(), StoreClosed> {
        let now = Instant::now();
        self.failures = 0;
        let all = readings(&self.plan, samples);
        self.board.read_ok(self.at, self.capture.clock.now().wall_ms, &all);
        self.capture.metrics.sensor_up(&self.plan.name, true);
        if self.told_up != Some(true) {
            self.tell_up().await?;
        }
        let due = self.reporter.due(&all, now);
        if !due.is_empty() {
            let readings = due.iter().map(|(_, reading)| reading.clone()).collect();
            match self.capture.take_readings(readings, None).await {
                Ok(_) => self.reporter.stored(&due, now),
                Err(refused) => return self.not_stored(&refused),
            }
            self.capture.metrics.count_sensor_readings(&self.plan.name, due.len());
        }
        self.board.unstored(self.at, false);
        self.refusals = 0;
        self.tell_gap().await
    }

    async fn tell_up(&mut self) -> Result<(), StoreClosed> {
        let (sensor, back) = (&self.plan.name, self.told_up == Some(false));
        let reason = if back { "answers_again" } else { "started" };
        if back {
            tracing::info!(sensor, "the sensor is back");
            self.reporter.forget();
        }
        let noted = self.capture.note("sensor_up", json!({ "sensor": sensor, "reason": reason })).await;
        if is_durable(noted)? {
            self.told_up = Some(true);
        }
        Ok(())
    }

    async fn fails(&mut self, error: &SensorError) -> Result<(), StoreClosed> {
        let sensor = &self.plan.name;
        self.failures = self.failures.saturating_add(1);
        self.capture.metrics.count_sensor_error(sensor, error.code());
        if self.failures < DOWN_AFTER {
            self.board.failed(self.at, SensorState::Failing, error);
            tracing::warn!(sensor, %error, "the sensor was not read; trying again");
            return Ok(());
        }
        self.board.failed(self.at, SensorState::Down, error);
        self.capture.metrics.sensor_up(sensor, false);
        if self.told_up == Some(false) {
            return Ok(());
        }
        tracing::error!(sensor, failures = self.failures, %error, "the sensor is down; trying on");
        let body = json!({ "sensor": sensor, "reason": error.code(), "detail": error.to_string() });
        if is_durable(self.capture.note("sensor_down", body).await)? {
            self.told_up = Some(false);
        }
        Ok(())
    }

    fn not_stored(&mut self, refused: &Refused) -> Result<(), StoreClosed> {
        if matches!(refused, Refused::Store(OutboxError::Closed)) {
            return Err(StoreClosed);
        }
        self.refusals = self.refusals.saturating_add(1);
        self.board.unstored(self.at, true);
        if self.gap.is_none() {
            tracing::error!(sensor = self.plan.name, error = %refused, "readings are not stored; trying on");
            let since_ms = self.capture.clock.now().wall_ms;
            self.gap = Some(Gap { since_ms, reason: refused.code(), missed: false });
        }
        Ok(())
    }

    async fn tell_gap(&mut self) -> Result<(), StoreClosed> {
        let Some(gap) = self.gap.as_ref() else { return Ok(()) };
        tracing::info!(sensor = self.plan.name, missed = gap.missed, "readings are stored again");
        let body = json!({
            "sensor": self.plan.name,
            "reason": gap.reason,
            "since": rfc3339(gap.since_ms),
        });
        if !gap.missed || is_durable(self.capture.note("readings_missed", body).await)? {
            self.gap = None;
        }
        Ok(())
    }
}

/// Whether an event is safe. One that is not is tried again with the next turn.
fn is_durable(noted: Result<(), Refused>) -> Result<bool, StoreClosed> {
    match noted {
        Ok(()) => Ok(true),
        Err(Refused::Store(OutboxError::Closed)) => Err(StoreClosed),
        Err(error) => {
            tracing::error!(%error, "an event is not stored; trying on");
            Ok(false)
        }
    }
}

/// Doubles with each failure in a row.
fn backoff(first: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_quickly_at_first_and_never_less_than_once_a_minute() {
        let seconds = |failures| backoff(Duration::from_secs(1), failures).as_secs();
        assert_eq!([1, 2, 3, 6, 7, u32::MAX].map(seconds), [1, 2, 4, 32, 60, 60]);
    }
}
