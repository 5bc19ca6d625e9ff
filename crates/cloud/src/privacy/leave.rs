//! `DELETE /api/users/me`: the end of an account. There is no grace period: what is gone is gone at once.

use super::{export, requests};
use crate::audit::{self, Action, Actor, Entry, Object, Origin};
use crate::error::{Language, Result};
use crate::files::{self, Files};
use crate::identity::{People, Person, personal};
use crate::notify;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, delete, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(leave);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(leave))]
pub(crate) struct Docs;

#[derive(Deserialize, ToSchema)]
struct Leaving {
    /// May be missing within ten minutes of signing in.
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
pub(super) struct Receipt {
    #[schema(example = 17)]
    pub(super) privacy_request_id: i64,
    pub(super) erased_at: DateTime<Utc>,
    /// Uploads that went with the account.
    #[schema(example = 3)]
    pub(super) files: u64,
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
    body: web::Json<Leaving>,
) -> Result<HttpResponse> {
    personal::confirm(&state, &people, &person, body.into_inner().password).await?;
    let user_id = person.user_id;
    let mut tx = state.people.begin().await?;
    let email = personal::email_for_erasure(&mut tx, user_id).await?;
    notify::personal::erase(&mut tx, user_id, &email).await?;
    let files_gone = files::erase(&mut tx, user_id).await?;
    export::expire_all(&mut tx, user_id).await?;
    personal::erase(&mut tx, user_id, &email).await?;
    let receipt = requests::erased(&mut tx, user_id, files_gone).await?;
    let entry = Entry {
        object: Some(Object::new("user", &user_id)),
        origin: Some(Origin::of(&request)),
        ..Entry::of(Actor::Person(user_id), Action::SensitiveDelete)
    };
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    people.forget(user_id);
    // What is in the store goes now if it can, and else with the next erasure or sweep.
    for gone in [files::sweep::dropped(&files).await, export::expired(&state, &files).await] {
        if let Err(error) = gone {
            tracing::warn!("files of an erased account stay until the next sweep: {error}");
        }
    }
    tracing::info!(user_id, "account erased");
    let message = match Language::of(&request) {
        Language::Indonesian => "Akun dan data pribadi Anda sudah dihapus",
        Language::English => "Your account and personal data are deleted",
    };
    Ok(HttpResponse::Ok().json(Left { success: true, receipt, message }))
}
