//! `DELETE /api/users/me`: the end of an account. There is no grace period: what is gone is gone at once.

use super::{export, requests};
use crate::audit::{Action, By, Object};
use crate::error::{Result, language_of};
use crate::files::{self, Files};
use crate::guards;
use crate::identity::{People, Person, owner, personal};
use crate::json::Json;
use crate::notify;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, delete, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(leave);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(leave))]
pub(crate) struct Docs;

#[derive(Deserialize, ToSchema)]
struct Leaving {
    /// Yours. Without, when the account has none, the sign-in must be of the last ten minutes.
    #[schema(example = "sepeda merah tua")]
    password: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Left {
    #[schema(example = true)]
    success: bool,
    /// What proves it: the request's number and when it was done.
    receipt: Receipt,
    #[schema(example = "Akun dan data pribadi Anda sudah dihapus")]
    message: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct Receipt {
    #[schema(example = 17)]
    pub privacy_request_id: i64,
    pub erased_at: DateTime<Utc>,
    /// Uploads that went with the account.
    #[schema(example = 3)]
    pub files: u64,
}

/// Delete your account and what is known of you. Whoever is signed in may call.
///
/// Sessions end at once, uploads and messages go, the account's number stays without a person for the rows that
/// need one. It cannot be undone; ask for an export first.
#[utoipa::path(tag = "privacy", path = "/api/users/me", request_body = Leaving, security(("session" = [])),
    responses((status = 200, body = Left), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`SIGN_IN_AGAIN`", body = crate::error::ErrorBody),
        (status = 409, description = "`LAST_ADMIN`", body = crate::error::ErrorBody),
        (status = 429, body = crate::error::ErrorBody)))]
#[delete("/api/users/me")]
async fn leave(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    people: web::Data<People>,
    files: web::Data<Files>,
    body: Json<Leaving>,
) -> Result<HttpResponse> {
    owner::confirm(&request, &state, &people, &person, body.into_inner().password).await?;
    let by = person.by(&request);
    let receipt = erase(&state, &files, person.user_id, &by).await?;
    people.forget(person.user_id);
    let message = language_of(&request)
        .pick("Akun dan data pribadi Anda sudah dihapus", "Your account and personal data are deleted");
    Ok(HttpResponse::Ok().json(Left { success: true, receipt, message }))
}

/// Leaves an account without a person. Can be repeated: what came since goes too.
///
/// # Errors
/// `LAST_ADMIN`, `NOT_FOUND`, or the database's. A store that cannot be reached is no error: the next sweep does it.
pub async fn erase(state: &State, files: &Files, user_id: i64, by: &By) -> Result<Receipt> {
    let mut tx = state.people.begin().await?;
    personal::may_go(&mut tx, user_id).await?;
    let files_gone = everywhere(&mut tx, user_id).await?;
    let receipt = requests::erased(&mut tx, user_id, files_gone).await?;
    let detail = json!({ "files": files_gone });
    by.did(&mut tx, Action::SensitiveDelete, Object::new("user", &user_id), None, detail).await?;
    tx.commit().await?;
    let whose = Some(user_id);
    for gone in [files::sweep::dropped(files, whose).await, export::expired(state, files, whose).await] {
        if let Err(error) = gone {
            tracing::warn!("files of an erased account stay until the next sweep: {error}");
        }
    }
    tracing::info!(user_id, "account erased");
    Ok(receipt)
}

/// Each module's part, in the caller's transaction; how many files went.
async fn everywhere(conn: &mut PgConnection, user_id: i64) -> Result<u64> {
    let email = personal::email(conn, user_id).await?;
    guards::forget_person(conn, user_id).await?;
    notify::personal::erase(conn, user_id, &email).await?;
    let files_gone = files::erase(conn, user_id).await?;
    export::erase(conn, user_id).await?;
    personal::erase(conn, user_id, &email).await?;
    Ok(files_gone)
}

/// Repeats the erasures of the last two hours: a request that was under way on another replica, which may believe in
/// a session for a second, can have written after them.
///
/// # Errors
/// The database's.
pub async fn one_round(state: &State) -> Result<u64> {
    let mut tx = state.people.begin().await?;
    let lately = personal::lately_erased(&mut tx).await?;
    for user_id in &lately {
        everywhere(&mut tx, *user_id).await?;
        requests::emptied(&mut tx, *user_id).await?;
    }
    tx.commit().await?;
    Ok(lately.len() as u64)
}
