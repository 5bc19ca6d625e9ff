//! The PostgreSQL behind the cloud: a given server, or the embedded one.

mod anew;
pub mod check;
pub(crate) mod copy;
pub mod embedded;
pub mod programs;

pub use anew::anew;

use crate::config::{Config, Database};
use anyhow::{Context, bail};
use embedded::{Embedded, OLDEST_MAJOR};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{Connection, PgPool};
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// A connection that lay unused for longer than this is asked whether it is still there. Asking before every use
/// would make each request one way to the database longer.
const RESTED: Duration = Duration::from_millis(100);

/// Forward only; a merged migration is never edited.
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// An open database: where to connect, and the server itself when it is ours.
pub struct Server {
    options: PgConnectOptions,
    pub embedded: Option<Embedded>,
}

impl Server {
    /// Uses `database.url` when there is one, else starts the embedded PostgreSQL.
    ///
    /// # Errors
    /// A URL that is none, or an embedded server that cannot start; the message says what to do.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        match given(&config.database)? {
            Some(options) => Ok(Self { options, embedded: None }),
            None => {
                let embedded = Embedded::start(settings(config)).await?;
                Ok(Self { options: embedded.connect_options(), embedded: Some(embedded) })
            }
        }
    }

    /// For commands beside a running cloud: as [`Server::join_or_make`], and never a new database. One that was
    /// made because a secret was not found would hide the cloud's own.
    ///
    /// # Errors
    /// As [`Server::join_or_make`], and when there is no database.
    pub async fn join(config: &Config) -> anyhow::Result<Self> {
        if given(&config.database)?.is_none() && !embedded::is_there(&settings(config))? {
            bail!(
                "no database: database.url is empty and {} holds none. Name the cloud's configuration with \
                 --config; the address of a database elsewhere belongs into the file `database.url` of the folder \
                 `credentials` beside it. Before the first start of a new cloud: lumbung-cloud migrate",
                config.data_dir.display()
            );
        }
        Self::join_or_make(config).await
    }

    /// Joins a running cloud's embedded server once that takes connections, or starts it for the moment.
    ///
    /// # Errors
    /// As [`Server::start`], and when the running cloud's server takes none for a minute.
    pub async fn join_or_make(config: &Config) -> anyhow::Result<Self> {
        if given(&config.database)?.is_none()
            && let Some(options) = embedded::running(&settings(config)).await?
        {
            return Ok(Self { options, embedded: None });
        }
        Self::start(config).await
    }

    /// A pool for people's requests. A statement ends after `database.statement_timeout`.
    pub fn people_pool(&self, database: &Database) -> PgPool {
        let timeout = database.statement_timeout.as_millis().to_string();
        pool(database.max_connections, database.people_wait)
            .test_before_acquire(false)
            .before_acquire(|connection, seen| {
                Box::pin(async move {
                    if seen.idle_for > RESTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                let timeout = timeout.clone();
                Box::pin(async move {
                    // Not as start-up options: poolers refuse those.
                    let set =
                        sqlx::query!("select set_config('statement_timeout', $1, false) as timeout", timeout);
                    set.fetch_one(connection).await.map(drop)
                })
            })
            .connect_lazy_with(self.named())
    }

    /// A pool for gateways' batches and long work.
    pub fn gateway_pool(&self, database: &Database) -> PgPool {
        pool(database.ingest_connections, database.acquire_timeout).connect_lazy_with(self.named())
    }

    fn named(&self) -> PgConnectOptions {
        self.options.clone().application_name("lumbung-cloud")
    }

    /// Options for a connection of its own, outside the pools.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.named()
    }

    /// Stops the embedded server, last of all.
    ///
    /// # Errors
    /// The server did not stop.
    pub async fn stop(self) -> anyhow::Result<()> {
        if let Some(embedded) = self.embedded {
            embedded.stop().await?;
        }
        Ok(())
    }
}

/// An embedded database that a given one put out of use: a command that misses `database.url` would take it for
/// the cloud's.
///
/// # Errors
/// A URL that is none, or a folder that cannot be read.
pub fn unused(config: &Config) -> anyhow::Result<Option<String>> {
    let unused = given(&config.database)?.is_some() && embedded::is_there(&settings(config))?;
    Ok(unused.then(|| format!("{} holds a database that is not used", config.data_dir.display())))
}

/// The newest migration that this program knows.
pub fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Brings the schema up to this program's; replicas wait for each other.
///
/// # Errors
/// The database cannot be reached, or was migrated by a newer program.
pub async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    MIGRATIONS.run(pool).await.context("the database could not be migrated")
}

fn pool(connections: u32, patience: Duration) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections).acquire_timeout(patience)
}

fn given(database: &Database) -> anyhow::Result<Option<PgConnectOptions>> {
    if database.url.is_empty() {
        return Ok(None);
    }
    // The URL itself may hold a password and stays out of the message.
    PgConnectOptions::from_str(&database.url).map(Some).context(
        "DATABASE_URL (database.url) is not a PostgreSQL URL such as postgresql://user:password@host/name",
    )
}

/// What stands between this machine and another one's database, where nobody could be sure which server answers.
///
/// # Errors
/// A URL that is none.
pub fn unverified(database: &Database) -> anyhow::Result<Option<String>> {
    let Some(options) = given(database)? else { return Ok(None) };
    let host = options.get_host();
    let here = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let mode = options.get_ssl_mode();
    let verified = matches!(mode, PgSslMode::VerifyFull);
    Ok((!here && !verified).then(|| format!("{host} is asked with sslmode {mode:?}")))
}

fn settings(config: &Config) -> embedded::Settings {
    let bin_dir = &config.database.bin_dir;
    embedded::Settings {
        data_dir: config.data_dir.clone(),
        bin_dir: (!bin_dir.is_empty()).then(|| bin_dir.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machines_database_must_prove_who_it_is() {
        let mut database = Config::load(None).unwrap().database;
        let mut doubted = |url: &str| {
            database.url = url.to_owned();
            unverified(&database).unwrap()
        };
        for here in [
            "",
            "postgresql://u:s@localhost/lumbung",
            "postgresql://u:s@127.0.0.1:5433/lumbung",
            "postgresql://u@%2Frun%2Fpostgresql/lumbung",
            "postgresql://u:s@db.example.id/lumbung?sslmode=verify-full",
        ] {
            assert_eq!(doubted(here), None, "{here}");
        }
        for beyond in ["", "?sslmode=require", "?sslmode=verify-ca", "?sslmode=disable"] {
            let said = doubted(&format!("postgresql://u:rahasia@db.example.id/lumbung{beyond}"));
            assert!(
                said.is_some_and(|said| said.contains("db.example.id") && !said.contains("rahasia")),
                "{beyond}"
            );
        }
    }
}
