//! `GET`, `PUT` and `DELETE /api/notifications/phone`, `POST /api/notifications/phone/verify`: the telephone that text
//! messages are sent to.

use crate::error::{Error, ErrorBody, Result};
use crate::identity::{Person, language};
use crate::json::Json;
use crate::notify::phones::{self, Number};
use crate::outside::Outside;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, put, web};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A number's characters at most, as it is typed.
const LONGEST: usize = 64;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(current).service(give).service(verify).service(end);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(current, give, verify, end))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct Telephone {
    #[schema(example = true)]
    success: bool,
    /// Null: none is given.
    #[schema(example = "+6281234567890")]
    phone_number: Option<String>,
    /// A code that was sent there came back. Until then nothing else is sent.
    #[schema(example = false)]
    verified: bool,
    /// Whether this cloud sends text messages at all.
    #[schema(example = true)]
    available: bool,
}

async fn of(conn: &mut PgConnection, user_id: i64, outside: &Outside) -> Result<HttpResponse> {
    let phone = phones::of(conn, user_id).await?;
    let verified = phone.as_ref().is_some_and(|phone| phone.verified);
    let phone_number = phone.map(|phone| phone.number);
    let available = outside.texts_daily() > 0;
    Ok(HttpResponse::Ok().json(Telephone { success: true, phone_number, verified, available }))
}

/// The telephone that you have text messages sent to. Whoever is signed in may call.
#[utoipa::path(tag = "messages", path = "/api/notifications/phone", security(("session" = [])),
    responses((status = 200, body = Telephone), (status = 401, body = ErrorBody)))]
#[get("/api/notifications/phone")]
async fn current(
    person: Person,
    state: web::Data<State>,
    outside: web::Data<Outside>,
) -> Result<HttpResponse> {
    of(&mut *state.people.acquire().await?, person.user_id, &outside).await
}

#[derive(Deserialize, ToSchema)]
struct GivenNumber {
    /// With its country, or as it is dialled in Indonesia; at most 64 characters.
    #[schema(example = "0812-3456-7890", pattern = "^[0-9 +().-]{7,64}$")]
    phone_number: String,
}

/// Have text messages sent to a telephone: it is sent a code, good for 10 minutes, that shows whose it is. Which
/// messages come by text, the preferences say. A person and a number are sent 5 text messages a day, codes included.
/// Whoever is signed in may call.
#[utoipa::path(tag = "messages", path = "/api/notifications/phone", request_body = GivenNumber,
    security(("session" = [])),
    responses((status = 200, body = Telephone), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 404, description = "`SMS_NOT_CONFIGURED`", body = ErrorBody),
        (status = 429, description = "also when enough was sent today", body = ErrorBody)))]
#[put("/api/notifications/phone")]
async fn give(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    outside: web::Data<Outside>,
    body: Json<GivenNumber>,
) -> Result<HttpResponse> {
    if outside.texts_daily() == 0 {
        return Err(Error::NotFound("SMS_NOT_CONFIGURED"));
    }
    lumbung_shared::check_text("phone_number", &body.phone_number, LONGEST)?;
    let number = Number::parse(&body.phone_number).ok_or_else(|| {
        Error::field(
            "phone_number",
            "harus nomor seperti 0812-3456-7890 atau +62812…",
            "must be a number such as 0812-3456-7890 or +62812…",
        )
    })?;
    let countries = &state.config.sms.countries;
    if !number.is_of(countries) {
        return Err(Error::field(
            "phone_number",
            format!("harus diawali {}", countries.join(" atau ")),
            format!("must begin with {}", countries.join(" or ")),
        ));
    }
    let by = person.by(&request);
    let mut tx = state.people.begin().await?;
    let language = language::of(&mut tx, person.user_id).await?;
    phones::ask(&mut tx, person.user_id, &number, language, &by).await?;
    let answer = of(&mut tx, person.user_id, &outside).await?;
    tx.commit().await?;
    Ok(answer)
}

#[derive(Deserialize, ToSchema)]
struct CodeFromPhone {
    /// As it was sent: six digits.
    #[schema(example = "123456", pattern = "^[0-9]{6}$")]
    code: String,
}

/// The code that was sent to your telephone: it is yours. Five guesses are borne, then a new one must be asked for.
/// Whoever is signed in may call.
#[utoipa::path(tag = "messages", path = "/api/notifications/phone/verify", request_body = CodeFromPhone,
    security(("session" = [])),
    responses((status = 200, body = Telephone), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 404, description = "`LINK_UNKNOWN`", body = ErrorBody)))]
#[post("/api/notifications/phone/verify")]
async fn verify(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    outside: web::Data<Outside>,
    body: Json<CodeFromPhone>,
) -> Result<HttpResponse> {
    if body.code.len() != 6 || !body.code.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(Error::field("code", "harus enam angka", "must be six digits"));
    }
    let by = person.by(&request);
    phones::verify(&state.people, person.user_id, &body.code, &by).await?;
    of(&mut *state.people.acquire().await?, person.user_id, &outside).await
}

/// Have no more text messages sent. Whoever is signed in may call.
#[utoipa::path(tag = "messages", path = "/api/notifications/phone", security(("session" = [])),
    responses((status = 200, body = Telephone), (status = 401, body = ErrorBody),
        (status = 404, description = "there is none", body = ErrorBody)))]
#[delete("/api/notifications/phone")]
async fn end(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    outside: web::Data<Outside>,
) -> Result<HttpResponse> {
    let by = person.by(&request);
    let mut tx = state.people.begin().await?;
    phones::end(&mut tx, person.user_id, &by).await?;
    let answer = of(&mut tx, person.user_id, &outside).await?;
    tx.commit().await?;
    Ok(answer)
}
