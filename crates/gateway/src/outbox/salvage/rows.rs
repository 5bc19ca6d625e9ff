//! Copies rows out of a damaged database, around the pages that cannot be read.

use crate::outbox::Stream;
use crate::outbox::check::draw_epoch;
use crate::outbox::trouble::{OpenError, Trouble};
use crate::outbox::{settle, store};
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::Epoch;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};
use std::collections::HashSet;

/// More rows than this never fit into one page; it bounds how far numbers are probed when nothing in
/// the database says how high they go.
const ROWS_PER_PAGE: i64 = 200;
/// No gateway gives so many numbers.
const HIGHEST: i64 = 1 << 48;
/// Most keys that are tried in one go: a damaged count must not keep the gateway from starting.
const MOST_TRIES: i64 = 20_000_000;

const RUN: &[&str] = &[
    "run_id",
    "epoch",
    "previous",
    "boot",
    "site",
    "started_at",
    "mono_ms",
    "clock_state",
    "version",
    "synced",
];
const SCAN: &[&str] = &[
    "id",
    "run_id",
    "nfc_tag_id",
    "status_scan",
    "timestamp",
    "mono_ms",
    "wall_ms",
    "clock_state",
    "source",
    "synced_to_main_server",
    "at_ms",
    "note",
    "officer",
    "quantity",
    "client_ref",
];
const READING: &[&str] = &[
    "id",
    "run_id",
    "series",
    "value",
    "timestamp",
    "mono_ms",
    "wall_ms",
    "clock_state",
    "synced_to_main_server",
    "unit",
    "quality",
    "at_ms",
];
const EVENT: &[&str] = &[
    "id",
    "run_id",
    "kind",
    "body",
    "timestamp",
    "mono_ms",
    "wall_ms",
    "clock_state",
    "synced_to_main_server",
];
const PARKED: &[&str] = &["stream", "seq", "reason", "detail", "version", "parked_at"];
const QUARANTINE: &[&str] = &["stream", "seq", "reason", "noted_at"];
const ONCE: &[&str] = &["once_id", "key", "digest", "run_id", "first", "count"];

/// Every table that is saved, with its columns in their order. The cursors are worked out anew.
#[cfg(test)]
pub(super) const TABLES: &[(&str, &[&str])] = &[
    ("run", RUN),
    ("scan_event", SCAN),
    ("reading", READING),
    ("event", EVENT),
    ("parked", PARKED),
    ("quarantine", QUARANTINE),
    ("once", ONCE),
];

/// What stands in columns that the damaged database is too old to have.
const LATER: &[(&str, &str)] = &[("unit", "'1'"), ("quality", "0"), ("at_ms", "null")];

/// Copies everything that can be read; says how many scans, readings and events that is.
pub(super) fn copy(damaged: &Connection, fresh: &mut Connection) -> Result<u64, OpenError> {
    let transaction = fresh.transaction()?;
    let mut runs = HashSet::new();
    read_around(damaged, "run", RUN, &mut |row| {
        // A run whose epoch cannot be read is none: the index may still know it.
        if epoch_of(&row).is_some() && insert(&transaction, "run", RUN, &row)? {
            runs.extend(integer(&row, 0));
        }
        Ok(())
    })?;
    runs_from_index(damaged, &transaction, &mut runs)?;

    let mut saved = 0;
    for (stream, columns) in [(Stream::Scan, SCAN), (Stream::Reading, READING), (Stream::Event, EVENT)] {
        let table = stream.table();
        let mut orphans = HashSet::new();
        read_around(damaged, table, columns, &mut |mut row| {
            let Some(run_id) = integer(&row, 1) else {
                return Ok(());
            };
            if runs.insert(run_id) {
                // Its run is lost, its number is not: it goes on under a run of its own.
                placeholder_run(&transaction, run_id, None)?;
                orphans.insert(run_id);
            }
            let mut kept = insert(&transaction, table, columns, &row)?;
            if !kept && stream == Stream::Scan && row.last().is_some_and(|key| *key != Value::Null) {
                // Two rows with one key can only be damage: the scan counts more than its key.
                if let Some(key) = row.last_mut() {
                    *key = Value::Null;
                }
                kept = insert(&transaction, table, columns, &row)?;
            }
            saved += u64::from(kept);
            Ok(())
        })?;
        if !orphans.is_empty() {
            tracing::warn!(runs = orphans.len(), table, "records of lost runs were given new runs");
        }
        restore_sequence(damaged, &transaction, stream)?;
    }
    for (table, columns) in [("parked", PARKED), ("quarantine", QUARANTINE), ("once", ONCE)] {
        // Small, and only notes: what cannot be read in one go is done without.
        let list = columns.join(", ");
        let notes = damaged.prepare(&format!("select {list} from {table}"));
        if let Ok(mut notes) = notes
            && let Ok(mut rows) = notes.query([])
        {
            while let Ok(Some(row)) = rows.next() {
                let Ok(note) = values(row, columns.len()) else { continue };
                insert(&transaction, table, columns, &note)?;
            }
        }
    }
    for stream in Stream::ALL {
        // A note must not speak of a record that will be given its number anew.
        let table = stream.table();
        for notes in ["parked", "quarantine"] {
            let sql =
                format!("delete from {notes} where stream = ?1 and seq not in (select id from {table})");
            transaction.execute(&sql, [stream.name()])?;
        }
        settle::advance(&transaction, stream)?;
    }
    transaction.commit()?;
    Ok(saved)
}

fn values(row: &Row<'_>, columns: usize) -> rusqlite::Result<Vec<Value>> {
    let values: Vec<Value> = (0..columns).map(|column| row.get(column)).collect::<rusqlite::Result<_>>()?;
    // No text of ours has a NUL in it: these are the zeros of a page that was lost in part.
    if values.iter().any(|value| matches!(value, Value::Text(text) if text.contains('\0'))) {
        return Err(store::damaged("a row was lost in part".to_owned()));
    }
    Ok(values)
}

fn integer(row: &[Value], at: usize) -> Option<i64> {
    match row.get(at) {
        Some(Value::Integer(number)) => Some(*number),
        _ => None,
    }
}

/// The epoch of a row of `run`, where it is one.
fn epoch_of(run: &[Value]) -> Option<&str> {
    match run.get(1) {
        Some(Value::Text(text)) if is_epoch(text) => Some(text),
        _ => None,
    }
}

fn is_epoch(text: &str) -> bool {
    text.parse().is_ok_and(|epoch: Epoch| epoch != Epoch::LEGACY)
}

/// Inserts a row as it was. False when the new tables do not take it: then it was not a row any more.
fn insert(into: &Connection, table: &str, columns: &[&str], row: &[Value]) -> Result<bool, OpenError> {
    let marks = vec!["?"; columns.len()].join(", ");
    let list = columns.join(", ");
    let mut statement = into.prepare_cached(&format!("insert into {table} ({list}) values ({marks})"))?;
    match statement.execute(params_from_iter(row)) {
        Ok(_) => Ok(true),
        Err(error) => match Trouble::of(&error) {
            Trouble::Other(_) => Ok(false),
            trouble => Err(trouble.into()),
        },
    }
}

/// Hands over every row of a table that can be read, in the order of its key. Where a page cannot be
/// read, the keys behind it are tried one by one until one answers again.
fn read_around(
    conn: &Connection,
    table: &str,
    columns: &[&str],
    take: &mut impl FnMut(Vec<Value>) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let key = columns[0];
    let list = selection(conn, table, columns);
    let onward = format!("select {list} from {table} where {key} > ?1 order by {key}");
    let single = format!("select {list} from {table} where {key} = ?1");
    let mut last = 0i64;
    let mut skipped = 0u64;
    loop {
        if read_onward(conn, &onward, columns.len(), &mut last, take)? {
            break;
        }
        // Past the bad page, wherever it ends.
        let highest = highest_key(conn, table, key, last);
        let mut found = None;
        while found.is_none() && last < highest {
            last += 1;
            found = conn
                .prepare_cached(&single)
                .and_then(|mut one| one.query_row([last], |row| values(row, columns.len())))
                .ok();
            skipped += u64::from(found.is_none());
        }
        match found {
            Some(row) => take(row)?,
            None => break,
        }
    }
    if skipped > 0 {
        tracing::warn!(table, skipped, "keys gave no row");
    }
    Ok(())
}

/// What to select for the columns, whichever version the database has.
fn selection(conn: &Connection, table: &str, columns: &[&str]) -> String {
    let there = |column: &str| conn.prepare(&format!("select {column} from {table}")).is_ok();
    let selected = columns.iter().map(|column| match LATER.iter().find(|(later, _)| later == column) {
        Some((_, instead)) if !there(column) => instead,
        _ => column,
    });
    selected.copied().collect::<Vec<_>>().join(", ")
}

/// Reads on from `last` until the end (true) or until a page cannot be read (false).
fn read_onward(
    conn: &Connection,
    sql: &str,
    columns: usize,
    last: &mut i64,
    take: &mut impl FnMut(Vec<Value>) -> Result<(), OpenError>,
) -> Result<bool, OpenError> {
    let Ok(mut statement) = conn.prepare_cached(sql) else {
        return Ok(false);
    };
    let Ok(mut rows) = statement.query([*last]) else {
        return Ok(false);
    };
    loop {
        match rows.next() {
            Ok(Some(row)) => {
                let Ok(row) = values(row, columns) else {
                    return Ok(false);
                };
                let Some(key) = integer(&row, 0).filter(|key| key > last) else {
                    // Keys that do not rise come from a damaged tree.
                    return Ok(false);
                };
                *last = key;
                take(row)?;
            }
            Ok(None) => return Ok(true),
            Err(_) => return Ok(false),
        }
    }
}

/// The highest key worth trying.
fn highest_key(conn: &Connection, table: &str, key: &str, last: i64) -> i64 {
    let one = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).ok().flatten();
    let told = one(&format!("select seq from sqlite_sequence where name = '{table}'"));
    let end = one(&format!("select max({key}) from {table}"));
    let highest = told.max(end).unwrap_or_else(|| {
        let pages = one("pragma page_count").unwrap_or(0);
        last.saturating_add(pages.saturating_mul(ROWS_PER_PAGE))
    });
    highest.min(last.saturating_add(MOST_TRIES))
}

/// The unique index on `epoch` names every run a second time: where the table's own page is gone, the
/// epochs and their numbers still stand there, and that is what a record's identity needs.
fn runs_from_index(
    damaged: &Connection,
    into: &Connection,
    runs: &mut HashSet<i64>,
) -> Result<(), OpenError> {
    let Ok(mut statement) =
        damaged.prepare("select run_id, epoch from run indexed by sqlite_autoindex_run_1 where epoch > ''")
    else {
        return Ok(());
    };
    let Ok(mut rows) = statement.query([]) else {
        return Ok(());
    };
    while let Ok(Some(row)) = rows.next() {
        if let (Ok(run_id), Ok(epoch)) = (row.get::<_, i64>(0), row.get::<_, String>(1))
            && is_epoch(&epoch)
            && !runs.contains(&run_id)
        {
            placeholder_run(into, run_id, Some(epoch))?;
            runs.insert(run_id);
        }
    }
    Ok(())
}

/// A run of which nothing but its number, and perhaps its epoch, is known.
fn placeholder_run(into: &Connection, run_id: i64, epoch: Option<String>) -> Result<(), OpenError> {
    let epoch = match epoch {
        Some(epoch) => epoch,
        None => draw_epoch().map_err(|error| OpenError::Random(error.to_string()))?.to_string(),
    };
    into.execute(
        "insert into run (run_id, epoch, boot, started_at, mono_ms, clock_state, version)
         values (?1, ?2, 'unknown', ?3, 0, 0, 'unknown') on conflict do nothing",
        params![run_id, epoch, rfc3339(0)],
    )?;
    Ok(())
}

/// Numbers go on behind the highest that was ever given, as far as that can still be read.
fn restore_sequence(damaged: &Connection, into: &Connection, stream: Stream) -> Result<(), OpenError> {
    let table = stream.table();
    let told = |sql: &str, name: &str| {
        let told = damaged.query_row(sql, [name], |row| row.get::<_, Option<i64>>(0)).ok().flatten();
        // A damaged number must not be the last one there is.
        told.filter(|told| *told < HIGHEST).unwrap_or(0)
    };
    // Sent records may all have been removed: then the cursor knows how far the numbers were.
    let told = told("select seq from sqlite_sequence where name = ?1", table)
        .max(told("select through from cursor where stream = ?1", stream.name()));
    let used: i64 =
        into.query_row(&format!("select coalesce(max(id), 0) from {table}"), [], |row| row.get(0))?;
    let last = told.max(used);
    if last > 0 {
        into.execute("delete from sqlite_sequence where name = ?1", [table])?;
        into.execute("insert into sqlite_sequence (name, seq) values (?1, ?2)", params![table, last])?;
    }
    Ok(())
}
