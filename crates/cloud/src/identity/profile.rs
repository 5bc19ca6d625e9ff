//! `GET` and `PUT /api/users/me`: what a person says of themselves.

use super::people;
use super::roles::Role;
use super::sessions::Person;
use crate::audit::{Action, Object};
use crate::error::{Error, Result};
use crate::files;
use crate::json::Json;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, get, put, web};
use chrono::{DateTime, Utc};
use lumbung_shared::FieldError;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(me).service(change);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(me, change))]
pub(crate) struct Docs;

/// An account as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Profile {
    #[schema(example = 123)]
    user_id: i64,
    #[schema(example = "user@example.com")]
    email: String,
    #[schema(example = "userhandle")]
    username: String,
    #[schema(example = "Full Name")]
    full_name: Option<String>,
    /// Null until there is a picture; its thumbnail has `-320` before `.jpg`.
    profile_picture_url: Option<String>,
    bio: Option<String>,
    #[schema(example = "+62 811 0000 000")]
    phone_number: Option<String>,
    address: Option<String>,
    #[schema(example = "Jakarta")]
    city: Option<String>,
    #[schema(example = "Indonesia")]
    country: Option<String>,
    role: Role,
    is_verified: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    #[schema(example = true)]
    pub(super) success: bool,
    pub(super) user_data: Profile,
}

impl Profile {
    /// Its row has the picture's name.
    fn shown(mut self, state: &State) -> Self {
        self.profile_picture_url = self.profile_picture_url.map(|name| files::url(&state.config, &name));
        self
    }
}

/// The profile of one account.
pub(super) async fn of(state: &State, user_id: i64) -> Result<Profile> {
    let profile = sqlx::query_as!(
        Profile,
        r#"select user_id, email, username, full_name, profile_picture as profile_picture_url, bio, phone_number, address,
               city, country, role as "role: Role", is_verified, created_at, updated_at
           from app_user where user_id = $1"#,
        user_id
    );
    let profile = profile.fetch_optional(&state.people).await?.ok_or(Error::Unauthenticated)?;
    Ok(profile.shown(state))
}

/// Your own profile. Whoever is signed in may call.
#[utoipa::path(tag = "people", path = "/api/users/me", security(("session" = [])),
    responses((status = 200, body = Me), (status = 401, body = crate::error::ErrorBody)))]
#[get("/api/users/me")]
async fn me(person: Person, state: web::Data<State>) -> Result<HttpResponse> {
    let user_data = of(&state, person.user_id).await?;
    Ok(HttpResponse::Ok().json(Me { success: true, user_data }))
}

/// What to change. A field that is missing stays; null or an empty text clears it.
#[derive(Deserialize, ToSchema)]
struct Changes {
    /// Only your own, if any.
    user_id: Option<i64>,
    /// As at registration; cannot be cleared.
    #[schema(example = "userhandle")]
    username: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(max_length = 255, example = "Full Name")]
    full_name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(max_length = 2000)]
    bio: Option<String>,
    /// 5 to 20 digits, spaces and `+ - ( )`.
    #[serde(default, deserialize_with = "given")]
    #[schema(example = "+62 811 0000 000")]
    phone_number: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(max_length = 1000)]
    address: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(max_length = 100, example = "Jakarta")]
    city: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(max_length = 100, example = "Indonesia")]
    country: Option<String>,
    #[serde(default)]
    #[schema(ignore)]
    email: Came,
    #[serde(default)]
    #[schema(ignore)]
    password: Came,
    #[serde(default)]
    #[schema(ignore)]
    role: Came,
    #[serde(default)]
    #[schema(ignore)]
    is_verified: Came,
    #[serde(default)]
    #[schema(ignore)]
    profile_picture_url: Came,
}

/// A field that an account has and this request does not set: as it came, null too.
#[derive(Default)]
struct Came(Option<Value>);

impl<'de> Deserialize<'de> for Came {
    fn deserialize<D: Deserializer<'de>>(field: D) -> std::result::Result<Self, D::Error> {
        Value::deserialize(field).map(|value| Self(Some(value)))
    }
}

/// Null is as good as an empty text.
fn given<'de, D: Deserializer<'de>>(field: D) -> std::result::Result<Option<String>, D::Error> {
    Ok(Some(Option::<String>::deserialize(field)?.unwrap_or_default()))
}

impl Changes {
    fn check(&self, now: Option<&Value>) -> Result<()> {
        if let Some(username) = &self.username {
            people::check_username(username)?;
        }
        let line = |field, value: &Option<String>, max| check(field, value, max, false);
        let wrong: Vec<FieldError> = [
            line("full_name", &self.full_name, 255),
            check("bio", &self.bio, 2000, true),
            line("phone_number", &self.phone_number, 20).or_else(|| check_phone(&self.phone_number)),
            check("address", &self.address, 1000, true),
            line("city", &self.city, 100),
            line("country", &self.country, 100),
        ]
        .into_iter()
        .flatten()
        .chain(self.set_elsewhere(now))
        .collect();
        if wrong.is_empty() { Ok(()) } else { Err(Error::Fields(wrong)) }
    }

    fn elsewhere(&self) -> [(&Came, &'static str, &'static str, &'static str); 5] {
        [
            (
                &self.email,
                "email",
                "diganti lewat POST /api/users/me/email",
                "is changed by POST /api/users/me/email",
            ),
            (
                &self.password,
                "password",
                "diganti lewat POST /api/auth/change-password",
                "is changed by POST /api/auth/change-password",
            ),
            (&self.role, "role", "hanya dapat diubah pengelola", "can only be changed by the operators"),
            (
                &self.is_verified,
                "is_verified",
                "berubah lewat tautan di email; minta lagi lewat POST /api/auth/verify-email/resend",
                "changes by the link in our mail; ask again by POST /api/auth/verify-email/resend",
            ),
            (
                &self.profile_picture_url,
                "profile_picture_url",
                "diganti lewat POST /api/users/me/picture",
                "is changed by POST /api/users/me/picture",
            ),
        ]
    }

    fn has_fields_of_elsewhere(&self) -> bool {
        self.elsewhere().iter().any(|(came, ..)| came.0.is_some())
    }

    /// What came to be changed and is changed elsewhere: whoever sent it must not believe that it was done. Clients that
    /// send a whole profile back send such fields as they are, which changes nothing.
    fn set_elsewhere(&self, now: Option<&Value>) -> impl Iterator<Item = FieldError> {
        self.elsewhere()
            .into_iter()
            .filter(move |(came, field, ..)| {
                came.0.as_ref().is_some_and(|came| now.and_then(|now| now.get(field)) != Some(came))
            })
            .map(|(_, field, indonesian, english)| FieldError::new(field, indonesian, english))
    }

    /// What the audit says of it: which fields, and whether one of them leads to somebody's door.
    fn told(&self) -> (Action, Vec<&'static str>) {
        let fields = [
            ("username", &self.username),
            ("full_name", &self.full_name),
            ("bio", &self.bio),
            ("phone_number", &self.phone_number),
            ("address", &self.address),
            ("city", &self.city),
            ("country", &self.country),
        ];
        let fields: Vec<_> =
            fields.into_iter().filter_map(|(field, value)| value.as_ref().map(|_| field)).collect();
        let sensitive = fields.iter().any(|field| ["phone_number", "address"].contains(field));
        (if sensitive { Action::SensitiveUpdate } else { Action::UserUpdated }, fields)
    }
}

/// What is wrong with a text; some may have several lines.
fn check(field: &'static str, value: &Option<String>, max: usize, lines: bool) -> Option<FieldError> {
    let value = value.as_deref().filter(|value| !value.is_empty())?;
    let flat = if lines { value.replace(['\n', '\r', '\t'], " ") } else { value.to_owned() };
    lumbung_shared::check_text(field, &flat, max).err()
}

fn check_phone(value: &Option<String>) -> Option<FieldError> {
    let value = value.as_deref().filter(|value| !value.is_empty())?;
    let good = value.len() >= 5 && value.chars().all(|c| c.is_ascii_digit() || " +-()".contains(c));
    (!good).then(|| {
        FieldError::new(
            "phone_number",
            "harus 5 sampai 20 angka, spasi dan + - ( )",
            "must be 5 to 20 digits, spaces and + - ( )",
        )
    })
}

/// Change your own profile. Whoever is signed in may call.
///
/// `email`, `role`, `is_verified` and `profile_picture_url` may come as they are; another value, and a `password`, is refused
/// with a detail that says where it is changed. A field that no account has is ignored.
#[utoipa::path(tag = "people", path = "/api/users/me", request_body = Changes, security(("session" = [])),
    responses((status = 200, body = Me), (status = 400, body = crate::error::ErrorBody),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`OTHER_USER`", body = crate::error::ErrorBody),
        (status = 409, description = "`USERNAME_TAKEN`", body = crate::error::ErrorBody)))]
#[put("/api/users/me")]
async fn change(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    body: Json<Changes>,
) -> Result<HttpResponse> {
    person.must_be(body.user_id)?;
    let now = if body.has_fields_of_elsewhere() {
        let now = of(&state, person.user_id).await?;
        Some(serde_json::to_value(now).map_err(anyhow::Error::from)?)
    } else {
        None
    };
    body.check(now.as_ref())?;
    let mut tx = state.people.begin().await?;
    let profile = sqlx::query_as!(
        Profile,
        r#"update app_user set full_name = nullif(coalesce($2, full_name), ''), bio = nullif(coalesce($3, bio), ''),
               phone_number = nullif(coalesce($4, phone_number), ''), address = nullif(coalesce($5, address), ''),
               city = nullif(coalesce($6, city), ''), country = nullif(coalesce($7, country), ''),
               username = coalesce($8, username), updated_at = now()
           where user_id = $1 and is_active
           returning user_id, email, username, full_name, profile_picture as profile_picture_url, bio, phone_number,
               address, city, country, role as "role: Role", is_verified, created_at, updated_at"#,
        person.user_id,
        body.full_name,
        body.bio,
        body.phone_number,
        body.address,
        body.city,
        body.country,
        body.username
    );
    let profile =
        profile.fetch_optional(&mut *tx).await.map_err(people::taken)?.ok_or(Error::Unauthenticated)?;
    let (action, fields) = body.told();
    let by = person.by(&request);
    by.did(&mut tx, action, Object::new("user", &person.user_id), None, json!({ "fields": fields })).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(Me { success: true, user_data: profile.shown(&state) }))
}
