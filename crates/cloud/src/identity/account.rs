//! `GET /api/auth/sessions`, `DELETE /api/auth/sessions/{id}`, `POST /api/auth/change-password`: a person looks
//! after their own account.

use super::entries::did;
use super::letters::{self, Purpose};
use super::notices;
use super::owner;
use super::passwords::Password;
use super::people::{Done, People};
use super::sessions::{self, Person};
use crate::audit::Action;
use crate::error::{Error, Result, language_of};
use crate::json::Json;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(list).service(end).service(change_password);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list, end, change_password))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct SessionList {
    #[schema(example = true)]
    success: bool,
    sessions: Vec<Session>,
}

/// One place where the account is signed in.
#[derive(Serialize, ToSchema)]
struct Session {
    #[schema(example = 7)]
    session_id: i64,
    /// What the client called itself.
    #[schema(example = "RuangHijau/1.0 (Android)")]
    user_agent: Option<String>,
    created_at: DateTime<Utc>,
    /// To the minute.
    last_seen_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// The one that asks.
    current: bool,
}

/// Where you are signed in, the latest first, at most 100. Whoever is signed in may call.
#[utoipa::path(tag = "people", path = "/api/auth/sessions", security(("session" = [])),
    responses((status = 200, body = SessionList), (status = 401, body = crate::error::ErrorBody)))]
#[get("/api/auth/sessions")]
async fn list(person: Person, state: web::Data<State>, people: web::Data<People>) -> Result<HttpResponse> {
    let sessions = sqlx::query_as!(
        Session,
        r#"select session_id, user_agent, created_at, last_seen_at, expires_at, session_id = $2 as "current!"
           from user_session where user_id = $1 and revoked_at is null and expires_at > now()
               and (token_key_mark is null or token_key_mark = $3)
           order by session_id desc limit 100"#,
        person.user_id,
        person.session_id,
        people.tokens.mark()
    )
    .fetch_all(&state.people)
    .await?;
    Ok(HttpResponse::Ok().json(SessionList { success: true, sessions }))
}

/// Sign one of your devices out, on every server within a second.
#[utoipa::path(tag = "people", path = "/api/auth/sessions/{id}", security(("session" = [])),
    params(("id" = i64, Path, description = "from the list")),
    responses((status = 200, body = Done), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 404, description = "not one of yours", body = crate::error::ErrorBody)))]
#[delete("/api/auth/sessions/{id}")]
async fn end(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    people: web::Data<People>,
    id: web::Path<i64>,
) -> Result<HttpResponse> {
    sessions::end(&state, &people, &person, *id, &request, Action::TokenRevoked).await?;
    let message = language_of(&request).pick("Perangkat itu sudah dikeluarkan", "That device is signed out");
    Ok(HttpResponse::Ok().json(Done { success: true, message }))
}

#[derive(Deserialize, ToSchema)]
struct PasswordChange {
    #[schema(example = "sepeda merah tua")]
    current_password: String,
    /// 8 to 256 characters, not easy to guess.
    #[schema(example = "perahu biru muda")]
    new_password: String,
}

/// Change your password. Every other device is signed out, and links for a new password or address that wait in mails end. Wrong tries count like those to sign in.
#[utoipa::path(tag = "people", path = "/api/auth/change-password", request_body = PasswordChange,
    security(("session" = [])),
    responses((status = 200, body = Done), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 409, description = "it was changed meanwhile", body = crate::error::ErrorBody),
        (status = 429, body = crate::error::ErrorBody),
        (status = 503, description = "too many at once", body = crate::error::ErrorBody)))]
#[post("/api/auth/change-password")]
async fn change_password(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<PasswordChange>,
) -> Result<HttpResponse> {
    let PasswordChange { current_password, new_password } = body.into_inner();
    let account = sqlx::query!(
        "select email, username, password_hash from app_user where user_id = $1",
        person.user_id
    )
    .fetch_one(&state.people)
    .await?;
    let current = Password::typed("current_password", current_password)?;
    // Without a password there is none to change: it is chosen by mail.
    let kept = account.password_hash.ok_or_else(|| Error::field("current_password", "salah", "is wrong"))?;
    let current = ("current_password", current);
    owner::right(&request, &state, &people, person.user_id, &account.email, current, kept.clone()).await?;
    let names = [account.email.as_str(), account.username.as_str()];
    let new = people.passwords.choose("new_password", new_password, &names).await?;
    let mut tx = state.people.begin().await?;
    sqlx::query_scalar!(
        "update app_user set password_hash = $2, updated_at = now() where user_id = $1 and password_hash = $3
         returning user_id",
        person.user_id,
        new,
        kept
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::Conflict("PASSWORD_CHANGED"))?;
    sessions::end_all(&mut tx, person.user_id, Some(person.session_id)).await?;
    letters::void(&mut tx, person.user_id, &[Purpose::ResetPassword, Purpose::ChangeEmail]).await?;
    notices::password_changed(&mut tx, person.user_id).await?;
    did(&mut tx, &request, person.user_id, Action::PasswordChange).await?;
    tx.commit().await?;
    people.sessions.forget(|other| other.user_id == person.user_id);
    let message = language_of(&request).pick(
        "Kata sandi sudah diganti; perangkat lain dikeluarkan",
        "The password is changed; other devices are signed out",
    );
    Ok(HttpResponse::Ok().json(Done { success: true, message }))
}
