//! A copy of the damaged database that can be opened, its first page replaced where it must be.

use super::{DATABASE, blank};
use crate::outbox::trouble::{OpenError, Trouble};
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

const PAGE: usize = 4096;

/// Opens a copy made in `work`, trying the gentlest way first. `None` when none of them gives our tables.
pub(super) fn open(aside: &Path, work: &Path) -> Result<Option<Connection>, OpenError> {
    for (graft, with_wal) in [(false, true), (true, true), (true, false)] {
        prepare(aside, work, graft, with_wal)?;
        match usable(&work.join(DATABASE)) {
            Ok(conn) => {
                tracing::warn!(graft, with_wal, "the damaged database can be read");
                return Ok(Some(conn));
            }
            Err(error) => match Trouble::of(&error) {
                trouble @ (Trouble::Disk(_) | Trouble::Unreadable(_) | Trouble::Full(_)) => {
                    return Err(trouble.into());
                }
                trouble => tracing::warn!(graft, with_wal, %trouble, "cannot be read this way"),
            },
        }
    }
    Ok(None)
}

fn prepare(aside: &Path, work: &Path, graft: bool, with_wal: bool) -> Result<(), OpenError> {
    if work.exists() {
        fs::remove_dir_all(work).map_err(OpenError::path(work))?;
    }
    fs::create_dir(work).map_err(OpenError::path(work))?;
    let path = work.join(DATABASE);
    match copy_file(&aside.join(DATABASE), &path) {
        // Its WAL may be all there is. A copy without it must open all the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::write(&path, b"").map_err(OpenError::path(&path))?;
        }
        result => result.map_err(OpenError::path(&path))?,
    }
    let wal = aside.join("local_gateway.db-wal");
    if with_wal && wal.exists() {
        copy_file(&wal, &work.join("local_gateway.db-wal")).map_err(OpenError::path(&wal))?;
    }
    if graft {
        let model = work.join("blank.db");
        blank(&model)?;
        graft_first_page(&model, &path).map_err(OpenError::path(&path))?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let from = fs::File::open(from)?;
    let length = from.metadata()?.len();
    let lost = copy_readable(|page, at| from.read_exact_at(page, at), length, &mut fs::File::create(to)?)?;
    if lost > 0 {
        tracing::error!(lost, "pages cannot be read from the disk any more");
    }
    Ok(())
}

/// Copies page by page, with zeros where a page cannot be read. Says how many those were.
pub(super) fn copy_readable(
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    length: u64,
    to: &mut impl Write,
) -> io::Result<u64> {
    let mut lost = 0;
    let mut page = [0u8; PAGE];
    for at in (0..length).step_by(PAGE) {
        let left = usize::try_from(length - at).unwrap_or(PAGE).min(PAGE);
        let page = &mut page[..left];
        if let Err(error) = read(page, at) {
            tracing::debug!(%error, at, "a page cannot be read");
            page.fill(0);
            lost += 1;
        }
        to.write_all(page)?;
    }
    Ok(lost)
}

/// Puts the first page of a new database with the same tables in the place of the destroyed one. The
/// tables' roots stand at the same pages, because every database of ours is made by the same migrations.
fn graft_first_page(model: &Path, path: &Path) -> io::Result<()> {
    let mut page = [0u8; PAGE];
    fs::File::open(model)?.read_exact(&mut page)?;
    let mut file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let length = file.metadata()?.len();
    let pages = u32::try_from(length.div_ceil(PAGE as u64).max(1)).unwrap_or(u32::MAX);
    page[18..20].copy_from_slice(&[2, 2]); // written and read through a WAL
    page[28..32].copy_from_slice(&pages.to_be_bytes());
    page[32..40].fill(0); // what was free is not known any more
    // The page count above counts only while these two agree.
    page.copy_within(24..28, 92);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&page)?;
    file.set_len(u64::from(pages) * PAGE as u64)?;
    file.sync_all()
}

/// Opens the copy and looks for our tables.
fn usable(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    // Lets a file that is shorter than its header says be read as far as it goes.
    conn.pragma_update(None, "writable_schema", true)?;
    // No trust in what an index says about another table's rows.
    conn.pragma_update(None, "cell_size_check", true)?;
    let tables: i64 = conn.query_row(
        "select count(*) from sqlite_schema where type = 'table' and name in ('run', 'scan_event')",
        [],
        |row| row.get(0),
    )?;
    if tables == 2 { Ok(conn) } else { Err(rusqlite::Error::QueryReturnedNoRows) }
}
