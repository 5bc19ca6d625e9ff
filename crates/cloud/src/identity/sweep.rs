//! What nobody needs any more.

use super::bans;
use crate::error::Result;
use sqlx::PgPool;

/// Sessions that ended a month ago: until then their owners may wonder about them.
///
/// # Errors
/// The database's.
pub async fn purge_sessions(pool: &PgPool) -> Result<u64> {
    let old = sqlx::query!("delete from user_session where expires_at < now() - interval '30 days'");
    Ok(old.execute(pool).await?.rows_affected())
}

/// Wrong tries that a day of quiet has forgiven, sign-ins whose second step never came, and second factors that
/// were begun and not confirmed within a day.
///
/// # Errors
/// The database's.
pub async fn purge_failures(pool: &PgPool) -> Result<u64> {
    let old = sqlx::query!("delete from sign_in_failure where last_at < now() - interval '1 day'");
    let half = sqlx::query!("delete from sign_in_challenge where expires_at < now()");
    let begun = sqlx::query!(
        "delete from user_totp where confirmed_at is null and created_at < now() - interval '1 day'"
    );
    let old = old.execute(pool).await?.rows_affected();
    let half = half.execute(pool).await?.rows_affected();
    Ok(old + half + begun.execute(pool).await?.rows_affected())
}

/// Claims that nobody redeemed in time, and those that were redeemed a month ago: no answer of them is still awaited.
///
/// # Errors
/// The database's.
pub async fn purge_claims(pool: &PgPool) -> Result<u64> {
    let old = sqlx::query!(
        "delete from gateway_claim where (redeemed_at is null and expires_at < now() - interval '1 day')
             or redeemed_at < now() - interval '30 days'"
    );
    Ok(old.execute(pool).await?.rows_affected())
}

/// Links and codes of mails that nobody followed in time.
///
/// # Errors
/// The database's.
pub async fn purge_mail_tokens(pool: &PgPool) -> Result<u64> {
    let old = sqlx::query!("delete from mail_token where expires_at < now() - interval '1 day'");
    Ok(old.execute(pool).await?.rows_affected())
}

/// Bans that were lifted, or ran out, two years ago.
///
/// # Errors
/// The database's.
pub async fn purge_bans(pool: &PgPool) -> Result<u64> {
    bans::lift_ended(pool).await?;
    let old = sqlx::query!("delete from user_ban where lifted_at < now() - interval '2 years'");
    Ok(old.execute(pool).await?.rows_affected())
}
