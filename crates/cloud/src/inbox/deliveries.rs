//! `GET /api/admin/deliveries`, `POST /api/admin/deliveries/{id}/retry`.

use crate::error::Result;
use crate::identity::Admin;
use crate::json::Done;
use crate::notify::undelivered::{self, STATES};
use crate::page::{self, Page};
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use chrono::{DateTime, Utc};
use lumbung_shared::FieldError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Deliveries in one page at most.
const MOST: i64 = 50;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list).service(retry);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list, retry))]
pub(crate) struct Docs;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// queued, sending, sent or dead; dead when nobody says.
    #[param(pattern = "^(queued|sending|sent|dead)$")]
    state: Option<String>,
    /// From 1.
    #[param(minimum = 1, maximum = 100_000)]
    page: Option<i64>,
    /// 1 to 50.
    #[param(minimum = 1, maximum = 50)]
    limit: Option<i64>,
    /// `next_cursor` of an earlier answer; `page` does not count then.
    #[param(schema_with = page::cursor::<1>)]
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Deliveries {
    #[schema(example = true)]
    success: bool,
    deliveries: Vec<Delivery>,
    #[schema(example = 1)]
    page: i64,
    /// For the page after this one; null on the last.
    next_cursor: Option<String>,
}

/// A message on its way by one channel. Neither its address nor its text is shown.
#[derive(Serialize, ToSchema)]
struct Delivery {
    #[schema(example = 12)]
    id: i64,
    /// Null for an address without an account.
    #[schema(example = 7)]
    user_id: Option<i64>,
    /// email, push, sms or webhook
    #[schema(example = "email")]
    channel: String,
    #[serde(rename = "type")]
    #[schema(example = "password_changed")]
    kind: String,
    #[schema(example = "dead")]
    state: String,
    #[schema(example = 1)]
    attempts: i32,
    /// What the other side said.
    #[schema(example = "permanent error (550): 5.1.1 <(the address)> unknown here")]
    last_error: Option<String>,
    created_at: DateTime<Utc>,
    /// Where it is queued.
    next_try_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
}

/// Messages by where they stand, the newest first: above all those that were given up. Admins may call.
#[utoipa::path(tag = "messages", path = "/api/admin/deliveries", params(Asked), security(("session" = [])),
    responses((status = 200, body = Deliveries), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody), (status = 403, body = crate::error::ErrorBody)))]
#[get("/api/admin/deliveries")]
async fn list(_admin: Admin, state: web::Data<State>, asked: web::Query<Asked>) -> Result<HttpResponse> {
    let page = Page::read(asked.page, asked.limit, asked.cursor.as_deref(), MOST)?;
    let wanted = asked.state.as_deref().unwrap_or("dead");
    if !STATES.contains(&wanted) {
        return Err(FieldError::not_one_of("state", &STATES).into());
    }
    let mut rows = undelivered::list(&state.people, wanted, page).await?;
    let next_cursor = page.cut(&mut rows, |last| last.delivery_id);
    let deliveries = rows
        .into_iter()
        .map(|row| Delivery {
            id: row.delivery_id,
            user_id: row.user_id,
            channel: row.channel,
            kind: row.kind,
            next_try_at: (row.state == "queued").then_some(row.next_try_at),
            state: row.state,
            attempts: row.attempts,
            last_error: row.last_error,
            created_at: row.created_at,
            ended_at: row.ended_at,
        })
        .collect();
    Ok(HttpResponse::Ok().json(Deliveries { success: true, deliveries, page: page.number, next_cursor }))
}

/// Give a dead message all of its tries anew, from now on. Admins may call.
#[utoipa::path(tag = "messages", path = "/api/admin/deliveries/{id}/retry", security(("session" = [])),
    params(("id" = i64, Path, description = "from the list")),
    responses((status = 200, body = Done), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody), (status = 403, body = crate::error::ErrorBody),
        (status = 404, body = crate::error::ErrorBody),
        (status = 409, description = "`DELIVERY_NOT_DEAD`", body = crate::error::ErrorBody)))]
#[post("/api/admin/deliveries/{id}/retry")]
async fn retry(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    id: web::Path<i64>,
) -> Result<HttpResponse> {
    let by = admin.0.by(&request);
    let mut tx = state.people.begin().await?;
    undelivered::retry(&mut tx, *id, &by).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(Done::YES))
}
