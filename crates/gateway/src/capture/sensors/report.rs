//! Which of a sensor's values become readings. Pure: `now` is an argument.
//!
//! What must stay true:
//! - A value is compared with the last one that was **stored**, so that a slow drift is not lost in steps
//!   that are each too small, and a value that could not be stored is still due.
//! - Nothing is dropped for being implausible, and what becomes implausible or plausible again is told at once.

use crate::config::{SensorPlan, SeriesPlan};
use crate::hardware::sensors::Sample;
use lumbung_shared::reading::{Quality, ReadingContent};
use std::time::{Duration, Instant};

/// What a sensor's samples mean by its plan.
pub(super) fn readings(plan: &SensorPlan, samples: &[Sample]) -> Vec<ReadingContent> {
    // A device gives a value for each of its quantities, in their order; the plan has them in the same.
    plan.series.iter().zip(samples).map(|(series, sample)| reading(series, sample)).collect()
}

fn reading(series: &SeriesPlan, sample: &Sample) -> ReadingContent {
    let value = measured(sample.value + series.offset);
    let plausible = !sample.doubtful && series.plausible.contains(&value);
    ReadingContent {
        series: series.name.clone(),
        unit: series.unit.clone(),
        value,
        quality: if plausible { Quality::Good } else { Quality::Implausible },
        at_ms: None,
    }
}

/// Seven digits, which is more than any sensor has: the rest would only be the arithmetic's, and travel.
fn measured(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// Remembers what was stored last.
#[derive(Debug)]
pub(super) struct Reporter {
    heartbeat: Duration,
    seats: Vec<Seat>,
}

#[derive(Debug, Clone, Copy)]
struct Seat {
    change: Option<f64>,
    stored: Option<(f64, Quality, Instant)>,
}

impl Reporter {
    pub(super) fn new(plan: &SensorPlan) -> Self {
        let seats = plan.series.iter().map(|series| Seat { change: series.report_change, stored: None });
        Self { heartbeat: plan.heartbeat, seats: seats.collect() }
    }

    /// Those of a turn's readings that are to be stored, and where they belong.
    pub(super) fn due(&self, readings: &[ReadingContent], now: Instant) -> Vec<(usize, ReadingContent)> {
        let due = readings.iter().enumerate().zip(&self.seats).filter(|((_, reading), seat)| {
            let (Some(change), Some((value, quality, at))) = (seat.change, seat.stored) else { return true };
            (reading.value - value).abs() >= change
                || reading.quality != quality
                || now.saturating_duration_since(at) >= self.heartbeat
        });
        due.map(|((at, reading), _)| (at, reading.clone())).collect()
    }

    /// These are durable.
    pub(super) fn stored(&mut self, readings: &[(usize, ReadingContent)], now: Instant) {
        for (at, reading) in readings {
            if let Some(seat) = self.seats.get_mut(*at) {
                seat.stored = Some((reading.value, reading.quality, now));
            }
        }
    }

    /// The next turn reports everything: who looks should see where a silence ended.
    pub(super) fn forget(&mut self) {
        for seat in &mut self.seats {
            seat.stored = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;

    fn sample(quantity: &'static str, value: f64) -> Sample {
        Sample { quantity, unit: "Cel", value, doubtful: false }
    }

    fn turn(plan: &SensorPlan, temperature: f64) -> Vec<ReadingContent> {
        readings(plan, &[sample("temperature", temperature), sample("humidity", 70.0)])
    }

    /// Which quantities are reported, storing them.
    fn reported(reporter: &mut Reporter, readings: &[ReadingContent], now: Instant) -> Vec<usize> {
        let due = reporter.due(readings, now);
        reporter.stored(&due, now);
        due.into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn a_quantity_with_a_dead_band_is_reported_when_it_changed_or_was_silent_for_long() {
        let plan = plan("report_change = { temperature = 0.5 }\nheartbeat = \"15m\"");
        let (mut reporter, begin) = (Reporter::new(&plan), Instant::now());
        let at = |minutes: u64| begin + Duration::from_secs(minutes * 60);
        // The humidity has no dead-band and is reported each time.
        for (minute, degrees, expected) in [
            (0_u64, 20.0, &[0, 1][..]),
            (1, 20.4, &[1]),
            (2, 20.5, &[0, 1]),
            (3, 20.1, &[1]),
            (17, 20.1, &[0, 1]),
            (18, 20.1, &[1]),
        ] {
            let told = reported(&mut reporter, &turn(&plan, degrees), at(minute));
            assert_eq!(told, expected, "minute {minute}");
        }
        reporter.forget();
        assert_eq!(reported(&mut reporter, &turn(&plan, 20.1), at(18)), [0, 1]);
    }

    #[test]
    fn a_slow_drift_is_reported_although_no_step_of_it_is_big_enough() {
        let plan = plan("report_change = { temperature = 0.5 }");
        let (mut reporter, now) = (Reporter::new(&plan), Instant::now());
        let drift = (0..=10).map(|step| 20.0 + f64::from(step) * 0.125);
        let told = drift.filter(|degrees| reported(&mut reporter, &turn(&plan, *degrees), now).contains(&0));
        assert_eq!(told.collect::<Vec<_>>(), [20.0, 20.5, 21.0]);
    }

    #[test]
    fn what_could_not_be_stored_is_still_due() {
        let plan = plan("report_change = { temperature = 0.5, humidity = 5 }");
        let (mut reporter, now) = (Reporter::new(&plan), Instant::now());
        reported(&mut reporter, &turn(&plan, 20.0), now);
        let changed = turn(&plan, 25.0);
        assert_eq!(reporter.due(&changed, now).len(), 1);
        assert_eq!(reporter.due(&changed, now).len(), 1, "it was not stored");
    }

    #[test]
    fn an_implausible_value_is_kept_marked_and_told_at_once() {
        let plan = plan("report_change = { temperature = 50 }\nrange = { temperature = [-10, 40] }");
        let (mut reporter, now) = (Reporter::new(&plan), Instant::now());
        let quality = |degrees| turn(&plan, degrees)[0].quality;
        assert_eq!((quality(40.0), quality(40.01)), (Quality::Good, Quality::Implausible));
        assert!(reported(&mut reporter, &turn(&plan, 39.0), now).contains(&0));
        assert!(reported(&mut reporter, &turn(&plan, 41.0), now).contains(&0));
        assert!(!reported(&mut reporter, &turn(&plan, 42.0), now).contains(&0));
        assert!(reported(&mut reporter, &turn(&plan, 39.0), now).contains(&0));
    }

    #[test]
    fn what_the_sensor_itself_doubts_is_implausible() {
        let plan = plan("");
        let mut doubtful = sample("temperature", 25.0);
        doubtful.doubtful = true;
        assert_eq!(readings(&plan, &[doubtful])[0].quality, Quality::Implausible);
    }

    #[test]
    fn what_arithmetic_adds_to_a_value_is_taken_off_again() {
        let plan = plan("offset = { temperature = -22.5 }");
        assert_eq!(turn(&plan, 26.81)[0].value, 4.31);
        assert_eq!([measured(0.0), measured(-100_653.27), measured(1.25e-9)], [0.0, -100_653.3, 1.25e-9]);
    }

    #[test]
    fn an_offset_moves_the_value_before_it_is_judged() {
        let plan = plan("offset = { temperature = -1.5 }\nrange = { temperature = [0, 40] }");
        let reading = &turn(&plan, 41.0)[0];
        assert_eq!((reading.value, reading.quality), (39.5, Quality::Good));
    }
}
