//! `POST /api/auth/verify-email` and `/resend`: an address is its account's own once its owner says so.

use super::entries::did;
use super::letters::{self, Addressee, Purpose};
use super::people::Done;
use super::sessions::Person;
use crate::audit::Action;
use crate::error::{Error, Result, language_of};
use crate::json::Json;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, post, web};
use serde::Deserialize;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(verify).service(resend);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(verify, resend))]
pub(crate) struct Docs;

#[derive(Deserialize, ToSchema)]
pub(super) struct Verification {
    /// From the mail: what stands behind `#` in its link, or its code as it was typed.
    #[schema(example = "7Q2M4-X9TKB-0V6HD-R3PWA-C8ZNE-1")]
    pub token: String,
}

/// Confirm an e-mail address with what was sent there, within 48 hours. Anyone may call.
#[utoipa::path(tag = "people", path = "/api/auth/verify-email", request_body = Verification,
    responses((status = 200, body = Done), (status = 400, body = crate::error::ErrorBody),
        (status = 404, description = "`LINK_UNKNOWN`", body = crate::error::ErrorBody)))]
#[post("/api/auth/verify-email")]
async fn verify(
    request: HttpRequest,
    state: web::Data<State>,
    body: Json<Verification>,
) -> Result<HttpResponse> {
    let mut tx = state.people.begin().await?;
    let unknown = || Error::NotFound("LINK_UNKNOWN");
    let (user_id, email) =
        letters::take(&mut tx, Purpose::VerifyEmail, &body.token).await?.ok_or_else(unknown)?;
    // Not when the account has another address by now.
    sqlx::query_scalar!(
        "update app_user set is_verified = true, updated_at = now() where user_id = $1 and email = $2
         returning user_id",
        user_id,
        email
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(unknown)?;
    did(&mut tx, &request, user_id, Action::EmailVerified).await?;
    tx.commit().await?;
    let message =
        language_of(&request).pick("Alamat email Anda sudah dipastikan", "Your e-mail address is confirmed");
    Ok(HttpResponse::Ok().json(Done { success: true, message }))
}

/// Send the mail with the link once more, at most three an hour. Whoever is signed in may call.
#[utoipa::path(tag = "people", path = "/api/auth/verify-email/resend", security(("session" = [])),
    responses((status = 200, body = Done), (status = 401, body = crate::error::ErrorBody),
        (status = 409, description = "`ALREADY_VERIFIED`", body = crate::error::ErrorBody),
        (status = 429, body = crate::error::ErrorBody)))]
#[post("/api/auth/verify-email/resend")]
async fn resend(request: HttpRequest, person: Person, state: web::Data<State>) -> Result<HttpResponse> {
    let language = language_of(&request);
    let mut tx = state.people.begin().await?;
    let account = sqlx::query!(
        "select email, is_verified from app_user where user_id = $1 for no key update",
        person.user_id
    )
    .fetch_one(&mut *tx)
    .await?;
    if account.is_verified {
        return Err(Error::Conflict("ALREADY_VERIFIED"));
    }
    let to = Addressee { user_id: person.user_id, email: account.email, language };
    if !letters::write(&mut tx, &state, Purpose::VerifyEmail, to).await? {
        return Err(Error::TooMany { retry_after: 3600 });
    }
    tx.commit().await?;
    let message = language.pick("Email sudah dikirim lagi", "The e-mail is on its way again");
    Ok(HttpResponse::Ok().json(Done { success: true, message }))
}
