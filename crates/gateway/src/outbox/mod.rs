//! The only SQLite: every record is here before anybody is told that it is safe.
//!
//! What must stay true:
//! - A scan is acknowledged only after its commit, with WAL and `synchronous=FULL`.
//! - One thread owns the writing connection. It commits whatever waits in one transaction, answers, and
//!   only then checkpoints, so that no answer waits for a checkpoint.
//! - A row keeps its run and its number for ever. `id` is AUTOINCREMENT and never restarts; no rolled
//!   back or refused record leaves a hole in it.
//! - Nothing unsent is ever deleted.
//! - After an I/O error there are no more acknowledgements: the writer ends, the program ends, and the
//!   next start reads the truth from the disk.
//! - A lone scan writes its table's leaf and `sqlite_sequence`, nothing else: there is no index on the
//!   flag. A cursor says up to where everything is sent or parked, and moves when an answer is settled.
//!
//! Everything here that blocks runs on the writer's or the reader's own thread.

mod check;
mod disk;
mod group;
mod last;
mod pending;
mod read;
mod retention;
mod room;
mod salvage;
mod schema;
mod settle;
mod store;
mod telemetry;
#[cfg(test)]
pub(crate) mod tests;
mod trouble;
mod unsent;
mod writer;

pub use last::last_moment;
pub(crate) use pending::Limits;
pub use pending::{Pending, PendingRun};
pub(crate) use read::Glance;
pub use read::{ParkedRow, ScanRow};
pub use settle::{SeqRange, Settlement};
pub use telemetry::{KeptReadings, NewEvent, NewReading, Once, OnceName};
pub use trouble::{OpenError, OutboxError, Trouble};
pub(crate) use unsent::Unsent;

use crate::clock::Moment;
use lumbung_shared::scan::{ScanContent, Source};
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::Epoch;
use rusqlite::Connection;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use tokio::sync::{mpsc, oneshot};

/// Name of the database in the data directory.
pub const DATABASE: &str = "local_gateway.db";

/// The tables that travel, each with numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    Scan,
    Reading,
    Event,
}

impl Stream {
    pub const ALL: [Self; 3] = [Self::Scan, Self::Reading, Self::Event];

    /// The stream's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => lumbung_shared::wire::SCAN_STREAM,
            Self::Reading => lumbung_shared::wire::READING_STREAM,
            Self::Event => lumbung_shared::wire::EVENT_STREAM,
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.name() == name)
    }

    fn table(self) -> &'static str {
        match self {
            Self::Scan => "scan_event",
            Self::Reading => "reading",
            Self::Event => "event",
        }
    }
}

/// A scan on its way in.
#[derive(Debug, Clone, PartialEq)]
pub struct NewScan {
    pub content: ScanContent,
    pub source: Source,
    pub moment: Moment,
}

/// Where a stored record is on its way to the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// Durable here, not yet confirmed by the cloud.
    Stored,
    /// The cloud holds it.
    Sent,
    /// The cloud holds it, unread, for people to look at.
    Quarantined,
    /// Set aside here: the cloud refuses any batch that it is in.
    Parked,
}

/// A stored scan's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub seq: i64,
    pub run: Epoch,
    pub state: RecordState,
    /// Milliseconds since 1970: the phone's time, else the gateway's.
    pub timestamp_ms: i64,
    /// False when the same `client_ref` had brought the same scan before.
    pub fresh: bool,
}

/// A record set aside on the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParkedRecord {
    pub stream: String,
    pub seq: i64,
    /// A stable code: `refused`, `too_large`, `unreadable`.
    pub reason: String,
    /// What the cloud said.
    pub detail: String,
    /// Version of the program that set it aside.
    pub version: String,
    /// RFC 3339.
    pub parked_at: String,
}

/// A record that the cloud keeps unread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuarantinedRecord {
    pub stream: String,
    pub seq: i64,
    /// The cloud's reason.
    pub reason: String,
    /// RFC 3339.
    pub noted_at: String,
}

/// What opening needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    pub dir: PathBuf,
    /// Most bytes of the database file; 0: no limit.
    pub max_bytes: u64,
    pub reserve_bytes: u64,
    /// Code of the site the gateway believes it stands at.
    pub site: Option<String>,
    pub boot: String,
    pub version: String,
}

/// The run this process began when it opened the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub id: i64,
    pub epoch: Epoch,
    pub previous: Option<Epoch>,
    /// RFC 3339, the gateway's clock.
    pub started_at: String,
}

/// Numbers anybody may look at without asking the database.
#[derive(Debug, Default)]
pub struct Gauges {
    unsent: [AtomicU64; Stream::ALL.len()],
    parked: AtomicU64,
    quarantined: AtomicU64,
    full: AtomicBool,
}

impl Gauges {
    /// Records neither sent nor parked.
    pub fn unsent(&self, stream: Stream) -> u64 {
        self.unsent[stream as usize].load(Relaxed)
    }

    pub fn parked(&self) -> u64 {
        self.parked.load(Relaxed)
    }

    /// Records that the cloud keeps unread.
    pub fn quarantined(&self) -> u64 {
        self.quarantined.load(Relaxed)
    }

    /// Whether the last attempt to store something found no room.
    pub fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }
}

/// The store's handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    commands: mpsc::Sender<writer::Command>,
    reads: mpsc::Sender<read::Job>,
    gauges: Arc<Gauges>,
    run: Arc<Run>,
    salvaged: Option<u64>,
    dir: Arc<PathBuf>,
}

/// Resolves when the writer has ended: cleanly after [`Outbox::close`], else with what broke.
#[derive(Debug)]
pub struct Ended(oneshot::Receiver<Result<(), Trouble>>);

impl Ended {
    pub async fn wait(self) -> Result<(), Trouble> {
        // A writer that went without a word has panicked.
        self.0.await.unwrap_or_else(|_| Err(Trouble::other("the writer panicked")))
    }
}

impl Outbox {
    /// Opens the store in `settings.dir`, repairs what must be, and begins a run. Blocks.
    pub fn open(settings: &Settings, now: Moment) -> Result<(Self, Ended), OpenError> {
        let opened = check::open(settings, now)?;
        let gauges = Arc::new(opened.gauges);
        let reader = read::connect(&settings.dir.join(DATABASE))?;
        let (commands, inbox) = mpsc::channel(writer::QUEUE);
        let ended = writer::start(opened.writer, inbox, Arc::clone(&gauges), &opened.run, settings)?;
        let outbox = Self {
            commands,
            reads: read::start(reader)?,
            gauges,
            run: Arc::new(opened.run),
            salvaged: opened.salvaged,
            dir: Arc::new(settings.dir.clone()),
        };
        Ok((outbox, Ended(ended)))
    }

    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Records carried over from a corrupt store when this run began.
    pub fn salvaged(&self) -> Option<u64> {
        self.salvaged
    }

    /// Free bytes on the store's disk.
    pub fn disk_free(&self) -> Option<u64> {
        disk::free_bytes(&self.dir)
    }

    /// Stores one scan; returns after its commit.
    pub async fn store(&self, scan: NewScan) -> Result<Kept, OutboxError> {
        // Written here, on the caller's thread: the writer's time is everybody's.
        let timestamp = rfc3339(scan.content.at_ms.unwrap_or(scan.moment.wall_ms));
        let scan = Box::new(store::Prepared { scan, timestamp });
        self.ask(|reply| writer::Command::Store(group::Item::Scan(scan, Some(reply)))).await
    }

    /// Stores readings, all of them or none; returns after their commit. The same key with the same digest
    /// stores nothing and answers as it did the first time.
    pub async fn store_readings(
        &self,
        readings: Vec<NewReading>,
        once: Option<Once>,
    ) -> Result<KeptReadings, OutboxError> {
        if readings.is_empty() {
            return Ok(KeptReadings { run: self.run.epoch, first: 0, count: 0, fresh: false });
        }
        let readings = Box::new(telemetry::PreparedReadings::new(readings, once));
        self.ask(|reply| writer::Command::Store(group::Item::Readings(readings, Some(reply)))).await
    }

    /// Stores one event; gives its number after its commit.
    pub async fn store_event(&self, event: NewEvent) -> Result<i64, OutboxError> {
        let event = Box::new(telemetry::PreparedEvent::new(event));
        self.ask(|reply| writer::Command::Store(group::Item::Event(event, Some(reply)))).await
    }

    /// Applies the cloud's verdicts in one transaction; says how many records were settled by it.
    pub async fn settle(&self, settlement: Settlement) -> Result<u64, OutboxError> {
        self.ask(|reply| writer::Command::Settle(settlement, reply)).await
    }

    /// Sets records aside: they stay unsent and no longer travel.
    pub async fn park(&self, records: Vec<ParkedRecord>) -> Result<(), OutboxError> {
        self.ask(|reply| writer::Command::Park(records, reply)).await
    }

    /// Puts parked records back in line: one, or all of them. Says how many.
    pub async fn release(&self, which: Option<(Stream, i64)>) -> Result<u64, OutboxError> {
        self.ask(|reply| writer::Command::Release(which, reply)).await
    }

    /// Marks what was sent as not sent: what was stored since `since_ms`, or everything that is still here. Says
    /// how many records that are. For a cloud that lost them; one that has them knows them again.
    pub async fn send_again(&self, since_ms: Option<i64>) -> Result<u64, OutboxError> {
        let mut records = 0;
        for stream in Stream::ALL {
            let mut after = match since_ms {
                Some(since_ms) => self.read(move |conn| settle::last_before(conn, stream, since_ms)).await?,
                None => 0,
            };
            while let Some((last, count)) =
                self.ask(|reply| writer::Command::SendAgain((stream, after), reply)).await?
            {
                (after, records) = (last, records + count);
            }
        }
        Ok(records)
    }

    /// The next batches tell the cloud again how the runs of unsent records began.
    pub(crate) async fn tell_again(&self) -> Result<(), OutboxError> {
        self.ask(writer::Command::TellAgain).await
    }

    /// Housekeeping that belongs to the writer: the reserve file, old keys, and a bite of what the cloud holds
    /// where it is older than `before_ms` or room is short. True: there may be more of that, ask again.
    pub async fn maintain(&self, before_ms: Option<i64>) -> Result<bool, OutboxError> {
        self.ask(|reply| writer::Command::Maintain(before_ms, reply)).await
    }

    /// Returns when both threads have answered; touches no disk.
    pub(crate) async fn sign_of_life(&self) -> Result<(), OutboxError> {
        self.ask(writer::Command::Ping).await?;
        self.read(|_| Ok(())).await
    }

    /// Ends the writer after everything before it in the queue.
    pub async fn close(&self) {
        // Nobody to receive it: it has ended already.
        let _ = self.commands.send(writer::Command::Close).await;
    }

    /// As if a page had been found corrupt while reading.
    #[cfg(test)]
    pub(crate) async fn break_down(&self) {
        let trouble = Trouble::Corrupt("met by a test".to_owned());
        self.commands.send(writer::Command::Fail(trouble)).await.unwrap();
    }

    /// A known-bad build deletes records it was told to keep.
    #[cfg(feature = "mutants")]
    pub(crate) async fn lose(&self, ranges: Vec<SeqRange>) -> Result<u64, OutboxError> {
        self.ask(|reply| writer::Command::Lose(ranges, reply)).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(writer::Reply<T>) -> writer::Command,
    ) -> Result<T, OutboxError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(command(reply)).await;
        sent.map_err(|_| OutboxError::Closed)?;
        answer.await.unwrap_or(Err(OutboxError::Closed))
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let (reply, answer) = oneshot::channel();
        let job: read::Job = Box::new(move |conn| {
            // Whoever asked may have gone; that is fine.
            let _ = reply.send(query(conn));
        });
        self.reads.send(job).await.map_err(|_| OutboxError::Closed)?;
        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let trouble = Trouble::of(&error);
                tracing::error!(%error, "reading the store failed");
                if trouble.is_fatal() {
                    // The writer is the one whose end stops the program.
                    let _ = self.commands.send(writer::Command::Fail(trouble)).await;
                }
                Err(OutboxError::Failed)
            }
            Err(_) => Err(OutboxError::Closed),
        }
    }
}
