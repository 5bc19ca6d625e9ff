//! The disk around the database: room, the reserve file, and the lock that keeps a second gateway out.

use super::OpenError;
use nix::fcntl::{Flock, FlockArg, posix_fallocate};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

const RESERVE: &str = "reserve";
const LOCK: &str = "lock";

/// Free bytes for this user on the disk that holds `dir`.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    room(dir).map(|(free, _)| free)
}

/// Free bytes for this user, and all bytes, of the disk that holds `dir`.
#[allow(clippy::useless_conversion, reason = "32-bit boards count blocks in 32 bits")]
fn room(dir: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(u64::from(stat.fragment_size()));
    Some((bytes(u64::from(stat.blocks_available())), bytes(u64::from(stat.blocks()))))
}

/// Held as long as the process lives, however it ends.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: Flock<File>,
}

/// Takes the data directory for this process.
pub(super) fn lock(dir: &Path) -> Result<DirLock, OpenError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(OpenError::path(&path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(DirLock { _file: file }),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(OpenError::InUse(dir.to_owned())),
        Err((_, errno)) => Err(OpenError::Path { path, error: errno.into() }),
    }
}

/// A file that can be given up to have room to act when the disk is full.
#[derive(Debug)]
pub(super) struct Reserve {
    dir: PathBuf,
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    pub(super) fn new(dir: &Path, bytes: u64) -> Self {
        Self { dir: dir.to_owned(), path: dir.join(RESERVE), bytes }
    }

    /// Makes the file again if it is gone and there is room to spare. Never an error: a gateway
    /// without a reserve still works.
    pub(super) fn keep(&self) {
        if self.is_whole() {
            return;
        }
        if free_bytes(&self.dir).is_some_and(|free| free > self.bytes.saturating_mul(2)) {
            self.restore();
        }
    }

    /// Makes the file again wherever it just fits; says whether it is there.
    pub(super) fn restore(&self) -> bool {
        if self.is_whole() {
            return true;
        }
        if let Err(error) = self.allocate() {
            tracing::debug!(%error, "the reserve file could not be made");
            self.give_up();
            return false;
        }
        true
    }

    /// Free bytes and all bytes of the disk it is on.
    pub(super) fn disk(&self) -> Option<(u64, u64)> {
        room(&self.dir)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.bytes == 0
            || fs::metadata(&self.path).is_ok_and(|meta| meta.is_file() && meta.len() == self.bytes)
    }

    fn allocate(&self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&self.path)?;
        // Half as wide on a 32-bit Pi.
        let bytes = self.bytes.try_into().map_err(|_| io::ErrorKind::FileTooLarge)?;
        posix_fallocate(&file, 0, bytes)?;
        file.sync_all()
    }

    /// Frees the room; says whether there was any.
    pub(super) fn give_up(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
