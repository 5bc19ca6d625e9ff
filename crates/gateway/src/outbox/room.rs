//! Transactions, and the room on the disk that they need.

use super::retention;
use super::settle::Change;
use super::trouble::Trouble;
use super::writer::Parts;
use rusqlite::Connection;

/// What a transaction is for, when there is little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// So many new scans. They never get the reserve's room: they would fill it and nothing could be
    /// settled, and so nothing removed, ever after.
    Scans(usize),
    /// So many new readings or events: they leave a margin for scans.
    Telemetry(usize),
    /// Settling, parking, looking after what is there already: what the reserve is for.
    Keeping,
}

impl Need {
    /// Telemetry that goes with scans.
    pub(super) const BESIDE_SCANS: Self = Self::Telemetry(super::group::BESIDE_SCANS);
}

/// Pages that a scan may touch without the reserve besides those of the scans themselves.
const SPARE_PAGES: i64 = 16;
/// Room that readings and events leave to scans: days of them. On a small disk, or with a small limit, an
/// eighth of it.
const MARGIN_BYTES: u64 = 8 << 20;
/// About what a row of telemetry takes.
const TELEMETRY_BYTES: u64 = 160;
/// Most rows that one round of making room removes, and with how many it is tried again where even the
/// removing finds no room.
const SHED_ROWS: [i64; 3] = [2_000, 200, 20];

/// What making room gave.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Whether there was anything to give up.
    pub(super) made: bool,
    pub(super) change: Change,
}

/// Frees what may be freed: the reserve, then the oldest sent records, then the WAL.
pub(super) fn make_room(parts: &Parts) -> Result<Room, Trouble> {
    let mut room = Room { made: parts.reserve.give_up(), ..Room::default() };
    for most in SHED_ROWS {
        match transact(&parts.conn, &mut |conn| retention::shed_sent(conn, most)) {
            Ok((removed, change)) => {
                room.made |= removed > 0;
                room.change = change;
                break;
            }
            Err(trouble) if trouble.is_fatal() => return Err(trouble),
            Err(_) => {}
        }
        cut_wal(&parts.conn)?;
    }
    // Pages freed in the WAL are free in the file only after a checkpoint, and only then can the WAL
    // begin again at its start.
    cut_wal(&parts.conn)?;
    Ok(room)
}

/// Whether what a transaction needs may be written now.
pub(super) fn may_take(parts: &Parts, need: Need) -> Result<bool, Trouble> {
    let count = match need {
        Need::Keeping => return Ok(true),
        Need::Telemetry(rows) => return leaves_margin(parts, rows),
        Need::Scans(count) => count,
    };
    if parts.reserve.restore() {
        return Ok(true);
    }
    // Where the file itself has room, scans do not make it larger. They pass through the WAL, and what the
    // WAL takes of the reserve's room is there again after a checkpoint.
    let free: i64 = parts
        .conn
        .query_row("pragma freelist_count", [], |row| row.get(0))
        .map_err(|error| Trouble::of(&error))?;
    Ok(free >= SPARE_PAGES.saturating_add(count as i64))
}

/// Whether so many rows of telemetry leave scans their margin.
fn leaves_margin(parts: &Parts, rows: usize) -> Result<bool, Trouble> {
    let needed = TELEMETRY_BYTES.saturating_mul(rows as u64);
    let left = left(parts)?;
    Ok(parts.reserve.is_whole() && left.iter().all(|(left, margin)| *left >= margin.saturating_add(needed)))
}

/// Whether sent records should go before their time: telemetry must not come to its margin first.
pub(super) fn is_short(parts: &Parts) -> Result<bool, Trouble> {
    Ok(left(parts)?.iter().any(|(left, margin)| *left < margin.saturating_mul(2)))
}

/// How many bytes the limit of the file and the disk leave, each with its margin. What is free within the file
/// counts for both.
fn left(parts: &Parts) -> Result<Vec<(u64, u64)>, Trouble> {
    let pragma = |name: &str| {
        let pages = parts.conn.prepare_cached(&format!("pragma {name}"));
        let pages = pages.and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)));
        pages.map(i64::unsigned_abs).map_err(|error| Trouble::of(&error))
    };
    let (page, used) = (pragma("page_size")?, pragma("page_count")?);
    let (free, most) = (pragma("freelist_count")?, pragma("max_page_count")?);
    let file = (most.saturating_sub(used).saturating_mul(page), most.saturating_mul(page));
    let with_margin = |(left, whole): (u64, u64)| {
        (left.saturating_add(free.saturating_mul(page)), MARGIN_BYTES.min(whole / 8))
    };
    Ok([Some(file), parts.reserve.disk()].into_iter().flatten().map(with_margin).collect())
}

/// Moves the WAL into the file and cuts it to nothing, if that is possible now.
pub(super) fn cut_wal(conn: &Connection) -> Result<(), Trouble> {
    match wal_state(conn, "truncate") {
        Err(trouble) if trouble.is_fatal() => Err(trouble),
        _ => Ok(()),
    }
}

/// Runs or asks for a checkpoint; answers how many pages the WAL still holds for the file.
pub(super) fn wal_state(conn: &Connection, mode: &str) -> Result<i64, Trouble> {
    let pages = conn.prepare_cached(&format!("pragma wal_checkpoint({mode})")).and_then(|mut statement| {
        statement.query_row([], |row| Ok(row.get::<_, i64>(1)?.saturating_sub(row.get::<_, i64>(2)?)))
    });
    pages.map_err(|error| Trouble::of(&error))
}

/// One immediate transaction: all of `work` or nothing.
pub(super) fn transact<T>(
    conn: &Connection,
    work: &mut impl FnMut(&Connection) -> rusqlite::Result<T>,
) -> Result<T, Trouble> {
    let result = run_cached(conn, "begin immediate")
        .and_then(|()| work(conn))
        .and_then(|value| run_cached(conn, "commit").map(|()| value));
    result.map_err(|error| {
        let trouble = Trouble::of(&error);
        // SQLite rolls back by itself after some errors.
        if !conn.is_autocommit()
            && let Err(error) = conn.execute_batch("rollback")
        {
            return Trouble::Disk(format!("{trouble}; and the transaction could not be undone: {error}"));
        }
        trouble
    })
}

fn run_cached(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(|_| ())
}
