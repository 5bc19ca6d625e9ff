//! Browsers that may be woken.

use crate::error::{Error, Result};
use crate::outside::Subscription;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

/// Browsers of one person.
const MOST: i64 = 20;

/// A subscription as its owner lists it. The endpoint is a secret between the browser, its push service and us.
#[derive(Debug)]
pub struct Listed {
    pub id: i64,
    pub service: String,
    pub created_at: DateTime<Utc>,
}

/// Keeps a browser's subscription; one that somebody else had on that browser is theirs no more. Beyond 20 the
/// oldest goes.
///
/// # Errors
/// The database's.
pub async fn keep(conn: &mut PgConnection, user_id: i64, browser: &Subscription) -> Result<i64> {
    let id = sqlx::query_scalar!(
        "insert into push_subscription (user_id, endpoint, p256dh, auth) values ($1, $2, $3, $4)
         on conflict on constraint push_subscription_endpoint_key do update
             set user_id = excluded.user_id, p256dh = excluded.p256dh, auth = excluded.auth
         returning push_subscription_id",
        user_id,
        browser.endpoint,
        browser.p256dh,
        browser.auth
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!(
        "delete from push_subscription where user_id = $1 and push_subscription_id not in (
             select push_subscription_id from push_subscription where user_id = $1
             order by push_subscription_id desc limit $2)",
        user_id,
        MOST
    )
    .execute(conn)
    .await?;
    Ok(id)
}

/// A person's browsers, the latest first.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, user_id: i64) -> Result<Vec<Listed>> {
    Ok(sqlx::query_as!(
        Listed,
        r#"select push_subscription_id as id, substring(endpoint from '^https?://([^/]+)') as "service!", created_at
           from push_subscription where user_id = $1 order by push_subscription_id desc"#,
        user_id
    )
    .fetch_all(pool)
    .await?)
}

/// # Errors
/// `NOT_FOUND` when it is not theirs, or the database's.
pub async fn end(pool: &PgPool, user_id: i64, id: i64) -> Result<()> {
    sqlx::query_scalar!(
        "delete from push_subscription where push_subscription_id = $1 and user_id = $2
         returning push_subscription_id",
        id,
        user_id
    )
    .fetch_optional(pool)
    .await?
    .map(drop)
    .ok_or(Error::NotFound("NOT_FOUND"))
}

/// The subscription that a delivery's address names.
pub(super) async fn find(pool: &PgPool, id: &str) -> sqlx::Result<Option<Subscription>> {
    sqlx::query_as!(
        Subscription,
        "select endpoint, p256dh, auth from push_subscription where push_subscription_id::text = $1",
        id
    )
    .fetch_optional(pool)
    .await
}

/// The browser is gone, its push service says.
pub(super) async fn drop_gone(pool: &PgPool, id: &str) -> sqlx::Result<()> {
    sqlx::query!("delete from push_subscription where push_subscription_id::text = $1", id)
        .execute(pool)
        .await
        .map(drop)
}
