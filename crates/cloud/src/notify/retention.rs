//! How long messages are kept.

use crate::error::Result;
use sqlx::PgPool;

/// Takes away what people were told half a year ago, what was sent a month ago, what was given up three months ago, and
/// telephones that nobody has shown to be theirs within a day; how many rows.
///
/// # Errors
/// The database's.
pub async fn one_round(pool: &PgPool) -> Result<u64> {
    let told = sqlx::query!("delete from notification where created_at < now() - interval '180 days'");
    let ended = sqlx::query!(
        "delete from delivery where state = 'sent' and ended_at < now() - interval '30 days'
             or state = 'dead' and ended_at < now() - interval '90 days'"
    );
    let unverified = sqlx::query!(
        "delete from phone where verified_at is null and code_expires_at < now() - interval '1 day'"
    );
    let mut rows = told.execute(pool).await?.rows_affected();
    rows += ended.execute(pool).await?.rows_affected();
    Ok(rows + unverified.execute(pool).await?.rows_affected())
}
