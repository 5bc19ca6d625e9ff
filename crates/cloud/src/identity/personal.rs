//! What identity knows of a person: given to them, and taken away.

use super::language::written_to;
use super::roster::keep_an_admin;
use super::throttle;
use crate::error::{Error, Result};
use crate::notify::Recipient;
use serde_json::Value;
use sqlx::PgConnection;

/// The account, where it was signed in and what its person agreed to; no secret is in it.
pub async fn export(conn: &mut PgConnection, user_id: i64) -> Result<Value> {
    sqlx::query_scalar!(
        r#"select jsonb_build_object(
               'account', to_jsonb(u) - 'password_hash',
               'sessions', (select coalesce(jsonb_agg(to_jsonb(s) - 'token_id_hash' - 'token_key_mark' order by s.session_id), '[]')
                            from user_session s where s.user_id = $1),
               'grants', (select coalesce(jsonb_agg(to_jsonb(g) - 'granted_by' order by g.grant_id), '[]')
                          from role_grant g where g.user_id = $1),
               'keys', (select coalesce(jsonb_agg(to_jsonb(k) - 'key_hash' order by k.access_key_id), '[]')
                        from access_key k where k.made_by = $1),
               'bans', (select coalesce(jsonb_agg(to_jsonb(b) - 'banned_by' order by b.ban_id), '[]')
                        from user_ban b where b.user_id = $1),
               'google', (select coalesce(jsonb_agg(to_jsonb(o) order by o.created_at), '[]')
                          from user_google o where o.user_id = $1),
               'second_factor', (select to_jsonb(f) - 'sealed_secret' - 'used_step'
                          || jsonb_build_object('recovery_codes_left', (select count(*) from recovery_code r where r.user_id = $1))
                          from user_totp f where f.user_id = $1),
               'half_signed_in', (select coalesce(jsonb_agg(to_jsonb(h) - 'challenge_hash'), '[]')
                          from sign_in_challenge h where h.user_id = $1),
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

/// Leaves an account without a person: its number stays for the rows that need one. Nobody can sign in to it, for
/// what stands in place of its address is none.
pub async fn erase(conn: &mut PgConnection, user_id: i64, email: &str) -> Result<()> {
    sqlx::query!("delete from user_session where user_id = $1", user_id).execute(&mut *conn).await?;
    sqlx::query!("delete from sign_in_challenge where user_id = $1", user_id).execute(&mut *conn).await?;
    // Its recovery codes go with it.
    sqlx::query!("delete from user_totp where user_id = $1", user_id).execute(&mut *conn).await?;
    // Also what somebody else asked for with this address.
    sqlx::query!("delete from mail_token where user_id = $1 or lower(email) = lower($2)", user_id, email)
        .execute(&mut *conn)
        .await?;
    sqlx::query!("delete from role_grant where user_id = $1", user_id).execute(&mut *conn).await?;
    sqlx::query!("delete from user_google where user_id = $1", user_id).execute(&mut *conn).await?;
    sqlx::query!("delete from user_ban where user_id = $1", user_id).execute(&mut *conn).await?;
    let tried = [throttle::address_hash(email), throttle::address_hash(&throttle::codes_of(user_id))];
    sqlx::query!("delete from sign_in_failure where address_hash = any($1)", &tried[..])
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
