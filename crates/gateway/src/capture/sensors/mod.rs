//! Sensors of the Pi itself: each read on its own schedule, its values stored as readings.
//!
//! ```text
//! turns ─▶ station ─▶ bus (a thread each) ─▶ report ─▶ Capture::take_readings
//!             └─▶ board ─▶ status, metrics, the command line
//! ```

mod board;
mod report;
mod station;
#[cfg(test)]
pub(super) mod tests;
mod turns;

pub use board::{ReadNow, SensorBoard, SensorState, SensorView, ValueView};

use super::Capture;
use crate::config::SensorPlan;
use crate::hardware::sensors::{Bus, Opener};
use board::Place;
use station::Station;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use turns::Bells;

const FIRST_RETRY: Duration = Duration::from_secs(1);

/// All configured sensors; they are read once this runs.
pub struct SensorLoop {
    board: Arc<SensorBoard>,
    places: Vec<(SensorPlan, Place)>,
    capture: Capture,
    /// The pause after a first failure.
    first_retry: Duration,
}

impl SensorLoop {
    /// Starts a thread for each bus that has a sensor on it.
    pub fn new(plans: Vec<SensorPlan>, capture: Capture) -> std::io::Result<Self> {
        let sensors = plans.into_iter().map(|plan| {
            let opener = plan.device.opener();
            (plan, opener)
        });
        Self::over(sensors.collect(), capture)
    }

    fn over(sensors: Vec<(SensorPlan, Opener)>, capture: Capture) -> std::io::Result<Self> {
        let mut on: BTreeMap<String, Vec<Opener>> = BTreeMap::new();
        let mut seats = Vec::new();
        for (plan, opener) in sensors {
            let bus = on.entry(plan.device.bus()).or_default();
            seats.push((plan, bus.len()));
            bus.push(opener);
        }
        let mut buses = BTreeMap::new();
        for (name, openers) in on {
            let bus = Bus::start(&name, openers)?;
            buses.insert(name, bus);
        }
        let seat = |(plan, number): (SensorPlan, usize)| {
            let bus = buses.get(&plan.device.bus())?.clone();
            Some((plan, Place { bus, number }))
        };
        let places: Vec<_> = seats.into_iter().filter_map(seat).collect();
        let board = Arc::new(SensorBoard::new(places.clone()));
        Ok(Self { board, places, capture, first_retry: FIRST_RETRY })
    }

    pub fn board(&self) -> Arc<SensorBoard> {
        Arc::clone(&self.board)
    }

    /// Runs until `stop`; an error when a part of it has ended before.
    pub async fn run(self, stop: CancellationToken) -> Result<(), String> {
        let (mut bells, mut tasks) = (Bells::default(), JoinSet::new());
        for (at, (plan, place)) in self.places.into_iter().enumerate() {
            let beat = bells.beat(&plan.turns);
            let board = Arc::clone(&self.board);
            let station = Station::new(at, plan, place, beat, board, self.capture.clone(), self.first_retry);
            tasks.spawn(station.run(stop.clone()));
        }
        tasks.spawn(bells.ring(stop));
        while let Some(ended) = tasks.join_next().await {
            // Dropping the others ends them.
            ended.map_err(|error| format!("a sensor's task panicked: {error}"))??;
        }
        Ok(())
    }
}
