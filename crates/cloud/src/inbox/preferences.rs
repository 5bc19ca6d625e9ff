//! `GET` and `PUT /api/notifications/preferences`: what reaches a person, by what, in which language.

use crate::error::{Error, Language, Result};
use crate::identity::{Person, language};
use crate::json::Json;
use crate::notify::Kind;
use crate::notify::wishes::{self, Channel, Wishes};
use crate::state::State;
use actix_web::{HttpResponse, get, put, web};
use lumbung_shared::FieldError;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// Wishes in one request at most.
const MOST: usize = 100;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(current).service(change);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(current, change))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct Preferences {
    #[schema(example = true)]
    success: bool,
    /// In which you are written to: id or en.
    #[schema(example = "id")]
    language: &'static str,
    preferences: Vec<Preference>,
}

#[derive(Serialize, ToSchema)]
struct Preference {
    #[serde(rename = "type")]
    #[schema(example = "post_liked")]
    kind: &'static str,
    /// in_app, email, push or sms
    #[schema(example = "email")]
    channel: &'static str,
    #[schema(example = false)]
    enabled: bool,
    /// It cannot be turned off.
    #[schema(example = false)]
    fixed: bool,
}

/// What reaches you, by what. Whoever is signed in may call.
#[utoipa::path(tag = "messages", path = "/api/notifications/preferences", security(("session" = [])),
    responses((status = 200, body = Preferences), (status = 401, body = crate::error::ErrorBody)))]
#[get("/api/notifications/preferences")]
async fn current(person: Person, state: web::Data<State>) -> Result<HttpResponse> {
    let mut conn = state.people.acquire().await?;
    Ok(HttpResponse::Ok().json(of(&mut conn, person.user_id).await?))
}

async fn of(conn: &mut PgConnection, user_id: i64) -> Result<Preferences> {
    let language = language::of(conn, user_id).await?.code();
    let wishes = Wishes::of(conn, user_id).await?;
    let kinds = Kind::ALL.into_iter().filter(|kind| !kind.is_secret());
    let preferences = kinds
        .flat_map(|kind| Channel::ALL.map(|channel| (kind, channel)))
        .map(|(kind, channel)| Preference {
            kind: kind.word(),
            channel: channel.word(),
            enabled: wishes.want(kind, channel),
            fixed: kind.is_fixed(channel),
        })
        .collect();
    Ok(Preferences { success: true, language, preferences })
}

/// What to change; what is not named stays.
#[derive(Deserialize, ToSchema)]
struct PreferenceChanges {
    /// id or en
    #[schema(example = "en", pattern = "^(id|en)$")]
    language: Option<String>,
    /// At most 100.
    #[serde(default)]
    #[schema(max_items = 100)]
    preferences: Vec<Wish>,
}

#[derive(Deserialize, ToSchema)]
struct Wish {
    #[serde(rename = "type")]
    #[schema(schema_with = kinds)]
    kind: String,
    #[schema(schema_with = channels)]
    channel: String,
    #[schema(example = true)]
    enabled: bool,
}

/// Kinds that somebody may wish about.
fn kinds() -> Object {
    let kinds = Kind::ALL.into_iter().filter(|kind| !kind.is_secret());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(kinds.map(Kind::word))).build()
}

fn channels() -> Object {
    let channels = Channel::ALL.map(Channel::word);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(channels)).build()
}

impl Wish {
    fn checked(&self) -> Result<(Kind, Channel, bool)> {
        let wrong = |indonesian, english| {
            let place = |by, what| format!("{} {by} {}: {what}", self.kind, self.channel);
            Error::field("preferences", place("lewat", indonesian), place("by", english))
        };
        let kinds = Kind::ALL.into_iter().filter(|kind| !kind.is_secret());
        let kind = { kinds }
            .find(|kind| kind.word() == self.kind)
            .ok_or_else(|| wrong("jenis itu tidak ada", "no such type"))?;
        let channel = Channel::ALL
            .into_iter()
            .find(|channel| channel.word() == self.channel)
            .ok_or_else(|| wrong("jalan itu tidak ada", "no such channel"))?;
        if kind.is_fixed(channel) && !self.enabled {
            return Err(wrong("tidak dapat dimatikan", "cannot be turned off"));
        }
        Ok((kind, channel, self.enabled))
    }
}

/// Change what reaches you. Whoever is signed in may call.
///
/// All of it is changed or nothing. What tells of your account's safety cannot be turned off.
#[utoipa::path(tag = "messages", path = "/api/notifications/preferences", request_body = PreferenceChanges,
    security(("session" = [])),
    responses((status = 200, body = Preferences), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody)))]
#[put("/api/notifications/preferences")]
async fn change(
    person: Person,
    state: web::Data<State>,
    body: Json<PreferenceChanges>,
) -> Result<HttpResponse> {
    if body.preferences.len() > MOST {
        return Err(Error::field("preferences", format!("paling banyak {MOST}"), format!("at most {MOST}")));
    }
    let wished = body.preferences.iter().map(Wish::checked).collect::<Result<Vec<_>>>()?;
    let spoken = body
        .language
        .as_deref()
        .map(|code| {
            Language::from_code(code).ok_or_else(|| FieldError::not_one_of("language", &["id", "en"]))
        })
        .transpose()?;
    let mut tx = state.people.begin().await?;
    if let Some(spoken) = spoken {
        language::set(&mut tx, person.user_id, spoken).await?;
    }
    for (kind, channel, enabled) in wished {
        wishes::wish(&mut tx, person.user_id, kind, channel, enabled).await?;
    }
    let preferences = of(&mut tx, person.user_id).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(preferences))
}
