//! Removing what the cloud holds, and never anything else: after its time, and before it where room is short.
//!
//! It happens in small bites, each a command of its own, so that a scan never waits for more than one. Numbers
//! do not begin anew in a table that has been emptied: they are AUTOINCREMENT, and the cursors stay.

use super::Stream;
use super::settle::Change;
use lumbung_shared::time::ClockState;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Rows of one bite.
pub(super) const BITE: i64 = 500;
const SYNCED: i16 = ClockState::Synced.code();
/// In which order the streams give room: readings are many and worth least one by one.
const SHEDDING: [Stream; 3] = [Stream::Reading, Stream::Event, Stream::Scan];

/// Removes up to `most` of the oldest records that the cloud holds, with the notes on them: readings before
/// events before scans. Says how many.
pub(super) fn shed_sent(conn: &Connection, most: i64) -> rusqlite::Result<(u64, Change)> {
    let mut change = Change::default();
    for stream in SHEDDING {
        let oldest = oldest_sent(conn, stream, most)?;
        let removed = oldest.map_or(Ok(0), |range| remove(conn, stream, range, &mut change))?;
        if removed > 0 {
            return Ok((removed, change));
        }
    }
    Ok((0, change))
}

/// Removes up to `most` records that the cloud holds and that were stored before `before_ms`. Says how many.
///
/// Records stand in the order in which they were stored. Where one of them is old by a clock that was right, those
/// before it are old too, whatever their clock said: one that was merely held may be weeks behind, and what was
/// stored by it yesterday must not go today.
pub(super) fn shed_old(conn: &Connection, before_ms: i64, most: i64) -> rusqlite::Result<(u64, Change)> {
    let mut change = Change::default();
    let mut removed = 0;
    for stream in SHEDDING {
        let table = stream.table();
        let left = most - removed as i64;
        let Some((first, through)) = oldest_sent(conn, stream, left)? else { continue };
        let last_old: Option<i64> = conn
            .prepare_cached(&format!(
                "select max(id) from {table}
                 where id between ?1 and ?2 and clock_state = ?4 and wall_ms < ?3"
            ))?
            .query_row(params![first, through, before_ms, SYNCED], |row| row.get(0))?;
        let last_old = match last_old {
            Some(id) => Some(id),
            // So many in a row without a time: one behind them that has one decides.
            None => {
                synced_behind(conn, stream, through)?.filter(|wall_ms| *wall_ms < before_ms).map(|_| through)
            }
        };
        if let Some(last_old) = last_old {
            removed += remove(conn, stream, (first, last_old), &mut change)?;
        }
        if removed as i64 >= most {
            break;
        }
    }
    Ok((removed, change))
}

/// The time of a record behind `id` that was stored by a clock that was right: the first one where those before
/// it were all stored by one that was not, as after weeks without a network. Halving finds it in a handful of
/// looks; walking there would keep every scan waiting, with each bite anew.
fn synced_behind(conn: &Connection, stream: Stream, id: i64) -> rusqlite::Result<Option<i64>> {
    let table = stream.table();
    let mut newest = conn.prepare_cached(&format!(
        "select id, wall_ms, clock_state = ?2 from {table} where id > ?1 order by id desc limit 1"
    ))?;
    let mut next = conn.prepare_cached(&format!(
        "select id, wall_ms, clock_state = ?3 from {table} where id > ?1 and id <= ?2 order by id limit 1"
    ))?;
    let look = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let end: Option<(i64, i64, bool)> = newest.query_row(params![id, SYNCED], look).optional()?;
    let Some((mut right, mut wall_ms, true)) = end else { return Ok(None) };
    let mut wrong = id;
    while right - wrong > 1 {
        let middle = wrong + (right - wrong) / 2;
        match next.query_row(params![middle - 1, right - 1, SYNCED], look).optional()? {
            Some((at, at_ms, true)) => (right, wall_ms) = (at, at_ms),
            Some((at, _, false)) => wrong = at,
            None => right = middle,
        }
    }
    Ok(Some(wall_ms))
}

/// First and last of the `most` oldest records that the cloud holds. What is sent beyond the cursor waits until
/// the cursor has passed it: looking for it there could mean to read everything unsent.
fn oldest_sent(conn: &Connection, stream: Stream, most: i64) -> rusqlite::Result<Option<(i64, i64)>> {
    let sql = format!(
        "select min(id), max(id) from (
             select id from {table}
             where id <= (select through from cursor where stream = ?1) and synced_to_main_server = 1
             order by id limit ?2)",
        table = stream.table()
    );
    let ends = conn.prepare_cached(&sql)?.query_row(params![stream.name(), most], |row| {
        Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    Ok(ends.0.zip(ends.1))
}

fn remove(
    conn: &Connection,
    stream: Stream,
    (first, through): (i64, i64),
    change: &mut Change,
) -> rusqlite::Result<u64> {
    let table = stream.table();
    let sql = format!("delete from {table} where id between ?1 and ?2 and synced_to_main_server = 1");
    let removed = conn.prepare_cached(&sql)?.execute([first, through])?;
    let sql = format!(
        "delete from quarantine where stream = ?1 and seq between ?2 and ?3
         and not exists (select 1 from {table} r where r.id = seq)"
    );
    let notes = conn.prepare_cached(&sql)?.execute(params![stream.name(), first, through])?;
    change.forgotten(notes);
    Ok(removed as u64)
}
