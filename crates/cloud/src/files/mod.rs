//! What people upload: the one way in, the store behind it, and the way out.
//!
//! What must stay true:
//! - An object is durable in the store before the row that names it is committed, and gone before that row is
//!   deleted. A crash in between leaves an object that nothing names; the sweep takes those that are a day old.
//! - What is kept was made here from the sent image's pixels ([`picture`]); no byte of what was sent is ever served.
//! - While it is looked at, an upload is a file without a name, so that nothing of it is left whatever happens.
//! - A person's files together stay within the quota, however many are sent at once.

mod figures;
mod form;
mod personal;
mod picture;
pub mod serve;
mod store;
pub mod sweep;

pub use figures::{Uploads, uploads, uploads_per_day};
pub use form::Form;
pub use personal::{EXPORTS, erase, export, names_of};
pub use picture::Picture;
#[cfg(fuzzing)]
pub use picture::must_hold;
pub use serve::routes;
pub use store::check;
pub use sweep::missing;

use crate::audit::{Action, By, Object};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::page::Page;
use crate::random;
use crate::state::State;
use anyhow::Context;
use chrono::{DateTime, Utc};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

/// How long an upload waits for its turn to be decoded.
const PATIENCE: Duration = Duration::from_secs(10);

const MIB: usize = 1024 * 1024;
/// Copies of people's data made at once: the second, so that one large one holds nobody up.
const COPIES: usize = 2;

/// What a file is for, which decides how large it may be sent and who may keep copies of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Purpose {
    ProfilePicture,
    WastePhoto,
    Post,
}

impl Purpose {
    /// Bytes, as sent.
    fn most(self) -> usize {
        match self {
            Self::ProfilePicture | Self::WastePhoto => 5 * MIB,
            Self::Post => 16 * MIB,
        }
    }

    /// Who on the way may keep a copy, and for how long nobody asks whether it is still there: what was deleted or
    /// erased is gone from caches by then. Asking again costs no bytes, the tag is that of the content.
    fn cached(self) -> &'static str {
        match self {
            Self::ProfilePicture | Self::Post => "public, max-age=300, must-revalidate",
            Self::WastePhoto => "private, no-cache",
        }
    }
}

/// What a file hangs on, and goes with.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    pub kind: &'static str,
    pub id: i64,
}

/// A picture that is in the store, but is nobody's yet.
pub struct Image {
    name: String,
    purpose: Purpose,
    bytes: i64,
    width: i32,
    height: i32,
    sha256: Vec<u8>,
}

/// Uploads of this installation; shared by all workers of this replica.
pub struct Files {
    state: State,
    store: Arc<dyn ObjectStore>,
    /// Where uploads are while they are looked at.
    arriving: PathBuf,
    turns: Arc<Semaphore>,
    /// For copies of people's data.
    copies: Semaphore,
}

impl Files {
    /// # Errors
    /// A folder that cannot be had, or settings of the store that cannot be used.
    pub fn open(state: &State) -> anyhow::Result<Self> {
        let config = &state.config;
        let arriving = config.data_dir.join("arriving");
        std::fs::create_dir_all(&arriving).with_context(|| format!("cannot make {}", arriving.display()))?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            state: state.clone(),
            store: store::open(&config.files, &config.data_dir.join("files"))?,
            arriving,
            // A large photo takes a core and up to a quarter of a gigabyte while it is decoded.
            turns: Arc::new(Semaphore::new((cores / 2).max(1))),
            copies: Semaphore::new(COPIES),
        })
    }

    /// Puts a picture into the store under a new name.
    ///
    /// # Errors
    /// [`Error::Busy`] while the store does not take it.
    pub async fn put(&self, purpose: Purpose, picture: Picture) -> Result<Image> {
        let Picture { jpeg, thumbnail, width, height } = picture;
        let image = Image {
            name: random::draw::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect(),
            purpose,
            bytes: i64::try_from(jpeg.len() + thumbnail.len()).unwrap_or(i64::MAX),
            width: i32::try_from(width).unwrap_or(i32::MAX),
            height: i32::try_from(height).unwrap_or(i32::MAX),
            sha256: Sha256::digest(&jpeg).to_vec(),
        };
        for (path, bytes) in objects(&image.name).into_iter().zip([jpeg, thumbnail]) {
            self.store.put(&path, bytes.into()).await.map_err(|error| store::unreachable(&error))?;
        }
        Ok(image)
    }

    /// Off the async threads, a few at a time; a request that is dropped does not free its place before its
    /// image is done.
    async fn remake(&self, field: &'static str, mut sent: std::fs::File) -> Result<Picture> {
        let busy = || Error::Busy { retry_after: 5, reason: "too many uploads at once".into() };
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned())
            .await
            .map_err(|_| busy())?
            .map_err(|_| busy())?;
        let made = tokio::task::spawn_blocking(move || -> std::io::Result<_> {
            use std::io::{Read, Seek};
            let mut bytes = Vec::new();
            sent.rewind()?;
            sent.read_to_end(&mut bytes)?;
            let picture = picture::remake(&bytes);
            drop(turn);
            Ok(picture)
        })
        .await
        .map_err(|error| {
            // A decoder that stumbles over an image is no reason to let that image in, or to call us broken.
            tracing::warn!("an image could not be decoded: {error}");
            Error::wrong(field, picture::unreadable())
        })?;
        made.context("an upload cannot be read back")?.map_err(|words| Error::wrong(field, words))
    }

    /// Gives an image its owner, in the caller's transaction; counted in the quota of `user_id`.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED`, or the database's.
    pub async fn keep(
        &self,
        conn: &mut PgConnection,
        image: &Image,
        owner: Owner,
        user_id: i64,
        by: &By,
    ) -> Result<()> {
        // One after the other for each person, so that two at once cannot both find the last place.
        sqlx::query!("select pg_advisory_xact_lock(hashtextextended('quota of ' || $1::bigint, 0))", user_id)
            .execute(&mut *conn)
            .await?;
        let used = used(&mut *conn, user_id).await?;
        if used + image.bytes > self.quota() {
            self.forget(&image.name).await;
            return Err(Error::QuotaExceeded { used, quota: self.quota() });
        }
        let file_id = sqlx::query_scalar!(
            "insert into file (name, owner_kind, owner_id, user_id, purpose, bytes, width, height, sha256)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning file_id",
            image.name,
            owner.kind,
            owner.id,
            user_id,
            image.purpose as Purpose,
            image.bytes,
            image.width,
            image.height,
            image.sha256
        )
        .fetch_one(&mut *conn)
        .await?;
        let detail = json!({ "purpose": image.purpose, "bytes": image.bytes });
        by.did(conn, Action::UploadComplete, Object::new("file", &file_id), None, detail).await
    }

    fn quota(&self) -> i64 {
        self.state.config.files.quota_bytes
    }

    /// Takes an object away that nothing names. Where that fails the sweep will do it.
    async fn forget(&self, name: &str) {
        for path in objects(name) {
            if let Err(error) = self.store.delete(&path).await {
                tracing::debug!("an object stays until the sweep: {error}");
            }
        }
    }

    /// Refuses a person whose place is used up, before anything is read.
    async fn must_have_room(&self, user_id: i64) -> Result<()> {
        let used = used(&mut *self.state.people.acquire().await?, user_id).await?;
        if used >= self.quota() {
            return Err(Error::QuotaExceeded { used, quota: self.quota() });
        }
        Ok(())
    }
}

impl Image {
    /// The name under which it is kept.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Where a file can be had.
pub fn url(config: &Config, name: &str) -> String {
    format!("{}/files/{name}.jpg", config.public_url())
}

/// The objects of a file: itself and its thumbnail.
fn objects(name: &str) -> [Path; 2] {
    [Path::from(format!("{name}.jpg")), Path::from(format!("{name}-{}.jpg", picture::THUMBNAIL))]
}

async fn used(conn: &mut PgConnection, user_id: i64) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        r#"select coalesce(sum(bytes), 0)::bigint as "used!" from file
           where user_id = $1 and deleted_at is null"#,
        user_id
    )
    .fetch_one(conn)
    .await?)
}

/// Takes every file of an owner away, in the caller's transaction: not seen any more from its commit on, and
/// gone from the store with the next [`sweep::one_round`]. How many there were.
///
/// # Errors
/// The database's.
pub async fn drop_of(conn: &mut PgConnection, owner: Owner, by: &By) -> Result<u64> {
    let dropped = sqlx::query_scalar!(
        "update file set deleted_at = now() where owner_kind = $1 and owner_id = $2 and deleted_at is null
         returning file_id",
        owner.kind,
        owner.id
    )
    .fetch_all(&mut *conn)
    .await?;
    for file_id in &dropped {
        by.did(conn, Action::UploadDelete, Object::new("file", file_id), None, json!({})).await?;
    }
    Ok(dropped.len() as u64)
}

/// A file as the one who sent it sees it.
#[derive(Serialize, ToSchema)]
pub struct Uploaded {
    #[schema(example = 31)]
    pub file_id: i64,
    #[schema(example = "http://127.0.0.1:8000/files/0f3a5c7e9b1d2f4a6c8e0a1b3c5d7e9f.jpg")]
    pub url: String,
    #[schema(example = "http://127.0.0.1:8000/files/0f3a5c7e9b1d2f4a6c8e0a1b3c5d7e9f-320.jpg")]
    pub thumbnail_url: String,
    pub purpose: Purpose,
    /// As kept, thumbnail included; what the quota counts.
    #[schema(example = 184_321)]
    pub bytes: i64,
    #[schema(example = 1_200)]
    pub width: i32,
    #[schema(example = 1_600)]
    pub height: i32,
    pub created_at: DateTime<Utc>,
}

impl Files {
    /// What a person has uploaded, the latest first, from before `before` on.
    ///
    /// # Errors
    /// The database's.
    pub async fn of(&self, user_id: i64, page: Page) -> Result<Vec<Uploaded>> {
        let rows = sqlx::query!(
            r#"select file_id, name, purpose as "purpose: Purpose", bytes, width, height, created_at from file
               where user_id = $1 and file_id < $2 and deleted_at is null
               order by file_id desc limit $3 offset $4"#,
            user_id,
            page.after.unwrap_or(i64::MAX),
            page.most,
            page.skip
        )
        .fetch_all(&self.state.people)
        .await?;
        let uploaded = rows.into_iter().map(|row| Uploaded {
            file_id: row.file_id,
            url: url(&self.state.config, &row.name),
            thumbnail_url: url(&self.state.config, &format!("{}-{}", row.name, picture::THUMBNAIL)),
            purpose: row.purpose,
            bytes: row.bytes,
            width: row.width,
            height: row.height,
            created_at: row.created_at,
        });
        Ok(uploaded.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_everybody_may_see_is_kept_on_the_way_and_not_for_long() {
        for (purpose, whose) in
            [(Purpose::ProfilePicture, "public"), (Purpose::Post, "public"), (Purpose::WastePhoto, "private")]
        {
            let cached = purpose.cached();
            assert!(cached.starts_with(whose) && !cached.contains("immutable"), "{purpose:?}: {cached}");
        }
    }
}
