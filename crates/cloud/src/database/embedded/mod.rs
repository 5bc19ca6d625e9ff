//! The embedded PostgreSQL: with no `database.url` the cloud runs the system's PostgreSQL programs on a
//! private cluster in its own data folder, as its own child process.
//!
//! What must stay true:
//! - One cloud per data folder: a lock file is held for life, and the kernel drops it with us.
//! - No network: a unix socket in a 0700 folder, and the kernel vouches for who connects (peer).
//! - `fsync` and `full_page_writes` stand on the command line, where no configuration can undo them.
//! - A cluster that has its name is whole (made beside it, then renamed).
//! - PostgreSQL is stopped last and by us; when we are killed it gets SIGINT from the kernel, and when that
//!   did not reach it, the next start finds it and stops it before starting anew.

mod account;
mod binaries;
mod child;
mod cluster;
mod error;
mod leftovers;
mod log;
mod place;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use account::Account;
use binaries::Binaries;
use child::Child;
use cluster::{Configuration, ROLE, SUPERUSER};
use log::Log;
use place::{PORT, Place};

pub(super) use binaries::{OLDEST_MAJOR, programs};
pub use error::EmbeddedError;

/// Five deaths within a minute: something is wrong that a sixth start will not cure.
const MOST_DEATHS: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(25);
/// How long a start is repeated against a server that is still going away.
const BUSY_PATIENCE: Duration = Duration::from_secs(30);
/// Between tries when the server does not even start.
const RETRY_AFTER: Duration = Duration::from_secs(2);
const SAY_EVERY: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// How long a command waits for another's server to take connections.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
const LAST_STOP_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub struct Settings {
    /// The cloud's data folder; `postgres/` and `postgres-run/` below it are ours.
    pub data_dir: PathBuf,
    /// Where `postgres` and `initdb` are; the system's when not given.
    pub bin_dir: Option<PathBuf>,
}

pub struct Embedded {
    server: Server,
    child: Mutex<Option<Child>>,
    // Last: let go after the child was told to stop.
    _lock: File,
}

/// Everything a (re)start needs.
struct Server {
    place: Place,
    account: Account,
    binaries: Binaries,
    configuration: Configuration,
    socket_dir: PathBuf,
    log: Log,
}

impl Embedded {
    /// Finds the programs, makes the cluster if there is none, starts it, waits until it answers, and
    /// makes the role and the database `lumbung`.
    pub async fn start(settings: Settings) -> Result<Self, EmbeddedError> {
        let (server, lock) = blocking(move || Server::prepare(&settings)).await?;
        let child = server.run().await?;
        let embedded = Self { server, child: Mutex::new(Some(child)), _lock: lock };
        embedded.make_role_and_database().await.map_err(|source| EmbeddedError::Prepare { source })?;
        Ok(embedded)
    }

    /// Over the socket, as role `lumbung`, to database `lumbung`.
    pub fn connect_options(&self) -> PgConnectOptions {
        options(&self.server.socket_dir, ROLE, ROLE)
    }

    /// As the superuser, to any database (tests make databases of their own).
    pub fn admin_options(&self, database: &str) -> PgConnectOptions {
        options(&self.server.socket_dir, SUPERUSER, database)
    }

    /// For `psql` and for people.
    pub fn connect_url(&self) -> String {
        let mut host = String::new();
        for byte in self.server.socket_dir.to_string_lossy().bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    host.push(char::from(byte));
                }
                other => host.push_str(&format!("%{other:02X}")),
            }
        }
        format!("postgres://{ROLE}@localhost:{PORT}/{ROLE}?host={host}")
    }

    /// The server's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.with_child(|child| child.filter(|child| child.is_running()).map(Child::pid))
            .and_then(|pid| u32::try_from(pid.as_raw()).ok())
    }

    /// Keeps the server alive: starts it anew whenever it dies, saying so. Ends with `Ok` when told to
    /// stop, with an error when the server could not be kept alive.
    pub async fn supervise(&self, stop: CancellationToken) -> Result<(), EmbeddedError> {
        let mut deaths: Vec<Instant> = Vec::new();
        loop {
            let ended = self.with_child(|child| child.map(Child::ended));
            let how = match ended {
                Some(mut ended) => tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    how = ended.wait_for(Option::is_some) => how.ok().and_then(|how| how.clone()),
                },
                None => None,
            };
            let last_words = self.server.log.last_words();
            tracing::error!(
                ended = how.as_deref().unwrap_or("could not be started"),
                %last_words,
                "PostgreSQL died; starting it again"
            );
            deaths.retain(|death| death.elapsed() < DEATHS_WITHIN);
            deaths.push(Instant::now());
            if deaths.len() >= MOST_DEATHS {
                return Err(self.server.keeps_dying(deaths.len(), last_words));
            }
            self.set_child(None);
            let again = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                again = self.server.run() => again,
            };
            match again {
                Ok(child) => {
                    tracing::info!(pid = child.pid().as_raw(), "PostgreSQL runs again");
                    self.set_child(Some(child));
                }
                Err(error) => {
                    tracing::error!(%error, "PostgreSQL could not be started again");
                    // Its programs may be in the middle of an upgrade.
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = sleep(RETRY_AFTER) => {}
                    }
                }
            }
        }
    }

    /// Stops the server: open connections are cut, committed data is flushed.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        let Some(child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        for (signal, patience) in [(Signal::SIGINT, STOP_PATIENCE), (Signal::SIGQUIT, LAST_STOP_PATIENCE)] {
            child.signal(signal);
            let mut ended = child.ended();
            if timeout(patience, ended.wait_for(Option::is_some)).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(pid = child.pid().as_raw(), ?signal, "PostgreSQL takes long to stop");
        }
        Err(EmbeddedError::WillNotStop { pid: child.pid().as_raw(), log: self.server.log.path() })
    }

    fn with_child<T>(&self, look: impl FnOnce(Option<&Child>) -> T) -> T {
        look(self.child.lock().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    fn set_child(&self, child: Option<Child>) {
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = child;
    }

    /// We hold the lock, so nobody makes them between our look and our make.
    async fn make_role_and_database(&self) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.admin_options("postgres")).await?;
        let role: Option<i32> = sqlx::query_scalar("select 1 from pg_roles where rolname = 'lumbung'")
            .fetch_optional(&mut connection)
            .await?;
        if role.is_none() {
            sqlx::query("create role lumbung login").execute(&mut connection).await?;
        }
        let database: Option<i32> = sqlx::query_scalar("select 1 from pg_database where datname = 'lumbung'")
            .fetch_optional(&mut connection)
            .await?;
        if database.is_none() {
            sqlx::query("create database lumbung owner lumbung template template0 encoding 'UTF8'")
                .execute(&mut connection)
                .await?;
        }
        connection.close().await
    }
}

impl Server {
    /// Everything before the first start; blocking.
    fn prepare(settings: &Settings) -> Result<(Self, File), EmbeddedError> {
        let place = Place::open(&settings.data_dir)?;
        let account = Account::choose(&place.data_dir, &place.cluster)?;
        let lock = place.lock(&account)?;
        let major = place.cluster_major()?;
        let binaries = Binaries::find(settings.bin_dir.as_deref(), &place.cluster, major, &account)?;
        cluster::ensure(&place, &binaries, &account)?;
        let socket_dir = place.make_socket_dir(&account)?;
        let configuration = Configuration::write(&place, &account, &socket_dir)?;
        let log = Log::new(&place.log());
        if log.make() {
            place.keep_owner(&place.log())?;
        }
        Ok((Self { place, account, binaries, configuration, socket_dir, log }, lock))
    }

    /// Starts the server and waits until it answers. After a crash it first replays its log, which may
    /// take minutes: as long as it lives, it is waited for.
    async fn run(&self) -> Result<Child, EmbeddedError> {
        let began = Instant::now();
        loop {
            let child = self.launch().await?;
            match self.answers(&child).await {
                Ok(()) => return Ok(child),
                Err(EmbeddedError::StartFailed { last_words, .. })
                    if leftovers::says_busy(&last_words) && began.elapsed() < BUSY_PATIENCE =>
                {
                    sleep(STEP * 8).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn launch(&self) -> Result<Child, EmbeddedError> {
        let (place, socket_dir) = (self.place.clone(), self.socket_dir.clone());
        blocking(move || leftovers::clear(&place, &socket_dir)).await?;
        let program = self.binaries.program("postgres");
        let mut command = child::as_account(&program, &self.account, "INT");
        command.args(self.configuration.arguments(&self.place.cluster));
        self.log.forget();
        Child::start(command, self.log.clone()).map_err(|e| EmbeddedError::io("start", &program, e))
    }

    async fn answers(&self, child: &Child) -> Result<(), EmbeddedError> {
        let options = options(&self.socket_dir, SUPERUSER, "postgres").disable_statement_logging();
        let mut ended = child.ended();
        let mut said = Instant::now();
        loop {
            if let Some(status) = ended.borrow_and_update().clone() {
                return Err(self.start_failed(status));
            }
            match timeout(SAY_EVERY, PgConnection::connect_with(&options)).await {
                Ok(Ok(connection)) => {
                    let _ = connection.close().await;
                    return Ok(());
                }
                // 28…: it answers, and does not let us in. Waiting will not change its mind.
                Ok(Err(sqlx::Error::Database(refusal)))
                    if refusal.code().is_some_and(|c| c.starts_with("28")) =>
                {
                    return Err(EmbeddedError::Prepare { source: sqlx::Error::Database(refusal) });
                }
                Ok(Err(_)) | Err(_) => {}
            }
            if said.elapsed() > SAY_EVERY {
                said = Instant::now();
                tracing::info!(last_words = %self.log.last_words(), "PostgreSQL is still starting");
            }
            let _ = timeout(STEP, ended.changed()).await;
        }
    }

    fn start_failed(&self, status: String) -> EmbeddedError {
        let last_words = self.log.last_words();
        match self.no_space(&last_words) {
            Some(error) => error,
            None => EmbeddedError::StartFailed { status, last_words, log: self.log.path() },
        }
    }

    fn keeps_dying(&self, deaths: usize, last_words: String) -> EmbeddedError {
        match self.no_space(&last_words) {
            Some(error) => error,
            None => EmbeddedError::KeepsDying { deaths, last_words, log: self.log.path() },
        }
    }

    fn no_space(&self, last_words: &str) -> Option<EmbeddedError> {
        error::says_no_space(last_words).then(|| EmbeddedError::NoSpace {
            dir: self.place.data_dir.clone(),
            detail: last_words.to_owned(),
        })
    }
}

/// Whether there is a cluster, running or not, or somebody is making one.
pub fn is_there(settings: &Settings) -> Result<bool, EmbeddedError> {
    let Ok(place) = Place::at(&settings.data_dir) else { return Ok(false) };
    Ok(place.is_locked() || place.cluster_major()?.is_some())
}

/// For CLI commands: how to join the server of the cloud that runs on this data folder, if one does.
/// While it is starting, recovering or being started anew it is waited for.
pub async fn running(settings: &Settings) -> Result<Option<PgConnectOptions>, EmbeddedError> {
    running_within(settings, JOIN_PATIENCE).await
}

async fn running_within(
    settings: &Settings,
    patience: Duration,
) -> Result<Option<PgConnectOptions>, EmbeddedError> {
    let Ok(place) = Place::at(&settings.data_dir) else { return Ok(None) };
    let deadline = tokio::time::Instant::now() + patience;
    // Whoever holds the lock may end meanwhile.
    while place.is_locked() {
        // It has no socket yet, or that of its last start: both pass.
        let answer = match place.known_socket_dir() {
            Some(dir) => {
                let options = options(&dir, ROLE, ROLE).disable_statement_logging();
                match timeout_at(deadline, PgConnection::connect_with(&options)).await {
                    Ok(Ok(connection)) => {
                        let _ = connection.close().await;
                        return Ok(Some(self::options(&dir, ROLE, ROLE)));
                    }
                    Ok(Err(sqlx::Error::Io(error))) if error.kind() == ErrorKind::PermissionDenied => {
                        return Err(EmbeddedError::io("enter", &dir, error));
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "no answer".to_owned(),
                }
            }
            None => "it has no socket yet".to_owned(),
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(EmbeddedError::NotYet { dir: place.data_dir.clone(), answer, log: place.log() });
        }
        sleep(STEP).await;
    }
    Ok(None)
}

fn options(socket_dir: &Path, user: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(PORT)
        .username(user)
        .database(database)
        // Nothing to encrypt on a socket, whatever PGSSLMODE says.
        .ssl_mode(PgSslMode::Disable)
}

/// Files, locks and processes off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EmbeddedError> + Send + 'static,
) -> Result<T, EmbeddedError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| EmbeddedError::Interrupted(e.to_string()))?
}
