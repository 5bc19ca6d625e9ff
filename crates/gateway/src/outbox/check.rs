//! Opening the store: look before anything is trusted, repair what must be, begin a run.

use super::settle::{self, Release};
use super::trouble::{OpenError, Trouble};
use super::{DATABASE, Gauges, Run, Settings, Stream, disk, room, salvage, schema, store, writer};
use crate::clock::Moment;
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::Epoch;
use rusqlite::config::DbConfig;
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
    let reserve = disk::Reserve::new(dir, settings.reserve_bytes);
    let (conn, salvaged) = match sound_database(dir, &path, now) {
        Err(error) if error.is_full() && reserve.give_up() => {
            tracing::warn!(%error, "no room to open the database: giving up the reserve");
            sound_database(dir, &path, now)?
        }
        result => result?,
    };
    schema::limit_size(&conn, settings.max_bytes)?;
    disk::sync_dir(dir).map_err(OpenError::path(dir))?;

    let parts = writer::Parts { conn, reserve, _lock: lock };
    let mut begin = |conn: &Connection| begin_run(conn, settings, now);
    let run = match room::transact(&parts.conn, &mut begin) {
        Err(Trouble::Full(_)) => {
            room::make_room(&parts)?;
            room::transact(&parts.conn, &mut begin)?
        }
        result => result?,
    };
    if !parts.reserve.restore() {
        // The WAL may have the reserve's room, and new scans must not get it.
        room::cut_wal(&parts.conn)?;
        parts.reserve.restore();
    }
    let gauges = count(&parts.conn)?;
    tracing::info!(
        run = %run.epoch,
        previous = run.previous.map(tracing::field::display),
        unsent = gauges.unsent(Stream::Scan),
        readings = gauges.unsent(Stream::Reading),
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

/// The database as it is, or salvaged into a new one when it is not sound, at this program's version.
fn sound_database(dir: &Path, path: &Path, now: Moment) -> Result<(Connection, Option<u64>), OpenError> {
    let resumed = salvage::resume(dir)?;
    let wanted = dir.join(FULL_CHECK_WANTED);
    let (mut conn, salvaged) = match examine(path, wanted.exists()) {
        Err(OpenError::Store(Trouble::Corrupt(text) | Trouble::Unreadable(text))) => {
            tracing::error!(%text, "the database is corrupt: setting it aside and saving what can be read");
            let saved = salvage::set_aside(dir, now)?;
            (examine(path, true)?, Some(saved))
        }
        result => (result?, None),
    };
    schema::migrate(&mut conn)?;
    // Only a check that passed takes the wish away.
    if wanted.exists() {
        fs::remove_file(&wanted).map_err(OpenError::path(&wanted))?;
    }
    Ok((conn, salvaged.or(resumed)))
}

/// Opens the file and looks whether it is sound. A file that is not stays as it was, its WAL beside it.
fn examine(path: &Path, everything: bool) -> Result<Connection, OpenError> {
    let size = fs::metadata(path).map_or(0, |meta| meta.len());
    let wal = path.with_extension("db-wal");
    if size == 0 && fs::metadata(&wal).is_ok_and(|meta| meta.len() > 0) {
        // SQLite would take the WAL of an empty database for rubbish and delete it.
        return Err(Trouble::Corrupt("the database is gone and its WAL is still there".to_owned()).into());
    }
    let conn = schema::open(path)?;
    // Until it is known to be sound: closing must not move the WAL into a damaged file and delete it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Before anything that writes: the file may be another program's.
    schema::check_version(&conn, path)?;
    schema::set_up(&conn)?;
    if everything {
        // Also whether the indexes agree with the tables.
        verdict(&conn, "integrity_check(1)")?;
    } else if size <= FULL_CHECK_BYTES {
        verdict(&conn, "quick_check(1)")?;
    } else {
        for table in ["run", "cursor", "parked", "quarantine"] {
            verdict(&conn, &format!("quick_check({table})"))?;
        }
    }
    if schema::is_ours(&conn)? {
        if size > FULL_CHECK_BYTES {
            read_unsent(&conn)?;
        }
        check_runs(&conn)?;
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(conn)
}

fn verdict(conn: &Connection, check: &str) -> Result<(), OpenError> {
    let verdict: String = conn.query_row(&format!("pragma {check}"), [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Trouble::Corrupt(verdict).into()) }
}

/// A record's name begins with its run's epoch: a run without a readable one, and a record to be sent
/// without a run, are damage that no check of pages sees. Salvage knows where else an epoch stands.
fn check_runs(conn: &Connection) -> Result<(), OpenError> {
    let mut runs = conn.prepare("select epoch from run")?;
    let mut rows = runs.query([])?;
    while let Some(row) = rows.next()? {
        store::epoch(row, 0)?;
    }
    for stream in Stream::ALL {
        let sql = format!(
            "select exists (select 1 from {} where id > (select through from cursor where stream = ?1)
             and run_id not in (select run_id from run))",
            stream.table()
        );
        let orphans: bool = conn.query_row(&sql, [stream.name()], |row| row.get(0))?;
        if orphans {
            return Err(Trouble::Corrupt("records of a run that is not there".to_owned()).into());
        }
    }
    Ok(())
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
    )?;
    conn.query_row(
        "select total(length(at_ms) + length(series)) from reading
         where id > (select through from cursor where stream = 'reading')",
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
