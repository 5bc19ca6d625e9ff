//! Prometheus metrics of one cloud program.

mod process;

use chrono::{DateTime, Utc};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

pub use process::usage;

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
    pub jobs_leading: Gauge,
    job_success: Family<OfJob, Gauge>,
    job_seconds: Family<OfJob, Histogram>,
    job_failures: Family<OfJob, Counter>,
    job_failed: Family<OfJob, Gauge>,
    job_overdue: Family<OfJob, Gauge>,
    process: process::Process,
    since: Instant,
    connections: Family<Connections, Gauge>,
    connections_max: Family<PoolName, Gauge>,
    database_bytes: Gauge,
    database_skew: Gauge<f64, AtomicU64>,
    gateways: Family<Hearing, Gauge>,
    quarantined: Gauge,
    privacy: Family<Waiting, Gauge>,
    latest_backup: Family<Nothing, Gauge>,
    certificate_end: Family<Nothing, Gauge>,
    disk_free: Gauge,
    disk_size: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Connections {
    pool: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolName {
    pool: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Hearing {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waiting {
    state: &'static str,
}

/// Nothing to tell apart; a family of one says nothing until it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Nothing {}

/// What was seen at the moment of a look.
#[derive(Debug)]
pub struct Figures {
    pub database_bytes: i64,
    /// The database's clock minus this machine's.
    pub database_skew_ms: i64,
    pub gateways_heard: i64,
    pub gateways_silent: i64,
    pub quarantined: i64,
    pub privacy: Privacy,
    pub latest_backup: Option<DateTime<Utc>>,
    /// Each job, whether it failed and whether it is overdue.
    pub jobs: Vec<(&'static str, bool, bool)>,
    pub disk_free_bytes: u64,
    pub disk_bytes: u64,
}

/// Requests of people about their own data that are not answered.
#[derive(Debug)]
pub struct Privacy {
    /// With more than a day left.
    pub open: i64,
    pub due_soon: i64,
    pub overdue: i64,
}

/// A pool's connections at that moment.
#[derive(Debug)]
pub struct Pool {
    name: &'static str,
    open: u32,
    idle: usize,
    most: u32,
}

impl Pool {
    pub fn of(name: &'static str, pool: &sqlx::PgPool, most: u32) -> Self {
        Self { name, open: pool.size(), idle: pool.num_idle(), most }
    }
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfJob {
    job: &'static str,
}

/// Anything that can say how many of its records got which verdict.
pub trait Verdicts {
    /// (records, duplicates, quarantined)
    fn counts(&self) -> (u64, u64, u64);
}

impl Metrics {
    pub fn new() -> Self {
        let mut root = Registry::default();
        let process = process::Process::register(&mut root);
        let registry = root.sub_registry_with_prefix("lumbung_cloud");
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
            jobs_leading: Gauge::default(),
            job_success: Family::default(),
            job_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 9))),
            job_failures: Family::default(),
            job_failed: Family::default(),
            job_overdue: Family::default(),
            registry: Registry::default(),
            process,
            since: Instant::now(),
            connections: Family::default(),
            connections_max: Family::default(),
            database_bytes: Gauge::default(),
            database_skew: Gauge::default(),
            gateways: Family::default(),
            quarantined: Gauge::default(),
            privacy: Family::default(),
            latest_backup: Family::default(),
            certificate_end: Family::default(),
            disk_free: Gauge::default(),
            disk_size: Gauge::default(),
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
        registry.register(
            "jobs_leading",
            "1 where the timetable of jobs is followed",
            metrics.jobs_leading.clone(),
        );
        registry.register_with_unit(
            "job_last_success_timestamp",
            "When a job last went well on this replica",
            Unit::Seconds,
            metrics.job_success.clone(),
        );
        registry.register_with_unit(
            "job_duration",
            "Time of one round of a job",
            Unit::Seconds,
            metrics.job_seconds.clone(),
        );
        registry.register(
            "job_failures",
            "Rounds of a job that did not go well",
            metrics.job_failures.clone(),
        );
        registry.register(
            "job_failed",
            "1 while a job's last round, on whichever replica, is one that did not go well",
            metrics.job_failed.clone(),
        );
        registry.register(
            "job_overdue",
            "1 while a turn of a job went by without a round on any replica",
            metrics.job_overdue.clone(),
        );
        metrics.register_figures(registry);
        Self { registry: root, ..metrics }
    }

    /// How long this program runs.
    pub fn uptime(&self) -> Duration {
        self.since.elapsed()
    }

    fn register_figures(&self, registry: &mut Registry) {
        let connections = "Connections of a pool that are open, in use or idle";
        registry.register("database_connections", connections, self.connections.clone());
        let most = "How many connections a pool may open";
        registry.register("database_connections_max", most, self.connections_max.clone());
        let size = "Size of the database";
        registry.register_with_unit("database_size", size, Unit::Bytes, self.database_bytes.clone());
        let skew = "The database's clock minus this machine's";
        registry.register_with_unit("database_clock_skew", skew, Unit::Seconds, self.database_skew.clone());
        let gateways = "Gateways that were heard within a quarter of an hour, or not";
        registry.register("gateways", gateways, self.gateways.clone());
        registry.register("quarantine_open", "Quarantined entries that wait", self.quarantined.clone());
        let waiting = "Requests of people about their own data that wait: open, due within a day, overdue";
        registry.register("privacy_requests", waiting, self.privacy.clone());
        let backup = "When the newest backup was made, in seconds since 1970";
        registry.register_with_unit("backup_timestamp", backup, Unit::Seconds, self.latest_backup.clone());
        let end = "When the certificate of this program's own TLS ends, in seconds since 1970";
        let name = "certificate_not_after_timestamp";
        registry.register_with_unit(name, end, Unit::Seconds, self.certificate_end.clone());
        let free = "Room that is left for the data";
        registry.register_with_unit("disk_free", free, Unit::Bytes, self.disk_free.clone());
        let size = "Size of the disk that the data is on";
        registry.register_with_unit("disk_size", size, Unit::Bytes, self.disk_size.clone());
    }

    /// Takes what was seen; figures that could not be had stay as they were.
    pub fn saw(&self, pools: &[Pool], figures: Option<&Figures>) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.process.look();
        for pool in pools {
            let idle = i64::try_from(pool.idle).unwrap_or(i64::MAX);
            for (state, count) in [("idle", idle), ("used", (i64::from(pool.open) - idle).max(0))] {
                self.connections.get_or_create(&Connections { pool: pool.name, state }).set(count);
            }
            self.connections_max.get_or_create(&PoolName { pool: pool.name }).set(i64::from(pool.most));
        }
        let Some(figures) = figures else { return };
        self.database_bytes.set(figures.database_bytes);
        self.database_skew.set(figures.database_skew_ms as f64 / 1000.0);
        for (state, count) in [("heard", figures.gateways_heard), ("silent", figures.gateways_silent)] {
            self.gateways.get_or_create(&Hearing { state }).set(count);
        }
        self.quarantined.set(figures.quarantined);
        let Privacy { open, due_soon, overdue } = figures.privacy;
        for (state, count) in [("open", open), ("due_soon", due_soon), ("overdue", overdue)] {
            self.privacy.get_or_create(&Waiting { state }).set(count);
        }
        if let Some(at) = figures.latest_backup {
            self.latest_backup.get_or_create(&Nothing {}).set(at.timestamp());
        }
        for (job, failed, overdue) in &figures.jobs {
            self.job_failed.get_or_create(&OfJob { job }).set((*failed).into());
            self.job_overdue.get_or_create(&OfJob { job }).set((*overdue).into());
        }
        self.disk_free.set(whole(figures.disk_free_bytes));
        self.disk_size.set(whole(figures.disk_bytes));
    }

    /// The certificate that is shown ends then.
    pub fn certificate_ends(&self, at: DateTime<Utc>) {
        self.certificate_end.get_or_create(&Nothing {}).set(at.timestamp());
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

    /// Counts a round of a job that ended at `now`, seconds since 1970.
    pub fn job_ran(&self, job: &'static str, well: bool, now: i64, took: Duration) {
        let job = OfJob { job };
        self.job_seconds.get_or_create(&job).observe(took.as_secs_f64());
        if well {
            self.job_success.get_or_create(&job).set(now);
        } else {
            self.job_failures.get_or_create(&job).inc();
        }
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
