//! Prometheus metrics of one cloud program.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

pub struct Metrics {
    registry: Registry,
    records: Family<Verdict, Counter>,
    group_seconds: Histogram,
    group_batches: Histogram,
    requests: Family<Request, Counter>,
    request_seconds: Histogram,
    deliveries: Family<Delivery, Counter>,
    pub deliveries_waiting: Gauge,
    pub deliveries_oldest: Gauge,
    pub live_clients: Gauge,
    pub database_up: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    verdict: &'static str,
}

/// Route patterns, never paths: a label must not grow with what people ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Delivery {
    channel: String,
    outcome: &'static str,
}

/// Anything that can say how many of its records got which verdict.
pub trait Verdicts {
    /// (records, duplicates, quarantined)
    fn counts(&self) -> (u64, u64, u64);
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("lumbung_cloud");
        let buckets = || exponential_buckets(0.0005, 2.0, 16);
        let metrics = Self {
            records: Family::default(),
            group_seconds: Histogram::new(buckets()),
            group_batches: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            requests: Family::default(),
            request_seconds: Histogram::new(buckets()),
            deliveries: Family::default(),
            deliveries_waiting: Gauge::default(),
            deliveries_oldest: Gauge::default(),
            live_clients: Gauge::default(),
            database_up: Gauge::default(),
            registry: Registry::default(),
        };
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running program", version);
        registry.register("ingest_records", "Records from gateways, by verdict", metrics.records.clone());
        registry.register_with_unit(
            "ingest_group_duration",
            "Time of one transaction that stores a group of batches",
            Unit::Seconds,
            metrics.group_seconds.clone(),
        );
        registry.register(
            "ingest_group_batches",
            "Batches in one transaction",
            metrics.group_batches.clone(),
        );
        registry.register("http_requests", "Requests answered", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time to answer a request",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        registry.register("deliveries", "Messages sent, put off or given up", metrics.deliveries.clone());
        registry.register(
            "deliveries_waiting",
            "Messages that are not sent yet",
            metrics.deliveries_waiting.clone(),
        );
        registry.register_with_unit(
            "deliveries_oldest",
            "Age of the oldest message that is not sent yet",
            Unit::Seconds,
            metrics.deliveries_oldest.clone(),
        );
        registry.register("live_clients", "Open streams of live scans", metrics.live_clients.clone());
        registry.register("database_up", "1 while the database answers", metrics.database_up.clone());
        Self { registry, ..metrics }
    }

    /// Counts a stored group.
    pub fn stored(&self, group: &[impl Verdicts], took: Duration) {
        self.group_seconds.observe(took.as_secs_f64());
        self.group_batches.observe(group.len() as f64);
        let counts = group.iter().map(Verdicts::counts);
        let (records, duplicates, quarantined) =
            counts.fold((0, 0, 0), |sum, c| (sum.0 + c.0, sum.1 + c.1, sum.2 + c.2));
        let accepted = records.saturating_sub(duplicates + quarantined);
        for (verdict, count) in
            [("accepted", accepted), ("duplicate", duplicates), ("quarantined", quarantined)]
        {
            self.records.get_or_create(&Verdict { verdict }).inc_by(count);
        }
    }

    /// Counts a try to send a message; `outcome` is sent, later or dead.
    pub fn delivered(&self, channel: String, outcome: &'static str) {
        self.deliveries.get_or_create(&Delivery { channel, outcome }).inc();
    }

    /// Counts an answered request.
    pub fn answered(&self, route: String, method: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&Request { route, method, status }).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// Never in practice: writing to a string.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
