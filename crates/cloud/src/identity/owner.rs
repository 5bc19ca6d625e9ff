//! Whether it is the account's owner who asks, not somebody with their session: for what would take the account away.

use super::entries::wrong;
use super::passwords::{Checked, Password};
use super::people::People;
use super::sessions::Person;
use super::throttle;
use crate::error::{Error, Result};
use crate::state::State;
use actix_web::HttpRequest;
use sqlx::PgPool;

/// The account as its owner was known by.
pub struct Owner {
    pub email: String,
    pub password_hash: Option<String>,
}

/// By the password; where the account has none, by having signed in within ten minutes.
///
/// # Errors
/// [`Error::Fields`] for a wrong password, `SIGN_IN_AGAIN`, or how long to wait.
pub async fn confirm(
    request: &HttpRequest,
    state: &State,
    people: &People,
    person: &Person,
    password: Option<String>,
) -> Result<Owner> {
    let account = sqlx::query!(
        r#"select u.email, u.password_hash, s.created_at > now() - interval '10 minutes' as "fresh!"
           from user_session s join app_user u using (user_id) where s.session_id = $1"#,
        person.session_id
    )
    .fetch_optional(&state.people)
    .await?
    .ok_or(Error::Unauthenticated)?;
    match &account.password_hash {
        Some(kept) => {
            let typed = Password::typed("password", password.unwrap_or_default())?;
            right(request, state, people, person.user_id, &account.email, ("password", typed), kept.clone())
                .await?;
        }
        None if account.fresh => {}
        None => return Err(Error::Forbidden("SIGN_IN_AGAIN")),
    }
    Ok(Owner { email: account.email, password_hash: account.password_hash })
}

/// Checks a password of somebody who is signed in. Wrong ones count like those to sign in.
///
/// # Errors
/// [`Error::Fields`], or how long to wait.
pub(super) async fn right(
    request: &HttpRequest,
    state: &State,
    people: &People,
    user_id: i64,
    email: &str,
    (field, typed): (&'static str, Password),
    kept: String,
) -> Result<()> {
    let account = Account { user_id, password_hash: Some(kept) };
    let checked = try_password(request, state, people, email, Some(&account), typed).await?;
    checked.map(|_| ()).ok_or_else(|| Error::field(field, "salah", "is wrong"))
}

/// Whose password is tried.
pub(super) struct Account {
    pub user_id: i64,
    pub password_hash: Option<String>,
}

/// The account that has an address, whatever its case.
pub(super) async fn with_address(pool: &PgPool, email: &str) -> sqlx::Result<Option<Account>> {
    sqlx::query_as!(
        Account,
        "select user_id, password_hash from app_user where lower(email) = lower($1)",
        email
    )
    .fetch_optional(pool)
    .await
}

/// Tries a password for an address, which may be nobody's; `None` when it is wrong, which counts and is written down.
///
/// # Errors
/// How long to wait, or the database's.
pub(super) async fn try_password(
    request: &HttpRequest,
    state: &State,
    people: &People,
    email: &str,
    account: Option<&Account>,
    typed: Password,
) -> Result<Option<Checked>> {
    let failures = throttle::count(&state.people, email).await?;
    let kept = account.and_then(|account| account.password_hash.clone());
    let checked = people.passwords.check(typed, kept).await?;
    if matches!(checked, Checked::Wrong) {
        let mut conn = state.people.acquire().await?;
        let whose = account.map(|account| account.user_id);
        wrong(&mut conn, request, whose, failures, "wrong password").await?;
        return Ok(None);
    }
    throttle::forgive(&state.people, email).await?;
    Ok(Some(checked))
}
