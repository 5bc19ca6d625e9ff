//! What happens to a record after it was stored: sent, parked, released.
//! Everything here runs inside a transaction of the writer.

use super::{Gauges, ParkedRecord, Stream};
use lumbung_shared::time::ClockState;
use lumbung_shared::wire::Epoch;
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::atomic::Ordering::Relaxed;

/// Records `first` through `through` of a stream, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqRange {
    pub stream: Stream,
    pub first: i64,
    pub through: i64,
}

/// What one answer of the cloud settles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Records that the cloud holds now, quarantined ones included.
    pub ranges: Vec<SeqRange>,
    /// Records of `ranges` that the cloud keeps unread, with its reason.
    pub quarantined: Vec<(Stream, i64, String)>,
    /// Runs whose start the cloud has heard.
    pub runs: Vec<Epoch>,
    /// RFC 3339 time for the notes.
    pub at: String,
}

/// How a transaction changes the gauges, once it is committed.
#[derive(Debug, Default)]
pub(super) struct Change {
    unsent: [i64; Stream::ALL.len()],
    parked: i64,
    quarantined: i64,
}

impl Change {
    pub(super) fn stored(&mut self, stream: Stream, count: u64) {
        self.unsent[stream as usize] += i64::try_from(count).unwrap_or(i64::MAX);
    }

    /// Notes on records that are gone.
    pub(super) fn forgotten(&mut self, notes: usize) {
        self.quarantined -= notes as i64;
    }

    pub(super) fn apply(&self, gauges: &Gauges) {
        for stream in Stream::ALL {
            add(&gauges.unsent[stream as usize], self.unsent[stream as usize]);
        }
        add(&gauges.parked, self.parked);
        add(&gauges.quarantined, self.quarantined);
    }
}

fn add(gauge: &std::sync::atomic::AtomicU64, by: i64) {
    // Only the writer writes the gauges.
    gauge.store(gauge.load(Relaxed).saturating_add_signed(by), Relaxed);
}

/// Marks records and runs as held by the cloud and moves the cursors. Says how many records it settled.
pub(super) fn settle(conn: &Connection, settlement: &Settlement) -> rusqlite::Result<(u64, Change)> {
    let mut change = Change::default();
    let mut settled = 0;
    for range in &settlement.ranges {
        let sql = format!(
            "update {table} set synced_to_main_server = 1
             where id between ?1 and ?2 and synced_to_main_server = 0",
            table = range.stream.table()
        );
        let rows = conn.prepare_cached(&sql)?.execute([range.first, range.through])?;
        settled += rows as u64;
        change.unsent[range.stream as usize] -= rows as i64;
    }
    for (stream, seq, reason) in &settlement.quarantined {
        let mut note = conn.prepare_cached(
            "insert into quarantine (stream, seq, reason, noted_at) values (?1, ?2, ?3, ?4)
             on conflict do nothing",
        )?;
        let noted = note.execute(params![stream.name(), seq, reason, settlement.at])?;
        change.quarantined += noted as i64;
    }
    for epoch in &settlement.runs {
        conn.prepare_cached("update run set synced = 1 where epoch = ?1 and synced = 0")?
            .execute([epoch.to_string()])?;
    }
    let mut streams: Vec<Stream> = settlement.ranges.iter().map(|range| range.stream).collect();
    streams.sort_unstable();
    streams.dedup();
    for stream in streams {
        advance(conn, stream)?;
    }
    Ok((settled, change))
}

/// Tells the runs of unsent records anew, this process's own too: another cloud has not heard of them.
pub(super) fn tell_again(conn: &Connection, run_id: i64) -> rusqlite::Result<()> {
    conn.execute("update run set synced = 0 where run_id = ?1 and synced = 1", [run_id])?;
    for stream in Stream::ALL {
        let sql = format!(
            "update run set synced = 0 where synced = 1 and run_id in (
                 select run_id from {table}
                 where id > (select through from cursor where stream = ?1) and synced_to_main_server = 0
                 union
                 select run_id from {table}
                 where id in (select seq from parked where stream = ?1) and synced_to_main_server = 0)",
            table = stream.table()
        );
        conn.execute(&sql, [stream.name()])?;
    }
    Ok(())
}

/// Up to `most` records of a stream behind `after` that count as sent are to be sent again, and their runs told.
/// Gives the number of the last one and how many they are; none: there are no more.
///
/// Whoever reads the table meanwhile may have moved the cursor on: each bite puts it back to where it begins.
pub(super) fn send_again(
    conn: &Connection,
    (stream, after): (Stream, i64),
    most: i64,
) -> rusqlite::Result<(Option<(i64, u64)>, Change)> {
    let mut change = Change::default();
    let table = stream.table();
    let bite = conn
        .prepare_cached(&format!(
            "select min(id), max(id) from (
                 select id from {table} where id > ?1 and synced_to_main_server = 1 order by id limit ?2)"
        ))?
        .query_row([after, most], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?;
    let (Some(first), Some(last)) = bite else { return Ok((None, change)) };
    let among = "id between ?1 and ?2 and synced_to_main_server = 1";
    conn.execute(
        &format!(
            "update run set synced = 0
             where synced = 1 and run_id in (select run_id from {table} where {among})"
        ),
        [first, last],
    )?;
    let rows =
        conn.execute(&format!("update {table} set synced_to_main_server = 0 where {among}"), [first, last])?;
    // Noted again if the cloud still cannot read them.
    let notes = conn.execute(
        "delete from quarantine where stream = ?1 and seq between ?2 and ?3",
        params![stream.name(), first, last],
    )?;
    conn.execute(
        "update cursor set through = min(through, ?2) where stream = ?1",
        params![stream.name(), first - 1],
    )?;
    change.unsent[stream as usize] += rows as i64;
    change.forgotten(notes);
    Ok((Some((last, rows as u64)), change))
}

/// The last record of a stream that was stored before `since_ms` for certain: by a clock that was right. What
/// stands behind it came later, whatever its clock said.
pub(super) fn last_before(conn: &Connection, stream: Stream, since_ms: i64) -> rusqlite::Result<i64> {
    let sql = format!(
        "select coalesce(max(id), 0) from {} where clock_state = ?1 and wall_ms < ?2",
        stream.table()
    );
    conn.query_row(&sql, params![ClockState::Synced.code(), since_ms], |row| row.get(0))
}

/// Moves a stream's cursor over everything behind it that is sent or parked.
pub(super) fn advance(conn: &Connection, stream: Stream) -> rusqlite::Result<()> {
    let table = stream.table();
    let through: i64 = conn
        .prepare_cached("select through from cursor where stream = ?1")?
        .query_row([stream.name()], |row| row.get(0))?;
    let next: Option<i64> = conn
        .prepare_cached(&format!(
            "select r.id from {table} r
             where r.id > ?2 and r.synced_to_main_server = 0
               and not exists (select 1 from parked p where p.stream = ?1 and p.seq = r.id)
             order by r.id limit 1"
        ))?
        .query_row(params![stream.name(), through], |row| row.get(0))
        .optional()?;
    let reached = match next {
        Some(id) => id - 1,
        None => conn
            .prepare_cached(&format!("select coalesce(max(id), 0) from {table}"))?
            .query_row([], |row| row.get(0))?,
    };
    if reached > through {
        conn.prepare_cached("update cursor set through = ?2 where stream = ?1")?
            .execute(params![stream.name(), reached])?;
    }
    Ok(())
}

/// Sets records aside.
pub(super) fn park(conn: &Connection, records: &[ParkedRecord]) -> rusqlite::Result<Change> {
    let mut change = Change::default();
    for record in records {
        let Some(stream) = Stream::from_name(&record.stream) else {
            continue;
        };
        // Only what is stored and unsent can be parked.
        let sql = format!(
            "insert into parked (stream, seq, reason, detail, version, parked_at)
             select ?1, ?2, ?3, ?4, ?5, ?6
             where exists (select 1 from {table} where id = ?2 and synced_to_main_server = 0)
             on conflict do nothing",
            table = stream.table()
        );
        let parked = conn.prepare_cached(&sql)?.execute(params![
            record.stream,
            record.seq,
            record.reason,
            record.detail,
            record.version,
            record.parked_at
        ])?;
        change.parked += parked as i64;
        change.unsent[stream as usize] -= parked as i64;
        advance(conn, stream)?;
    }
    Ok(change)
}

/// Which parked records go back in line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Release<'a> {
    All,
    One(Stream, i64),
    /// Those that another version of the program parked: this one may do better.
    NotOf(&'a str),
}

/// Puts parked records back in line: the cursor goes back to before the oldest of them.
pub(super) fn release(conn: &Connection, which: Release<'_>) -> rusqlite::Result<(u64, Change)> {
    let mut change = Change::default();
    let mut released = 0;
    for stream in Stream::ALL {
        let (only, not_version) = match which {
            Release::All => (None, None),
            Release::One(of, seq) if of == stream => (Some(seq), None),
            Release::One(..) => continue,
            Release::NotOf(version) => (None, Some(version)),
        };
        let condition = "stream = ?1 and (?2 is null or seq = ?2) and (?3 is null or version <> ?3)";
        let values = params![stream.name(), only, not_version];
        let oldest: Option<i64> =
            conn.query_row(&format!("select min(seq) from parked where {condition}"), values, |row| {
                row.get(0)
            })?;
        let Some(oldest) = oldest else { continue };
        let rows = conn.execute(&format!("delete from parked where {condition}"), values)?;
        conn.execute(
            "update cursor set through = min(through, ?2) where stream = ?1",
            params![stream.name(), oldest - 1],
        )?;
        released += rows as u64;
        change.parked -= rows as i64;
        change.unsent[stream as usize] += rows as i64;
    }
    Ok((released, change))
}

/// Writes as much as a scan needs, and takes it back. Leaves no number used.
pub(super) fn try_room(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute(
        "insert into quarantine (stream, seq, reason, noted_at) values ('', 0, hex(zeroblob(4000)), '')",
        [],
    )?;
    conn.execute("delete from quarantine where stream = ''", [])?;
    Ok(())
}

/// What a known-bad build does to records that it was told to keep.
#[cfg(feature = "mutants")]
pub(super) fn lose(conn: &Connection, ranges: &[SeqRange]) -> rusqlite::Result<(u64, Change)> {
    let mut change = Change::default();
    let mut lost = 0;
    for range in ranges {
        let sql = format!("delete from {} where id between ?1 and ?2", range.stream.table());
        let rows = conn.execute(&sql, [range.first, range.through])?;
        change.unsent[range.stream as usize] -= rows as i64;
        lost += rows as u64;
    }
    Ok((lost, change))
}
