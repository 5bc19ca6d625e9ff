//! What can go wrong with the embedded PostgreSQL, each said with the way out.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "no PostgreSQL server programs were found ({searched}). Install them (Debian, Ubuntu: \
         apt-get install postgresql), or name their folder in `database.bin_dir`, or name a server to use \
         instead in `database.url`"
    )]
    NoBinaries { searched: String },

    #[error(
        "`database.bin_dir` is {dir}, but there is no usable `postgres` and `initdb` in it: {reason}. Correct \
         it, or leave it out to use the system's PostgreSQL"
    )]
    BadBinDir { dir: PathBuf, reason: String },

    #[error(
        "the PostgreSQL in {dir} is version {found}; Lumbung needs {needed} or newer. Install a newer one \
         (Debian, Ubuntu: apt-get install postgresql) or name another folder in `database.bin_dir`"
    )]
    TooOld { dir: PathBuf, found: u32, needed: u32 },

    #[error(
        "the database in {cluster} was made by PostgreSQL {wanted}, whose programs are not here any more \
         (found: {found}). Install them (Debian, Ubuntu: apt-get install postgresql-{wanted}) or name their \
         folder in `database.bin_dir`. To move to another version, dump the data with {wanted} first"
    )]
    OtherMajor { cluster: PathBuf, wanted: u32, found: String },

    #[error(
        "{cluster} exists but holds no PostgreSQL database (no readable PG_VERSION). It was left as it is: \
         move it away, or choose another `data_dir`"
    )]
    NotACluster { cluster: PathBuf },

    #[error(
        "{dir} is already used by another lumbung-cloud ({holder}). Stop that one, or give this one a \
         `data_dir` of its own"
    )]
    InUse { dir: PathBuf, holder: String },

    #[error(
        "the lumbung-cloud that runs on {dir} has a PostgreSQL that takes no connections yet ({answer}). It may \
         still be starting or recovering after a power cut: try again in a minute. Its log: {log}"
    )]
    NotYet { dir: PathBuf, answer: String, log: PathBuf },

    #[error(
        "user id {uid}{whose} has no name in the user database (/etc/passwd), and PostgreSQL refuses to run \
         for a nameless user. Add one (useradd --uid {uid} lumbung), or run as a user that has a name"
    )]
    UnknownUser { uid: u32, whose: String },

    #[error(
        "PostgreSQL must not run as root, and neither a user `postgres` nor a user `nobody` exists to run it \
         as. Make one (useradd --system postgres), or start lumbung-cloud as an ordinary user"
    )]
    NobodyToRunAs,

    #[error(
        "user `{user}`, whom PostgreSQL runs as, may not pass through {blocked} on the way to {path}. Allow \
         it (chmod o+x {blocked}), or choose a `data_dir` elsewhere"
    )]
    NotSearchable { user: String, blocked: PathBuf, path: PathBuf },

    #[error(
        "{path} belongs to another user, so user `{user}` cannot use it. Start lumbung-cloud as its owner, or \
         hand it over (chown -R {user} {path})"
    )]
    NotOurs { path: PathBuf, user: String },

    #[error("the disk that holds {dir} is full ({detail}). Free some space there and start again")]
    NoSpace { dir: PathBuf, detail: String },

    #[error(
        "no short enough private folder for PostgreSQL's socket could be made: {detail}. Choose a shorter \
         `data_dir` (socket paths end at 107 characters)"
    )]
    NoSocketDir { detail: String },

    #[error("PostgreSQL could not make its database in {cluster}: {detail}")]
    InitFailed { cluster: PathBuf, detail: String },

    #[error("PostgreSQL stopped while starting ({status}). Its last words: {last_words}. Its log: {log}")]
    StartFailed { status: String, last_words: String, log: PathBuf },

    #[error(
        "an earlier PostgreSQL (process {pid}) still runs on {cluster} and does not stop. End it, then start again"
    )]
    StillRunning { pid: i32, cluster: PathBuf },

    #[error(
        "PostgreSQL died {deaths} times within a minute, so it is given up. Its last words: {last_words}. \
         Its log: {log}"
    )]
    KeepsDying { deaths: usize, last_words: String, log: PathBuf },

    #[error("PostgreSQL (process {pid}) did not stop in time. Its log: {log}")]
    WillNotStop { pid: i32, log: PathBuf },

    #[error("PostgreSQL runs, but its role and database could not be made ready: {source}")]
    Prepare { source: sqlx::Error },

    #[error("could not {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },

    #[error("a task of the embedded PostgreSQL was cut short: {0}")]
    Interrupted(String),
}

impl EmbeddedError {
    /// An I/O error with what was tried; a full disk is said as such, since its cure is another one.
    pub(super) fn io(action: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { dir: path.to_path_buf(), detail: source.to_string() }
            }
            _ => Self::Io { action, path: path.to_path_buf(), source },
        }
    }
}

/// PostgreSQL's way of saying that the disk is full, in its own log.
pub(super) fn says_no_space(words: &str) -> bool {
    words.contains("No space left on device") || words.contains("Disk quota exceeded")
}
