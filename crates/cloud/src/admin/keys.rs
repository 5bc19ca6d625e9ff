//! `/api/keys`: access keys, for admins.

use super::Wanted;
use crate::error::{ErrorBody, Result};
use crate::guards;
use crate::identity::Admin;
use crate::identity::keys::{self, Listed, NewKey, Scope};
use crate::json::{Done, Json};
use crate::state::State;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list).service(add).service(revoke);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list, add, revoke))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct KeyPage {
    #[schema(example = true)]
    success: bool,
    keys: Vec<Listed>,
    #[schema(example = 1)]
    page: i64,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// List access keys, oldest first, those that ended too. For admins.
#[utoipa::path(tag = "admin", path = "/api/keys", params(Wanted), security(("session" = [])),
    responses((status = 200, body = KeyPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody)))]
#[get("/api/keys")]
async fn list(_: Admin, state: web::Data<State>, wanted: web::Query<Wanted>) -> Result<HttpResponse> {
    let page = wanted.read()?;
    let mut keys = keys::list(&state.people, page).await?;
    let next_cursor = page.cut(&mut keys, |key| key.id.into());
    Ok(HttpResponse::Ok().json(KeyPage { success: true, keys, page: page.number, next_cursor }))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = KeyWish)]
struct Wish {
    /// Whom or what it is for; at most 100 characters.
    #[schema(example = "dashboard", min_length = 1, max_length = 100)]
    name: String,
    /// At least one.
    #[schema(example = json!(["read"]), min_items = 1)]
    scopes: Vec<Scope>,
    /// For ever without.
    expires_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, ToSchema)]
struct Made {
    #[schema(example = true)]
    success: bool,
    #[serde(flatten)]
    key: NewKey,
}

/// Make an access key; the answer is the only time that it is shown. For admins.
#[utoipa::path(tag = "admin", path = "/api/keys", request_body = Wish, security(("session" = [])),
    responses((status = 201, body = Made), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody)))]
#[post("/api/keys")]
async fn add(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    body: Json<Wish>,
) -> Result<HttpResponse> {
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    let key = keys::add(&mut tx, &body.name, &body.scopes, body.expires_at, &by).await?;
    guards::commit(&request, tx, StatusCode::CREATED, &Made { success: true, key }).await
}

/// End an access key, at once. For admins.
#[utoipa::path(tag = "admin", path = "/api/keys/{id}", security(("session" = [])),
    params(("id" = i32, Path, description = "from the list", example = 3)),
    responses((status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody)))]
#[delete("/api/keys/{id}")]
async fn revoke(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    id: web::Path<i32>,
) -> Result<HttpResponse> {
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    keys::revoke(&mut tx, *id, &by).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(Done::YES))
}
