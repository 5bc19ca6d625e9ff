//! Accounts in the hands of an operator at the command line: the first admin, bans, other people's sessions.

use super::passwords::{Password, Passwords};
use super::people::{check_email, check_username, taken};
use super::roles::Role;
use super::secret;
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};

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

/// Makes an account. Without a user name it is the address's own; without a password one is drawn.
///
/// # Errors
/// [`Error::Fields`], `EMAIL_TAKEN`, `USERNAME_TAKEN`, or the database's.
pub async fn add(
    pool: &PgPool,
    email: &str,
    username: Option<&str>,
    role: Role,
    password: Option<String>,
) -> Result<Added> {
    check_email(email)?;
    let username = username.or_else(|| email.split('@').next()).unwrap_or_default();
    check_username(username)?;
    let drawn = if password.is_none() { Some(secret::draw_claim()?) } else { None };
    let chosen = password.or_else(|| drawn.clone()).unwrap_or_default();
    let password = Password::chosen("password", chosen, &[email, username])?;
    let hash = Passwords::new().hash(password).await?;
    let user_id = sqlx::query_scalar!(
        "insert into app_user (email, username, password_hash, role) values ($1, $2, $3, $4) returning user_id",
        email,
        username,
        hash,
        role.word()
    )
    .fetch_one(pool)
    .await
    .map_err(taken)?;
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
        r#"select user_id, email, username, role as "role: Role", is_active, created_at from app_user order by user_id"#
    )
    .fetch_all(pool)
    .await?)
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
pub async fn set_role(conn: &mut PgConnection, user_id: i64, role: Role) -> Result<Role> {
    if role != Role::Admin {
        keep_an_admin(conn, user_id).await?;
    }
    sqlx::query_scalar!(
        r#"update app_user u set role = $2, updated_at = now() from app_user was
           where u.user_id = $1 and was.user_id = u.user_id returning was.role as "role: Role""#,
        user_id,
        role.word()
    )
    .fetch_optional(conn)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))
}

/// Refuses to go on without an admin who can sign in. The rows stay locked until the transaction ends: of two
/// admins who shut each other out at once, the second one finds itself the last.
async fn keep_an_admin(conn: &mut PgConnection, without: i64) -> Result<()> {
    let admins = sqlx::query_scalar!(
        "select user_id from app_user where role = 'admin' and is_active order by user_id for update"
    )
    .fetch_all(conn)
    .await?;
    if admins == [without] { Err(Error::Conflict("LAST_ADMIN")) } else { Ok(()) }
}

/// Bans an account, which ends its sessions, or lets it in again.
///
/// # Errors
/// `NOT_FOUND`, `LAST_ADMIN`, or the database's.
pub async fn set_active(pool: &PgPool, email: &str, active: bool) -> Result<()> {
    let mut tx = pool.begin().await?;
    if !active {
        let user_id = named(&mut tx, email).await?;
        keep_an_admin(&mut tx, user_id).await?;
    }
    let user_id = sqlx::query_scalar!(
        "update app_user set is_active = $2, updated_at = now() where lower(email) = lower($1) returning user_id",
        email,
        active
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    if !active {
        sqlx::query!(
            "update user_session set revoked_at = now() where user_id = $1 and revoked_at is null",
            user_id
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// A sign-in as an operator lists it.
#[derive(Serialize)]
pub struct SignIn {
    pub session_id: i64,
    pub user_agent: Option<String>,
    pub created_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
}

/// The sessions of an account that are good, oldest first.
///
/// # Errors
/// The database's.
pub async fn sessions(pool: &PgPool, email: &str) -> Result<Vec<SignIn>> {
    Ok(sqlx::query_as!(
        SignIn,
        "select s.session_id, s.user_agent, s.created_at, s.last_seen_at
         from user_session s join app_user u using (user_id)
         where lower(u.email) = lower($1) and s.revoked_at is null and s.expires_at > now()
         order by s.session_id",
        email
    )
    .fetch_all(pool)
    .await?)
}

/// Ends one session, whoever's it is.
///
/// # Errors
/// `NOT_FOUND`, or the database's.
pub async fn revoke(pool: &PgPool, session_id: i64) -> Result<()> {
    sqlx::query_scalar!(
        "update user_session set revoked_at = coalesce(revoked_at, now()) where session_id = $1
         returning session_id",
        session_id
    )
    .fetch_optional(pool)
    .await?
    .map(|_| ())
    .ok_or(Error::NotFound("NOT_FOUND"))
}
