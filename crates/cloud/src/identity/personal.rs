//! What identity knows of a person: given to them, and taken away.

use super::passwords::{Checked, Password};
use super::people::People;
use super::roster::keep_an_admin;
use super::sessions::Person;
use super::throttle;
use crate::error::{Error, Language, Result};
use crate::notify::Recipient;
use crate::state::State;
use serde_json::Value;
use sqlx::PgConnection;

/// Makes sure that the person is there: by the password, or else by having signed in within ten minutes. Wrong
/// tries count like those to sign in.
///
/// # Errors
/// [`Error::Fields`] for a wrong password, `SIGN_IN_AGAIN` without one.
pub async fn confirm(
    state: &State,
    people: &People,
    person: &Person,
    password: Option<String>,
) -> Result<()> {
    let Some(password) = password else {
        let fresh = sqlx::query_scalar!(
            r#"select created_at > now() - interval '10 minutes' as "fresh!" from user_session
               where session_id = $1"#,
            person.session_id
        )
        .fetch_optional(&state.people)
        .await?;
        return if fresh == Some(true) { Ok(()) } else { Err(Error::Forbidden("SIGN_IN_AGAIN")) };
    };
    let password = Password::typed("password", password)?;
    let account =
        sqlx::query!("select email, password_hash from app_user where user_id = $1", person.user_id)
            .fetch_one(&state.people)
            .await?;
    throttle::count(&state.people, &account.email).await?;
    if matches!(people.passwords.check(password, account.password_hash).await?, Checked::Wrong) {
        return Err(Error::field("password", "is wrong"));
    }
    throttle::forgive(&state.people, &account.email).await?;
    Ok(())
}

/// The account, where it was signed in and what its person agreed to; no secret is in it.
pub async fn export(conn: &mut PgConnection, user_id: i64) -> Result<Value> {
    sqlx::query_scalar!(
        r#"select jsonb_build_object(
               'account', to_jsonb(u) - 'password_hash',
               'sessions', (select coalesce(jsonb_agg(to_jsonb(s) - 'token_id_hash' order by s.session_id), '[]')
                            from user_session s where s.user_id = $1),
               'grants', (select coalesce(jsonb_agg(to_jsonb(g) - 'granted_by' order by g.grant_id), '[]')
                          from role_grant g where g.user_id = $1),
               'keys', (select coalesce(jsonb_agg(to_jsonb(k) - 'key_hash' order by k.access_key_id), '[]')
                        from access_key k where k.made_by = $1),
               'bans', (select coalesce(jsonb_agg(to_jsonb(b) - 'banned_by' order by b.ban_id), '[]')
                        from user_ban b where b.user_id = $1),
               'google', (select coalesce(jsonb_agg(to_jsonb(o)), '[]') from user_google o where o.user_id = $1),
               'consents', (select coalesce(jsonb_agg(to_jsonb(c) order by c.consent_id), '[]')
                            from consent c where c.user_id = $1)) as "data!"
           from app_user u where u.user_id = $1"#,
        user_id
    )
    .fetch_optional(conn)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))
}

/// Makes sure that there is somebody to administer what is left when an account is erased.
///
/// # Errors
/// `LAST_ADMIN`, or the database's.
pub async fn may_go(conn: &mut PgConnection, user_id: i64) -> Result<()> {
    keep_an_admin(conn, user_id).await
}

/// An account's address. Nothing else changes the account from now on until the transaction ends.
///
/// # Errors
/// `NOT_FOUND`, or the database's.
pub async fn email(conn: &mut PgConnection, user_id: i64) -> Result<String> {
    sqlx::query_scalar!("select email from app_user where user_id = $1 for update", user_id)
        .fetch_optional(conn)
        .await?
        .ok_or(Error::NotFound("NOT_FOUND"))
}

/// Accounts that were erased within the last two hours.
pub async fn lately_erased(conn: &mut PgConnection) -> Result<Vec<i64>> {
    Ok(sqlx::query_scalar!(
        "select user_id from app_user where erased_at > now() - interval '2 hours' order by user_id"
    )
    .fetch_all(conn)
    .await?)
}

/// Where a person is written to; nobody when the account is gone.
pub async fn recipient(conn: &mut PgConnection, user_id: i64) -> Result<Option<Recipient>> {
    let row = sqlx::query!(
        "select email, language from app_user where user_id = $1 and erased_at is null",
        user_id
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| written_to(user_id, row.email, &row.language)))
}

/// Where the admins are written to.
pub async fn admins(conn: &mut PgConnection) -> Result<Vec<Recipient>> {
    let rows =
        sqlx::query!("select user_id, email, language from app_user where role = 'admin' and is_active")
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().map(|row| written_to(row.user_id, row.email, &row.language)).collect())
}

fn written_to(user_id: i64, email: String, language: &str) -> Recipient {
    let language = if language == "en" { Language::English } else { Language::Indonesian };
    Recipient { user_id: Some(user_id), email: Some(email), language }
}

/// Leaves an account without a person: its number stays for the rows that need one. Nobody can sign in to it, for
/// what stands in place of its address is none.
pub async fn erase(conn: &mut PgConnection, user_id: i64, email: &str) -> Result<()> {
    sqlx::query!("delete from user_session where user_id = $1", user_id).execute(&mut *conn).await?;
    sqlx::query!("delete from mail_token where user_id = $1", user_id).execute(&mut *conn).await?;
    sqlx::query!("delete from role_grant where user_id = $1", user_id).execute(&mut *conn).await?;
    sqlx::query!("delete from user_google where user_id = $1", user_id).execute(&mut *conn).await?;
    sqlx::query!("delete from user_ban where user_id = $1", user_id).execute(&mut *conn).await?;
    sqlx::query!("delete from sign_in_failure where address_hash = $1", throttle::address_hash(email))
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "update consent set address = null, withdrawn_at = coalesce(withdrawn_at, now()) where user_id = $1",
        user_id
    )
    .execute(&mut *conn)
    .await?;
    // The random part: nobody can have taken that name to stand in the way.
    sqlx::query!(
        "update app_user set
             email = case when erased_at is null
                 then 'erased-' || user_id || '-' || substr(md5(random()::text), 1, 8) else email end,
             username = case when erased_at is null
                 then 'erased-' || user_id || '-' || substr(md5(random()::text), 1, 8) else username end,
             password_hash = null, full_name = null, bio = null, phone_number = null, address = null, city = null,
             country = null, profile_picture = null, role = 'user', is_verified = false, is_active = false,
             language = 'id', erased_at = coalesce(erased_at, now()), updated_at = now()
         where user_id = $1",
        user_id
    )
    .execute(conn)
    .await?;
    Ok(())
}
