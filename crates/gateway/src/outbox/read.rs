//! Reading: one read-only connection on a thread of its own, so that neither the writer nor the async
//! threads wait for it.

use super::pending::{oldest_unsent_at, unsent};
use super::settle::SeqRange;
use super::store::{epoch, state};
use super::trouble::OpenError;
use super::{Outbox, OutboxError, ParkedRecord, QuarantinedRecord, RecordState, Stream};
use lumbung_shared::scan::Source;
use lumbung_shared::time::ClockState;
use lumbung_shared::wire::Epoch;
use rusqlite::{Connection, OpenFlags, params};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// Reads that may wait.
const QUEUE: usize = 64;

pub(super) type Job = Box<dyn FnOnce(&Connection) + Send>;

/// A connection that can change nothing.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(32);
    Ok(conn)
}

/// Starts the reader's thread; it ends when the last handle to the store is gone.
pub(super) fn start(conn: Connection) -> Result<mpsc::Sender<Job>, OpenError> {
    let (jobs, mut inbox) = mpsc::channel::<Job>(QUEUE);
    std::thread::Builder::new()
        .name("outbox-reader".to_owned())
        .spawn(move || {
            while let Some(job) = inbox.blocking_recv() {
                job(&conn);
            }
        })
        .map_err(OpenError::path("outbox-reader"))?;
    Ok(jobs)
}

/// A scan as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct ScanRow {
    pub id: i64,
    pub run: Epoch,
    pub nfc_tag_id: String,
    pub status_scan: String,
    /// RFC 3339, UTC.
    pub timestamp: String,
    pub synced_to_main_server: bool,
    pub state: RecordState,
    pub source: Source,
    pub clock_state: ClockState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub officer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ref: Option<String>,
}

/// A parked record as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct ParkedRow {
    #[serde(flatten)]
    pub record: ParkedRecord,
    pub nfc_tag_id: Option<String>,
    pub status_scan: Option<String>,
}

impl Outbox {
    /// Up to `limit` scans: unsent ones first, each part newest first.
    pub async fn recent(&self, limit: usize) -> Result<Vec<ScanRow>, OutboxError> {
        self.read(move |conn| recent(conn, limit)).await
    }

    /// Up to `limit` records set aside here, oldest first.
    pub async fn parked(&self, limit: usize) -> Result<Vec<ParkedRow>, OutboxError> {
        self.read(move |conn| parked(conn, limit)).await
    }

    /// Up to `limit` records that the cloud keeps unread, newest first.
    pub async fn quarantined(&self, limit: usize) -> Result<Vec<QuarantinedRecord>, OutboxError> {
        self.read(move |conn| quarantined(conn, limit)).await
    }
}

impl Outbox {
    /// The records of a run among these numbers that are neither sent nor parked.
    pub(crate) async fn unsent_of(
        &self,
        epoch: Epoch,
        stream: Stream,
        ranges: Vec<(i64, i64)>,
    ) -> Result<Vec<SeqRange>, OutboxError> {
        self.read(move |conn| unsent_of(conn, epoch, stream, &ranges)).await
    }
}

fn unsent_of(
    conn: &Connection,
    epoch: Epoch,
    stream: Stream,
    ranges: &[(i64, i64)],
) -> rusqlite::Result<Vec<SeqRange>> {
    let mut statement = conn.prepare_cached(&format!(
        "select r.id from {table} r
         where r.id between ?2 and ?3 and r.run_id = (select run_id from run where epoch = ?1)
             and r.synced_to_main_server = 0
             and not exists (select 1 from parked p where p.stream = ?4 and p.seq = r.id)
         order by r.id",
        table = stream.table()
    ))?;
    let mut found: Vec<SeqRange> = Vec::new();
    for (first, last) in ranges {
        let mut rows = statement.query(params![epoch.to_string(), first, last, stream.name()])?;
        while let Some(row) = rows.next()? {
            let seq = row.get(0)?;
            match found.last_mut() {
                Some(range) if range.through + 1 == seq => range.through = seq,
                _ => found.push(SeqRange { stream, first: seq, through: seq }),
            }
        }
    }
    Ok(found)
}

fn recent(conn: &Connection, limit: usize) -> rusqlite::Result<Vec<ScanRow>> {
    let conn = conn.unchecked_transaction()?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Parked records are unsent too, and may stand far behind the cursor.
    let mut found = rows(
        &conn,
        "r.id in (select seq from parked where stream = 'scan' order by seq desc limit ?1)",
        limit,
    )?;
    found.append(&mut rows(&conn, &unsent(Stream::Scan), limit)?);
    found.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let missing = limit.saturating_sub(found.len() as i64);
    if missing > 0 {
        found.append(&mut rows(&conn, "r.synced_to_main_server = 1", missing)?);
    }
    Ok(found)
}

fn rows(conn: &Connection, condition: &str, limit: i64) -> rusqlite::Result<Vec<ScanRow>> {
    let mut statement = conn.prepare_cached(&format!(
        "select r.id, run.epoch, r.nfc_tag_id, r.status_scan, r.timestamp, r.synced_to_main_server, r.source,
                r.clock_state, r.note, r.officer, r.quantity, r.client_ref,
                exists (select 1 from parked p where p.stream = 'scan' and p.seq = r.id),
                exists (select 1 from quarantine q where q.stream = 'scan' and q.seq = r.id)
         from scan_event r join run using (run_id)
         where {condition} order by r.id desc limit ?1"
    ))?;
    let rows = statement.query_map([limit], |row| {
        let synced = row.get(5)?;
        Ok(ScanRow {
            id: row.get(0)?,
            run: epoch(row, 1)?,
            nfc_tag_id: row.get(2)?,
            status_scan: row.get(3)?,
            timestamp: row.get(4)?,
            synced_to_main_server: synced,
            state: state(synced, row.get(12)?, row.get(13)?),
            source: Source::from_code(row.get(6)?),
            clock_state: ClockState::from_code(row.get(7)?),
            note: row.get(8)?,
            officer: row.get(9)?,
            quantity: row.get(10)?,
            client_ref: row.get(11)?,
        })
    })?;
    rows.collect()
}

fn parked(conn: &Connection, limit: usize) -> rusqlite::Result<Vec<ParkedRow>> {
    let mut statement = conn.prepare_cached(
        "select p.stream, p.seq, p.reason, p.detail, p.version, p.parked_at, s.nfc_tag_id, s.status_scan
         from parked p left join scan_event s on p.stream = 'scan' and s.id = p.seq
         order by p.stream, p.seq limit ?1",
    )?;
    let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(ParkedRow {
            record: ParkedRecord {
                stream: row.get(0)?,
                seq: row.get(1)?,
                reason: row.get(2)?,
                detail: row.get(3)?,
                version: row.get(4)?,
                parked_at: row.get(5)?,
            },
            nfc_tag_id: row.get(6)?,
            status_scan: row.get(7)?,
        })
    })?;
    rows.collect()
}

fn quarantined(conn: &Connection, limit: usize) -> rusqlite::Result<Vec<QuarantinedRecord>> {
    let mut statement = conn.prepare_cached(
        "select stream, seq, reason, noted_at from quarantine order by stream, seq desc limit ?1",
    )?;
    let rows = statement.query_map(params![i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(QuarantinedRecord {
            stream: row.get(0)?,
            seq: row.get(1)?,
            reason: row.get(2)?,
            noted_at: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// What a stopped gateway's store says, read without running it.
#[derive(Debug)]
pub(crate) struct Glance {
    pub(crate) unsent: Vec<(Stream, u64)>,
    pub(crate) parked: Vec<ParkedRow>,
    pub(crate) quarantined: Vec<QuarantinedRecord>,
    pub(crate) oldest_unsent_at: Option<String>,
}

impl Glance {
    /// Looks into the database of a data directory. Changes nothing.
    pub(crate) fn at(dir: &Path) -> Result<Self, OpenError> {
        let conn = connect(&dir.join(super::DATABASE))?;
        let unsent = Stream::ALL
            .into_iter()
            .map(|stream| Ok((stream, super::schema::count_unsent(&conn, stream)?)))
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            unsent,
            parked: parked(&conn, 10_000)?,
            quarantined: quarantined(&conn, 1_000)?,
            oldest_unsent_at: oldest_unsent_at(&conn)?,
        })
    }
}
