//! What stands in a person's list.

use crate::database::anew;
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use sqlx::PgPool;

/// A message as its reader sees it.
#[derive(Debug)]
pub struct Shown {
    pub notification_id: i64,
    pub kind: String,
    pub title: String,
    pub content: String,
    pub related_kind: Option<String>,
    pub related_id: Option<i64>,
    pub times: i32,
    pub is_read: bool,
    pub created_at: DateTime<Utc>,
}

/// A person's messages, the newest first, from below `before` and past `skip`.
///
/// # Errors
/// The database's.
pub async fn list(
    pool: &PgPool,
    user_id: i64,
    only_unread: bool,
    before: Option<i64>,
    skip: i64,
    most: i64,
) -> Result<Vec<Shown>> {
    Ok(sqlx::query_as!(
        Shown,
        r#"select notification_id, kind, title, content, related_kind, related_id, times,
               read_at is not null as "is_read!", created_at
           from notification
           where user_id = $1 and ($2 = false or read_at is null) and ($3::bigint is null or notification_id < $3)
           order by notification_id desc offset $4 limit $5"#,
        user_id,
        only_unread,
        before,
        skip,
        most
    )
    .fetch_all(anew(pool))
    .await?)
}

/// How many messages a person has, and how many of them are unread.
///
/// # Errors
/// The database's.
pub async fn counts(pool: &PgPool, user_id: i64) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"select count(*) as "all!", count(*) filter (where read_at is null) as "unread!"
           from notification where user_id = $1"#,
        user_id
    )
    .fetch_one(pool)
    .await?;
    Ok((row.all, row.unread))
}

/// One message was read; again does no harm.
///
/// # Errors
/// `NOT_FOUND` when it is not theirs, or the database's.
pub async fn read(pool: &PgPool, user_id: i64, notification_id: i64) -> Result<()> {
    sqlx::query_scalar!(
        "update notification set read_at = coalesce(read_at, now())
         where notification_id = $1 and user_id = $2 returning notification_id",
        notification_id,
        user_id
    )
    .fetch_optional(pool)
    .await?
    .map(drop)
    .ok_or(Error::NotFound("NOT_FOUND"))
}

/// All of a person's messages were read; how many had not been.
///
/// # Errors
/// The database's.
pub async fn read_all(pool: &PgPool, user_id: i64) -> Result<u64> {
    let read = sqlx::query!(
        "update notification set read_at = now() where user_id = $1 and read_at is null",
        user_id
    )
    .execute(pool)
    .await?;
    Ok(read.rows_affected())
}
