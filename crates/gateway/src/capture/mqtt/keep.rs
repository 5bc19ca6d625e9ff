//! Keeping one message: its readings, or an event that holds it.

use super::health::MqttHealth;
use super::map::{MqttMaps, Unreadable};
use super::poison::{self, Budget, Keep};
use crate::capture::{Capture, Refused};
use crate::outbox::{Once, OnceName, OutboxError};
use lumbung_shared::reading::ReadingContent;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pause before a store that had no room, or failed, is asked again.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Failures of the store, other than for want of room, after which a message is held against it.
const MOST_FAILURES: u32 = 5;

/// The broker keeps the message until it hears of its arrival.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    /// Where the message is remembered.
    pub(super) place: u16,
    pub(super) digest: [u8; 32],
    /// Whether the broker may have brought it before.
    pub(super) again: bool,
}

/// Keeps messages.
pub(super) struct Keeper {
    capture: Capture,
    health: Arc<MqttHealth>,
    budget: Mutex<Budget>,
}

impl Keeper {
    pub(super) fn new(capture: Capture, health: Arc<MqttHealth>) -> Self {
        Self { capture, health, budget: Mutex::default() }
    }

    /// Returns when the message may be acknowledged. For as long as there is no room, it does not.
    pub(super) async fn keep(&self, maps: &MqttMaps, topic: &[u8], payload: &[u8], promise: Option<Promise>) {
        let topic = String::from_utf8_lossy(topic);
        let Some(read) = maps.read(&topic, payload) else {
            // Its map was removed while it waited at the broker.
            self.capture.metrics.count_mqtt("unmapped");
            return;
        };
        let mut unreadable = read.unreadable;
        if !read.readings.is_empty() {
            match self.store(read.readings, promise.as_ref()).await {
                Ok(fresh) => self.capture.metrics.count_mqtt(if fresh { "kept" } else { "kept_before" }),
                Err(why) => unreadable = Some(why),
            }
        }
        if let Some(why) = unreadable {
            self.capture.metrics.count_mqtt("unreadable");
            self.keep_unreadable(&topic, payload, &why).await;
        }
    }

    /// Whether the readings are new; an error when it is these readings that the store does not take.
    async fn store(
        &self,
        readings: Vec<ReadingContent>,
        promise: Option<&Promise>,
    ) -> Result<bool, Unreadable> {
        let mut failures = 0;
        loop {
            let once = promise.map(|promise| Once {
                name: OnceName::Place { place: promise.place, again: promise.again },
                digest: promise.digest,
            });
            match self.capture.take_readings(readings.clone(), once).await {
                Ok(kept) => {
                    self.has_room(true);
                    return Ok(kept.fresh);
                }
                Err(Refused::Field(error)) => {
                    return Err(Unreadable { reason: "refused", about: error.to_string() });
                }
                Err(Refused::Store(error)) => {
                    failures += u32::from(error != OutboxError::Full);
                    if failures == MOST_FAILURES {
                        return Err(Unreadable { reason: "not_stored", about: error.to_string() });
                    }
                    self.wait(error).await;
                }
            }
        }
    }

    async fn keep_unreadable(&self, topic: &str, payload: &[u8], why: &Unreadable) {
        let asked = {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            budget.ask(topic, Instant::now())
        };
        let body = match asked {
            Keep::Whole => poison::body(topic, payload, why),
            Keep::Count(count) => json!({ "reason": "too_many", "not_kept_this_hour": count }),
            Keep::Nothing => return,
        };
        tracing::warn!(topic, reason = why.reason, about = %why.about, "an MQTT message is no reading");
        self.note(body).await;
    }

    async fn note(&self, body: Value) {
        loop {
            match self.capture.note("mqtt_unreadable", body.clone()).await {
                Ok(()) => {
                    self.has_room(true);
                    return;
                }
                Err(Refused::Field(error)) => {
                    tracing::error!(%error, "the event of an unreadable message was refused");
                    return;
                }
                Err(Refused::Store(error)) => self.wait(error).await,
            }
        }
    }

    async fn wait(&self, error: OutboxError) {
        if error == OutboxError::Full {
            self.has_room(false);
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }

    fn has_room(&self, is: bool) {
        if self.health.room(is) {
            if is {
                tracing::info!("there is room again for what the MQTT broker brings");
            } else {
                tracing::error!("no room for what the MQTT broker brings; it waits at the broker");
            }
        }
    }
}
