//! How each sensor is, for status, metrics and whoever asks for a value now.

use super::report::readings;
use crate::config::SensorPlan;
use crate::hardware::sensors::{Bus, BusEnded, Sample, SensorError};
use lumbung_shared::reading::{Quality, ReadingContent};
use lumbung_shared::time::rfc3339;
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whoever asks for a value now does not wait as long as a schedule may.
const READ_NOW: Duration = Duration::from_secs(8);

/// Where a sensor is read: its bus and its number there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) bus: Bus,
    pub(super) number: usize,
}

/// Every configured sensor.
#[derive(Debug, Default)]
pub struct SensorBoard {
    places: Vec<(SensorPlan, Place)>,
    views: Mutex<Vec<SensorView>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorState {
    /// Not read yet.
    Waiting,
    Ok,
    /// The last attempts failed, too few of them to say that it is down.
    Failing,
    Down,
}

/// A sensor as people are shown it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SensorView {
    pub name: String,
    pub kind: &'static str,
    pub address: String,
    pub state: SensorState,
    /// RFC 3339; the gateway's clock.
    pub last_read_at: Option<String>,
    /// What it said then, reported or not.
    pub values: Vec<ValueView>,
    /// Why it cannot be read, as programs and as people read it.
    pub error: Option<&'static str>,
    pub detail: Option<String>,
    /// Its values could be read but not stored.
    pub unstored: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueView {
    pub series: String,
    pub unit: String,
    pub value: f64,
    pub quality: Quality,
}

impl ValueView {
    fn of(reading: &ReadingContent) -> Self {
        Self {
            series: reading.series.as_str().to_owned(),
            unit: reading.unit.as_str().to_owned(),
            value: reading.value,
            quality: reading.quality,
        }
    }
}

/// One sensor read on demand.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReadNow {
    pub sensor: String,
    pub values: Vec<ValueView>,
    pub error: Option<&'static str>,
    pub detail: Option<String>,
}

impl ReadNow {
    /// What reading a sensor came to.
    pub fn of(plan: &SensorPlan, answer: Result<Vec<Sample>, SensorError>) -> Self {
        let (values, error) = match answer {
            Ok(samples) => (readings(plan, &samples).iter().map(ValueView::of).collect(), None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Self {
            sensor: plan.name.clone(),
            values,
            error: error.as_ref().map(SensorError::code),
            detail: error.map(|error| error.to_string()),
        }
    }
}

impl SensorBoard {
    pub(super) fn new(places: Vec<(SensorPlan, Place)>) -> Self {
        let view = |plan: &SensorPlan| SensorView {
            name: plan.name.clone(),
            kind: plan.kind.name(),
            address: plan.address.clone(),
            state: SensorState::Waiting,
            last_read_at: None,
            values: Vec::new(),
            error: None,
            detail: None,
            unstored: false,
        };
        let views = Mutex::new(places.iter().map(|(plan, _)| view(plan)).collect());
        Self { places, views }
    }

    pub fn views(&self) -> Vec<SensorView> {
        self.seats().clone()
    }

    /// Reads the sensor of that name; nothing is stored. `None` if there is none.
    pub async fn read(&self, name: &str) -> Option<Result<ReadNow, BusEnded>> {
        let (plan, place) = self.places.iter().find(|(plan, _)| plan.name == name)?;
        let answer = tokio::time::timeout(READ_NOW, place.bus.read(place.number)).await;
        let answer = answer.unwrap_or(Ok(Err(SensorError::Stuck)));
        Some(answer.map(|answer| ReadNow::of(plan, answer)))
    }

    pub(super) fn read_ok(&self, at: usize, wall_ms: i64, readings: &[ReadingContent]) {
        self.change(at, |view| {
            view.state = SensorState::Ok;
            view.last_read_at = Some(rfc3339(wall_ms));
            view.values = readings.iter().map(ValueView::of).collect();
            (view.error, view.detail) = (None, None);
        });
    }

    pub(super) fn failed(&self, at: usize, state: SensorState, error: &SensorError) {
        self.change(at, |view| {
            view.state = state;
            (view.error, view.detail) = (Some(error.code()), Some(error.to_string()));
        });
    }

    pub(super) fn unstored(&self, at: usize, unstored: bool) {
        self.change(at, |view| view.unstored = unstored);
    }

    fn change(&self, at: usize, change: impl FnOnce(&mut SensorView)) {
        if let Some(view) = self.seats().get_mut(at) {
            change(view);
        }
    }

    fn seats(&self) -> MutexGuard<'_, Vec<SensorView>> {
        // A view that was half changed is shown like that until the next turn.
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
