//! Backups of the whole cloud, and bringing them back.
//!
//! What must stay true:
//! - A folder that has its name is whole: it is made beside it, synced to the disk, then renamed.
//! - The dump and the counts in the manifest see one and the same moment (one exported snapshot).
//! - Nothing is migrated by a backup: it is made before an update as well as after.
//! - A restore is all of it or nothing, and never mixes with what is there.

mod manifest;
mod restore;
mod uploads;

pub use manifest::Manifest;
pub use restore::{restore, try_out};

use crate::audit::{Action, By, Object};
use crate::config::Config;
use crate::database::{Server, programs::Programs};
use crate::finding::Finding;
use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use manifest::{DUMP, Part};
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool};
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// `lumbung-20261121T020000Z`; the same order by name as by time.
const PREFIX: &str = "lumbung-";
const MAKING: &str = ".making";
/// A timer makes one each night.
const OLD_HOURS: i64 = 50;

/// Makes a backup in a new folder below `into`. Says where and what.
///
/// # Errors
/// What was missing; nothing is left behind then.
pub async fn make(config: &Config, into: &Path) -> anyhow::Result<(PathBuf, Manifest)> {
    let server = Server::join(config).await?;
    let made = make_of(config, &server, into).await;
    server.stop().await?;
    made
}

async fn make_of(config: &Config, server: &Server, into: &Path) -> anyhow::Result<(PathBuf, Manifest)> {
    DirBuilder::new().recursive(true).mode(0o700).create(into).with_context(|| into.display().to_string())?;
    sweep(into)?;
    let mut connection = PgConnection::connect_with(&server.connect_options()).await?;
    let began = sqlx::query!(
        r#"select now() as "now!", current_setting('server_version_num')::int / 10000 as "major!""#
    )
    .fetch_one(&mut connection)
    .await?;
    let major = u32::try_from(began.major)?;
    let name = format!("{PREFIX}{}", began.now.format("%Y%m%dT%H%M%SZ"));
    let (making, done) = (into.join(format!("{name}{MAKING}")), into.join(&name));
    ensure!(!done.exists(), "{} is there already", done.display());
    DirBuilder::new().mode(0o700).create(&making).with_context(|| making.display().to_string())?;
    let programs = Programs::find(server, &config.database, major)?;
    let written = match fill(&mut connection, &programs, config, &making, major).await {
        Ok(manifest) => finish(&manifest, &making, &done, into).map(|()| manifest),
        Err(error) => Err(error),
    };
    match written {
        Ok(manifest) => {
            note(&mut connection, &manifest, &name).await?;
            connection.close().await?;
            Ok((done, manifest))
        }
        Err(error) => {
            let _ = fs::remove_dir_all(&making);
            Err(error)
        }
    }
}

async fn fill(
    connection: &mut PgConnection,
    programs: &Programs,
    config: &Config,
    folder: &Path,
    major: u32,
) -> anyhow::Result<Manifest> {
    let mut tx = connection.begin_with("begin isolation level repeatable read, read only").await?;
    let seen = sqlx::query!(r#"select pg_export_snapshot() as "snapshot!", clock_timestamp() as "now!""#)
        .fetch_one(&mut *tx)
        .await?;
    // Not `query!`: the table is sqlx's own and not there where queries are checked.
    let migration: Option<i64> = sqlx::query_scalar("select max(version) from _sqlx_migrations")
        .fetch_one(&mut *tx)
        .await
        .context("there is no schema of lumbung-cloud in this database")?;
    let mut manifest = Manifest::new(seen.now, migration.context("this database is empty")?, major);
    let dump = folder.join(DUMP);
    let (file, snapshot) = (format!("--file={}", dump.display()), format!("--snapshot={}", seen.snapshot));
    let arguments = ["--format=custom", "--no-owner", "--no-acl", &file, &snapshot];
    let (dumped, rows) = tokio::join!(programs.run("pg_dump", &arguments), manifest::rows(&mut tx));
    dumped?;
    manifest.rows = rows?;
    tx.commit().await?;
    // After the snapshot: a row that it shows had its file before.
    let (from, to) = (config.clone(), folder.to_owned());
    let before = ours(folder.parent().unwrap_or(folder))?.into_iter().filter(|path| !is_making(path)).max();
    manifest.parts = tokio::task::spawn_blocking(move || {
        let mut parts = vec![Part::of(&to, DUMP)?];
        parts.extend(uploads::save(&from, &to, before.as_deref())?);
        anyhow::Ok(parts)
    })
    .await??;
    Ok(manifest)
}

/// Onto the disk, and then by its name.
fn finish(manifest: &Manifest, making: &Path, done: &Path, into: &Path) -> anyhow::Result<()> {
    let mut file = File::create_new(making.join(manifest::NAME))?;
    file.write_all(serde_json::to_string_pretty(manifest)?.as_bytes())?;
    file.sync_all()?;
    for part in &manifest.parts {
        let path = making.join(&part.name);
        File::open(&path)?.sync_all()?;
        File::open(path.parent().unwrap_or(making))?.sync_all()?;
    }
    File::open(making)?.sync_all()?;
    fs::rename(making, done)?;
    File::open(into)?.sync_all()?;
    Ok(())
}

/// So that an operator is told when backups stop, and it is known that everything was copied.
async fn note(connection: &mut PgConnection, manifest: &Manifest, name: &str) -> anyhow::Result<()> {
    let mut tx = connection.begin().await?;
    let noted = sqlx::query!(
        "insert into backup (made_at, bytes) values ($1, $2)",
        manifest.made_at,
        i64::try_from(manifest.bytes())?
    )
    .execute(&mut *tx)
    .await;
    match noted {
        // A database that this program has not migrated yet.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => return Ok(()),
        other => other.map(drop)?,
    }
    let detail =
        json!({ "made": true, "rows": manifest.rows.values().sum::<i64>(), "bytes": manifest.bytes() });
    By::command().did(&mut tx, Action::AdminAction, Object::new("backup", &name), None, detail).await?;
    Ok(tx.commit().await?)
}

/// When the newest backup was made.
pub async fn latest(pool: &PgPool) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!("select max(made_at) from backup").fetch_one(pool).await
}

/// Whether there is one that is not too old.
pub async fn check(pool: &PgPool) -> Finding {
    let advice = "enable lumbung-cloud-backup.timer, or see `journalctl -u lumbung-cloud-backup`";
    match latest(pool).await {
        Err(error) => Finding::fail("backup", error.to_string(), "see the database"),
        Ok(None) => Finding::warn("backup", "none was ever made", advice),
        Ok(Some(at)) => {
            let hours = (Utc::now() - at).num_hours();
            if hours > OLD_HOURS {
                return Finding::warn("backup", format!("the newest is {hours} h old"), advice);
            }
            Finding::ok("backup", format!("the newest is {hours} h old"))
        }
    }
}

/// Removes the oldest backups below `into` until `keep` are left. Says how many it removed.
///
/// # Errors
/// The file system's.
pub fn prune(into: &Path, keep: usize) -> anyhow::Result<usize> {
    let mut whole: Vec<PathBuf> = ours(into)?.into_iter().filter(|path| !is_making(path)).collect();
    whole.sort_unstable();
    let surplus = whole.len().saturating_sub(keep.max(1));
    for path in whole.iter().take(surplus) {
        fs::remove_dir_all(path).with_context(|| path.display().to_string())?;
    }
    Ok(surplus)
}

/// What an interrupted backup left.
fn sweep(into: &Path) -> anyhow::Result<()> {
    for path in ours(into)?.into_iter().filter(|path| is_making(path)) {
        fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn is_making(path: &Path) -> bool {
    path.to_string_lossy().ends_with(MAKING)
}

fn ours(into: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(into).with_context(|| into.display().to_string())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_backups_stay_and_what_is_not_ours_too() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| fs::create_dir(dir.path().join(name)).unwrap();
        for day in 1..=5 {
            make(&format!("lumbung-2026110{day}T020000Z"));
        }
        make("lumbung-20261106T020000Z.making");
        make("photos");
        assert_eq!(prune(dir.path(), 2).unwrap(), 3);
        sweep(dir.path()).unwrap();
        let mut left: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["lumbung-20261104T020000Z", "lumbung-20261105T020000Z", "photos"]);
        assert_eq!(prune(dir.path(), 0).unwrap(), 1, "the last one stays whatever is asked");
    }
}
