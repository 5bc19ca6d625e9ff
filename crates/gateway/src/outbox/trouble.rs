//! What can go wrong with the store, named by what must happen next.

use rusqlite::ffi::{self, ErrorCode};
use std::path::PathBuf;

/// An error of SQLite, by consequence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No room. Nothing was written; there may be room later.
    #[error("there is no room on the disk: {0}")]
    Full(String),
    /// Somebody else held the database for too long. Nothing was written.
    #[error("the database is held by another program: {0}")]
    Busy(String),
    /// The file is not a sound database (any more).
    #[error("the database is corrupt: {0}")]
    Corrupt(String),
    /// The disk does not give a part of the file back any more.
    #[error("the disk cannot be read everywhere: {0}")]
    Unreadable(String),
    /// The disk failed; what it holds is unknown until it is read again.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// Our own mistake, or a value the schema refuses. Nothing was written.
    #[error("{0}")]
    Other(String),
}

/// `SQLITE_IOERR_SHMSIZE`: the shared-memory file could not grow. Nothing was written yet, and it happens
/// when the disk is full.
const IOERR_SHMSIZE: i32 = ffi::SQLITE_IOERR_SHMSIZE;

impl Trouble {
    pub(crate) fn of(error: &rusqlite::Error) -> Self {
        let text = error.to_string();
        let Some(code) = error.sqlite_error() else {
            return Self::Other(text);
        };
        let text = format!("{text} (code {})", code.extended_code);
        match code.code {
            _ if code.extended_code == IOERR_SHMSIZE => Self::Full(text),
            _ if [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ].contains(&code.extended_code) => {
                Self::Unreadable(text)
            }
            ErrorCode::DiskFull => Self::Full(text),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy(text),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt(text),
            ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OutOfMemory => Self::Disk(text),
            _ => Self::Other(text),
        }
    }

    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }

    /// Whether the connection must not be used any more.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self, Self::Corrupt(_) | Self::Unreadable(_) | Self::Disk(_))
    }
}

/// Why the store did not do what it was asked, for the caller's caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// The `client_ref` belongs to scan `seq`, whose content is another.
    #[error("the client_ref belongs to scan {seq} with another content")]
    Conflict { seq: i64 },
    /// The key came before, with other readings.
    #[error("the key came before with other readings")]
    KeyReused,
    /// No room; it may be back later.
    #[error("there is no room on the disk")]
    Full,
    /// Another program holds the database; it will let go.
    #[error("the database is held by another program")]
    Busy,
    /// It did not work, and the log says why. Nothing was kept.
    #[error("the store failed")]
    Failed,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("SQLite {found} can lose commits in WAL mode; 3.51.3 or newer is needed")]
    OldSqlite { found: &'static str },
    #[error("another lumbung-gateway is running on {0}")]
    InUse(PathBuf),
    #[error(
        "{path} has version {found} and this program knows versions up to {known}: it was written by a \
         newer program, or is not ours. It was left untouched; install that program, or move the file away"
    )]
    UnknownVersion { path: PathBuf, found: i64, known: i64 },
    #[error("{path} holds tables of another program. It was left untouched; move it away to begin anew")]
    NotOurs { path: PathBuf },
    #[error(
        "{path} was written by an older program; copy its directory, and start this program once on the copy"
    )]
    OlderVersion { path: PathBuf },
    #[error("{path}: {error}")]
    Path { path: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] Trouble),
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

impl OpenError {
    pub(crate) fn path(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |error| Self::Path { path, error }
    }

    /// Whether room on the disk is all that was missing.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Store(trouble) => matches!(trouble, Trouble::Full(_)),
            Self::Path { error, .. } => error.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(Trouble::of(&error))
    }
}
