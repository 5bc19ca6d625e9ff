//! What is to be sent next: scans first, then events, and readings in the room that is left. Within a stream
//! the oldest go first.

use super::store::{damaged, epoch, tag, uuid};
use super::{Outbox, OutboxError, Stream};
use lumbung_shared::event::Event;
use lumbung_shared::reading::{Quality, Reading, ReadingContent, SeriesName, Unit};
use lumbung_shared::scan::{Scan, ScanContent, Source};
use lumbung_shared::time::{ClockState, parse_rfc3339, rfc3339};
use lumbung_shared::wire::{Epoch, RunStart};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

/// The streams in the order in which they fill a batch.
const SENDING: [Stream; 3] = [Stream::Scan, Stream::Event, Stream::Reading];

/// What is to be sent next.
#[derive(Debug, Default)]
pub struct Pending {
    /// Oldest first; each has a start to tell, or records, or both.
    pub runs: Vec<PendingRun>,
    /// Records in `runs`.
    pub records: usize,
    /// Whether there is more behind these.
    pub more: bool,
    /// Records that cannot be put into a batch at all, with why.
    pub unreadable: Vec<(Stream, i64, String)>,
    /// RFC 3339 time of the oldest unsent record.
    pub oldest_at: Option<String>,
}

#[derive(Debug)]
pub struct PendingRun {
    pub id: i64,
    pub epoch: Epoch,
    /// Present until the cloud has answered for this run once.
    pub start: Option<RunStart>,
    /// In rising `seq`, as are the others.
    pub scans: Vec<Scan>,
    pub events: Vec<Event>,
    pub readings: Vec<Reading>,
}

impl PendingRun {
    pub(crate) fn new(id: i64, epoch: Epoch, start: Option<RunStart>) -> Self {
        Self { id, epoch, start, scans: Vec::new(), events: Vec::new(), readings: Vec::new() }
    }

    /// The numbers of its records.
    pub(crate) fn seqs(&self) -> impl Iterator<Item = (Stream, i64)> {
        let scans = self.scans.iter().map(|scan| (Stream::Scan, scan.seq));
        let events = self.events.iter().map(|event| (Stream::Event, event.seq));
        scans.chain(events).chain(self.readings.iter().map(|reading| (Stream::Reading, reading.seq)))
    }
}

impl Pending {
    /// The same runs without their records.
    pub(crate) fn clear(&mut self) {
        for run in &mut self.runs {
            *run = PendingRun::new(run.id, run.epoch, run.start.take());
        }
        self.records = 0;
    }
}

/// How much to take at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) records: usize,
    /// About how many bytes of JSON.
    pub(crate) bytes: usize,
    pub(crate) runs: usize,
}

impl Outbox {
    /// The next records to send, with the runs that the cloud has not heard of.
    pub(crate) async fn pending(&self, limits: Limits) -> Result<Pending, OutboxError> {
        self.read(move |conn| pending(conn, limits)).await
    }

    /// RFC 3339 time of the oldest record that is neither sent nor parked.
    pub async fn oldest_unsent_at(&self) -> Result<Option<String>, OutboxError> {
        self.read(oldest_unsent_at).await
    }
}

/// The condition on a row `r` of a stream's table that it is neither sent nor parked.
pub(super) fn unsent(stream: Stream) -> String {
    let name = stream.name();
    format!(
        "r.id > (select through from cursor where stream = '{name}') and r.synced_to_main_server = 0
         and not exists (select 1 from parked p where p.stream = '{name}' and p.seq = r.id)"
    )
}

pub(super) fn oldest_unsent_at(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let mut oldest = None;
    for stream in Stream::ALL {
        let (table, unsent) = (stream.table(), unsent(stream));
        let first = conn
            .prepare_cached(&format!(
                "select timestamp, wall_ms from {table} r where {unsent} order by r.id limit 1"
            ))?
            .query_row([], |row| match stream {
                Stream::Scan => row.get(0),
                // What a sensor takes for the time says nothing about how long a reading has waited.
                Stream::Reading | Stream::Event => Ok(rfc3339(row.get(1)?)),
            })
            .optional()?;
        oldest = [oldest, first].into_iter().flatten().min();
    }
    Ok(oldest)
}

pub(super) fn pending(conn: &Connection, limits: Limits) -> rusqlite::Result<Pending> {
    // One snapshot for all of it.
    let conn = conn.unchecked_transaction()?;
    let mut runs = unheard_runs(&conn, limits.runs)?;
    let unheard_beyond = runs.len() > limits.runs;
    runs.truncate(limits.runs);
    let found = Pending { oldest_at: oldest_unsent_at(&conn)?, runs, ..Pending::default() };
    let mut filling = Filling { conn: &conn, limits, bytes: 0, found };
    for stream in SENDING {
        match stream {
            Stream::Scan => filling.fill(stream, SCAN, scan, weight, |run| &mut run.scans)?,
            Stream::Event => {
                // Its text is escaped already.
                let weight = |event: &Event| event.kind.len() + event.body.len() + 16;
                filling.fill(stream, EVENT, event, weight, |run| &mut run.events)?;
            }
            Stream::Reading => {
                let weight = |reading: &Reading| if reading.content.at_ms.is_some() { 48 } else { 24 };
                filling.fill(stream, READING, reading, weight, |run| &mut run.readings)?;
            }
        }
    }
    filling.found.more |= unheard_beyond;
    Ok(filling.found)
}

/// A batch while it is being filled.
struct Filling<'a> {
    conn: &'a Connection,
    limits: Limits,
    bytes: usize,
    found: Pending,
}

impl Filling<'_> {
    /// Adds a stream's records as far as the limits allow.
    fn fill<T>(
        &mut self,
        stream: Stream,
        columns: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
        weight: impl Fn(&T) -> usize,
        place: impl Fn(&mut PendingRun) -> &mut Vec<T>,
    ) -> rusqlite::Result<()> {
        let (table, unsent) = (stream.table(), unsent(stream));
        let mut statement = self.conn.prepare_cached(&format!(
            "select r.run_id, r.id, r.mono_ms, r.wall_ms, r.clock_state, {columns}
             from {table} r where {unsent} order by r.id limit ?1"
        ))?;
        let left = self.limits.records.saturating_sub(self.found.records);
        let mut rows = statement.query([left as i64 + 1])?;
        let mut current: Option<(i64, usize)> = None;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            seen += 1;
            if seen > left || self.bytes >= self.limits.bytes {
                self.found.more = true;
                break;
            }
            let run_id: i64 = row.get(0)?;
            let at = match current {
                Some((id, at)) if id == run_id => at,
                _ => {
                    let Some(at) = place_of(self.conn, &mut self.found.runs, run_id, self.limits.runs)?
                    else {
                        self.found.more = true;
                        break;
                    };
                    current = Some((run_id, at));
                    at
                }
            };
            match read(row) {
                Ok(record) => {
                    self.bytes += weight(&record);
                    self.found.records += 1;
                    place(&mut self.found.runs[at]).push(record);
                }
                Err(error @ rusqlite::Error::SqliteFailure(..)) => return Err(error),
                // What stands in the row is not what was stored: the disk changed it.
                Err(error) => self.found.unreadable.push((stream, row.get(1)?, error.to_string())),
            }
        }
        Ok(())
    }
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
            runs.insert(at, PendingRun::new(run_id, epoch, None));
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
        Ok(PendingRun::new(row.get(0)?, epoch(row, 1)?, Some(run_start(row))))
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

/// Each stream's own columns; those before them are the same for all.
const SCAN: &str =
    "r.nfc_tag_id, r.status_scan, r.source, r.at_ms, r.note, r.officer, r.quantity, r.client_ref";
const READING: &str = "r.series, r.unit, r.value, r.quality, r.at_ms";
const EVENT: &str = "r.kind, r.body";

fn clock(row: &Row<'_>) -> rusqlite::Result<ClockState> {
    Ok(ClockState::from_code(row.get(4)?))
}

fn scan(row: &Row<'_>) -> rusqlite::Result<Scan> {
    Ok(Scan {
        seq: row.get(1)?,
        mono_ms: row.get(2)?,
        wall_ms: row.get(3)?,
        clock: clock(row)?,
        source: Source::from_code(row.get(7)?),
        content: ScanContent {
            tag: tag(row, 5)?,
            status: row.get(6)?,
            at_ms: row.get(8)?,
            note: row.get(9)?,
            officer: row.get(10)?,
            quantity: row.get(11)?,
            client_ref: uuid(row, 12)?,
        },
    })
}

fn reading(row: &Row<'_>) -> rusqlite::Result<Reading> {
    let content = ReadingContent {
        series: SeriesName::try_from(row.get::<_, String>(5)?).map_err(not_ours)?,
        unit: Unit::try_from(row.get::<_, String>(6)?).map_err(not_ours)?,
        value: row.get(7)?,
        quality: Quality::from_code(row.get(8)?),
        at_ms: row.get(9)?,
    };
    content.check().map_err(not_ours)?;
    Ok(Reading { seq: row.get(1)?, mono_ms: row.get(2)?, wall_ms: row.get(3)?, clock: clock(row)?, content })
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let event = Event {
        seq: row.get(1)?,
        mono_ms: row.get(2)?,
        wall_ms: row.get(3)?,
        clock: clock(row)?,
        kind: row.get(5)?,
        body: row.get(6)?,
    };
    event.check().map_err(not_ours)?;
    Ok(event)
}

/// What is in the row was never stored by this program.
fn not_ours(error: lumbung_shared::FieldError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(5, Type::Text, error.into())
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
