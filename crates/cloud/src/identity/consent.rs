//! What a person agreed to: `GET /api/consents` shows the texts, `/api/users/me/consents` what was given.
//!
//! A text is never changed under its version: a new text gets the next number, and consent to an older one stays
//! what it was until the person gives it anew or withdraws it.

use super::sessions::Person;
use crate::audit::Origin;
use crate::error::{Error, Language, Result, language_of};
use crate::json::Json;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use chrono::{DateTime, Utc};
use lumbung_shared::FieldError;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(texts).service(list).service(agree).service(withdraw);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(texts, list, agree, withdraw))]
pub(crate) struct Docs;

/// A purpose, its version, and its text in Indonesian and English.
type Text = (&'static str, i32, &'static str, &'static str);

const TEXTS: &[Text] = &[
    ("account", 1, include_str!("consents/account.id.txt"), include_str!("consents/account.en.txt")),
    ("research", 1, include_str!("consents/research.id.txt"), include_str!("consents/research.en.txt")),
    ("news", 1, include_str!("consents/news.id.txt"), include_str!("consents/news.en.txt")),
];

/// What somebody agrees to.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Consent {
    /// account, research or news
    #[schema(example = "news", pattern = "^(account|research|news)$")]
    purpose: String,
    /// Of the text that was shown.
    #[schema(example = 1, minimum = 1, maximum = 1)]
    version: i32,
}

/// Writes what was agreed to, in the caller's transaction. Given already is given.
///
/// # Errors
/// [`Error::Fields`] for a purpose that there is not, or a text that is no longer the one; the database's.
pub(super) async fn give(
    conn: &mut PgConnection,
    user_id: i64,
    consents: &[Consent],
    request: &HttpRequest,
) -> Result<()> {
    if consents.len() > TEXTS.len() {
        return Err(Error::field(
            "consents",
            format!("paling banyak {}", TEXTS.len()),
            format!("must be at most {}", TEXTS.len()),
        ));
    }
    let language = language_of(request).code();
    for consent in consents {
        let (purpose, version, ..) =
            TEXTS.iter().find(|text| text.0 == consent.purpose).ok_or_else(|| {
                let known: Vec<&str> = TEXTS.iter().map(|text| text.0).collect();
                FieldError::not_one_of("purpose", &known)
            })?;
        if *version != consent.version {
            return Err(Error::field(
                "version",
                format!("teks yang harus disetujui adalah versi {version}"),
                format!("the text to agree to is version {version}"),
            ));
        }
        sqlx::query!(
            "update consent set withdrawn_at = now()
             where user_id = $1 and purpose = $2 and version <> $3 and withdrawn_at is null",
            user_id,
            purpose,
            version
        )
        .execute(&mut *conn)
        .await?;
        sqlx::query!(
            "insert into consent (user_id, purpose, version, language, address) values ($1, $2, $3, $4, $5)
             on conflict (user_id, purpose) where withdrawn_at is null do nothing",
            user_id,
            purpose,
            version,
            language,
            Origin::of(request).address
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

#[derive(Serialize, ToSchema)]
struct Texts {
    #[schema(example = true)]
    success: bool,
    consents: Vec<Shown>,
}

#[derive(Serialize, ToSchema)]
struct Shown {
    #[schema(example = "news")]
    purpose: &'static str,
    #[schema(example = 1)]
    version: i32,
    /// In the language of Accept-Language.
    #[schema(example = "Kami boleh mengirim kabar tentang kampanye …")]
    text: &'static str,
}

/// What people are asked to agree to, each by itself. Anyone may call.
#[utoipa::path(tag = "privacy", path = "/api/consents", responses((status = 200, body = Texts)))]
#[get("/api/consents")]
async fn texts(request: HttpRequest) -> HttpResponse {
    let english = language_of(&request) == Language::English;
    let shown = |&(purpose, version, id, en): &Text| Shown {
        purpose,
        version,
        text: if english { en } else { id }.trim_end(),
    };
    HttpResponse::Ok().json(Texts { success: true, consents: TEXTS.iter().map(shown).collect() })
}

#[derive(Serialize, ToSchema)]
struct Given {
    #[schema(example = "news")]
    purpose: String,
    #[schema(example = 1)]
    version: i32,
    #[schema(example = "id")]
    language: String,
    given_at: DateTime<Utc>,
    /// Null while it holds.
    withdrawn_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, ToSchema)]
struct GivenList {
    #[schema(example = true)]
    success: bool,
    consents: Vec<Given>,
}

/// What you agreed to and when, the latest first, at most 100. Whoever is signed in may call.
#[utoipa::path(tag = "privacy", path = "/api/users/me/consents", security(("session" = [])),
    responses((status = 200, body = GivenList), (status = 401, body = crate::error::ErrorBody)))]
#[get("/api/users/me/consents")]
async fn list(person: Person, state: web::Data<State>) -> Result<HttpResponse> {
    answer(&state, person.user_id).await
}

async fn answer(state: &State, user_id: i64) -> Result<HttpResponse> {
    let consents = sqlx::query_as!(
        Given,
        "select purpose, version, language, given_at, withdrawn_at from consent where user_id = $1
         order by consent_id desc limit 100",
        user_id
    )
    .fetch_all(&state.people)
    .await?;
    Ok(HttpResponse::Ok().json(GivenList { success: true, consents }))
}

/// Agree to a text. Whoever is signed in may call.
#[utoipa::path(tag = "privacy", path = "/api/users/me/consents", request_body = Consent,
    security(("session" = [])),
    responses((status = 200, body = GivenList), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody)))]
#[post("/api/users/me/consents")]
async fn agree(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    body: Json<Consent>,
) -> Result<HttpResponse> {
    let mut tx = state.people.begin().await?;
    give(&mut tx, person.user_id, &[body.into_inner()], &request).await?;
    tx.commit().await?;
    answer(&state, person.user_id).await
}

/// Withdraw what you agreed to. Whoever is signed in may call.
#[utoipa::path(tag = "privacy", path = "/api/users/me/consents/{purpose}", security(("session" = [])),
    params(("purpose" = String, Path, example = "news")),
    responses((status = 200, body = GivenList), (status = 401, body = crate::error::ErrorBody),
        (status = 404, description = "it is not in force", body = crate::error::ErrorBody)))]
#[delete("/api/users/me/consents/{purpose}")]
async fn withdraw(
    person: Person,
    state: web::Data<State>,
    purpose: web::Path<String>,
) -> Result<HttpResponse> {
    if !TEXTS.iter().any(|text| text.0 == *purpose) {
        return Err(Error::NotFound("NOT_FOUND"));
    }
    sqlx::query_scalar!(
        "update consent set withdrawn_at = now() where user_id = $1 and purpose = $2 and withdrawn_at is null
         returning consent_id",
        person.user_id,
        *purpose
    )
    .fetch_optional(&state.people)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    answer(&state, person.user_id).await
}
