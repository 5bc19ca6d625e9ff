//! A corrupt database is set aside whole, and what can be read of it goes into a new one.
//!
//! What must stay true:
//! - The damaged files are moved, never written: salvage works on a copy.
//! - A record keeps its number, its run and its flag, and a run its epoch and predecessor, so that a record
//!   whose answer was lost is recognised by the cloud as the one it has.
//! - Dying at any point is harmless: a marker in the directory of the damaged files says that the work is
//!   not done, and the next start does it again.

mod copy;
mod rows;
#[cfg(test)]
mod tests;

use super::trouble::{OpenError, Trouble};
use super::{DATABASE, disk, schema};
use crate::clock::Moment;
use rusqlite::Connection;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// In the directory of the damaged files until the new database stands in place.
const UNFINISHED: &str = "unfinished";
const PREFIX: &str = "corrupt-";
const FRESH: &str = "local_gateway.db.salvaged";

/// Moves the damaged files into `corrupt-<time>/` and saves what can be read. Says how many records.
pub(super) fn set_aside(dir: &Path, now: Moment) -> Result<u64, OpenError> {
    let aside = new_directory(dir, now)?;
    fs::write(aside.join(UNFINISHED), b"").map_err(OpenError::path(&aside))?;
    disk::sync_dir(&aside).map_err(OpenError::path(&aside))?;
    disk::sync_dir(dir).map_err(OpenError::path(dir))?;
    finish(dir, &aside)
}

/// Takes up a salvage that the last process did not finish. Says how many records it saved.
pub(super) fn resume(dir: &Path) -> Result<Option<u64>, OpenError> {
    let entries = fs::read_dir(dir).map_err(OpenError::path(dir))?;
    for entry in entries {
        let entry = entry.map_err(OpenError::path(dir))?;
        let aside = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && aside.join(UNFINISHED).exists() {
            tracing::warn!(directory = %aside.display(), "a salvage was interrupted; going on with it");
            return finish(dir, &aside).map(Some);
        }
    }
    Ok(None)
}

fn new_directory(dir: &Path, now: Moment) -> Result<PathBuf, OpenError> {
    let time = lumbung_shared::time::from_ms(now.wall_ms).format("%Y%m%dT%H%M%SZ");
    for attempt in 1u32.. {
        // A clock that starts at 1970 at each boot gives the same time again and again.
        let suffix = if attempt == 1 { String::new() } else { format!("-{attempt}") };
        let aside = dir.join(format!("{PREFIX}{time}{suffix}"));
        match fs::create_dir(&aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(OpenError::path(&aside)(error)),
        }
    }
    Err(Trouble::other("no name is left for a directory").into())
}

fn finish(dir: &Path, aside: &Path) -> Result<u64, OpenError> {
    let fresh = dir.join(FRESH);
    let in_place = dir.join(DATABASE);
    // The database moves last: while it is not there, the files in place are the damaged ones; once it
    // is, whatever stands in place is the new one.
    if !aside.join(DATABASE).exists() || !in_place.exists() {
        for name in ["local_gateway.db-shm", "local_gateway.db-wal", DATABASE] {
            move_if_there(&dir.join(name), &aside.join(name))?;
        }
        disk::sync_dir(aside).map_err(OpenError::path(aside))?;
        disk::sync_dir(dir).map_err(OpenError::path(dir))?;
    }
    let saved = if in_place.exists() {
        count_scans(&in_place)?
    } else {
        let bytes = fs::metadata(aside.join(DATABASE)).map_or(0, |meta| meta.len());
        tracing::warn!(bytes, "salvage needs about twice the room of the damaged file");
        let saved = save(aside, &fresh)?;
        fs::rename(&fresh, &in_place).map_err(OpenError::path(&in_place))?;
        disk::sync_dir(dir).map_err(OpenError::path(dir))?;
        saved
    };
    let unfinished = aside.join(UNFINISHED);
    fs::remove_file(&unfinished).map_err(OpenError::path(&unfinished))?;
    tracing::warn!(saved, directory = %aside.display(), "records were saved; the damaged files are kept");
    Ok(saved)
}

fn move_if_there(from: &Path, to: &Path) -> Result<(), OpenError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::path(from)(error)),
        _ => Ok(()),
    }
}

fn count_scans(path: &Path) -> Result<u64, OpenError> {
    let conn = super::read::connect(path)?;
    Ok(schema::count(&conn, "select count(*) from scan_event", [])?)
}

/// Makes the new database from a copy of the damaged one.
fn save(aside: &Path, fresh: &Path) -> Result<u64, OpenError> {
    let work = aside.join("work");
    // What an earlier try left takes room that this one needs.
    remove_database(fresh)?;
    if work.exists() {
        fs::remove_dir_all(&work).map_err(OpenError::path(&work))?;
    }
    let saved = {
        let mut conn = schema::connect(fresh)?;
        schema::migrate(&mut conn)?;
        let saved = match copy::open(aside, &work)? {
            Some(damaged) => rows::copy(&damaged, &mut conn)?,
            None => {
                tracing::error!("nothing could be read of the damaged database");
                0
            }
        };
        // One plain file that can be renamed into place.
        let mode: String = conn.query_row("pragma journal_mode = delete", [], |row| row.get(0))?;
        if mode != "delete" {
            return Err(Trouble::other(format!("the new database stayed in mode {mode}")).into());
        }
        saved
    };
    fs::File::open(fresh).and_then(|file| file.sync_all()).map_err(OpenError::path(fresh))?;
    fs::remove_dir_all(&work).map_err(OpenError::path(&work))?;
    Ok(saved)
}

fn remove_database(path: &Path) -> Result<(), OpenError> {
    let name = path.to_string_lossy();
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = PathBuf::from(format!("{name}{suffix}"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::path(&path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A database with this program's tables and nothing in them, as one plain file.
fn blank(path: &Path) -> Result<(), OpenError> {
    remove_database(path)?;
    let mut conn: Connection = schema::connect(path)?;
    schema::migrate(&mut conn)?;
    conn.query_row("pragma journal_mode = delete", [], |_| Ok(()))?;
    Ok(())
}
