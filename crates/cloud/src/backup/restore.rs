//! Bringing a backup back: into the cloud's own database, or into a scratch one to see that it would work.

use super::manifest::{DUMP, Manifest, rows};
use super::uploads;
use crate::audit::{Action, By, Object};
use crate::config::Config;
use crate::database::{self, Server, programs::Programs};
use crate::files;
use anyhow::{Context, bail, ensure};
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What was there before, until the restore is complete.
const ASIDE: &str = "before_restore";
/// PostgreSQL sees a moment late that a cloud is gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Restores into the configured database, which must be empty unless `replace`, then migrates it. No cloud may
/// run on it meanwhile. `say` is told how far it is.
///
/// # Errors
/// Why not; the database is then as it was.
pub async fn restore(
    config: &Config,
    folder: &Path,
    replace: bool,
    say: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Manifest> {
    let manifest = checked(folder, &say).await?;
    let server = Server::start(config).await?;
    let restored = into(config, &server, folder, &manifest, replace, &say).await;
    let restored = match restored {
        Ok(()) => finish(config, &server, manifest, folder, &say).await,
        Err(error) => Err(error),
    };
    server.stop().await?;
    restored
}

async fn finish(
    config: &Config,
    server: &Server,
    manifest: Manifest,
    folder: &Path,
    say: &impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Manifest> {
    let pool = server.gateway_pool(&config.database);
    let finished = match database::migrate(&pool).await {
        Ok(()) => with_uploads(config, &pool, manifest, folder, say).await,
        Err(error) => Err(error),
    };
    pool.close().await;
    finished
}

async fn with_uploads(
    config: &Config,
    pool: &PgPool,
    manifest: Manifest,
    folder: &Path,
    say: &impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Manifest> {
    tell(pool, &manifest, folder).await?;
    let (to, from) = (config.clone(), folder.to_owned());
    let manifest =
        tokio::task::spawn_blocking(move || uploads::bring_back(&to, &manifest, &from).map(|()| manifest))
            .await??;
    // The database is whole by now: what its rows name can also be brought later.
    match files::missing(config, pool).await {
        Ok((0, _)) => {}
        Ok((missing, all)) => {
            say(&format!("{missing} of {all} uploads are not in {}", uploads::place(config)))?;
        }
        Err(error) => say(&format!("{} cannot be looked at for uploads: {error}", uploads::place(config)))?,
    }
    Ok(manifest)
}

/// What stands in the restored log ends with the backup; the next entry says why.
async fn tell(pool: &PgPool, manifest: &Manifest, folder: &Path) -> anyhow::Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let detail = json!({ "restored": true, "made_at": manifest.made_at });
    let mut connection = pool.acquire().await?;
    let object = Object::new("backup", &name);
    Ok(By::command().did(&mut connection, Action::AdminAction, object, None, detail).await?)
}

/// Restores into a PostgreSQL of its own that is thrown away, and compares.
///
/// # Errors
/// The backup could not be restored, or is not what its manifest says.
pub async fn try_out(
    config: &Config,
    folder: &Path,
    say: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Manifest> {
    let manifest = checked(folder, &say).await?;
    let scratch = Scratch::below(&config.data_dir)?;
    let mut config = config.clone();
    config.data_dir = scratch.0.clone();
    config.database.url = String::new();
    let server = Server::start(&config).await.context("the scratch database")?;
    let restored = into(&config, &server, folder, &manifest, false, &say).await;
    server.stop().await?;
    restored.map(|()| manifest)
}

/// Reads all of it before anything is touched.
async fn checked(folder: &Path, say: &impl Fn(&str) -> anyhow::Result<()>) -> anyhow::Result<Manifest> {
    let manifest = Manifest::read(folder)?;
    let newest = database::newest_migration();
    ensure!(
        manifest.migration <= newest,
        "this backup is of a newer schema ({}) than this program's ({newest}): install lumbung-cloud {} or newer",
        manifest.migration,
        manifest.version
    );
    say(&format!("reading {} parts", manifest.parts.len()))?;
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || manifest.check_parts(&folder).map(|()| manifest)).await?
}

async fn into(
    config: &Config,
    server: &Server,
    folder: &Path,
    manifest: &Manifest,
    replace: bool,
    say: &impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(&server.connect_options()).await?;
    alone(&mut connection, say).await?;
    let there = sqlx::query!(
        r#"select current_setting('server_version_num')::int / 10000 as "major!",
               exists (select from pg_tables where schemaname = 'public') as "full!",
               exists (select from pg_namespace where nspname = $1) as "aside!""#,
        ASIDE
    )
    .fetch_one(&mut connection)
    .await?;
    ensure!(
        !there.aside,
        "an earlier restore was interrupted. What was there before is in the schema {ASIDE}: look, then \
         `drop schema {ASIDE} cascade`, or drop public and rename it back"
    );
    ensure!(
        !there.full || replace,
        "the database is not empty. `--replace` throws away everything in it and puts the backup in its place"
    );
    let programs = Programs::find(server, &config.database, u32::try_from(there.major)?)?;
    if there.full {
        say("setting aside what is there")?;
        move_aside(&mut connection).await.context(
            "what is there cannot be set aside (the role must own the database); restore into a new, empty one",
        )?;
    }
    let total: i64 = manifest.rows.values().sum();
    say(&format!("restoring {total} rows of {} tables", manifest.rows.len()))?;
    let restored = load(&mut connection, &programs, folder, manifest).await;
    if there.full {
        match &restored {
            Ok(()) => run(&mut connection, &format!("drop schema {ASIDE} cascade")).await?,
            Err(_) => move_back(&mut connection).await?,
        }
    }
    connection.close().await?;
    restored
}

/// Waits for a cloud that has just stopped; refuses beside one that runs.
async fn alone(
    connection: &mut PgConnection,
    say: &impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (began, mut told) = (Instant::now(), false);
    loop {
        let in_use = sqlx::query_scalar!(
            r#"select exists (select from pg_stat_activity where application_name = 'lumbung-cloud'
                   and datname = current_database() and pid <> pg_backend_pid()) as "in_use!""#
        )
        .fetch_one(&mut *connection)
        .await?;
        if !in_use {
            return Ok(());
        }
        ensure!(
            began.elapsed() < GONE_WITHIN,
            "a cloud runs on this database: stop it (and every replica) first"
        );
        if !told {
            say(&format!("waiting {} s for a cloud on this database to be gone", GONE_WITHIN.as_secs()))?;
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn load(
    connection: &mut PgConnection,
    programs: &Programs,
    folder: &Path,
    manifest: &Manifest,
) -> anyhow::Result<()> {
    let dump = folder.join(DUMP).display().to_string();
    let database: String = sqlx::query_scalar!(r#"select current_database()::text as "name!""#)
        .fetch_one(&mut *connection)
        .await?;
    let database = format!("--dbname={database}");
    let arguments = ["--no-owner", "--no-acl", "--exit-on-error", "--single-transaction", &database, &dump];
    programs.run("pg_restore", &arguments).await?;
    let found = rows(connection).await?;
    for (table, expected) in &manifest.rows {
        let found = found.get(table).copied();
        if found != Some(*expected) {
            bail!("{table} has {} rows instead of {expected}", found.unwrap_or(0));
        }
    }
    Ok(())
}

async fn move_aside(connection: &mut PgConnection) -> anyhow::Result<()> {
    let mut tx = connection.begin().await?;
    run(&mut tx, &format!("alter schema public rename to {ASIDE}")).await?;
    run(&mut tx, "create schema public").await?;
    Ok(tx.commit().await?)
}

async fn move_back(connection: &mut PgConnection) -> anyhow::Result<()> {
    let mut tx = connection.begin().await?;
    run(&mut tx, "drop schema public cascade").await?;
    run(&mut tx, &format!("alter schema {ASIDE} rename to public")).await?;
    Ok(tx.commit().await?)
}

/// Only for statements written here: a schema's name cannot be bound.
async fn run(connection: &mut PgConnection, sql: &str) -> anyhow::Result<()> {
    sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(connection).await?;
    Ok(())
}

/// A folder for a PostgreSQL that is thrown away.
struct Scratch(PathBuf);

impl Scratch {
    /// Where the user that PostgreSQL runs as comes through already, and there is room for a database.
    fn below(data_dir: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        std::fs::create_dir_all(data_dir).with_context(|| data_dir.display().to_string())?;
        let path = data_dir.join("backup-verify");
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let owner = std::fs::metadata(data_dir)?;
        if nix::unistd::Uid::effective().is_root() && owner.uid() != 0 {
            std::os::unix::fs::lchown(&path, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the scratch database could not be removed");
        }
    }
}
