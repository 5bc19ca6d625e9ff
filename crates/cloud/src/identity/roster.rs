//! Accounts in the hands of admins and of operators at the command line: the first admin, roles, other people's
//! sessions.

use super::passwords::Passwords;
use super::people::{check_email, check_username, taken};
use super::roles::Role;
use super::secret;
use super::tokens::Tokens;
use crate::audit::{Action, By, Object};
use crate::database::anew;
use crate::error::{Error, Result};
use crate::page::Page;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;

/// An account that was just made; the password is seen this once, and only when it was drawn here.
#[derive(Serialize)]
pub struct Added {
    pub user_id: i64,
    pub email: String,
    pub username: String,
    pub role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// Makes an account, and tells so. Without a user name it is the address's own; without a password one is drawn.
///
/// # Errors
/// [`Error::Fields`], `EMAIL_TAKEN`, `USERNAME_TAKEN`, or the database's.
pub async fn add(
    pool: &PgPool,
    email: &str,
    username: Option<&str>,
    role: Role,
    password: Option<String>,
    by: &By,
) -> Result<Added> {
    check_email(email)?;
    let username = username.or_else(|| email.split('@').next()).unwrap_or_default();
    check_username(username)?;
    let drawn = if password.is_none() { Some(secret::draw_claim()?) } else { None };
    let chosen = password.or_else(|| drawn.clone()).unwrap_or_default();
    let hash = Passwords::new().choose("password", chosen, &[email, username]).await?;
    let mut tx = pool.begin().await?;
    let user_id = sqlx::query_scalar!(
        "insert into app_user (email, username, password_hash, role) values ($1, $2, $3, $4) returning user_id",
        email,
        username,
        hash,
        role.word()
    )
    .fetch_one(&mut *tx)
    .await
    .map_err(taken)?;
    let detail = json!({ "role": role });
    by.did(&mut tx, Action::UserCreated, Object::new("user", &user_id), None, detail).await?;
    tx.commit().await?;
    let (email, username) = (email.to_owned(), username.to_owned());
    Ok(Added { user_id, email, username, role, password: drawn })
}

/// An account as an operator lists it.
#[derive(Serialize)]
pub struct Listed {
    pub user_id: i64,
    pub email: String,
    pub username: String,
    pub role: Role,
    pub is_active: bool,
    pub created_at: DateTime<Utc>,
}

/// Every account, oldest first.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool) -> Result<Vec<Listed>> {
    Ok(sqlx::query_as!(
        Listed,
        r#"select user_id, email, username, role as "role: Role", is_active, created_at from app_user
           where erased_at is null order by user_id"#
    )
    .fetch_all(pool)
    .await?)
}

/// Which accounts an admin looks for.
#[derive(Debug, Default)]
pub struct Search {
    pub role: Option<Role>,
    pub active: Option<bool>,
    /// Part of the address, the user name or the full name.
    pub text: Option<String>,
}

/// An account as an admin sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Account {
    #[schema(example = 123)]
    pub user_id: i64,
    #[schema(example = "user@example.com")]
    pub email: String,
    #[schema(example = "userhandle")]
    pub username: String,
    pub full_name: Option<String>,
    pub role: Role,
    /// False while a ban holds.
    pub is_active: bool,
    pub is_verified: bool,
    pub created_at: DateTime<Utc>,
    /// Of the ban that holds.
    pub ban_reason: Option<String>,
    pub ban_expires_at: Option<DateTime<Utc>>,
}

/// The accounts that fit, newest first, and how many there are in all.
///
/// # Errors
/// The database's.
pub async fn search(pool: &PgPool, search: &Search, page: Page) -> Result<(Vec<Account>, i64)> {
    let role = search.role.map(Role::word);
    let pattern = search.text.as_deref().map(contains);
    let accounts = sqlx::query_as!(
        Account,
        r#"select u.user_id, u.email, u.username, u.full_name, u.role as "role: Role",
               (u.is_active or coalesce(b.expires_at <= now(), false)) as "is_active!", u.is_verified, u.created_at,
               case when b.expires_at <= now() then null else b.reason end as ban_reason,
               case when b.expires_at <= now() then null else b.expires_at end as ban_expires_at
           from app_user u left join user_ban b on b.user_id = u.user_id and b.lifted_at is null
           where u.erased_at is null and ($1::text is null or u.role = $1)
               and ($2::bool is null or (u.is_active or coalesce(b.expires_at <= now(), false)) = $2)
               and ($3::text is null or u.email ilike $3 or u.username ilike $3 or u.full_name ilike $3)
               and ($4::bigint is null or u.user_id < $4)
           order by u.user_id desc limit $5 offset $6"#,
        role,
        search.active,
        pattern,
        page.after,
        page.most,
        page.skip
    )
    .fetch_all(anew(pool))
    .await?;
    let total = sqlx::query_scalar!(
        r#"select count(*) as "total!"
           from app_user u left join user_ban b on b.user_id = u.user_id and b.lifted_at is null
           where u.erased_at is null and ($1::text is null or u.role = $1)
               and ($2::bool is null or (u.is_active or coalesce(b.expires_at <= now(), false)) = $2)
               and ($3::text is null or u.email ilike $3 or u.username ilike $3 or u.full_name ilike $3)"#,
        role,
        search.active,
        pattern
    )
    .fetch_one(anew(pool))
    .await?;
    Ok((accounts, total))
}

/// The pattern of texts that hold this one; what a pattern reads as any character stands for itself.
fn contains(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

/// Whose address it is.
///
/// # Errors
/// `NOT_FOUND`, or the database's.
pub async fn named(conn: &mut PgConnection, email: &str) -> Result<i64> {
    sqlx::query_scalar!("select user_id from app_user where lower(email) = lower($1)", email)
        .fetch_optional(conn)
        .await?
        .ok_or(Error::NotFound("NOT_FOUND"))
}

/// Gives an account another role; felt everywhere within a second. Answers the role that it had.
///
/// # Errors
/// `NOT_FOUND`, `LAST_ADMIN`, or the database's.
pub async fn set_role(conn: &mut PgConnection, user_id: i64, role: Role, by: &By) -> Result<Role> {
    if role != Role::Admin {
        keep_an_admin(conn, user_id).await?;
    }
    let was = sqlx::query_scalar!(
        r#"update app_user u set role = $2, updated_at = now() from app_user was
           where u.user_id = $1 and u.erased_at is null and was.user_id = u.user_id
           returning was.role as "role: Role""#,
        user_id,
        role.word()
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    let detail = json!({ "role": role, "before": was });
    by.did(conn, Action::PermissionsChanged, Object::new("user", &user_id), None, detail).await?;
    Ok(was)
}

/// Refuses to go on without an admin who can sign in. The rows stay locked until the transaction ends: of two
/// admins who shut each other out at once, the second one finds itself the last.
pub(super) async fn keep_an_admin(conn: &mut PgConnection, without: i64) -> Result<()> {
    let admins = sqlx::query_scalar!(
        "select user_id from app_user where role = 'admin' and is_active order by user_id for update"
    )
    .fetch_all(conn)
    .await?;
    if admins == [without] { Err(Error::Conflict("LAST_ADMIN")) } else { Ok(()) }
}

/// A sign-in as an operator lists it.
#[derive(Serialize)]
pub struct SignIn {
    pub session_id: i64,
    pub user_agent: Option<String>,
    pub created_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
}

/// The sessions of an account that are good by the configured secret of tokens, oldest first.
///
/// # Errors
/// The database's.
pub async fn sessions(pool: &PgPool, token_secret: &str, email: &str) -> Result<Vec<SignIn>> {
    let tokens = Tokens::open(pool, token_secret).await?;
    Ok(sqlx::query_as!(
        SignIn,
        "select s.session_id, s.user_agent, s.created_at, s.last_seen_at
         from user_session s join app_user u using (user_id)
         where lower(u.email) = lower($1) and s.revoked_at is null and s.expires_at > now()
             and (s.token_key_mark is null or s.token_key_mark = $2)
         order by s.session_id",
        email,
        tokens.mark()
    )
    .fetch_all(pool)
    .await?)
}

/// Ends one session, whoever's it is, and tells so.
///
/// # Errors
/// `NOT_FOUND`, or the database's.
pub async fn revoke(pool: &PgPool, session_id: i64, by: &By) -> Result<()> {
    let mut tx = pool.begin().await?;
    let user_id = sqlx::query_scalar!(
        "update user_session set revoked_at = coalesce(revoked_at, now()) where session_id = $1
         returning user_id",
        session_id
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    let detail = json!({ "session_id": session_id });
    by.did(&mut tx, Action::TokenRevoked, Object::new("user", &user_id), None, detail).await?;
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_means_its_own_characters() {
        assert_eq!(contains("budi_9"), r"%budi\_9%");
        assert_eq!(contains(r"100%\"), r"%100\%\\%");
    }
}
