//! A person's uploads, given to them and taken away; and the store for the copy that is made for them.

use super::{Files, objects, store};
use crate::error::Result;
use actix_web::web::Bytes;
use anyhow::Context;
use futures_util::{Stream, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};
use serde_json::Value;
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt;
use tokio::sync::SemaphorePermit;

/// Where the copies of people's data are in the store: apart from uploads, so that no backup holds them.
pub const EXPORTS: &str = "exports";

/// What is kept of a person's uploads beside their bytes.
pub async fn export(conn: &mut PgConnection, user_id: i64) -> Result<Value> {
    Ok(sqlx::query_scalar!(
        r#"select coalesce(jsonb_agg(to_jsonb(f) - 'sha256' order by f.file_id), '[]') as "data!"
           from file f where f.user_id = $1 and f.deleted_at is null"#,
        user_id
    )
    .fetch_one(conn)
    .await?)
}

/// The names of a person's uploads.
pub async fn names_of(conn: &mut PgConnection, user_id: i64) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        "select name from file where user_id = $1 and deleted_at is null order by file_id",
        user_id
    )
    .fetch_all(conn)
    .await?)
}

/// Takes everything a person uploaded away, whatever it hangs on; how much that was.
pub async fn erase(conn: &mut PgConnection, user_id: i64) -> Result<u64> {
    let dropped =
        sqlx::query!("update file set deleted_at = now() where user_id = $1 and deleted_at is null", user_id)
            .execute(conn)
            .await?;
    Ok(dropped.rows_affected())
}

impl Files {
    /// Leave to make copies of people's data, held while one does: each takes a file as large as all its pictures.
    pub async fn turn_to_copy(&self) -> Result<SemaphorePermit<'_>> {
        Ok(self.copies.acquire().await.context("no turns are given any more")?)
    }

    /// A file without a name, gone when it is closed.
    pub fn scratch(&self) -> Result<std::fs::File> {
        Ok(tempfile::tempfile_in(&self.arriving).context("a scratch file cannot be made")?)
    }

    /// An upload's bytes; none when its object is lost.
    pub async fn read_whole(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let [path, _] = objects(name);
        let read = async { self.store.get(&path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(store::unreachable(&error)),
        }
    }

    /// Copies that are older than `age`, by their objects' names.
    pub async fn exports_older_than(&self, age: Duration) -> Result<Vec<String>> {
        let since = chrono::DateTime::<chrono::Utc>::from(SystemTime::now() - age);
        let all: Vec<_> = self
            .store
            .list(Some(&Path::from(EXPORTS)))
            .try_collect()
            .await
            .map_err(|error| store::unreachable(&error))?;
        let old = all.into_iter().filter(|object| object.last_modified < since);
        Ok(old.map(|object| object.location.to_string()).collect())
    }

    /// Writes a file into the store, however large it is.
    pub async fn put_object(&self, name: &str, mut file: std::fs::File) -> Result<()> {
        std::io::Seek::rewind(&mut file).context("a scratch file cannot be read")?;
        let mut writer = BufWriter::new(Arc::clone(&self.store), Path::from(name));
        let mut file = tokio::fs::File::from_std(file);
        tokio::io::copy(&mut file, &mut writer).await.context("the file store")?;
        Ok(writer.shutdown().await.context("the file store")?)
    }

    /// An object's size and bytes.
    pub async fn read_object(
        &self,
        name: &str,
    ) -> Result<(u64, impl Stream<Item = std::io::Result<Bytes>> + use<>)> {
        let object = self.store.get(&Path::from(name)).await.map_err(|error| store::unreachable(&error))?;
        Ok((object.meta.size, object.into_stream().map_err(std::io::Error::other)))
    }

    /// An object that is gone already is as good.
    pub async fn remove_object(&self, name: &str) -> Result<()> {
        match self.store.delete(&Path::from(name)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(store::unreachable(&error)),
        }
    }
}
