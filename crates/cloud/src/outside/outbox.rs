//! The stand-in: what would have been sent stays here, for people who develop and look on.

use super::Undelivered;
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

/// Messages kept; older ones go.
const KEPT: i64 = 200;

/// A message that was not sent.
#[derive(Debug)]
pub struct Kept {
    pub channel: String,
    pub address: String,
    pub title: String,
    pub content: String,
    pub created_at: DateTime<Utc>,
}

/// Keeps a message instead of sending it; the same one once.
pub(super) async fn keep(
    pool: &PgPool,
    channel: &str,
    address: &str,
    title: &str,
    content: &str,
    message_id: Uuid,
) -> Result<(), Undelivered> {
    sqlx::query!(
        "with kept as (
             insert into kept_message (channel, address, title, content, message_id) values ($1, $2, $3, $4, $5)
             on conflict on constraint kept_message_message_key do nothing)
         delete from kept_message where kept_message_id <=
             (select kept_message_id from kept_message order by kept_message_id desc offset $6 limit 1)",
        channel,
        address,
        title,
        content,
        message_id,
        KEPT - 1
    )
    .execute(pool)
    .await
    .map_err(|error| Undelivered::Later(error.to_string()))?;
    Ok(())
}

/// What was kept, the latest first.
///
/// # Errors
/// The database's.
pub async fn kept(pool: &PgPool) -> sqlx::Result<Vec<Kept>> {
    sqlx::query_as!(
        Kept,
        "select channel, address, title, content, created_at from kept_message order by kept_message_id desc"
    )
    .fetch_all(pool)
    .await
}

/// Takes away what was kept for these addresses.
pub async fn forget(conn: &mut sqlx::PgConnection, addresses: &[String]) -> sqlx::Result<()> {
    let addresses: Vec<String> = addresses.iter().map(|address| address.to_lowercase()).collect();
    sqlx::query!("delete from kept_message where lower(address) = any($1)", &addresses).execute(conn).await?;
    Ok(())
}
