//! How fast one account may be tried, by passwords or by codes of a second factor: a few at once, then each wrong try
//! doubles the wait. It is kept in the database, so asking another replica gains nothing.

use super::secret;
use crate::error::{Error, Result};
use sqlx::PgPool;

/// The failures after which an account has to wait.
const FREE: i32 = 5;

/// What codes are counted by: no address is like it.
pub(super) fn codes_of(user_id: i64) -> String {
    format!("codes of {user_id}")
}

/// Whether so many failures begin a wait.
pub(super) fn locks(failures: i32) -> bool {
    failures == FREE
}

/// Lets one try for an address through, counted as failed until [`forgive`] is called: many at once cannot slip
/// past each other. Five are free; then the wait is 1 s, 2 s, 4 s up to a quarter of an hour. A day of quiet
/// forgives everything. Answers how many failed by now, should this one fail.
///
/// # Errors
/// [`Error::TooMany`] with the seconds to wait, or the database's.
pub(super) async fn count(pool: &PgPool, email: &str) -> Result<i32> {
    let address = address_hash(email);
    // A try that waited for another's row may be older than what that one wrote: hence the clock, not the time it came.
    let let_through = sqlx::query_scalar!(
        "insert into sign_in_failure as f (address_hash, failures, last_at, free_at) values ($1, 1, now(), now())
         on conflict on constraint sign_in_failure_pk do update set
             failures = case when f.last_at < now() - interval '1 day' then 1 else f.failures + 1 end,
             last_at = now(),
             free_at = case
                 when f.last_at < now() - interval '1 day' or f.failures < 4 then now()
                 else now() + least(interval '15 minutes', interval '1 second' * power(2, least(f.failures - 4, 20)))
             end
         where f.free_at <= clock_timestamp()
         returning failures",
        address
    )
    .fetch_optional(pool)
    .await?;
    if let Some(failures) = let_through {
        return Ok(failures);
    }
    let wait = sqlx::query_scalar!(
        r#"select ceil(extract(epoch from free_at - now()))::bigint as "wait!" from sign_in_failure where address_hash = $1"#,
        address
    )
    .fetch_optional(pool)
    .await?;
    Err(Error::TooMany { retry_after: wait.and_then(|wait| u64::try_from(wait).ok()).unwrap_or(1).max(1) })
}

/// The account's owner was there.
pub(super) async fn forgive(pool: &PgPool, email: &str) -> sqlx::Result<()> {
    sqlx::query!("delete from sign_in_failure where address_hash = $1", address_hash(email))
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) fn address_hash(email: &str) -> Vec<u8> {
    secret::hash(&email.to_lowercase())
}
