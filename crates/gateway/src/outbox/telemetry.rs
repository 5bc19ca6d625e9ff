//! Writing readings and events.

use crate::clock::Moment;
use lumbung_shared::reading::ReadingContent;
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::Epoch;
use rusqlite::{Connection, OptionalExtension, params};
use std::borrow::Cow;

/// Answers that are remembered for those who ask twice; `maintain` forgets older ones.
const ONCE_KEPT: i64 = 10_000;

/// Places that are forgotten together.
const PLACES: u16 = 256;
/// How far ahead of the place that is taken: half of all there are.
const AHEAD: u16 = 1 << 15;

/// A reading on its way in.
#[derive(Debug, Clone, PartialEq)]
pub struct NewReading {
    pub content: ReadingContent,
    pub moment: Moment,
}

/// A caller's word that it may ask for the same thing twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    pub name: OnceName,
    /// SHA-256 of what it asked for.
    pub digest: [u8; 32],
}

/// What tells one asking from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnceName {
    /// The caller's key, at most 128 characters. It never means anything else.
    Key(String),
    /// A place that is used again and again. Only where the caller says that it may have asked before (`again`) is
    /// the same digest the same asking; in any other case the place is taken by the new one.
    Place { place: u16, again: bool },
}

impl OnceName {
    fn key(&self) -> Cow<'_, str> {
        match self {
            Self::Key(key) => key.into(),
            Self::Place { place, .. } => format!("place {place}").into(),
        }
    }

    /// Places stand below nought, where `forget_old_keys` leaves them.
    fn id(&self) -> Option<i64> {
        match self {
            Self::Key(_) => None,
            Self::Place { place, .. } => Some(place_id(*place)),
        }
    }

    /// Places are taken in turn and then anew. What still stands far ahead is of the round before, and must be
    /// forgotten before its place comes up: there it would pass for what is brought again and never arrived.
    fn outdated(&self) -> Option<(i64, i64)> {
        match self {
            Self::Place { place, .. } if place.is_multiple_of(PLACES) => {
                let first = place.wrapping_add(AHEAD);
                Some((place_id(first + (PLACES - 1)), place_id(first)))
            }
            _ => None,
        }
    }
}

fn place_id(place: u16) -> i64 {
    -1 - i64::from(place)
}

/// Where the readings of one call stand: `first` and the `count - 1` numbers behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptReadings {
    pub run: Epoch,
    pub first: i64,
    pub count: u64,
    /// False when the same key had brought the same readings before.
    pub fresh: bool,
}

/// An event on its way in; checked by `lumbung_shared::event`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub kind: String,
    /// The text of a JSON object.
    pub body: String,
    pub moment: Moment,
}

/// The readings of one call with their times already written out.
#[derive(Debug)]
pub(super) struct PreparedReadings {
    /// Each with its RFC 3339 time.
    pub(super) readings: Vec<(NewReading, String)>,
    pub(super) once: Option<Once>,
}

/// An event with its time already written out.
#[derive(Debug)]
pub(super) struct PreparedEvent {
    pub(super) event: NewEvent,
    pub(super) timestamp: String,
}

impl PreparedReadings {
    pub(super) fn new(readings: Vec<NewReading>, once: Option<Once>) -> Self {
        let timed = |reading: NewReading| {
            let timestamp = rfc3339(reading.content.at_ms.unwrap_or(reading.moment.wall_ms));
            (reading, timestamp)
        };
        Self { readings: readings.into_iter().map(timed).collect(), once }
    }
}

impl PreparedEvent {
    pub(super) fn new(event: NewEvent) -> Self {
        let timestamp = rfc3339(event.moment.wall_ms);
        Self { event, timestamp }
    }
}

/// The key is taken by readings with another digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyReused;

/// Adds all readings of a call, or finds those that the same key brought before. Within the caller's
/// transaction.
pub(super) fn keep_readings(
    conn: &Connection,
    run: (i64, Epoch),
    prepared: &PreparedReadings,
) -> rusqlite::Result<Result<KeptReadings, KeyReused>> {
    // Looked up first, as with scans: a number that is given is never taken back.
    if let Some(once) = &prepared.once
        && !matches!(once.name, OnceName::Place { again: false, .. })
        && let Some((digest, kept)) = earlier(conn, run, &once.name.key())?
    {
        match &once.name {
            _ if digest == once.digest => return Ok(Ok(kept)),
            OnceName::Key(_) => return Ok(Err(KeyReused)),
            OnceName::Place { .. } => {}
        }
    }
    let mut insert = conn.prepare_cached(
        "insert into reading (run_id, series, value, timestamp, mono_ms, wall_ms, clock_state, unit, quality, at_ms)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for (NewReading { content, moment }, timestamp) in &prepared.readings {
        insert.execute(params![
            run.0,
            content.series.as_str(),
            content.value,
            timestamp,
            moment.mono_ms,
            moment.wall_ms,
            moment.state.code(),
            content.unit.as_str(),
            content.quality.code(),
            content.at_ms,
        ])?;
    }
    let count = prepared.readings.len() as u64;
    let first = conn.last_insert_rowid() + 1 - count as i64;
    if let Some(once) = &prepared.once {
        conn.prepare_cached(
            "insert or replace into once (once_id, key, digest, run_id, first, count)
             values (coalesce(?1, (select max(0, coalesce(max(once_id), 0)) + 1 from once)), ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![once.name.id(), once.name.key(), once.digest, run.0, first, count as i64])?;
        if let Some((lowest, highest)) = once.name.outdated() {
            conn.prepare_cached("delete from once where once_id between ?1 and ?2")?
                .execute([lowest, highest])?;
        }
    }
    Ok(Ok(KeptReadings { run: run.1, first, count, fresh: true }))
}

fn earlier(
    conn: &Connection,
    run: (i64, Epoch),
    key: &str,
) -> rusqlite::Result<Option<([u8; 32], KeptReadings)>> {
    let mut statement = conn.prepare_cached(
        "select o.digest, o.first, o.count, r.epoch from once o left join run r using (run_id) where o.key = ?1",
    )?;
    statement
        .query_row([key], |row| {
            let epoch: Option<String> = row.get(3)?;
            let run = epoch.and_then(|text| text.parse().ok()).unwrap_or(run.1);
            let count = row.get::<_, i64>(2)?.unsigned_abs();
            Ok((row.get(0)?, KeptReadings { run, first: row.get(1)?, count, fresh: false }))
        })
        .optional()
}

/// Adds the event; gives its number.
pub(super) fn keep_event(conn: &Connection, run_id: i64, prepared: &PreparedEvent) -> rusqlite::Result<i64> {
    let PreparedEvent { event, timestamp } = prepared;
    conn.prepare_cached(
        "insert into event (run_id, kind, body, timestamp, mono_ms, wall_ms, clock_state)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        run_id,
        event.kind,
        event.body,
        timestamp,
        event.moment.mono_ms,
        event.moment.wall_ms,
        event.moment.state.code(),
    ])?;
    Ok(conn.last_insert_rowid())
}

/// Forgets the answers to all but the newest keys.
pub(super) fn forget_old_keys(conn: &Connection) -> rusqlite::Result<()> {
    conn.prepare_cached("delete from once where once_id between 0 and (select max(once_id) from once) - ?1")?
        .execute([ONCE_KEPT])?;
    Ok(())
}
