//! Shutting an account: with a reason, for a time or for good.
//!
//! What must stay true:
//! - A ban ends every session of the account, and is felt on every replica within a second.
//! - There is always an admin who can sign in.
//! - A ban that has run out lets the person in again without anybody's doing; its sessions stay ended.

use super::language;
use super::roster::keep_an_admin;
use super::sessions;
use crate::audit::{Action, By, Object};
use crate::error::{Error, Result};
use crate::notify::webhooks::{self, Told};
use crate::notify::{self, Kind, Message};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;
use sqlx::{PgConnection, PgPool};

/// Shuts an account; a second ban takes the place of the first. The person is told by e-mail.
///
/// # Errors
/// `NOT_FOUND`, `OWN_ACCOUNT`, `LAST_ADMIN`, [`Error::Fields`], or the database's.
pub async fn ban(
    conn: &mut PgConnection,
    user_id: i64,
    reason: Option<&str>,
    expires_at: Option<DateTime<Utc>>,
    by: &By,
) -> Result<()> {
    if let Some(reason) = reason {
        lumbung_shared::check_text("reason", reason, 500)?;
    }
    if expires_at.is_some_and(|at| at <= Utc::now()) {
        return Err(Error::field("expires_at", "harus di masa depan", "must be in the future"));
    }
    if by.person() == Some(user_id) {
        return Err(Error::Conflict("OWN_ACCOUNT"));
    }
    keep_an_admin(conn, user_id).await?;
    sqlx::query_scalar!(
        "update app_user set is_active = false, updated_at = now()
         where user_id = $1 and erased_at is null returning user_id",
        user_id
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    lift(conn, user_id).await?;
    sqlx::query!(
        "insert into user_ban (user_id, reason, banned_by, expires_at) values ($1, $2, $3, $4)",
        user_id,
        reason,
        by.person(),
        expires_at
    )
    .execute(&mut *conn)
    .await?;
    sessions::end_all(conn, user_id, None).await?;
    let until = expires_at.map(written);
    let message = Message {
        to: language::recipient(conn, user_id).await?,
        kind: Kind::AccountBanned,
        values: json!({ "reason": reason.unwrap_or("-"), "until": until }),
        related: None,
        group: None,
    };
    notify::send(conn, &message).await?;
    let told = json!({ "user_id": user_id, "expires_at": until });
    webhooks::tell(conn, Told::AccountBanned, told).await?;
    let detail = json!({ "expires_at": until });
    by.did(conn, Action::UserBanned, Object::new("user", &user_id), reason, detail).await
}

/// Lets an account in again.
///
/// # Errors
/// `NOT_FOUND`, `NOT_BANNED`, or the database's.
pub async fn unban(conn: &mut PgConnection, user_id: i64, by: &By) -> Result<()> {
    let was_active = sqlx::query_scalar!(
        "update app_user u set is_active = true, updated_at = now() from app_user was
         where u.user_id = $1 and u.erased_at is null and was.user_id = u.user_id returning was.is_active",
        user_id
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    if was_active {
        return Err(Error::Conflict("NOT_BANNED"));
    }
    lift(conn, user_id).await?;
    webhooks::tell(conn, Told::AccountUnbanned, json!({ "user_id": user_id })).await?;
    by.did(conn, Action::UserUnbanned, Object::new("user", &user_id), None, json!({})).await
}

async fn lift(conn: &mut PgConnection, user_id: i64) -> sqlx::Result<()> {
    sqlx::query!("update user_ban set lifted_at = now() where user_id = $1 and lifted_at is null", user_id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Lifts every ban that has run out, as of then: its person may never come and have it lifted.
///
/// # Errors
/// The database's.
pub(super) async fn lift_ended(pool: &PgPool) -> Result<()> {
    let mut tx = pool.begin().await?;
    // The accounts first, as everybody does who bans or lets in; only then is sure which bans are theirs.
    let held = sqlx::query_scalar!(
        "select u.user_id from app_user u join user_ban b using (user_id)
         where b.lifted_at is null and b.expires_at <= now() order by u.user_id for update of u"
    )
    .fetch_all(&mut *tx)
    .await?;
    let lifted = sqlx::query_scalar!(
        "update user_ban set lifted_at = expires_at
         where user_id = any($1) and lifted_at is null and expires_at <= now() returning user_id",
        &held
    )
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query!("update app_user set is_active = true where user_id = any($1)", &lifted)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// For somebody who has just shown that a shut account is theirs: opens it when the ban has run out, else says
/// why it is shut. The account's row stays locked until the transaction ends.
///
/// # Errors
/// `ACCOUNT_INACTIVE` with the reason and the end, or the database's.
pub(super) async fn let_in(conn: &mut PgConnection, user_id: i64) -> Result<()> {
    let account =
        sqlx::query_scalar!("select is_active from app_user where user_id = $1 for update", user_id)
            .fetch_optional(&mut *conn)
            .await?;
    if account == Some(true) {
        return Ok(());
    }
    let ban = sqlx::query!(
        r#"select reason, expires_at, coalesce(expires_at <= now(), false) as "over!"
           from user_ban where user_id = $1 and lifted_at is null"#,
        user_id
    )
    .fetch_optional(&mut *conn)
    .await?;
    match ban {
        Some(ban) if ban.over => {
            lift(conn, user_id).await?;
            sqlx::query!("update app_user set is_active = true where user_id = $1", user_id)
                .execute(conn)
                .await?;
            Ok(())
        }
        ban => {
            let (reason, until) = ban.map_or((None, None), |ban| (ban.reason, ban.expires_at.map(written)));
            Err(Error::Inactive { reason, until })
        }
    }
}

fn written(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
