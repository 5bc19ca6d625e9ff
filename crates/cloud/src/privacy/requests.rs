//! Requests about a person's own data that somebody here has to answer, within three times 24 hours.

use super::leave::Receipt;
use crate::audit::{self, Action, Actor, Entry, Object, Origin};
use crate::error::{Error, Result};
use crate::guards;
use crate::identity::{Admin, Person, personal};
use crate::json::Json;
use crate::notify::{self, Kind as Told, Message};
use crate::page::{self, Page};
use crate::state::State;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(ask).service(mine).service(open).service(answer);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(ask, mine, open, answer))]
pub(crate) struct Docs;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[schema(as = PrivacyKind)]
enum Kind {
    Access,
    Correction,
    Erasure,
    Restriction,
    Objection,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = PrivacyWish)]
struct Wish {
    kind: Kind,
    #[schema(min_length = 1, max_length = 2000, example = "Tanggal lahir saya salah dicatat.")]
    content: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PrivacyRequest)]
struct Request {
    #[schema(example = 17)]
    privacy_request_id: i64,
    #[schema(example = 123)]
    user_id: i64,
    kind: Kind,
    content: Option<String>,
    requested_at: DateTime<Utc>,
    /// Three times 24 hours later.
    due_at: DateTime<Utc>,
    answered_at: Option<DateTime<Utc>>,
    granted: Option<bool>,
    answer: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PrivacyRequestOne)]
struct One {
    #[schema(example = true)]
    success: bool,
    request: Request,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PrivacyRequestPage)]
struct Many {
    #[schema(example = true)]
    success: bool,
    requests: Vec<Request>,
    #[schema(example = 1)]
    page: i64,
    /// For the next page; null at the end.
    next_cursor: Option<String>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// From 1.
    #[param(minimum = 1, maximum = 100_000)]
    page: Option<i64>,
    /// 1 to 50.
    #[param(minimum = 1, maximum = 50, default = 50)]
    limit: Option<i64>,
    /// `next_cursor` of an earlier answer; `page` does not count then.
    #[param(schema_with = page::cursor::<1>)]
    cursor: Option<String>,
}

impl Asked {
    fn page(&self) -> Result<Page> {
        Page::read(self.page, self.limit, self.cursor.as_deref(), 50)
    }
}

/// Ask something of us about your data: at most ten open at a time. Whoever is signed in may call.
#[utoipa::path(tag = "privacy", path = "/api/users/me/privacy-requests", request_body = Wish,
    security(("session" = [])),
    responses((status = 201, body = One), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 409, description = "`TOO_MANY_OPEN_REQUESTS`", body = crate::error::ErrorBody)))]
#[post("/api/users/me/privacy-requests")]
async fn ask(
    http: HttpRequest,
    person: Person,
    state: web::Data<State>,
    body: Json<Wish>,
) -> Result<HttpResponse> {
    let flat = body.content.replace(['\n', '\r', '\t'], " ");
    lumbung_shared::check_text("content", &flat, 2000)?;
    let mut tx = state.people.begin().await?;
    let request = sqlx::query_as!(
        Request,
        r#"insert into privacy_request (user_id, kind, content)
           select $1, $2, $3 where (select count(*) from privacy_request
               where user_id = $1 and answered_at is null) < 10
           returning privacy_request_id, user_id, kind as "kind: Kind", content, requested_at, due_at, answered_at,
               granted, answer"#,
        person.user_id,
        body.kind as Kind,
        body.content
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::Conflict("TOO_MANY_OPEN_REQUESTS"))?;
    tell_admins(&mut tx).await?;
    guards::commit(&http, tx, StatusCode::CREATED, &One { success: true, request }).await
}

/// One message for all that wait, with the nearest deadline.
async fn tell_admins(conn: &mut PgConnection) -> Result<()> {
    let due = sqlx::query_scalar!("select min(due_at) from privacy_request where answered_at is null")
        .fetch_one(&mut *conn)
        .await?;
    let due = due.map(|due| due.format("%Y-%m-%d %H:%M UTC").to_string());
    for to in personal::admins(conn).await? {
        let values = json!({ "due": due });
        let group = Some("privacy".to_owned());
        let message = Message { to, kind: Told::PrivacyAsked, values, related: None, group };
        notify::send(conn, &message).await?;
    }
    Ok(())
}

/// What you asked about your data, with the answers, the latest first. Whoever is signed in may call.
#[utoipa::path(tag = "privacy", path = "/api/users/me/privacy-requests", params(Asked), security(("session" = [])),
    responses((status = 200, body = Many), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody)))]
#[get("/api/users/me/privacy-requests")]
async fn mine(person: Person, state: web::Data<State>, asked: web::Query<Asked>) -> Result<HttpResponse> {
    let page = asked.page()?;
    let requests = sqlx::query_as!(
        Request,
        r#"select privacy_request_id, user_id, kind as "kind: Kind", content, requested_at, due_at, answered_at,
               granted, answer
           from privacy_request where user_id = $1 and privacy_request_id < $2
           order by privacy_request_id desc limit $3 offset $4"#,
        person.user_id,
        page.after.unwrap_or(i64::MAX),
        page.most,
        page.skip
    )
    .fetch_all(&state.people)
    .await?;
    Ok(HttpResponse::Ok().json(paged(requests, page)))
}

fn paged(mut requests: Vec<Request>, page: Page) -> Many {
    let next_cursor = page.cut(&mut requests, |last| last.privacy_request_id);
    Many { success: true, requests, page: page.number, next_cursor }
}

/// Requests that wait for an answer, the oldest and so the most urgent first. Admins may call; that they read what
/// people wrote is in the audit log.
#[utoipa::path(tag = "privacy", path = "/api/admin/privacy-requests", params(Asked), security(("session" = [])),
    responses((status = 200, body = Many), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = crate::error::ErrorBody)))]
#[get("/api/admin/privacy-requests")]
async fn open(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    asked: web::Query<Asked>,
) -> Result<HttpResponse> {
    let page = asked.page()?;
    let requests = sqlx::query_as!(
        Request,
        r#"select privacy_request_id, user_id, kind as "kind: Kind", content, requested_at, due_at, answered_at,
               granted, answer
           from privacy_request where answered_at is null and privacy_request_id > $1
           order by privacy_request_id limit $2 offset $3"#,
        page.after.unwrap_or(0),
        page.most,
        page.skip
    )
    .fetch_all(&state.people)
    .await?;
    let (by, seen) = (admin.0.by(&request), Object::new("privacy_request", &"*"));
    audit::tell_look(&mut *state.people.acquire().await?, &by, seen).await?;
    Ok(HttpResponse::Ok().json(paged(requests, page)))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = PrivacyAnswer)]
struct Answer {
    granted: bool,
    /// What the person reads.
    #[schema(min_length = 1, max_length = 2000, example = "Sudah kami perbaiki.")]
    answer: String,
}

/// Answer a request. Admins may call; the person is told, and it is in the audit log.
#[utoipa::path(tag = "privacy", path = "/api/admin/privacy-requests/{id}/answer", request_body = Answer,
    security(("session" = [])),
    params(("id" = i64, Path, description = "the `privacy_request_id`")),
    responses((status = 200, body = One), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`ADMIN_ONLY`", body = crate::error::ErrorBody),
        (status = 404, description = "there is none, or it is answered", body = crate::error::ErrorBody)))]
#[post("/api/admin/privacy-requests/{id}/answer")]
async fn answer(
    request: HttpRequest,
    admin: Admin,
    state: web::Data<State>,
    id: web::Path<i64>,
    body: Json<Answer>,
) -> Result<HttpResponse> {
    let flat = body.answer.replace(['\n', '\r', '\t'], " ");
    lumbung_shared::check_text("answer", &flat, 2000)?;
    let mut tx = state.people.begin().await?;
    let answered = sqlx::query_as!(
        Request,
        r#"update privacy_request set answered_at = now(), granted = $2, answer = $3, answered_by = $4
           where privacy_request_id = $1 and answered_at is null
           returning privacy_request_id, user_id, kind as "kind: Kind", content, requested_at, due_at, answered_at,
               granted, answer"#,
        *id,
        body.granted,
        body.answer,
        admin.0.user_id
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    let entry = Entry {
        object: Some(Object::new("privacy_request", &*id)),
        origin: Some(Origin::of(&request)),
        ..Entry::of(Actor::Person(admin.0.user_id), Action::AdminAction)
    };
    audit::record(&mut tx, &entry).await?;
    if let Some(to) = personal::recipient(&mut tx, answered.user_id).await? {
        let related = Some(("privacy_request", *id));
        let message = Message { to, kind: Told::PrivacyAnswered, values: json!({}), related, group: None };
        notify::send(&mut tx, &message).await?;
    }
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(One { success: true, request: answered }))
}

/// Writes that a person's erasure was asked for and done, and takes the words of their earlier requests away.
pub(super) async fn erased(conn: &mut PgConnection, user_id: i64, files: u64) -> Result<Receipt> {
    emptied(conn, user_id).await?;
    let done = sqlx::query!(
        r#"insert into privacy_request (user_id, kind, answered_at, granted) values ($1, 'erasure', now(), true)
           returning privacy_request_id, requested_at"#,
        user_id
    )
    .fetch_one(conn)
    .await?;
    Ok(Receipt { privacy_request_id: done.privacy_request_id, erased_at: done.requested_at, files })
}

/// Takes the words of a person's requests away; what was still open is answered by the erasure.
pub(super) async fn emptied(conn: &mut PgConnection, user_id: i64) -> Result<()> {
    sqlx::query!(
        "update privacy_request set content = null, answer = null, granted = coalesce(granted, true),
             answered_at = coalesce(answered_at, now())
         where user_id = $1",
        user_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn export(conn: &mut PgConnection, user_id: i64) -> Result<Value> {
    Ok(sqlx::query_scalar!(
        r#"select coalesce(jsonb_agg(to_jsonb(r) - 'answered_by' order by r.privacy_request_id), '[]') as "data!"
           from privacy_request r where r.user_id = $1"#,
        user_id
    )
    .fetch_one(conn)
    .await?)
}
