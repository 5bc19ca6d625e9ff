//! `GET /api/admin/users`, `POST /api/admin/ban-user` and `/unban-user`.

use super::MOST;
use crate::audit::{Action, Object};
use crate::error::{ErrorBody, Result};
use crate::guards;
use crate::identity::roster::{self, Account, Search};
use crate::identity::{Admin, People, Role, bans};
use crate::json::{Done, Json};
use crate::page::{self, Page};
use crate::state::State;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list).service(ban_user).service(unban_user);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list, ban_user, unban_user), components(schemas(Standing)))]
pub(crate) struct Docs;

/// Whom to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// From 1.
    #[param(minimum = 1, maximum = 100_000)]
    page: Option<i64>,
    /// 1 to 50, default 50.
    #[param(minimum = 1, maximum = 50)]
    limit: Option<i64>,
    /// `next_cursor` of the page before; `page` does not count then.
    #[param(schema_with = page::cursor::<1>)]
    cursor: Option<String>,
    role: Option<Role>,
    /// `active` or `banned`
    state: Option<Standing>,
    /// Part of the e-mail address, user name or full name, at most 100 characters.
    #[param(max_length = 100)]
    filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Standing {
    Active,
    Banned,
}

#[derive(Serialize, ToSchema)]
struct AccountPage {
    #[schema(example = true)]
    success: bool,
    users: Vec<Account>,
    /// How many fit, on all pages.
    #[schema(example = 42)]
    total: i64,
    #[schema(example = 1)]
    page: i64,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// List accounts, newest first. For admins; that it was read is kept in the audit.
#[utoipa::path(tag = "admin", path = "/api/admin/users", params(Wanted), security(("session" = [])),
    responses((status = 200, body = AccountPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody)))]
#[get("/api/admin/users")]
async fn list(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    wanted: web::Query<Wanted>,
) -> Result<HttpResponse> {
    let page = Page::read(wanted.page, wanted.limit, wanted.cursor.as_deref(), MOST)?;
    let text = wanted.filter.clone().filter(|text| !text.is_empty());
    if let Some(text) = &text {
        lumbung_shared::check_text("filter", text, 100)?;
    }
    let active = wanted.state.map(|state| state == Standing::Active);
    let search = Search { role: wanted.role, active, text };
    let (mut users, total) = roster::search(&state.people, &search, page).await?;
    let next_cursor = page.cut(&mut users, |user| user.user_id);
    let by = admin.0.by(&request);
    let mut conn = state.people.acquire().await?;
    by.did(
        &mut conn,
        Action::SensitiveRead,
        Object::new("user", &"list"),
        None,
        json!({ "count": users.len() }),
    )
    .await?;
    Ok(HttpResponse::Ok().json(AccountPage { success: true, users, total, page: page.number, next_cursor }))
}

#[derive(Deserialize, ToSchema)]
struct Ban {
    #[schema(example = 123)]
    user_id: i64,
    /// Told to the person; at most 500 characters.
    #[schema(example = "Iklan berulang", min_length = 1, max_length = 500)]
    reason: String,
    /// When the person may sign in again; for good without.
    expires_at: Option<DateTime<Utc>>,
}

/// Shut an account: signed out everywhere within a second, told why by e-mail and when signing in. For admins.
#[utoipa::path(tag = "admin", path = "/api/admin/ban-user", request_body = Ban, security(("session" = [])),
    responses((status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, description = "`OWN_ACCOUNT` or `LAST_ADMIN`", body = ErrorBody)))]
#[post("/api/admin/ban-user")]
async fn ban_user(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<Ban>,
) -> Result<HttpResponse> {
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    bans::ban(&mut tx, body.user_id, Some(&body.reason), body.expires_at, &by).await?;
    let answer = guards::commit(&request, tx, StatusCode::OK, &Done::YES).await?;
    people.forget(body.user_id);
    Ok(answer)
}

#[derive(Deserialize, ToSchema)]
struct Unban {
    #[schema(example = 123)]
    user_id: i64,
}

/// Let an account in again. Its sessions stay ended. For admins.
#[utoipa::path(tag = "admin", path = "/api/admin/unban-user", request_body = Unban, security(("session" = [])),
    responses((status = 200, body = Done), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, description = "`NOT_BANNED`", body = ErrorBody)))]
#[post("/api/admin/unban-user")]
async fn unban_user(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    body: Json<Unban>,
) -> Result<HttpResponse> {
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    bans::unban(&mut tx, body.user_id, &by).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(Done::YES))
}
