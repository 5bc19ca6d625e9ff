//! Reading: one read-only connection on a thread of its own, so that neither the writer nor the async
//! threads wait for it.

use super::store::{damaged, epoch, state, tag, uuid};
use super::trouble::OpenError;
use super::{Outbox, OutboxError, ParkedRecord, QuarantinedRecord, RecordState, Stream};
use lumbung_shared::scan::{Scan, ScanContent, Source};
use lumbung_shared::time::{ClockState, parse_rfc3339, rfc3339};
use lumbung_shared::wire::{Epoch, RunStart};
use rusqlite::{Connection, OpenFlags, Row, params};
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

/// What is to be sent next.
#[derive(Debug, Default)]
pub struct Pending {
    /// Oldest first; each has a start to tell, or scans, or both.
    pub runs: Vec<PendingRun>,
    /// Scans in `runs`.
    pub scans: usize,
    /// Whether there is more behind these.
    pub more: bool,
    /// Records that cannot be put into a batch at all, with why.
    pub unreadable: Vec<(i64, String)>,
    /// RFC 3339 time of the oldest unsent scan.
    pub oldest_at: Option<String>,
}

#[derive(Debug)]
pub struct PendingRun {
    pub id: i64,
    pub epoch: Epoch,
    /// Present until the cloud has answered for this run once.
    pub start: Option<RunStart>,
    /// In rising `seq`.
    pub scans: Vec<Scan>,
}

/// How much to take at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) records: usize,
    /// About how many bytes of JSON.
    pub(crate) bytes: usize,
    pub(crate) runs: usize,
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
    /// The next records to send, oldest first, with the runs that the cloud has not heard of.
    pub(crate) async fn pending(&self, limits: Limits) -> Result<Pending, OutboxError> {
        self.read(move |conn| pending(conn, limits)).await
    }

    /// RFC 3339 time of the oldest scan that is neither sent nor parked.
    pub async fn oldest_unsent_at(&self) -> Result<Option<String>, OutboxError> {
        self.read(oldest_unsent_at).await
    }

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

const UNSENT: &str = "
    s.id > (select through from cursor where stream = 'scan') and s.synced_to_main_server = 0
    and not exists (select 1 from parked p where p.stream = 'scan' and p.seq = s.id)";

fn oldest_unsent_at(conn: &Connection) -> rusqlite::Result<Option<String>> {
    use rusqlite::OptionalExtension;
    conn.prepare_cached(&format!("select timestamp from scan_event s where {UNSENT} order by s.id limit 1"))?
        .query_row([], |row| row.get(0))
        .optional()
}

fn pending(conn: &Connection, limits: Limits) -> rusqlite::Result<Pending> {
    // One snapshot for all of it.
    let conn = conn.unchecked_transaction()?;
    let mut found = Pending { oldest_at: oldest_unsent_at(&conn)?, ..Pending::default() };
    let mut runs = unheard_runs(&conn, limits.runs)?;
    let unheard_beyond = runs.len() > limits.runs;
    runs.truncate(limits.runs);
    let mut statement = conn.prepare_cached(&format!(
        "select s.id, s.run_id, s.nfc_tag_id, s.status_scan, s.mono_ms, s.wall_ms, s.clock_state, s.source,
                s.at_ms, s.note, s.officer, s.quantity, s.client_ref
         from scan_event s where {UNSENT} order by s.id limit ?1"
    ))?;
    let mut rows = statement.query([limits.records as i64 + 1])?;
    let mut bytes = 0;
    let mut seen = 0;
    let mut current: Option<(i64, usize)> = None;
    while let Some(row) = rows.next()? {
        seen += 1;
        if seen > limits.records || bytes >= limits.bytes {
            found.more = true;
            break;
        }
        let run_id: i64 = row.get(1)?;
        let at = match current {
            Some((id, at)) if id == run_id => at,
            _ => {
                let Some(at) = place_of(&conn, &mut runs, run_id, limits.runs)? else {
                    found.more = true;
                    break;
                };
                current = Some((run_id, at));
                at
            }
        };
        let id = row.get(0)?;
        match scan(row) {
            Ok(scan) => {
                bytes += weight(&scan);
                found.scans += 1;
                runs[at].scans.push(scan);
            }
            Err(error @ rusqlite::Error::SqliteFailure(..)) => return Err(error),
            // What stands in the row is not what was stored: the disk changed it.
            Err(error) => found.unreadable.push((id, error.to_string())),
        }
    }
    found.more |= unheard_beyond;
    found.runs = runs;
    Ok(found)
}

/// Where a run stands in the batch; added in its place when it is not there yet. `None`: no room for it.
fn place_of(
    conn: &Connection,
    runs: &mut Vec<PendingRun>,
    run_id: i64,
    most: usize,
) -> rusqlite::Result<Option<usize>> {
    match runs.binary_search_by_key(&run_id, |run| run.id) {
        Ok(at) => Ok(Some(at)),
        Err(at) if runs.len() < most => {
            let (epoch, heard) = conn
                .prepare_cached("select epoch, synced from run where run_id = ?1")?
                .query_row([run_id], |row| Ok((epoch(row, 0)?, row.get::<_, bool>(1)?)))
                .map_err(|error| match error {
                    rusqlite::Error::QueryReturnedNoRows => damaged(format!("run {run_id} is not there")),
                    error => error,
                })?;
            // The cloud knows it, or it is beyond the unheard ones that fit, and has to wait.
            if !heard {
                return Ok(None);
            }
            let run = PendingRun { id: run_id, epoch, start: None, scans: Vec::new() };
            runs.insert(at, run);
            Ok(Some(at))
        }
        Err(_) => Ok(None),
    }
}

/// Runs whose start the cloud has not confirmed, oldest first, one more than asked for if there is.
fn unheard_runs(conn: &Connection, most: usize) -> rusqlite::Result<Vec<PendingRun>> {
    let mut statement = conn.prepare_cached(
        "select run_id, epoch, previous, boot, site, started_at, mono_ms, clock_state, version
         from run where synced = 0 order by run_id limit ?1",
    )?;
    let rows = statement.query_map([most as i64 + 1], |row| {
        let (id, epoch) = (row.get(0)?, epoch(row, 1)?);
        Ok(PendingRun { id, epoch, start: Some(run_start(row)), scans: Vec::new() })
    })?;
    rows.collect()
}

/// Most characters that the cloud takes of a text about a run.
const START_MAX_CHARS: usize = 64;

/// How a run began, as far as it can be told: a damaged word about a run must not hold its records back.
fn run_start(row: &Row<'_>) -> RunStart {
    let text = |column| {
        let text = row.get_ref(column).ok()?.as_str().ok()?;
        lumbung_shared::check_text("start", text, START_MAX_CHARS).ok().map(|()| text.to_owned())
    };
    let number = |column| row.get::<_, i64>(column).unwrap_or_default();
    let unknown = || "unknown".to_owned();
    RunStart {
        previous: text(2).and_then(|text| text.parse().ok()),
        boot: text(3).unwrap_or_else(unknown),
        site: text(4),
        started_at: text(5).filter(|text| parse_rfc3339(text).is_some()).unwrap_or_else(|| rfc3339(0)),
        mono_ms: number(6),
        clock: ClockState::from_code(i16::try_from(number(7)).unwrap_or_default()),
        version: text(8).unwrap_or_else(unknown),
    }
}

fn scan(row: &Row<'_>) -> rusqlite::Result<Scan> {
    Ok(Scan {
        seq: row.get(0)?,
        mono_ms: row.get(4)?,
        wall_ms: row.get(5)?,
        clock: ClockState::from_code(row.get(6)?),
        source: Source::from_code(row.get(7)?),
        content: ScanContent {
            tag: tag(row, 2)?,
            status: row.get(3)?,
            at_ms: row.get(8)?,
            note: row.get(9)?,
            officer: row.get(10)?,
            quantity: row.get(11)?,
            client_ref: uuid(row, 12)?,
        },
    })
}

/// About how many bytes of JSON a scan takes. Text may double when it is escaped.
fn weight(scan: &Scan) -> usize {
    let content = &scan.content;
    let text = |value: &Option<String>| value.as_ref().map_or(0, |text| 2 * text.len() + 12);
    content.tag.as_str().len()
        + 16
        + text(&content.note)
        + text(&content.officer)
        + if content.client_ref.is_some() { 48 } else { 0 }
        + if content.at_ms.is_some() { 24 } else { 0 }
        + if content.quantity.is_some() { 24 } else { 0 }
}

fn recent(conn: &Connection, limit: usize) -> rusqlite::Result<Vec<ScanRow>> {
    let conn = conn.unchecked_transaction()?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Parked records are unsent too, and may stand far behind the cursor.
    let mut found = rows(
        &conn,
        "s.id in (select seq from parked where stream = 'scan' order by seq desc limit ?1)",
        limit,
    )?;
    found.append(&mut rows(&conn, UNSENT, limit)?);
    found.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let missing = limit.saturating_sub(found.len() as i64);
    if missing > 0 {
        found.append(&mut rows(&conn, "s.synced_to_main_server = 1", missing)?);
    }
    Ok(found)
}

fn rows(conn: &Connection, condition: &str, limit: i64) -> rusqlite::Result<Vec<ScanRow>> {
    let mut statement = conn.prepare_cached(&format!(
        "select s.id, r.epoch, s.nfc_tag_id, s.status_scan, s.timestamp, s.synced_to_main_server, s.source,
                s.clock_state, s.note, s.officer, s.quantity, s.client_ref,
                exists (select 1 from parked p where p.stream = 'scan' and p.seq = s.id),
                exists (select 1 from quarantine q where q.stream = 'scan' and q.seq = s.id)
         from scan_event s join run r using (run_id)
         where {condition} order by s.id desc limit ?1"
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
