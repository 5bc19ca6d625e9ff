//! Writing a scan: the hot path.

use super::{Kept, NewScan, RecordState};
use lumbung_shared::scan::ScanContent;
use lumbung_shared::tag::TagId;
use lumbung_shared::time::parse_rfc3339;
use lumbung_shared::wire::Epoch;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A scan with its time already written out.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) scan: NewScan,
    /// RFC 3339, UTC, milliseconds.
    pub(super) timestamp: String,
}

/// What became of one scan of a group.
pub(super) type Outcome = Result<Kept, Conflict>;

/// The `client_ref` is taken by a scan of another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) seq: i64,
}

const INSERT: &str = "
    insert into scan_event (run_id, nfc_tag_id, status_scan, timestamp, mono_ms, wall_ms, clock_state, source,
                            at_ms, note, officer, quantity, client_ref)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

/// Adds the scan, or finds the one that the same phone brought before. Within the caller's transaction.
pub(super) fn keep(conn: &Connection, run: (i64, Epoch), prepared: &Prepared) -> rusqlite::Result<Outcome> {
    let NewScan { content, source, moment } = &prepared.scan;
    // Looked up first, and only here: an insert that a conflict undoes would still use up a number, and a
    // hole in the numbers is what the cloud watches for. There is one writer, so nothing comes between.
    let mut client_ref = None;
    if let Some(key) = &content.client_ref {
        let key = key.to_string();
        if let Some(earlier) = find(conn, &key)? {
            return Ok(earlier.answer(content));
        }
        client_ref = Some(key);
    }
    conn.prepare_cached(INSERT)?.execute(params![
        run.0,
        content.tag.as_str(),
        content.status,
        prepared.timestamp,
        moment.mono_ms,
        moment.wall_ms,
        moment.state.code(),
        source.code(),
        content.at_ms,
        content.note,
        content.officer,
        content.quantity,
        client_ref,
    ])?;
    Ok(Ok(Kept {
        seq: conn.last_insert_rowid(),
        run: run.1,
        state: RecordState::Stored,
        timestamp_ms: content.at_ms.unwrap_or(moment.wall_ms),
        fresh: true,
    }))
}

/// A scan that came with a `client_ref` before.
struct Earlier {
    kept: Kept,
    content: ScanContent,
}

impl Earlier {
    fn answer(self, content: &ScanContent) -> Outcome {
        if self.content == *content { Ok(self.kept) } else { Err(Conflict { seq: self.kept.seq }) }
    }
}

fn find(conn: &Connection, client_ref: &str) -> rusqlite::Result<Option<Earlier>> {
    let mut statement = conn.prepare_cached(
        "select s.id, r.epoch, s.synced_to_main_server, s.timestamp, s.nfc_tag_id, s.status_scan, s.at_ms,
                s.note, s.officer, s.quantity, s.client_ref, s.wall_ms,
                exists (select 1 from parked p where p.stream = 'scan' and p.seq = s.id),
                exists (select 1 from quarantine q where q.stream = 'scan' and q.seq = s.id)
         from scan_event s join run r using (run_id)
         where s.client_ref = ?1",
    )?;
    statement
        .query_row([client_ref], |row| {
            let content = ScanContent {
                tag: tag(row, 4)?,
                status: row.get(5)?,
                at_ms: row.get(6)?,
                note: row.get(7)?,
                officer: row.get(8)?,
                quantity: row.get(9)?,
                client_ref: uuid(row, 10)?,
            };
            let timestamp: String = row.get(3)?;
            let wall_ms: i64 = row.get(11)?;
            let kept = Kept {
                seq: row.get(0)?,
                run: epoch(row, 1)?,
                state: state(row.get(2)?, row.get(12)?, row.get(13)?),
                timestamp_ms: parse_rfc3339(&timestamp).unwrap_or(wall_ms),
                fresh: false,
            };
            Ok(Earlier { kept, content })
        })
        .optional()
}

/// The state that the flag and the two side tables amount to.
pub(super) fn state(synced: bool, parked: bool, quarantined: bool) -> RecordState {
    match (synced, parked, quarantined) {
        (true, _, true) => RecordState::Quarantined,
        (true, _, false) => RecordState::Sent,
        (false, true, _) => RecordState::Parked,
        (false, false, _) => RecordState::Stored,
    }
}

fn unreadable(column: usize, error: impl std::fmt::Display) -> rusqlite::Error {
    let text = error.to_string();
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, text.into())
}

/// The column as an epoch. It is written once and never changed: one that is none was changed by the
/// disk, and the start that follows mends it.
pub(super) fn epoch(row: &Row<'_>, column: usize) -> rusqlite::Result<Epoch> {
    let text = row.get_ref(column)?.as_str().unwrap_or_default();
    match text.parse() {
        Ok(epoch) if epoch != Epoch::LEGACY => Ok(epoch),
        _ => Err(damaged(format!("a run has the epoch {text:?}"))),
    }
}

/// What SQLite would say if it knew what we know.
pub(super) fn damaged(text: String) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(text))
}

/// The column as a tag.
pub(super) fn tag(row: &Row<'_>, column: usize) -> rusqlite::Result<TagId> {
    let text: String = row.get(column)?;
    TagId::try_from(text).map_err(|error| unreadable(column, error))
}

/// The column as a `client_ref`, if there is one.
pub(super) fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<uuid::Uuid>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error| unreadable(column, error))).transpose()
}
