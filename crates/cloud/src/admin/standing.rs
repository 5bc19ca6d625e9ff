//! `PUT /api/admin/users/{id}/role` and `/api/admin/users/{id}/grants`: what people are and may do.

use crate::audit::{self, Object};
use crate::error::{ErrorBody, Result};
use crate::guards;
use crate::identity::grants::{self, Duty, Place};
use crate::identity::{Admin, People, Role, roster};
use crate::json::{Done, Json};
use crate::state::State;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, put, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(set_role).service(list).service(grant).service(withdraw);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(set_role, list, grant, withdraw))]
pub(crate) struct Docs;

#[derive(Deserialize, ToSchema)]
struct NewRole {
    role: Role,
}

/// Give an account another role. For admins.
#[utoipa::path(tag = "admin", path = "/api/admin/users/{id}/role", request_body = NewRole, security(("session" = [])),
    params(("id" = i64, Path, description = "a user_id", example = 123)),
    responses((status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, description = "`LAST_ADMIN`", body = ErrorBody)))]
#[put("/api/admin/users/{id}/role")]
async fn set_role(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    people: web::Data<People>,
    id: web::Path<i64>,
    body: Json<NewRole>,
) -> Result<HttpResponse> {
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    roster::set_role(&mut tx, *id, body.role, &by).await?;
    tx.commit().await?;
    people.forget(*id);
    Ok(HttpResponse::Ok().json(Done::YES))
}

#[derive(Serialize, ToSchema)]
struct GrantList {
    #[schema(example = true)]
    success: bool,
    grants: Vec<grants::Listed>,
}

/// List what a person was granted, oldest first. For admins; it is in the audit log.
#[utoipa::path(tag = "admin", path = "/api/admin/users/{id}/grants", security(("session" = [])),
    params(("id" = i64, Path, description = "a user_id", example = 123)),
    responses((status = 200, body = GrantList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody)))]
#[get("/api/admin/users/{id}/grants")]
async fn list(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    id: web::Path<i64>,
) -> Result<HttpResponse> {
    let mut conn = state.people.acquire().await?;
    let grants = grants::list(&mut conn, *id).await?;
    audit::tell_look(&mut conn, &admin.0.by(&request), Object::new("grants_of", &*id)).await?;
    Ok(HttpResponse::Ok().json(GrantList { success: true, grants }))
}

/// A duty at one place: a programme or a site.
#[derive(Deserialize, ToSchema)]
struct NewGrant {
    role: Duty,
    /// Code of a programme: all its sites, also those to come.
    #[schema(example = "MBG")]
    programme: Option<String>,
    /// Code of one site.
    #[schema(example = "DAPUR-MENTENG")]
    site: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Granted {
    #[schema(example = true)]
    success: bool,
    #[schema(example = 4)]
    grant_id: i64,
}

/// Make a person operator or officer of a place. Felt everywhere within a second. For admins.
#[utoipa::path(tag = "admin", path = "/api/admin/users/{id}/grants", request_body = NewGrant,
    security(("session" = [])), params(("id" = i64, Path, description = "a user_id", example = 123)),
    responses((status = 201, body = Granted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, description = "`GRANT_EXISTS`", body = ErrorBody)))]
#[post("/api/admin/users/{id}/grants")]
async fn grant(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    people: web::Data<People>,
    id: web::Path<i64>,
    body: Json<NewGrant>,
) -> Result<HttpResponse> {
    let NewGrant { role, programme, site } = body.into_inner();
    let place = Place::parse(programme, site)?;
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    let grant_id = grants::grant(&mut tx, *id, role, &place, &by).await?;
    let answer =
        guards::commit(&request, tx, StatusCode::CREATED, &Granted { success: true, grant_id }).await?;
    people.forget(*id);
    Ok(answer)
}

/// Take a grant away. Felt everywhere within a second. For admins.
#[utoipa::path(tag = "admin", path = "/api/admin/users/{id}/grants/{grant_id}", security(("session" = [])),
    params(("id" = i64, Path, description = "a user_id", example = 123),
        ("grant_id" = i64, Path, description = "from the list", example = 4)),
    responses((status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody)))]
#[delete("/api/admin/users/{id}/grants/{grant_id}")]
async fn withdraw(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    people: web::Data<People>,
    ids: web::Path<(i64, i64)>,
) -> Result<HttpResponse> {
    let (user_id, grant_id) = *ids;
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    grants::withdraw(&mut tx, user_id, grant_id, &by).await?;
    tx.commit().await?;
    people.forget(user_id);
    Ok(HttpResponse::Ok().json(Done::YES))
}
