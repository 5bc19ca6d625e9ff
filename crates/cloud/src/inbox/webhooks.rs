//! `GET` and `POST /api/webhooks`, `POST /api/webhooks/{id}/rotate`, `DELETE /api/webhooks/{id}`: operators' programs
//! that are told, for admins.

use crate::error::{Error, ErrorBody, Result};
use crate::guards;
use crate::identity::Admin;
use crate::json::{Done, Json};
use crate::notify::webhooks::{self, Listed, NewWebhook, Told};
use crate::outside::Outside;
use crate::state::State;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list).service(add).service(rotate).service(end);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list, add, rotate, end))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct Webhooks {
    #[schema(example = true)]
    success: bool,
    webhooks: Vec<Listed>,
}

/// List webhooks, oldest first; never their secrets. For admins.
#[utoipa::path(tag = "messages", path = "/api/webhooks", security(("session" = [])),
    responses((status = 200, body = Webhooks), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody)))]
#[get("/api/webhooks")]
async fn list(_: Admin, state: web::Data<State>) -> Result<HttpResponse> {
    let webhooks = webhooks::list(&state.people).await?;
    Ok(HttpResponse::Ok().json(Webhooks { success: true, webhooks }))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = WebhookWish)]
struct Wish {
    /// https, reachable from the internet, at most 2048 characters.
    #[schema(example = "https://operator.example.com/lumbung")]
    url: String,
    /// What it is told of; at least one.
    #[schema(example = json!(["account.banned"]), min_items = 1)]
    kinds: Vec<Told>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookMade)]
struct Made {
    #[schema(example = true)]
    success: bool,
    #[serde(flatten)]
    webhook: NewWebhook,
}

/// Make a webhook; the answer is the only time that its secret is shown. It is told by
/// `POST {"type", "timestamp", "data"}` with the headers `webhook-id` (the same at every try), `webhook-timestamp` and
/// `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`, with what follows `whsec_`
/// (base64) as its key. What is not answered with 2xx is tried again for about a day and a half; 410 ends the webhook.
/// For admins.
#[utoipa::path(tag = "messages", path = "/api/webhooks", request_body = Wish, security(("session" = [])),
    responses((status = 201, body = Made), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody),
        (status = 409, description = "`TOO_MANY_WEBHOOKS`", body = ErrorBody)))]
#[post("/api/webhooks")]
async fn add(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    outside: web::Data<Outside>,
    body: Json<Wish>,
) -> Result<HttpResponse> {
    outside.check_address(&body.url).map_err(|words| Error::wrong("url", words))?;
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    let webhook =
        webhooks::add(&mut tx, &state.config.receipts.seal_key, &body.url, &body.kinds, &by).await?;
    guards::commit(&request, tx, StatusCode::CREATED, &Made { success: true, webhook }).await
}

/// Give a webhook another secret; the answer is the only time that it is shown. For 24 hours `webhook-signature` holds
/// two signatures, parted by a space: by the new secret and by the one before, unless the key that this one was sealed
/// with is lost. For admins.
#[utoipa::path(tag = "messages", path = "/api/webhooks/{id}/rotate", security(("session" = [])),
    params(("id" = i64, Path, description = "from the list", example = 4)),
    responses((status = 200, body = Made), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody)))]
#[post("/api/webhooks/{id}/rotate")]
async fn rotate(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    id: web::Path<i64>,
) -> Result<HttpResponse> {
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    let webhook = webhooks::rotate(&mut tx, &state.config.receipts.seal_key, *id, &by).await?;
    guards::commit(&request, tx, StatusCode::OK, &Made { success: true, webhook }).await
}

/// End a webhook; what it was still to be told is given up. For admins.
#[utoipa::path(tag = "messages", path = "/api/webhooks/{id}", security(("session" = [])),
    params(("id" = i64, Path, description = "from the list", example = 4)),
    responses((status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody)))]
#[delete("/api/webhooks/{id}")]
async fn end(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    id: web::Path<i64>,
) -> Result<HttpResponse> {
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    webhooks::end(&mut tx, *id, &by).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(Done::YES))
}
