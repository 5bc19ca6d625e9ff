//! `/api/gateways`: the boxes at the places. For admins, keys with the scope `gateways:enrol`, and operators of the
//! site or its programme. A gateway that is to stand at another site needs both.

use super::Wanted;
use crate::error::{Error, ErrorBody, Result};
use crate::guards;
use crate::identity::access::{Caller, Tended};
use crate::identity::claims::{self, Claim};
use crate::identity::gateways::{self, Listed};
use crate::identity::keys::Scope;
use crate::json::{Done, Json};
use crate::places;
use crate::state::State;
use actix_web::guard::GuardContext;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list).service(make).service(claim_again).service(withdraw).service(revoke);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list, make, claim_again, withdraw, revoke))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct GatewayPage {
    #[schema(example = true)]
    success: bool,
    gateways: Vec<Listed>,
    #[schema(example = 1)]
    page: i64,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// List gateways, oldest first, revoked ones too. For readers; who was granted places sees theirs.
#[utoipa::path(tag = "admin", path = "/api/gateways", params(Wanted),
    security(("access_key" = []), ("session" = [])),
    responses((status = 200, body = GatewayPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody)))]
#[get("/api/gateways")]
async fn list(caller: Caller, state: web::Data<State>, wanted: web::Query<Wanted>) -> Result<HttpResponse> {
    let (seen, page) = (caller.reads()?, wanted.read()?);
    let mut gateways = gateways::list(&state.people, seen.only(), page).await?;
    let next_cursor = page.cut(&mut gateways, |gateway| gateway.number.into());
    Ok(HttpResponse::Ok().json(GatewayPage { success: true, gateways, page: page.number, next_cursor }))
}

#[derive(Deserialize, ToSchema)]
struct NewGateway {
    /// 1 to 64 letters, digits, `-` and `_`; it stays as it is.
    #[schema(example = "GW-DAPUR-MENTENG")]
    gateway_id: String,
    /// Code of the site where it is to stand.
    #[schema(example = "DAPUR-MENTENG")]
    site: String,
}

/// A claim, which the box redeems once; this answer is the only time that it is shown.
#[derive(Serialize, ToSchema)]
struct Claimed {
    #[schema(example = true)]
    success: bool,
    #[schema(example = "GW-DAPUR-MENTENG")]
    gateway_id: String,
    #[schema(example = "DAPUR-MENTENG")]
    site: String,
    #[schema(example = "7QK3M-0W2ZD-…")]
    claim: String,
    /// For a QR code, or `lumbung-gateway enrol`.
    #[schema(example = "lumbung://enrol?cloud=https://lumbung.example.com&claim=7QK3M-0W2ZD-…")]
    uri: String,
    expires_at: DateTime<Utc>,
}

impl Claimed {
    fn of(claim: Claim, state: &State) -> Self {
        let uri = claim.uri(&state.config.public_url());
        let Claim { gateway: gateway_id, site, code: claim, expires_at } = claim;
        Self { success: true, gateway_id, site, claim, uri, expires_at }
    }
}

/// Make a gateway and the claim with which a box becomes it. For admins, keys with `gateways:enrol` and operators
/// of the site.
#[utoipa::path(tag = "admin", path = "/api/gateways", request_body = NewGateway,
    security(("access_key" = []), ("session" = [])),
    responses((status = 201, body = Claimed), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody),
        (status = 409, description = "`GATEWAY_TAKEN`", body = ErrorBody)))]
#[post("/api/gateways")]
async fn make(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<State>,
    body: Json<NewGateway>,
) -> Result<HttpResponse> {
    let (tended, by) = caller.tends(Scope::GatewaysEnrol, &request)?;
    let mut tx = state.people.begin().await?;
    tended.gateways_at(places::site_named(&mut *tx, &body.site).await?)?;
    let valid = state.config.enrolment.claim_valid;
    let claim = claims::first(&mut tx, &body.gateway_id, &body.site, valid, &by).await?;
    guards::commit(&request, tx, StatusCode::CREATED, &Claimed::of(claim, &state)).await
}

#[derive(Deserialize, ToSchema)]
struct NewClaim {
    /// Code of another site where it stands from now on; where it is without.
    #[schema(example = "DAPUR-MENTENG")]
    site: Option<String>,
}

/// Make a claim for a gateway that is there: a new box, or a new key. It ends a claim that nobody used. For
/// admins, keys with `gateways:enrol` and operators of its site.
#[utoipa::path(tag = "admin", path = "/api/gateways/{gateway_id}/claim", request_body = NewClaim,
    security(("access_key" = []), ("session" = [])),
    params(("gateway_id" = String, Path, example = "GW-DAPUR-MENTENG")),
    responses((status = 201, body = Claimed), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody), (status = 404, body = ErrorBody)))]
#[post("/api/gateways/{gateway_id}/claim")]
async fn claim_again(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<State>,
    gateway_id: web::Path<String>,
    body: Json<NewClaim>,
) -> Result<HttpResponse> {
    let (tended, by) = caller.tends(Scope::GatewaysEnrol, &request)?;
    let mut tx = state.people.begin().await?;
    let here = held(&mut tx, &gateway_id, &tended).await?;
    let site = body.into_inner().site.unwrap_or(here);
    tended.gateways_at(places::site_named(&mut *tx, &site).await?)?;
    let claim = claims::claim(&mut tx, &gateway_id, &site, state.config.enrolment.claim_valid, &by).await?;
    guards::commit(&request, tx, StatusCode::CREATED, &Claimed::of(claim, &state)).await
}

/// End the open claim to a gateway: nobody becomes it with that code any more. The gateway itself goes on. For
/// admins, keys with `gateways:enrol` and operators of its site.
#[utoipa::path(tag = "admin", path = "/api/gateways/{gateway_id}/claim",
    security(("access_key" = []), ("session" = [])),
    params(("gateway_id" = String, Path, example = "GW-DAPUR-MENTENG")),
    responses((status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody),
        (status = 404, description = "`NO_OPEN_CLAIM`, or no such gateway", body = ErrorBody)))]
#[delete("/api/gateways/{gateway_id}/claim")]
async fn withdraw(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<State>,
    gateway_id: web::Path<String>,
) -> Result<HttpResponse> {
    let (tended, by) = caller.tends(Scope::GatewaysEnrol, &request)?;
    let mut tx = state.people.begin().await?;
    held(&mut tx, &gateway_id, &tended).await?;
    claims::withdraw(&mut tx, &gateway_id, &by).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(Done::YES))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Why {
    /// Kept in the audit; at most 500 characters.
    #[param(example = "Kotak hilang", min_length = 1, max_length = 500)]
    reason: String,
}

/// Take no more from a gateway, at once; what it sent stays. A new claim lets it in again. For admins, keys with
/// `gateways:enrol` and operators of its site.
#[utoipa::path(tag = "admin", path = "/api/gateways/{gateway_id}",
    security(("access_key" = []), ("session" = [])),
    params(("gateway_id" = String, Path, example = "GW-DAPUR-MENTENG"), Why),
    responses((status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody), (status = 404, body = ErrorBody)))]
#[delete("/api/gateways/{gateway_id}", guard = "is_no_verb")]
async fn revoke(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<State>,
    gateway_id: web::Path<String>,
    why: web::Query<Why>,
) -> Result<HttpResponse> {
    let (tended, by) = caller.tends(Scope::GatewaysEnrol, &request)?;
    lumbung_shared::check_text("reason", &why.reason, 500)?;
    let mut tx = state.people.begin().await?;
    held(&mut tx, &gateway_id, &tended).await?;
    gateways::revoke(&mut tx, &gateway_id, Some(&why.reason), &by).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(Done::YES))
}

/// What gateways themselves call beside their codes has no DELETE.
fn is_no_verb(context: &GuardContext<'_>) -> bool {
    let last = context.head().uri.path().rsplit('/').next();
    !claims::VERBS.map(Some).contains(&last)
}

/// Holds a gateway that the caller may change; the code of its site. PostgreSQL is not asked for a code of a form that
/// no gateway has.
async fn held(conn: &mut PgConnection, code: &str, tended: &Tended) -> Result<String> {
    places::check_code("gateway_id", code)?;
    let held = gateways::hold(conn, code).await?;
    tended.gateways_at(held.as_ref().map(|(site_id, _)| *site_id))?;
    held.map(|(_, site)| site).ok_or(Error::NotFound("NOT_FOUND"))
}
