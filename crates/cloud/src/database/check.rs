//! Whether the database can be trusted with records, and has room for them.

use super::{MIGRATIONS, OLDEST_MAJOR};
use crate::config::{Config, Database};
use crate::finding::{Finding, bytes};
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Beside the pools: the live listener, the watchdog's question, the leader of jobs and two jobs' locks.
const OUTSIDE_THE_POOLS: i32 = 5;
/// Sessions and claims end by the database's clock, tokens by ours.
const CLOCKS_APART_WARN_MS: i64 = 2_000;
const CLOCKS_APART_FAIL_MS: i64 = 30_000;

/// What the database says of itself.
#[derive(Debug, Clone)]
struct Told {
    version: i32,
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    max_connections: i32,
    reserved: i32,
    used: i64,
    ours: i64,
    bytes: i64,
    now: DateTime<Utc>,
    /// Only told to roles that may read all settings.
    data_directory: Option<String>,
    same_machine: bool,
}

/// What was found, and where PostgreSQL's files lie when they can be seen from here. The schema is only worth
/// asking for rows when `migrated`.
#[derive(Debug)]
pub struct Looked {
    pub findings: Vec<Finding>,
    pub migrated: bool,
    pub data_directory: Option<PathBuf>,
}

/// Looks at everything of the database that needs no table of ours.
pub async fn check(pool: &PgPool, settings: &Database) -> Looked {
    let before = Utc::now();
    let told = match told(pool).await {
        Ok(told) => told,
        Err(error) => {
            let advice = "see that PostgreSQL runs, that database.url is right and that its role may sign in";
            let findings = vec![Finding::fail("database", format!("cannot be reached: {error}"), advice)];
            return Looked { findings, migrated: false, data_directory: None };
        }
    };
    let halfway = before + (Utc::now() - before) / 2;
    let migrations = migrations(pool).await;
    let migrated = migrations.state == crate::finding::State::Ok;
    let findings = vec![
        version(&told),
        migrations,
        durability(&told),
        connections(&told, settings),
        clock((told.now - halfway).num_milliseconds()),
        Finding::ok("database_size", bytes(u64::try_from(told.bytes).unwrap_or(0))),
    ];
    let data_directory = told.data_directory.filter(|_| told.same_machine).map(PathBuf::from);
    Looked { findings, migrated, data_directory }
}

pub const VERIFY: &str = "write ?sslmode=verify-full at the end of database.url, with \
    &sslrootcert=/path/of/its/authority.pem unless that is a public one: whoever stands between reads and changes \
    everything else";

/// Whether the server is known to be the right one; nothing to say of one on this machine.
pub fn verified(settings: &Database) -> Option<Finding> {
    let doubt = super::unverified(settings).ok()?;
    doubt.map(|doubt| Finding::warn("database_tls", doubt, VERIFY))
}

pub const MOVE_AWAY: &str = "move its folder `postgres` away once nothing in it is needed: a command that does not \
    find database.url would take it for the cloud's";

/// Whether an embedded database lies beside a given one.
pub fn unused(config: &Config) -> Option<Finding> {
    let unused = super::unused(config).ok()?;
    unused.map(|unused| Finding::warn("database_unused", unused, MOVE_AWAY))
}

/// What is watched all the time.
#[derive(Debug)]
pub struct Figures {
    pub bytes: i64,
    /// The database's clock minus this machine's, milliseconds.
    pub apart_ms: i64,
}

/// Looks at the size and the clock.
///
/// # Errors
/// The database's.
pub async fn figures(pool: &PgPool) -> Result<Figures, sqlx::Error> {
    // Had first, so that waiting for it does not pass for a difference of the clocks.
    let mut connection = pool.acquire().await?;
    let before = Utc::now();
    let told = sqlx::query!(
        r#"select clock_timestamp() as "now!", pg_database_size(current_database()) as "bytes!""#
    )
    .fetch_one(&mut *connection)
    .await?;
    let halfway = before + (Utc::now() - before) / 2;
    Ok(Figures { bytes: told.bytes, apart_ms: (told.now - halfway).num_milliseconds() })
}

async fn told(pool: &PgPool) -> Result<Told, sqlx::Error> {
    sqlx::query_as!(
        Told,
        r#"select current_setting('server_version_num')::int as "version!",
               current_setting('fsync') as "fsync!", current_setting('full_page_writes') as "full_page_writes!",
               current_setting('synchronous_commit') as "synchronous_commit!",
               current_setting('max_connections')::int as "max_connections!",
               current_setting('superuser_reserved_connections')::int as "reserved!",
               (select sum(numbackends) from pg_stat_database)::bigint as "used!",
               (select count(*) from pg_stat_activity where application_name = 'lumbung-cloud') as "ours!",
               pg_database_size(current_database()) as "bytes!", clock_timestamp() as "now!",
               (select setting from pg_settings where name = 'data_directory') as data_directory,
               coalesce(host(inet_server_addr()) in ('127.0.0.1', '::1'), true) as "same_machine!""#
    )
    .fetch_one(pool)
    .await
}

fn version(told: &Told) -> Finding {
    let (major, minor) = (told.version / 10_000, told.version % 10_000);
    if u32::try_from(major).unwrap_or(0) < OLDEST_MAJOR {
        return Finding::fail(
            "database",
            format!("PostgreSQL {major}.{minor}, which is too old"),
            format!("use PostgreSQL {OLDEST_MAJOR} or newer"),
        );
    }
    Finding::ok("database", format!("PostgreSQL {major}.{minor}"))
}

fn durability(told: &Told) -> Finding {
    let off: Vec<&str> = [
        ("fsync", &told.fsync),
        ("full_page_writes", &told.full_page_writes),
        ("synchronous_commit", &told.synchronous_commit),
    ]
    .into_iter()
    .filter_map(|(name, value)| (value == "off").then_some(name))
    .collect();
    if off.is_empty() {
        return Finding::ok("durability", "a commit is on the disk before it is answered");
    }
    Finding::fail(
        "durability",
        format!("{} is off: a power cut loses records that gateways were told are kept", off.join(", ")),
        "turn it on in postgresql.conf, and look for `alter database` or `alter role … set` that turn it off",
    )
}

fn connections(told: &Told, settings: &Database) -> Finding {
    let (people, gateways) = (settings.max_connections, settings.ingest_connections);
    let wanted = i64::from(people) + i64::from(gateways) + i64::from(OUTSIDE_THE_POOLS);
    let all = i64::from(told.max_connections - told.reserved);
    let left = all - told.used + told.ours;
    let found = format!("{left} of {all} for this cloud, which wants up to {wanted}");
    if left >= wanted {
        return Finding::ok("connections", found);
    }
    let advice = "raise max_connections of PostgreSQL, or lower database.max_connections";
    if all < wanted {
        Finding::fail("connections", found, advice)
    } else {
        Finding::warn("connections", found, advice)
    }
}

fn clock(apart_ms: i64) -> Finding {
    let found = format!("{apart_ms} ms between the database's clock and this machine's");
    let advice = "synchronise both machines' clocks (chrony, systemd-timesyncd)";
    match apart_ms.abs() {
        CLOCKS_APART_FAIL_MS.. => Finding::fail("database_clock", found, advice),
        CLOCKS_APART_WARN_MS.. => Finding::warn("database_clock", found, advice),
        _ => Finding::ok("database_clock", found),
    }
}

#[derive(sqlx::FromRow)]
struct Applied {
    version: i64,
    success: bool,
    checksum: Vec<u8>,
}

async fn migrations(pool: &PgPool) -> Finding {
    // Not `query!`: the table is sqlx's own and not there where queries are checked.
    let applied: Result<Vec<Applied>, _> =
        sqlx::query_as("select version, success, checksum from _sqlx_migrations").fetch_all(pool).await;
    let applied = match applied {
        Ok(applied) => applied,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Vec::new(),
        Err(error) => {
            return Finding::fail("migrations", format!("cannot be read: {error}"), "see the database");
        }
    };
    let ours: BTreeMap<i64, &[u8]> = MIGRATIONS.iter().map(|m| (m.version, &*m.checksum)).collect();
    let theirs: BTreeMap<i64, &Applied> = applied.iter().map(|one| (one.version, one)).collect();
    let newest = ours.keys().next_back().copied().unwrap_or(0);
    if let Some(half) = applied.iter().find(|one| !one.success) {
        return Finding::fail(
            "migrations",
            format!("{} was begun and not finished", half.version),
            "restore the latest backup, or mend it by hand and remove its row from _sqlx_migrations",
        );
    }
    if let Some(unknown) = theirs.keys().find(|version| !ours.contains_key(version)) {
        return Finding::fail(
            "migrations",
            format!("the database is newer than this program: it has {unknown}"),
            "install the version of lumbung-cloud that migrated it, or a newer one",
        );
    }
    if let Some((other, _)) = theirs.iter().find(|(version, one)| ours.get(version) != Some(&&*one.checksum))
    {
        return Finding::fail(
            "migrations",
            format!("{other} was applied with another text than this program's"),
            "this database was made by a changed program; use that one, or restore a backup",
        );
    }
    match ours.keys().filter(|version| !theirs.contains_key(version)).count() {
        0 => Finding::ok("migrations", format!("up to date ({newest})")),
        missing => Finding::fail(
            "migrations",
            format!("{missing} are missing"),
            "run `lumbung-cloud migrate`, or start the cloud, which does the same",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::finding::State;

    fn told() -> Told {
        let on = || "on".to_owned();
        Told {
            version: 150_018,
            fsync: on(),
            full_page_writes: on(),
            synchronous_commit: on(),
            max_connections: 100,
            reserved: 3,
            used: 10,
            ours: 5,
            bytes: 1,
            now: Utc::now(),
            data_directory: None,
            same_machine: true,
        }
    }

    #[test]
    fn an_old_server_fails() {
        assert_eq!(version(&told()).state, State::Ok);
        assert_eq!(version(&Told { version: 130_012, ..told() }).state, State::Fail);
    }

    #[test]
    fn whatever_makes_a_commit_less_than_a_promise_is_named() {
        assert_eq!(durability(&told()).state, State::Ok);
        let off = || "off".to_owned();
        for (told, name) in [
            (Told { fsync: off(), ..told() }, "fsync"),
            (Told { full_page_writes: off(), ..told() }, "full_page_writes"),
            (Told { synchronous_commit: off(), ..told() }, "synchronous_commit"),
        ] {
            let found = durability(&told);
            assert!(found.state == State::Fail && found.found.contains(name), "{found:?}");
        }
        let local = Told { synchronous_commit: "local".to_owned(), ..told() };
        assert_eq!(durability(&local).state, State::Ok, "no replica is no danger");
    }

    #[test]
    fn a_cloud_that_cannot_get_all_its_connections_is_told_before_it_happens() {
        let settings = Config::load(None).unwrap().database;
        let state = |told| connections(&told, &settings).state;
        assert_eq!(state(told()), State::Ok);
        assert_eq!(state(Told { used: 90, ..told() }), State::Warn, "others have them");
        assert_eq!(state(Told { max_connections: 20, ..told() }), State::Fail, "they are not there");
    }

    #[test]
    fn clocks_that_differ_are_noticed_either_way() {
        for (apart, state) in
            [(0, State::Ok), (-1_999, State::Ok), (-2_000, State::Warn), (30_000, State::Fail)]
        {
            assert_eq!(clock(apart).state, state, "{apart}");
        }
    }
}
