//! The job that makes the store what the table says.

use super::{Files, objects, store};
use crate::config::{Config, Store};
use crate::database::anew;
use crate::error::Result;
use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use sqlx::PgPool;
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

/// Files and objects taken at once.
const AT_ONCE: usize = 500;
/// An object without a row may still be waiting for its transaction; not for a day.
const STRAY_FOR: Duration = Duration::from_secs(24 * 3_600);

/// What a round did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files whose owner dropped them.
    pub files: u64,
    /// Objects that nothing named.
    pub strays: u64,
}

/// Takes dropped files out of the store and then their rows, and objects that nothing names for a day.
///
/// # Errors
/// The database's or the store's; what is left is done by the next round.
pub async fn one_round(files: &Files) -> Result<Swept> {
    let files_dropped = dropped(files, None).await?;
    Ok(Swept { files: files_dropped, strays: strays(files).await? + torn(files).await? })
}

/// What one person or everybody has dropped. The object first: while it is there its row must say so.
pub async fn dropped(files: &Files, whose: Option<i64>) -> Result<u64> {
    let mut count = 0;
    loop {
        let names = sqlx::query_scalar!(
            "select name from file where deleted_at is not null and ($2::bigint is null or user_id = $2)
             order by deleted_at limit $1",
            AT_ONCE as i64,
            whose
        )
        .fetch_all(anew(&files.state.people))
        .await?;
        for name in &names {
            remove(files, name).await?;
            sqlx::query!("delete from file where name = $1 and deleted_at is not null", name)
                .execute(&files.state.people)
                .await?;
            count += 1;
        }
        if names.len() < AT_ONCE {
            return Ok(count);
        }
    }
}

async fn remove(files: &Files, name: &str) -> Result<()> {
    for path in objects(name) {
        files.remove_object(path.as_ref()).await?;
    }
    Ok(())
}

async fn strays(files: &Files) -> Result<u64> {
    let since = chrono::DateTime::<chrono::Utc>::from(SystemTime::now() - STRAY_FOR);
    let old = files.store.list(None).try_filter(|object| std::future::ready(object.last_modified < since));
    let mut chunks = old.try_chunks(AT_ONCE).boxed();
    let mut count = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| store::unreachable(&error.1))?;
        // Only what has a name of ours: whatever else somebody put there is theirs.
        let named = chunk.iter().filter_map(|object| Some((object.location.filename()?.get(..32)?, object)));
        let (names, objects): (Vec<&str>, Vec<_>) =
            named.filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_hexdigit())).unzip();
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let known: HashSet<String> =
            sqlx::query_scalar!("select name from file where name = any($1)", &names)
                .fetch_all(&files.state.people)
                .await?
                .into_iter()
                .collect();
        for (_, object) in names.iter().zip(objects).filter(|(name, _)| !known.contains(*name)) {
            files.store.delete(&object.location).await.map_err(|error| store::unreachable(&error))?;
            count += 1;
        }
    }
    Ok(count)
}

/// How many files that are somebody's have no object in the store, and how many there are.
///
/// # Errors
/// The database's or the store's.
pub async fn missing(config: &Config, pool: &PgPool) -> Result<(u64, u64)> {
    let folder = config.data_dir.join("files");
    let mut there = HashSet::new();
    if config.files.store != Store::Local || folder.exists() {
        let store = store::open(&config.files, &folder)?;
        let mut objects = store.list(None);
        while let Some(object) = objects.try_next().await.map_err(|error| store::unreachable(&error))? {
            there.extend(object.location.filename().map(str::to_owned));
        }
    }
    let names = sqlx::query_scalar!("select name from file where deleted_at is null");
    let mut names = names.fetch(pool);
    let (mut missing, mut all) = (0, 0);
    while let Some(name) = names.try_next().await? {
        all += 1;
        missing += u64::from(!objects(&name).iter().all(|path| there.contains(path.as_ref())));
    }
    Ok((missing, all))
}

/// In a folder of ours an object is first written beside its place. What a crash leaves there is no object to
/// the store, so it is looked for in the folder itself.
async fn torn(files: &Files) -> Result<u64> {
    if files.state.config.files.store != Store::Local {
        return Ok(0);
    }
    let folder = files.state.config.data_dir.join("files");
    let removed = tokio::task::spawn_blocking(move || -> std::io::Result<u64> {
        let mut count = 0;
        let exports = std::fs::read_dir(folder.join(super::EXPORTS)).into_iter().flatten();
        for entry in std::fs::read_dir(folder)?.chain(exports) {
            let entry = entry?;
            let torn = entry.file_name().to_str().is_some_and(|name| name.contains('#'));
            let long_ago = SystemTime::now() - STRAY_FOR;
            if torn && entry.metadata()?.modified()? < long_ago {
                std::fs::remove_file(entry.path())?;
                count += 1;
            }
        }
        Ok(count)
    });
    Ok(removed.await.context("the sweep")?.context("the folder of uploads cannot be swept")?)
}
