//! `POST /api/gateways/enrol` and `/rotate`.

use super::gateways::Gateway;
use super::{claims, gateways, receipts, signing};
use crate::audit::Origin;
use crate::error::{Error, Result};
use crate::guards::bearer;
use crate::json::Json;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, post, web};
use chrono::Utc;
use lumbung_shared::enrol::{EnrolRequest, Enrolled, EnrolledSite, RotateRequest, SigningKey, is_key};
use lumbung_shared::time::rfc3339;
use serde::Serialize;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(enrol).service(rotate).service(signing_key);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(enrol, rotate, signing_key))]
pub(crate) struct Docs;

/// Redeem an operator's claim. Anyone who holds one may call.
///
/// The gateway draws its own key (`lbg_` and 32 random bytes in base64url) and sends it with the claim.
/// The same claim with the same key may be sent again when an answer was lost.
#[utoipa::path(tag = "gateways", path = "/api/gateways/enrol", request_body = EnrolBody,
    responses((status = 200, body = EnrolledBody), (status = 400, body = crate::error::ErrorBody),
        (status = 404, description = "unknown or expired claim", body = crate::error::ErrorBody),
        (status = 409, description = "used with another key", body = crate::error::ErrorBody),
        (status = 429, body = crate::error::ErrorBody)))]
#[post("/api/gateways/enrol")]
async fn enrol(
    request: HttpRequest,
    state: web::Data<State>,
    body: Json<EnrolRequest>,
) -> Result<HttpResponse> {
    check_key("key", &body.key)?;
    if let Some(hardware) = &body.hardware {
        lumbung_shared::check_text("hardware", hardware, 128)?;
    }
    if let Some(signing) = &body.signing {
        check_proof(signing, &body.key)?;
    }
    let gateway_id = claims::redeem(&state.people, &body, Origin::of(&request)).await?;
    let enrolled = enrolled(&state, gateway_id).await?;
    tracing::info!(gateway = enrolled.gateway_id, site = enrolled.site.code, "gateway enrolled");
    Ok(HttpResponse::Ok().json(enrolled))
}

/// Bring a new key. The gateway calls with its present one, which stays good until the new one was used.
#[utoipa::path(tag = "gateways", path = "/api/gateways/rotate", request_body = RotateBody,
    security(("gateway_key" = [])),
    responses((status = 200, body = EnrolledBody), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody), (status = 403, body = crate::error::ErrorBody),
        (status = 409, body = crate::error::ErrorBody)))]
#[post("/api/gateways/rotate")]
async fn rotate(
    request: HttpRequest,
    gateway: Gateway,
    state: web::Data<State>,
    body: Json<RotateRequest>,
) -> Result<HttpResponse> {
    check_key("new_key", &body.new_key)?;
    gateways::add_key(&state.gateways, &gateway, &body.new_key, Origin::of(&request)).await?;
    tracing::info!(gateway = gateway.code, "gateway brought a new key");
    Ok(HttpResponse::Ok().json(enrolled(&state, gateway.id).await?))
}

/// Register the key with which a gateway signs bundles that people carry. The gateway calls with its
/// present key; the same signing key again is no change, a newer one retires those before it.
#[utoipa::path(tag = "gateways", path = "/api/gateways/signing_key", request_body = SigningBody,
    security(("gateway_key" = [])),
    responses((status = 200, body = EnrolledBody), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody), (status = 403, body = crate::error::ErrorBody),
        (status = 409, description = "it is another gateway's", body = crate::error::ErrorBody)))]
#[post("/api/gateways/signing_key")]
async fn signing_key(
    request: HttpRequest,
    gateway: Gateway,
    state: web::Data<State>,
    body: Json<SigningKey>,
) -> Result<HttpResponse> {
    check_proof(&body, bearer(request.headers()).unwrap_or_default())?;
    let mut conn = state.gateways.acquire().await?;
    signing::register(&mut conn, gateway.id, body.public_key).await?;
    drop(conn);
    signing::retire_older(&state.gateways, gateway.id).await?;
    tracing::info!(gateway = gateway.code, "gateway brought a signing key");
    Ok(HttpResponse::Ok().json(enrolled(&state, gateway.id).await?))
}

fn check_proof(signing: &SigningKey, bearer: &str) -> Result<()> {
    let wrong = || {
        Error::field(
            "proof",
            "harus tanda tangan kunci itu sendiri atas kunci bearer",
            "must be the key's own signature over the bearer key",
        )
    };
    signing.is_proven(bearer).then_some(()).ok_or_else(wrong)
}

fn check_key(field: &'static str, key: &str) -> Result<()> {
    is_key(key).then_some(()).ok_or_else(|| {
        Error::field(
            field,
            "harus lbg_ diikuti 32 byte acak dalam base64url (43 karakter)",
            "must be lbg_ followed by 32 random bytes in base64url (43 characters)",
        )
    })
}

async fn enrolled(state: &State, gateway_id: i32) -> Result<Enrolled> {
    let row = sqlx::query!(
        "select g.code as gateway, s.code, s.name, s.time_zone
         from gateway g join site s using (site_id) where g.gateway_id = $1",
        gateway_id
    )
    .fetch_one(&state.people)
    .await?;
    Ok(Enrolled {
        gateway_id: row.gateway,
        site: EnrolledSite { code: row.code, name: row.name, time_zone: row.time_zone },
        server_time: rfc3339(Utc::now().timestamp_millis()),
        receipt_key: receipts::public_key(&state.people, &state.config.receipts.seal_key).await?,
    })
}

// The shapes of `lumbung_shared::enrol`, for the document only.

/// A claim and the gateway's own new key.
#[derive(Serialize, ToSchema)]
struct EnrolBody {
    #[schema(example = "7QK3M-0W2ZD-…")]
    claim: String,
    /// `lbg_` and 32 random bytes in base64url without padding.
    key: String,
    #[schema(min_length = 1, max_length = 128)]
    hardware: Option<String>,
    signing: Option<SigningBody>,
}

/// An Ed25519 public key and the proof that its owner sent it.
#[derive(Serialize, ToSchema)]
struct SigningBody {
    /// 32 bytes in base64url without padding.
    public_key: String,
    /// The key's signature over `lumbung possession 1`, a newline and the bearer key; 64 bytes in base64url.
    proof: String,
}

#[derive(Serialize, ToSchema)]
struct RotateBody {
    /// `lbg_` and 32 random bytes in base64url without padding.
    new_key: String,
}

#[derive(Serialize, ToSchema)]
struct EnrolledBody {
    #[schema(example = "GW-DAPUR-MENTENG")]
    gateway_id: String,
    site: EnrolledSiteBody,
    server_time: String,
    /// The Ed25519 public key of the cloud's receipts, 32 bytes in base64url.
    receipt_key: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct EnrolledSiteBody {
    code: String,
    name: String,
    #[schema(example = "Asia/Jakarta")]
    time_zone: String,
}
