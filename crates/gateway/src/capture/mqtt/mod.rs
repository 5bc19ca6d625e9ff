//! What sensors and meters on the local network tell a broker becomes readings.
//!
//! What must stay true:
//! - The broker hears that a message has arrived (PUBACK) only after its readings are durable, or, where it cannot
//!   be read, after an event that holds it is. Whatever is killed before that, the broker brings it again.
//! - What the broker brings again is kept once. It says so (DUP) and keeps the message's number, and the latest
//!   messages are remembered by their numbers in the same transaction as their readings.
//! - Acknowledgements go out in the order of the messages, on the connection that brought them, never on another.
//! - No message can hold up those behind it for ever, except for want of room.
//! - No more than `window` messages are in memory: the rest waits at the broker until these are acknowledged.
//!
//! Modbus meters and the like, which must be asked, belong beside this folder: their own loop, the same `Capture`.

mod broker;
mod filter;
mod health;
mod keep;
mod map;
mod poison;
mod session;

pub use health::{MqttHealth, MqttState, MqttView};
#[cfg(fuzzing)]
pub use map::must_hold;
pub use map::{MapError, MqttMaps};

use crate::capture::Capture;
use crate::config;
use keep::Keeper;
use serde_json::json;
use session::Session;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The first and the longest pause before another attempt; the real one is drawn between nothing and that.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Doublings of the pause that are counted.
const MOST_FAILURES: u32 = 10;

/// Listens to the broker for as long as the program runs.
pub struct MqttLoop {
    config: config::Mqtt,
    data_dir: PathBuf,
    session: Session,
    maps: Arc<MqttMaps>,
    keeper: Arc<Keeper>,
    health: Arc<MqttHealth>,
    capture: Capture,
}

impl MqttLoop {
    /// Reads the remembered session.
    pub fn new(
        config: config::Mqtt,
        maps: MqttMaps,
        data_dir: PathBuf,
        health: Arc<MqttHealth>,
        capture: Capture,
    ) -> io::Result<Self> {
        let maps = Arc::new(maps);
        let session = Session::load(&data_dir)?;
        let keeper = Arc::new(Keeper::new(capture.clone(), Arc::clone(&health)));
        Ok(Self { config, data_dir, session, maps, keeper, health, capture })
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let report = Self::report(Arc::clone(&self.health), self.capture.clone(), self.config.down_after);
        tokio::select! {
            () = stop.cancelled() => {}
            () = report => {}
            () = self.stay_connected() => {}
        }
    }

    async fn stay_connected(&mut self) {
        self.health.down(None);
        let mut failures = 0;
        loop {
            let Err(error) = self.connection().await;
            // What was in hand is dropped unacknowledged: the broker brings it again.
            if self.health.view().is_up() {
                failures = 0;
            }
            failures = (failures + 1).min(MOST_FAILURES);
            if failures == 1 || failures == MOST_FAILURES {
                tracing::warn!(%error, broker = %self.config.broker, "the MQTT broker is not there; trying again");
            }
            self.health.down(Some(error.to_string()));
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// Tells of a broker that stays away, and of its return.
    async fn report(health: Arc<MqttHealth>, capture: Capture, patience: Duration) {
        let mut view = health.watch();
        loop {
            // The sender lives as long as `health`, so waiting cannot fail.
            if tokio::time::timeout(patience, view.wait_for(MqttView::is_up)).await.is_err() {
                let reason = view.borrow_and_update().last_error.clone();
                note(&capture, "mqtt_down", json!({ "reason": reason })).await;
                let _ = view.wait_for(MqttView::is_up).await;
                note(&capture, "mqtt_up", json!({})).await;
            }
            let _ = view.wait_for(|view| !view.is_up()).await;
        }
    }
}

async fn note(capture: &Capture, kind: &'static str, body: serde_json::Value) {
    if let Err(error) = capture.note(kind, body).await {
        tracing::warn!(%error, kind, "an event was not kept");
    }
}

/// Full jitter below a ceiling that doubles.
fn pause(failures: u32) -> Duration {
    let ceiling = PAUSE.saturating_mul(1 << failures.min(MOST_FAILURES)).min(LONGEST_PAUSE);
    ceiling.mul_f64(fastrand::f64())
}
