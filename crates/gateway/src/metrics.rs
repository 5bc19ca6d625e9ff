//! Numbers for Prometheus. The registry belongs to this program, not to the process.

use lumbung_shared::time::ClockState;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabel {
    stream: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReaderLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResetLabel {
    how: &'static str,
}

/// Nothing to tell apart; a family of one says nothing until it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BrokerLabel {}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SensorLabel {
    sensor: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SensorErrorLabel {
    sensor: String,
    reason: &'static str,
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    stored: Counter,
    refused: Family<OutcomeLabel, Counter>,
    readings: Counter,
    readings_refused: Family<OutcomeLabel, Counter>,
    store_seconds: Histogram,
    pushes: Family<OutcomeLabel, Counter>,
    unsent: Family<StreamLabel, Gauge>,
    oldest_seconds: Gauge<f64, AtomicU64>,
    parked: Gauge,
    quarantined: Gauge,
    clock: Gauge,
    disk_free: Gauge,
    disk_full: Gauge,
    card_written: Gauge,
    undervoltage: Gauge,
    read_only: Gauge,
    reader_up: Family<ReaderLabel, Gauge>,
    reader_resets: Family<ResetLabel, Counter>,
    mqtt_messages: Family<OutcomeLabel, Counter>,
    mqtt_connected: Family<BrokerLabel, Gauge>,
    sensor_up: Family<SensorLabel, Gauge>,
    sensor_readings: Family<SensorLabel, Counter>,
    sensor_errors: Family<SensorErrorLabel, Counter>,
}

/// The gauges at the moment of a look.
#[derive(Debug)]
pub struct Snapshot {
    pub unsent: Vec<(&'static str, u64)>,
    /// Age of the oldest unsent record, in seconds.
    pub oldest_seconds: f64,
    pub parked: u64,
    pub quarantined: u64,
    pub clock: ClockState,
    pub disk_free: Option<u64>,
    pub disk_full: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("lumbung_gateway");
        // From a fast SSD's flush to the worst a card was seen to do.
        let store_seconds = Histogram::new([
            0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0,
        ]);
        let mut metrics = Self {
            stored: Counter::default(),
            refused: Family::default(),
            readings: Counter::default(),
            readings_refused: Family::default(),
            store_seconds,
            pushes: Family::default(),
            unsent: Family::default(),
            oldest_seconds: Gauge::default(),
            parked: Gauge::default(),
            quarantined: Gauge::default(),
            clock: Gauge::default(),
            disk_free: Gauge::default(),
            disk_full: Gauge::default(),
            card_written: Gauge::default(),
            undervoltage: Gauge::default(),
            read_only: Gauge::default(),
            reader_up: Family::default(),
            reader_resets: Family::default(),
            mqtt_messages: Family::default(),
            mqtt_connected: Family::default(),
            sensor_up: Family::default(),
            sensor_readings: Family::default(),
            sensor_errors: Family::default(),
            registry: Registry::default(),
        };
        registry.register("scans_stored", "Scans stored durably", metrics.stored.clone());
        registry.register("scans_refused", "Scans not kept", metrics.refused.clone());
        registry.register("readings_stored", "Readings stored durably", metrics.readings.clone());
        registry.register(
            "readings_refused",
            "Calls with readings that were not kept",
            metrics.readings_refused.clone(),
        );
        registry.register(
            "store_duration_seconds",
            "From a scan's arrival to its durable commit",
            metrics.store_seconds.clone(),
        );
        registry.register("push_batches", "Batches by outcome", metrics.pushes.clone());
        registry.register("outbox_unsent", "Records not yet in the cloud", metrics.unsent.clone());
        registry.register(
            "outbox_oldest_age_seconds",
            "Age of the oldest unsent record",
            metrics.oldest_seconds.clone(),
        );
        registry.register("outbox_parked", "Records set aside on the gateway", metrics.parked.clone());
        registry.register(
            "outbox_quarantined",
            "Records that the cloud keeps unread",
            metrics.quarantined.clone(),
        );
        registry.register("clock_state", "0 unset, 1 held, 2 synced", metrics.clock.clone());
        registry.register("disk_free_bytes", "Free bytes on the store's disk", metrics.disk_free.clone());
        registry.register(
            "disk_full",
            "1 while scans are refused for want of room",
            metrics.disk_full.clone(),
        );
        registry.register(
            "card_written_bytes",
            "Bytes written to the store's card over all boots",
            metrics.card_written.clone(),
        );
        registry.register("undervoltage", "1 while the board's supply sags", metrics.undervoltage.clone());
        registry.register(
            "disk_read_only",
            "1 after the store's file system was seen to refuse writes",
            metrics.read_only.clone(),
        );
        registry.register("reader_up", "1 while the tag reader reads", metrics.reader_up.clone());
        registry.register(
            "reader_resets",
            "Attempts to repair the tag reader",
            metrics.reader_resets.clone(),
        );
        registry.register("mqtt_messages", "MQTT messages by outcome", metrics.mqtt_messages.clone());
        registry.register(
            "mqtt_connected",
            "1 while the MQTT broker is connected",
            metrics.mqtt_connected.clone(),
        );
        registry.register("sensor_up", "1 while the sensor can be read", metrics.sensor_up.clone());
        registry.register(
            "sensor_readings",
            "Readings of the sensor stored durably",
            metrics.sensor_readings.clone(),
        );
        registry.register(
            "sensor_errors",
            "Attempts to read the sensor that failed",
            metrics.sensor_errors.clone(),
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running program", build);
        metrics.registry = registry;
        metrics
    }
}

impl Metrics {
    pub fn count_stored(&self, took: Duration) {
        self.stored.inc();
        self.store_seconds.observe(took.as_secs_f64());
    }

    /// `reason` is an error code.
    pub fn count_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&OutcomeLabel { outcome: reason }).inc();
    }

    pub fn count_readings(&self, count: u64) {
        self.readings.inc_by(count);
    }

    /// `reason` is an error code.
    pub fn count_readings_refused(&self, reason: &'static str) {
        self.readings_refused.get_or_create(&OutcomeLabel { outcome: reason }).inc();
    }

    pub fn count_push(&self, outcome: &'static str) {
        self.pushes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// A gateway without a reader never says so.
    pub fn reader_up(&self, kind: &'static str, up: bool) {
        self.reader_up.get_or_create(&ReaderLabel { kind }).set(i64::from(up));
    }

    pub fn count_reader_reset(&self, how: &'static str) {
        self.reader_resets.get_or_create(&ResetLabel { how }).inc();
    }

    pub fn count_mqtt(&self, outcome: &'static str) {
        self.mqtt_messages.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// A gateway without a broker never says so.
    pub fn mqtt_connected(&self, is: bool) {
        self.mqtt_connected.get_or_create(&BrokerLabel {}).set(i64::from(is));
    }

    pub fn sensor_up(&self, sensor: &str, up: bool) {
        self.sensor_up.get_or_create(&SensorLabel { sensor: sensor.to_owned() }).set(i64::from(up));
    }

    pub fn count_sensor_readings(&self, sensor: &str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.sensor_readings.get_or_create(&SensorLabel { sensor: sensor.to_owned() }).inc_by(count);
    }

    /// `reason` is an error code.
    pub fn count_sensor_error(&self, sensor: &str, reason: &'static str) {
        let label = SensorErrorLabel { sensor: sensor.to_owned(), reason };
        self.sensor_errors.get_or_create(&label).inc();
    }

    /// What the board said; what it does not say stays 0.
    pub fn board(&self, card_written: Option<u64>, undervoltage: Option<bool>, read_only: bool) {
        self.card_written.set(card_written.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
        self.undervoltage.set(i64::from(undervoltage == Some(true)));
        self.read_only.set(i64::from(read_only));
    }

    /// The text that Prometheus reads.
    pub fn text(&self, now: &Snapshot) -> String {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (stream, count) in &now.unsent {
            self.unsent.get_or_create(&StreamLabel { stream }).set(whole(*count));
        }
        self.oldest_seconds.set(now.oldest_seconds);
        self.parked.set(whole(now.parked));
        self.quarantined.set(whole(now.quarantined));
        self.clock.set(i64::from(now.clock.code()));
        self.disk_free.set(now.disk_free.map_or(0, whole));
        self.disk_full.set(i64::from(now.disk_full));
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
