//! `GET /api/notifications`, `POST /api/notifications/{id}/read`, `POST /api/notifications/read-all`.

use crate::error::Result;
use crate::identity::Person;
use crate::notify::shown::{self, Shown};
use crate::page;
use crate::state::State;
use actix_web::{HttpResponse, get, post, web};
use chrono::{DateTime, Utc};
use lumbung_shared::FieldError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Messages in one page at most.
const MOST: i64 = 50;
/// How deep pages go by number; further on, by cursor.
const DEEPEST: i64 = 200;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list).service(read_all).service(read_one);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list, read_one, read_all))]
pub(crate) struct Docs;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// 1 to 200; what is older is reached by `cursor`.
    #[param(minimum = 1, maximum = 200)]
    page: Option<i64>,
    /// 1 to 50.
    #[param(minimum = 1, maximum = 50)]
    limit: Option<i64>,
    /// `next_cursor` of an earlier answer; `page` does not count then.
    #[param(schema_with = page::cursor::<1>)]
    cursor: Option<String>,
    /// Only what was not read yet.
    unread: Option<bool>,
}

#[derive(Serialize, ToSchema)]
struct Notifications {
    #[schema(example = true)]
    success: bool,
    notifications: Vec<Notification>,
    /// Of all, not only of this page.
    #[schema(example = 3)]
    unread_count: i64,
    #[schema(example = 57)]
    total: i64,
    #[schema(example = 1)]
    page: i64,
    #[schema(example = 50)]
    limit: i64,
    /// For the page after this one; null on the last.
    #[schema(example = "000000000000007b")]
    next_cursor: Option<String>,
}

/// One message, in its reader's language.
#[derive(Serialize, ToSchema)]
struct Notification {
    #[schema(example = 123)]
    id: i64,
    #[schema(example = 7)]
    user_id: i64,
    #[serde(rename = "type")]
    #[schema(example = "post_liked")]
    kind: String,
    #[schema(example = "12 orang menyukai Kebun atap")]
    title: String,
    #[schema(example = "Siti dan lainnya menyukai kiriman Anda \"Kebun atap\".")]
    content: String,
    /// What `related_id` is the id of.
    #[schema(example = "post")]
    related_type: Option<String>,
    #[schema(example = 42)]
    related_id: Option<i64>,
    /// How many like events it stands for.
    #[schema(example = 12)]
    count: i32,
    is_read: bool,
    /// Of the latest of them.
    created_at: DateTime<Utc>,
}

impl Notification {
    fn new(user_id: i64, shown: Shown) -> Self {
        Self {
            id: shown.notification_id,
            user_id,
            kind: shown.kind,
            title: shown.title,
            content: shown.content,
            related_type: shown.related_kind,
            related_id: shown.related_id,
            count: shown.times,
            is_read: shown.is_read,
            created_at: shown.created_at,
        }
    }
}

/// Your own messages, the newest first. Whoever is signed in may call.
#[utoipa::path(tag = "messages", path = "/api/notifications", params(Asked), security(("session" = [])),
    responses((status = 200, body = Notifications), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody)))]
#[get("/api/notifications")]
async fn list(person: Person, state: web::Data<State>, asked: web::Query<Asked>) -> Result<HttpResponse> {
    let limit = page::limit(asked.limit, MOST)?;
    let number = asked.page.unwrap_or(1);
    if !(1..=DEEPEST).contains(&number) {
        return Err(FieldError::not_between("page", 1, DEEPEST).into());
    }
    let before = asked.cursor.as_deref().map(page::read_cursor::<1>).transpose()?.map(|[before]| before);
    let skip = if before.is_some() { 0 } else { (number - 1) * limit };
    let unread = asked.unread.unwrap_or(false);
    let mut rows = shown::list(&state.people, person.user_id, unread, before, skip, limit + 1).await?;
    let more = page::cut(&mut rows, limit);
    let last = rows.last().filter(|_| more);
    let next_cursor = last.map(|last| page::write_cursor([last.notification_id]));
    let (total, unread_count) = shown::counts(&state.people, person.user_id).await?;
    Ok(HttpResponse::Ok().json(Notifications {
        success: true,
        notifications: rows.into_iter().map(|row| Notification::new(person.user_id, row)).collect(),
        unread_count,
        total,
        page: number,
        limit,
        next_cursor,
    }))
}

#[derive(Serialize, ToSchema)]
struct Read {
    #[schema(example = true)]
    success: bool,
    #[schema(example = 2)]
    unread_count: i64,
}

/// You have read one of your messages. Whoever is signed in may call; again does no harm.
#[utoipa::path(tag = "messages", path = "/api/notifications/{id}/read", security(("session" = [])),
    params(("id" = i64, Path, description = "from the list")),
    responses((status = 200, body = Read), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 404, description = "not one of yours", body = crate::error::ErrorBody)))]
#[post("/api/notifications/{id}/read")]
async fn read_one(person: Person, state: web::Data<State>, id: web::Path<i64>) -> Result<HttpResponse> {
    shown::read(&state.people, person.user_id, *id).await?;
    let (_, unread_count) = shown::counts(&state.people, person.user_id).await?;
    Ok(HttpResponse::Ok().json(Read { success: true, unread_count }))
}

#[derive(Serialize, ToSchema)]
struct ReadAll {
    #[schema(example = true)]
    success: bool,
    /// How many had not been read.
    #[schema(example = 3)]
    read: u64,
}

/// You have read all of your messages. Whoever is signed in may call.
#[utoipa::path(tag = "messages", path = "/api/notifications/read-all", security(("session" = [])),
    responses((status = 200, body = ReadAll), (status = 401, body = crate::error::ErrorBody)))]
#[post("/api/notifications/read-all")]
async fn read_all(person: Person, state: web::Data<State>) -> Result<HttpResponse> {
    let read = shown::read_all(&state.people, person.user_id).await?;
    Ok(HttpResponse::Ok().json(ReadAll { success: true, read }))
}
