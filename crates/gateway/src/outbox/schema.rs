//! The tables, and how a connection to them is set up.

use super::{OpenError, Stream};
use crate::mutant::Mutant;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// Each entry brings `user_version` to its place in the list, counted from 1. Never edited once released.
const MIGRATIONS: &[&str] = &[FIRST, TELEMETRY];

/// STRICT, so that a column holds what it says. The flag has no index on purpose.
pub(super) const FIRST: &str = "
    create table run (
        run_id integer primary key,
        epoch text not null,
        previous text,
        boot text not null,
        site text,
        started_at text not null,
        mono_ms integer not null,
        clock_state integer not null,
        version text not null,
        synced integer not null default 0,
        constraint run_epoch_key unique (epoch),
        constraint run_synced_is_flag check (synced in (0, 1))
    ) strict;
    create index run_unsent on run (run_id) where synced = 0;

    create table scan_event (
        id integer primary key autoincrement,
        run_id integer not null references run (run_id),
        nfc_tag_id text not null,
        status_scan text not null,
        timestamp text not null,
        mono_ms integer not null,
        wall_ms integer not null,
        clock_state integer not null,
        source integer not null,
        synced_to_main_server integer not null default 0,
        at_ms integer,
        note text,
        officer text,
        quantity real,
        client_ref text,
        constraint scan_event_synced_is_flag check (synced_to_main_server in (0, 1))
    ) strict;
    create unique index scan_event_client_ref_key on scan_event (client_ref) where client_ref is not null;

    create table reading (
        id integer primary key autoincrement,
        run_id integer not null references run (run_id),
        series text not null,
        value real not null,
        timestamp text not null,
        mono_ms integer not null,
        wall_ms integer not null,
        clock_state integer not null,
        synced_to_main_server integer not null default 0,
        constraint reading_synced_is_flag check (synced_to_main_server in (0, 1))
    ) strict;

    create table event (
        id integer primary key autoincrement,
        run_id integer not null references run (run_id),
        kind text not null,
        body text not null,
        timestamp text not null,
        mono_ms integer not null,
        wall_ms integer not null,
        clock_state integer not null,
        synced_to_main_server integer not null default 0,
        constraint event_synced_is_flag check (synced_to_main_server in (0, 1))
    ) strict;

    -- Everything of a stream up to `through` is sent or parked.
    create table cursor (
        stream text primary key,
        through integer not null
    ) strict, without rowid;
    insert into cursor (stream, through) values ('scan', 0), ('reading', 0), ('event', 0);

    -- Records that the cloud refuses a whole batch for; they stay unsent.
    create table parked (
        stream text not null,
        seq integer not null,
        reason text not null,
        detail text not null,
        version text not null,
        parked_at text not null,
        primary key (stream, seq)
    ) strict, without rowid;

    -- Records that the cloud keeps unread; they count as sent.
    create table quarantine (
        stream text not null,
        seq integer not null,
        reason text not null,
        noted_at text not null,
        primary key (stream, seq)
    ) strict, without rowid;
";

/// New columns stand behind the old ones: salvage reads a row of either version with them. The schema's text
/// stays within the first page, which salvage may have to replace.
const TELEMETRY: &str = "
    alter table reading add column unit text not null default '1';
    alter table reading add column quality integer not null default 0;
    alter table reading add column at_ms integer;

    -- What the same key brought before is answered as it was then.
    create table once (
        once_id integer primary key,
        key text not null unique,
        digest blob not null,
        run_id integer not null,
        first integer not null,
        count integer not null
    ) strict;
";

/// The version this program writes.
pub(super) fn newest_version() -> i64 {
    MIGRATIONS.len() as i64
}

/// The WAL file is cut back to this after growing past it, and otherwise reused as it is.
const WAL_BYTES_KEPT: i64 = 8 << 20;
/// How long to wait for a person who holds the database with a shell.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5_000 });

/// Opens the file for writing, making it if need be, with everything durability needs.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let conn = open(path)?;
    set_up(&conn)?;
    Ok(conn)
}

/// Opens the file for writing, making it if need be. Nothing is written before the first statement.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(PATIENCE)?;
    conn.set_prepared_statement_cache_capacity(48);
    Ok(conn)
}

/// Asks for everything that durability needs; writes when the file had another journal mode.
pub(super) fn set_up(conn: &Connection) -> rusqlite::Result<()> {
    let mode: String = conn.query_row("pragma journal_mode = wal", [], |row| row.get(0))?;
    if mode != "wal" {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
        let text = format!("the journal mode is {mode} where wal is needed");
        return Err(rusqlite::Error::SqliteFailure(code, Some(text)));
    }
    let synchronous = if Mutant::SyncOff.is_active() { "off" } else { "full" };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    // The writer checkpoints when nobody waits for it.
    conn.query_row("pragma wal_autocheckpoint = 0", [], |_| Ok(()))?;
    conn.query_row(&format!("pragma journal_size_limit = {WAL_BYTES_KEPT}"), [], |_| Ok(()))?;
    conn.pragma_update(None, "temp_store", "memory")
}

/// Caps the file's size; 0: no cap of ours.
pub(super) fn limit_size(conn: &Connection, max_bytes: u64) -> rusqlite::Result<()> {
    if max_bytes == 0 {
        return Ok(());
    }
    let page: i64 = conn.query_row("pragma page_size", [], |row| row.get(0))?;
    let pages = (i64::try_from(max_bytes).unwrap_or(i64::MAX) / page.max(512)).max(16);
    conn.query_row(&format!("pragma max_page_count = {pages}"), [], |_| Ok(()))
}

/// Refuses a database that a newer program wrote, or that is none of ours. Changes nothing.
pub(super) fn check_version(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: i64 = conn.query_row("pragma user_version", [], |row| row.get(0))?;
    let known = newest_version();
    if !(0..=known).contains(&found) {
        let path = path.to_owned();
        return Err(OpenError::UnknownVersion { path, found, known });
    }
    let tables: i64 = conn.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    if found == 0 && tables > 0 {
        return Err(OpenError::NotOurs { path: path.to_owned() });
    }
    Ok(())
}

/// Whether our tables are there; a new file has none yet.
pub(super) fn is_ours(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("pragma user_version", [], |row| Ok(row.get::<_, i64>(0)? > 0))
}

/// Whether the tables are as this program writes them.
pub(super) fn is_newest(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("pragma user_version", [], |row| Ok(row.get::<_, i64>(0)? == newest_version()))
}

/// Brings the tables to this program's version.
pub(super) fn migrate(conn: &mut Connection) -> rusqlite::Result<()> {
    let from: i64 = conn.query_row("pragma user_version", [], |row| row.get(0))?;
    for (version, migration) in (1i64..).zip(MIGRATIONS) {
        if version > from {
            let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", version)?;
            transaction.commit()?;
        }
    }
    Ok(())
}

/// How many records of a stream are neither sent nor parked.
pub(super) fn count_unsent(conn: &Connection, stream: Stream) -> rusqlite::Result<u64> {
    let sql = format!(
        "select count(*) from {table} r
         where r.id > (select through from cursor where stream = ?1) and r.synced_to_main_server = 0
           and not exists (select 1 from parked p where p.stream = ?1 and p.seq = r.id)",
        table = stream.table()
    );
    count(conn, &sql, [stream.name()])
}

/// The number that a `select count(*)` gives.
pub(super) fn count(conn: &Connection, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<u64> {
    conn.query_row(sql, values, |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}
