//! How long messages are kept.

use crate::error::Result;
use sqlx::PgPool;

/// Takes away what people were told half a year ago, what was sent a month ago, and what was given up three months
/// ago; how many rows.
///
/// # Errors
/// The database's.
pub async fn one_round(pool: &PgPool) -> Result<u64> {
    let told = sqlx::query!("delete from notification where created_at < now() - interval '180 days'");
    let ended = sqlx::query!(
        "delete from delivery where state = 'sent' and ended_at < now() - interval '30 days'
             or state = 'dead' and ended_at < now() - interval '90 days'"
    );
    Ok(told.execute(pool).await?.rows_affected() + ended.execute(pool).await?.rows_affected())
}
