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
/// Failures of the store, other than such as pass, after which they are held against the message.
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
        if !read.readings.is_empty() {
            match self.store(read.readings, promise.as_ref()).await {
                Ok(fresh) => self.capture.metrics.count_mqtt(if fresh { "kept" } else { "kept_before" }),
                Err(why) => {
                    // Good values that the store does not take are kept however many they are.
                    self.capture.metrics.count_mqtt("not_stored");
                    self.note(poison::body(&topic, payload, &why)).await;
                    return;
                }
            }
        }
        if let Some(why) = read.unreadable {
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
                    failures += u32::from(!matches!(error, OutboxError::Full | OutboxError::Busy));
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

#[cfg(test)]
mod tests {
    use super::super::map::tests::maps;
    use super::*;
    use crate::capture::sensors::tests::snapshot;
    use crate::hardware::LoggedSignal;
    use crate::metrics::Metrics;
    use crate::outbox::tests::{open, settings};
    use crate::outbox::{DATABASE, Ended, Outbox, Stream};
    use rusqlite::Connection;

    const TEMPERATURES: &str = r#"
        [[map]]
        topic = "kulkas/{device}/suhu"
        fields = [{ series = "{device}/temperature", unit = "Cel" }]
    "#;

    struct Stand {
        dir: tempfile::TempDir,
        outbox: Outbox,
        _ended: Ended,
        metrics: Arc<Metrics>,
        keeper: Keeper,
        maps: MqttMaps,
    }

    impl Stand {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (outbox, ended) = open(&settings(dir.path()));
            let metrics = Arc::<Metrics>::default();
            let capture = Capture {
                outbox: outbox.clone(),
                clock: Arc::default(),
                doorbell: Arc::default(),
                signal: Arc::new(LoggedSignal),
                metrics: Arc::clone(&metrics),
            };
            let keeper = Keeper::new(capture, Arc::new(MqttHealth::new(Arc::clone(&metrics))));
            Self { dir, outbox, _ended: ended, metrics, keeper, maps: maps(TEMPERATURES).unwrap() }
        }

        fn shell(&self) -> Connection {
            Connection::open(self.dir.path().join(DATABASE)).unwrap()
        }

        async fn keep(&self, payload: &str) {
            self.keeper.keep(&self.maps, b"kulkas/k-1/suhu", payload.as_bytes(), None).await;
        }

        fn refused_as_busy(&self) -> u32 {
            let text = self.metrics.text(&snapshot());
            let line = text.lines().find(|l| l.contains("readings_refused") && l.contains("storage_busy"));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
        }

        fn unsent(&self) -> [u64; 2] {
            [Stream::Reading, Stream::Event].map(|stream| self.outbox.gauges().unsent(stream))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn good_values_that_the_store_refuses_are_kept_as_events_however_many_they_are() {
        let stand = Stand::new();
        let never = "create trigger never before insert on reading begin select raise(abort, 'never'); end";
        stand.shell().execute_batch(never).unwrap();
        for n in 0..20 {
            stand.keep(&n.to_string()).await;
        }
        assert_eq!(stand.unsent(), [0, 20]);
        let last =
            "select (body ->> 'payload') || ' ' || (body ->> 'reason') from event order by id desc limit 1";
        let last: String = stand.shell().query_row(last, [], |row| row.get(0)).unwrap();
        assert_eq!(last, "19 not_stored");
    }

    #[tokio::test(start_paused = true)]
    async fn while_another_program_holds_the_database_messages_wait() {
        let stand = Stand::new();
        let shell = stand.shell();
        shell.execute_batch("begin immediate").unwrap();
        let begun = Instant::now();
        let waits = async {
            while stand.refused_as_busy() <= MOST_FAILURES {
                assert!(begun.elapsed() < Duration::from_secs(60), "it was given up");
                tokio::time::advance(TRY_AGAIN).await;
            }
        };
        tokio::select! {
            () = stand.keep("4.5") => panic!("it was kept in a database that is held"),
            () = waits => {}
        }
        shell.execute_batch("rollback").unwrap();
        stand.keep("4.5").await;
        assert_eq!(stand.unsent(), [1, 0]);
    }
}
