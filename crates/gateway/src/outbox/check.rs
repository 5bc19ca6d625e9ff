//! Opening the store: look before anything is trusted, repair what must be, begin a run.

use super::settle::{self, Release};
use super::trouble::{OpenError, Trouble};
use super::{DATABASE, Gauges, Run, Settings, Stream, disk, salvage, schema, store, writer};
use crate::clock::Moment;
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::Epoch;
use rusqlite::{Connection, OptionalExtension, params};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// Older WAL code can lose commits when two connections write and checkpoint.
const SAFE_SQLITE: i32 = 3_051_003;
/// Up to this size the whole file is checked at every start; beyond it, what is still to be sent.
const FULL_CHECK_BYTES: u64 = 64 << 20;
/// Present when the last process met corruption: the next start checks the whole file.
const FULL_CHECK_WANTED: &str = "check-needed";

/// An opened store.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) writer: writer::Parts,
    pub(super) gauges: Gauges,
    pub(super) run: Run,
    pub(super) salvaged: Option<u64>,
}

/// Opens, checks, migrates, and commits the new run ahead of any record.
pub(super) fn open(settings: &Settings, now: Moment) -> Result<Opened, OpenError> {
    if rusqlite::version_number() < SAFE_SQLITE {
        let found = rusqlite::version();
        return Err(OpenError::OldSqlite { found });
    }
    let dir = settings.dir.as_path();
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(OpenError::path(dir))?;
    let lock = disk::lock(dir)?;
    let path = dir.join(DATABASE);
    let (mut conn, salvaged) = sound_database(dir, &path, now)?;
    schema::migrate(&mut conn)?;
    schema::limit_size(&conn, settings.max_bytes)?;
    disk::sync_dir(dir).map_err(OpenError::path(dir))?;

    let reserve = disk::Reserve::new(dir, settings.reserve_bytes);
    let parts = writer::Parts { conn, reserve, _lock: lock };
    let run = match writer::transact(&parts.conn, &mut |conn| begin_run(conn, settings, now)) {
        Err(Trouble::Full(_)) => {
            writer::make_room(&parts)?;
            writer::transact(&parts.conn, &mut |conn| begin_run(conn, settings, now))?
        }
        result => result?,
    };
    parts.reserve.keep();
    let gauges = count(&parts.conn)?;
    tracing::info!(
        run = %run.epoch,
        previous = run.previous.map(tracing::field::display),
        unsent = gauges.unsent(Stream::Scan),
        parked = gauges.parked(),
        "the store is open"
    );
    Ok(Opened { writer: parts, gauges, run, salvaged })
}

/// Makes the next start check every page.
pub(super) fn ask_for_full_check(dir: &Path) {
    if let Err(error) = fs::write(dir.join(FULL_CHECK_WANTED), b"") {
        tracing::warn!(%error, "the next start may check less than it should");
    }
}

/// The database as it is, or salvaged into a new one when it is not sound.
fn sound_database(dir: &Path, path: &Path, now: Moment) -> Result<(Connection, Option<u64>), OpenError> {
    let resumed = salvage::resume(dir)?;
    let wanted = dir.join(FULL_CHECK_WANTED);
    let (conn, salvaged) = match examine(path, wanted.exists()) {
        Err(OpenError::Store(Trouble::Corrupt(text))) => {
            tracing::error!(%text, "the database is corrupt: setting it aside and saving what can be read");
            let saved = salvage::set_aside(dir, now)?;
            (examine(path, true)?, Some(saved))
        }
        result => (result?, None),
    };
    // Only a check that passed takes the wish away.
    if wanted.exists() {
        fs::remove_file(&wanted).map_err(OpenError::path(&wanted))?;
    }
    Ok((conn, salvaged.or(resumed)))
}

/// Opens the file and looks whether it is sound. Changes nothing in it.
fn examine(path: &Path, everything: bool) -> Result<Connection, OpenError> {
    let size = fs::metadata(path).map_or(0, |meta| meta.len());
    let wal = path.with_extension("db-wal");
    if size == 0 && fs::metadata(&wal).is_ok_and(|meta| meta.len() > 0) {
        // SQLite would take the WAL of an empty database for rubbish and delete it.
        return Err(Trouble::Corrupt("the database is gone and its WAL is still there".to_owned()).into());
    }
    let conn = schema::connect(path)?;
    schema::check_version(&conn, path)?;
    if everything || size <= FULL_CHECK_BYTES {
        quick_check(&conn, None)?;
    } else {
        for table in ["run", "cursor", "parked", "quarantine"] {
            quick_check(&conn, Some(table))?;
        }
        read_unsent(&conn)?;
    }
    Ok(conn)
}

fn quick_check(conn: &Connection, table: Option<&str>) -> Result<(), OpenError> {
    let argument = table.unwrap_or("1");
    let verdict: String = conn.query_row(&format!("pragma quick_check({argument})"), [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Trouble::Corrupt(verdict).into()) }
}

/// Reads every record that is still to be sent: damage elsewhere can wait until it is met.
fn read_unsent(conn: &Connection) -> rusqlite::Result<()> {
    for stream in Stream::ALL {
        schema::count_unsent(conn, stream)?;
    }
    // length() of the last column makes SQLite walk the whole record.
    conn.query_row(
        "select total(length(client_ref) + length(status_scan)) from scan_event
         where id > (select through from cursor where stream = 'scan')",
        [],
        |_| Ok(()),
    )
}

fn begin_run(conn: &Connection, settings: &Settings, now: Moment) -> rusqlite::Result<Run> {
    // An update of the program may send what the last version could not.
    let (released, _) = settle::release(conn, Release::NotOf(&settings.version))?;
    if released > 0 {
        tracing::info!(released, "parked records are tried again by this version");
    }
    let previous: Option<Epoch> = conn
        .query_row("select epoch from run order by run_id desc limit 1", [], |row| store::epoch(row, 0))
        .optional()?;
    let epoch = draw_epoch().map_err(|error| {
        rusqlite::Error::ToSqlConversionFailure(format!("no random numbers: {error}").into())
    })?;
    let started_at = rfc3339(now.wall_ms);
    conn.execute(
        "insert into run (epoch, previous, boot, site, started_at, mono_ms, clock_state, version)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            epoch.to_string(),
            previous.map(|p| p.to_string()),
            settings.boot,
            settings.site,
            started_at,
            now.mono_ms,
            now.state.code(),
            settings.version,
        ],
    )?;
    Ok(Run { id: conn.last_insert_rowid(), epoch, previous, started_at })
}

/// A random name for a run; 0 belongs to clients that know nothing of runs.
pub(super) fn draw_epoch() -> Result<Epoch, getrandom::Error> {
    loop {
        let epoch = Epoch(getrandom::u64()?);
        if epoch != Epoch::LEGACY {
            return Ok(epoch);
        }
    }
}

fn count(conn: &Connection) -> rusqlite::Result<Gauges> {
    let rows = |table: &str| schema::count(conn, &format!("select count(*) from {table}"), []);
    let mut gauges = Gauges::default();
    for stream in Stream::ALL {
        gauges.unsent[stream as usize] = AtomicU64::new(schema::count_unsent(conn, stream)?);
    }
    gauges.parked = AtomicU64::new(rows("parked")?);
    gauges.quarantined = AtomicU64::new(rows("quarantine")?);
    Ok(gauges)
}
