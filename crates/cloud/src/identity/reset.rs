//! `POST /api/auth/forgot-password` and `/reset-password`: a new password for whoever reads the account's mailbox.
//!
//! What must stay true:
//! - Whether an address has an account is not told, neither by the answer nor by its time: all work is done after it.
//! - It works however long an account has to wait for wrong passwords, else anybody could lock its owner out.
//! - It is no way around a second factor, nor around a ban; a ban that has run out is none.

use super::bans;
use super::entries::did;
use super::letters::{self, Addressee, Purpose};
use super::notices;
use super::people::{Done, People, check_email};
use super::sessions;
use super::throttle;
use crate::audit::Action;
use crate::error::{Error, Language, Result, language_of};
use crate::json::Json;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, post, web};
use serde::Deserialize;
use sqlx::PgConnection;
use std::sync::Arc;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(forgot).service(reset);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(forgot, reset))]
pub(crate) struct Docs;

#[derive(Deserialize, ToSchema)]
struct Forgotten {
    #[schema(example = "user@example.com")]
    email: String,
}

/// Ask for a mail with a link to choose a new password, at most three an hour. Anyone may call.
///
/// The answer is the same whether the address has an account or not.
#[utoipa::path(tag = "people", path = "/api/auth/forgot-password", request_body = Forgotten,
    responses((status = 200, body = Done), (status = 400, body = crate::error::ErrorBody),
        (status = 429, body = crate::error::ErrorBody),
        (status = 503, description = "too many at once", body = crate::error::ErrorBody)))]
#[post("/api/auth/forgot-password")]
async fn forgot(
    request: HttpRequest,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<Forgotten>,
) -> Result<HttpResponse> {
    check_email(&body.email)?;
    let language = language_of(&request);
    let turn = Arc::clone(&people.letters)
        .try_acquire_owned()
        .map_err(|_| Error::Busy { retry_after: 5, reason: "too many mails asked for at once".into() })?;
    let unfinished = state.unfinished.clone();
    unfinished.spawn(async move {
        if let Err(error) = write(&state, &body.email, language).await {
            tracing::error!("a mail for a new password was not written: {error:#}");
        }
        drop(turn);
    });
    let message = language.pick(
        "Kalau alamat itu terdaftar, email dengan tautan segera dikirim",
        "If that address has an account, an e-mail with a link is on its way",
    );
    Ok(HttpResponse::Ok().json(Done { success: true, message }))
}

async fn write(state: &State, email: &str, language: Language) -> Result<()> {
    let mut tx = state.people.begin().await?;
    let account = sqlx::query!(
        "select user_id, email from app_user u where lower(email) = lower($1) and (is_active or exists (
             select from user_ban b where b.user_id = u.user_id and b.lifted_at is null and b.expires_at <= now()))
         for no key update",
        email
    )
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(account) = account {
        let to = Addressee { user_id: account.user_id, email: account.email, language };
        letters::write(&mut tx, state, Purpose::ResetPassword, to).await?;
    }
    Ok(tx.commit().await?)
}

#[derive(Deserialize, ToSchema)]
struct Reset {
    /// From the mail: what stands behind `#` in its link, or its code as it was typed.
    #[schema(example = "7Q2M4-X9TKB-0V6HD-R3PWA-C8ZNE-1")]
    token: String,
    /// 8 to 256 characters, not easy to guess.
    #[schema(example = "perahu biru muda")]
    new_password: String,
}

/// Choose a new password with what was sent by mail, within 30 minutes. Anyone may call.
///
/// Every sign-in of the account ends, and waits for wrong passwords are over. The address counts as confirmed. A
/// second factor stays, and a link with Google ends.
#[utoipa::path(tag = "people", path = "/api/auth/reset-password", request_body = Reset,
    responses((status = 200, body = Done), (status = 400, body = crate::error::ErrorBody),
        (status = 404, description = "`LINK_UNKNOWN`", body = crate::error::ErrorBody),
        (status = 503, description = "too many at once", body = crate::error::ErrorBody)))]
#[post("/api/auth/reset-password")]
async fn reset(
    request: HttpRequest,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<Reset>,
) -> Result<HttpResponse> {
    let Reset { token, new_password } = body.into_inner();
    let unknown = || Error::NotFound("LINK_UNKNOWN");
    let mut conn = state.people.acquire().await?;
    // Before the password is hashed, and without taking it: a password that is refused may be chosen better.
    let user_id = letters::whose(&mut conn, Purpose::ResetPassword, &token).await?.ok_or_else(unknown)?;
    let names = names(&mut conn, user_id).await?.ok_or_else(unknown)?;
    drop(conn);
    let hash = people.passwords.choose("new_password", new_password, &[&names.0, &names.1]).await?;
    let mut tx = state.people.begin().await?;
    let (user_id, email) =
        letters::take(&mut tx, Purpose::ResetPassword, &token).await?.ok_or_else(unknown)?;
    match bans::let_in(&mut tx, user_id).await {
        Err(Error::Inactive { .. }) => return Err(unknown()),
        other => other?,
    }
    let address = sqlx::query_scalar!(
        "update app_user set password_hash = $2, is_verified = is_verified or email = $3, updated_at = now()
         where user_id = $1 returning email",
        user_id,
        hash,
        email
    )
    .fetch_one(&mut *tx)
    .await?;
    // Every way in that is not the new password ends, so that whoever came with another's address is out for good.
    // The account's row is held: a sign-in that is just joining them waits.
    sqlx::query!("delete from user_google where user_id = $1", user_id).execute(&mut *tx).await?;
    // A new address that was asked for with the password before is none of theirs.
    letters::void(&mut tx, user_id, &[Purpose::ChangeEmail]).await?;
    sessions::end_all(&mut tx, user_id, None).await?;
    notices::password_changed(&mut tx, user_id).await?;
    did(&mut tx, &request, user_id, Action::PasswordReset).await?;
    tx.commit().await?;
    throttle::forgive(&state.people, &address).await?;
    people.sessions.forget(|person| person.user_id == user_id);
    tracing::info!(user_id, "password reset");
    let message = language_of(&request)
        .pick("Kata sandi sudah diganti. Silakan masuk.", "The password is changed. Please sign in.");
    Ok(HttpResponse::Ok().json(Done { success: true, message }))
}

/// What everybody can guess of an account's owner: address and user name.
async fn names(conn: &mut PgConnection, user_id: i64) -> Result<Option<(String, String)>> {
    let row = sqlx::query!("select email, username from app_user where user_id = $1", user_id)
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| (row.email, row.username)))
}
