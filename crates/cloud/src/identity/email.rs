//! `POST /api/users/me/email` and `POST /api/auth/change-email`: an account gets another e-mail address.
//!
//! What must stay true:
//! - It is asked for by who knows the password and confirmed by who reads the new mailbox, so that a changed address is
//!   always a confirmed one: whatever trusts those (`google`) may trust it.
//! - Whether somebody else has the address is not told by the answer, nor by how often one may ask: only the mail stays
//!   unwritten. Time would tell little: asking hashes a password, three times an hour.
//! - What was asked for with a password that the account has no more comes to nothing.
//! - The mailbox of before opens nothing any more, and is told.

use super::bans;
use super::entries::did;
use super::language;
use super::letters::{self, Addressee, Purpose};
use super::notices;
use super::owner;
use super::people::{self, Done, People, check_email};
use super::sessions::Person;
use super::throttle;
use super::verification::Verification;
use crate::audit::Action;
use crate::error::{Error, Result, language_of};
use crate::json::Json;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, post, web};
use serde::Deserialize;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(ask).service(change);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(ask, change))]
pub(crate) struct Docs;

#[derive(Deserialize, ToSchema)]
struct AddressChange {
    /// The new one.
    #[schema(example = "user.baru@example.com")]
    email: String,
    /// Yours. Without, when the account has none, the sign-in must be of the last ten minutes.
    #[schema(example = "sepeda merah tua", min_length = 1)]
    password: Option<String>,
}

/// Ask for another e-mail address: a mail with a link goes there, at most three an hour. Whoever is signed in may call.
///
/// The address changes once the link is followed (`/api/auth/change-email`). The answer is the same whether somebody
/// else has the address or not; who has it gets no mail. Wrong passwords count like those to sign in.
#[utoipa::path(tag = "people", path = "/api/users/me/email", request_body = AddressChange, security(("session" = [])),
    responses((status = 200, body = Done), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`SIGN_IN_AGAIN`", body = crate::error::ErrorBody),
        (status = 409, description = "`PASSWORD_CHANGED`", body = crate::error::ErrorBody),
        (status = 429, body = crate::error::ErrorBody),
        (status = 503, description = "too many at once", body = crate::error::ErrorBody)))]
#[post("/api/users/me/email")]
async fn ask(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<AddressChange>,
) -> Result<HttpResponse> {
    let AddressChange { email, password } = body.into_inner();
    check_email(&email)?;
    let user_id = person.user_id;
    let owner = owner::confirm(&request, &state, &people, &person, password).await?;
    if owner.email == email {
        return Err(Error::field("email", "sudah menjadi alamat Anda", "is your address already"));
    }
    let mut tx = state.people.begin().await?;
    // A new password that comes now waits, and voids this link; one that came meanwhile is obeyed.
    sqlx::query_scalar!(
        "select user_id from app_user where user_id = $1 and password_hash is not distinct from $2
         for no key update",
        user_id,
        owner.password_hash
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::Conflict("PASSWORD_CHANGED"))?;
    let taken = sqlx::query_scalar!(
        r#"select exists (select from app_user where lower(email) = lower($1) and user_id <> $2) as "taken!""#,
        email,
        user_id
    )
    .fetch_one(&mut *tx)
    .await?;
    let language = language_of(&request);
    let to = Addressee { user_id, email, language };
    let may_ask = if taken {
        letters::only_count(&mut tx, Purpose::ChangeEmail, &to).await?
    } else {
        letters::write(&mut tx, &state, Purpose::ChangeEmail, to).await?
    };
    if !may_ask {
        return Err(Error::TooMany { retry_after: 3600 });
    }
    tx.commit().await?;
    let message = language.pick(
        "Kalau alamat itu dapat dipakai, email dengan tautan segera dikirim ke sana",
        "If that address can be used, an e-mail with a link is on its way there",
    );
    Ok(HttpResponse::Ok().json(Done { success: true, message }))
}

/// Take the new address with what was sent there, within 30 minutes. Anyone may call.
///
/// The address counts as confirmed, links that went to the one before end, and that one is told. Sign-ins and a link
/// with Google stay.
#[utoipa::path(tag = "people", path = "/api/auth/change-email", request_body = Verification,
    responses((status = 200, body = Done), (status = 400, body = crate::error::ErrorBody),
        (status = 404, description = "`LINK_UNKNOWN`", body = crate::error::ErrorBody),
        (status = 409, description = "`EMAIL_TAKEN`: somebody else was faster", body = crate::error::ErrorBody)))]
#[post("/api/auth/change-email")]
async fn change(
    request: HttpRequest,
    state: web::Data<State>,
    body: Json<Verification>,
) -> Result<HttpResponse> {
    let unknown = || Error::NotFound("LINK_UNKNOWN");
    let mut tx = state.people.begin().await?;
    let (user_id, email) =
        letters::take(&mut tx, Purpose::ChangeEmail, &body.token).await?.ok_or_else(unknown)?;
    match bans::let_in(&mut tx, user_id).await {
        Err(Error::Inactive { .. }) => return Err(unknown()),
        other => other?,
    }
    let before = language::recipient(&mut tx, user_id).await?;
    sqlx::query!(
        "update app_user set email = $2, is_verified = true, updated_at = now() where user_id = $1",
        user_id,
        email
    )
    .execute(&mut *tx)
    .await
    .map_err(people::taken)?;
    letters::void(&mut tx, user_id, &[Purpose::VerifyEmail, Purpose::ResetPassword]).await?;
    // Sessions stay, unlike after a new password: what they were opened with is good as before, the link may be
    // followed where nobody is signed in, and if it was not the owner, their own devices are where they learn of it
    // and can take the address back.
    let address = before.email.clone();
    notices::email_changed(&mut tx, before).await?;
    did(&mut tx, &request, user_id, Action::EmailChanged).await?;
    tx.commit().await?;
    // What was counted against an address that is nobody's any more.
    if let Some(address) = address {
        throttle::forgive(&state.people, &address).await?;
    }
    tracing::info!(user_id, "e-mail address changed");
    let message =
        language_of(&request).pick("Alamat email Anda sudah diganti", "Your e-mail address is changed");
    Ok(HttpResponse::Ok().json(Done { success: true, message }))
}
