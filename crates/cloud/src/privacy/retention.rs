//! What proves that people's wishes were followed, until it need not be proved any more, and how much waits.

use crate::error::Result;
use crate::metrics::Privacy;
use sqlx::PgPool;

/// Gives up consents that were withdrawn and requests that were answered five years ago; how many rows.
///
/// # Errors
/// The database's.
pub async fn one_round(pool: &PgPool) -> Result<u64> {
    let consents = sqlx::query!("delete from consent where withdrawn_at < now() - interval '5 years'");
    let requests = sqlx::query!("delete from privacy_request where answered_at < now() - interval '5 years'");
    Ok(consents.execute(pool).await?.rows_affected() + requests.execute(pool).await?.rows_affected())
}

/// Requests that wait: in time, due within a day, overdue.
///
/// # Errors
/// The database's.
pub async fn figures(pool: &PgPool) -> sqlx::Result<Privacy> {
    sqlx::query_as!(
        Privacy,
        r#"select count(*) filter (where due_at >= now() + interval '1 day') as "open!",
               count(*) filter (where due_at >= now() and due_at < now() + interval '1 day') as "due_soon!",
               count(*) filter (where due_at < now()) as "overdue!"
           from privacy_request where answered_at is null"#
    )
    .fetch_one(pool)
    .await
}
