//! `GET /api/auth/totp` and `POST /api/auth/totp/enrol`, `/confirm`, `/off`: people look after their own second factor.

use super::super::entries::wrong;
use super::super::owner;
use super::super::people::{Done, People};
use super::super::secret;
use super::super::sessions::{Enrolling, Person};
use super::super::throttle;
use super::{
    Change, RECOVERY_CODES, changed, check_code, codes_of, hold, is_on, remove, step_of, take, without_spaces,
};
use crate::audit::{Actor, By};
use crate::error::{Error, ErrorBody, Result, language_of};
use crate::json::Json;
use crate::random;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use anyhow::anyhow;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

pub(in crate::identity) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(standing).service(enrol).service(confirm).service(off);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(standing, enrol, confirm, off))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct TotpStanding {
    #[schema(example = true)]
    success: bool,
    /// Signing in asks for a code.
    on: bool,
    since: Option<DateTime<Utc>>,
    #[schema(example = 10)]
    recovery_codes_left: i64,
    /// This installation asks it of you: until it is on you can do nothing else.
    required: bool,
}

/// Whether signing in to your account asks for a code of an authenticator app. Whoever is signed in may call.
#[utoipa::path(tag = "people", path = "/api/auth/totp", security(("session" = [])),
    responses((status = 200, body = TotpStanding), (status = 401, body = ErrorBody)))]
#[get("/api/auth/totp")]
async fn standing(person: Enrolling, state: web::Data<State>) -> Result<HttpResponse> {
    let user_id = person.0.user_id;
    let row = sqlx::query!(
        r#"select (select confirmed_at from user_totp where user_id = $1) as since,
               (select count(*) from recovery_code where user_id = $1) as "left!",
               (u.role = any($2) or exists (select from role_grant g where g.user_id = u.user_id and g.role = any($2)))
                   as "required!"
           from app_user u where u.user_id = $1"#,
        user_id,
        &state.config.people.totp_required_for
    )
    .fetch_one(&state.people)
    .await?;
    Ok(HttpResponse::Ok().json(TotpStanding {
        success: true,
        on: row.since.is_some(),
        since: row.since,
        recovery_codes_left: row.left,
        required: row.required,
    }))
}

#[derive(Deserialize, ToSchema)]
struct Enrolment {
    /// Yours. Without, when the account has none, the sign-in must be of the last ten minutes.
    #[schema(example = "sepeda merah tua", min_length = 1)]
    password: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TotpEnrolment)]
struct Enrolled {
    #[schema(example = true)]
    success: bool,
    /// For typing into an authenticator app; shown this once.
    #[schema(example = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")]
    secret: String,
    /// The same as the text of a QR code, and as a link that opens an app.
    #[schema(
        example = "otpauth://totp/Lumbung:user%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Lumbung"
    )]
    otpauth_uri: String,
}

/// Begin a second factor: a secret for an authenticator app. Whoever is signed in may call.
///
/// It counts once `/api/auth/totp/confirm` was given a code of the app; until then another call makes another secret.
/// Wrong passwords count like those to sign in.
#[utoipa::path(tag = "people", path = "/api/auth/totp/enrol", request_body = Enrolment, security(("session" = [])),
    responses((status = 200, body = Enrolled), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`SIGN_IN_AGAIN`", body = ErrorBody),
        (status = 404, description = "`TOTP_NOT_CONFIGURED`", body = ErrorBody),
        (status = 409, description = "`TOTP_ON`", body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, description = "too many at once", body = ErrorBody)))]
#[post("/api/auth/totp/enrol")]
async fn enrol(
    request: HttpRequest,
    person: Enrolling,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<Enrolment>,
) -> Result<HttpResponse> {
    let person = person.0;
    if !people.vault.has_key() {
        return Err(Error::NotFound("TOTP_NOT_CONFIGURED"));
    }
    let drawn: [u8; 20] = random::draw()?;
    let sealed = people.vault.seal(person.user_id, &drawn)?;
    let owner = owner::confirm(&request, &state, &people, &person, body.into_inner().password).await?;
    sqlx::query_scalar!(
        "insert into user_totp as t (user_id, sealed_secret) values ($1, $2)
         on conflict on constraint user_totp_pk do update set sealed_secret = excluded.sealed_secret, created_at = now()
         where t.confirmed_at is null returning user_id",
        person.user_id,
        sealed
    )
    .fetch_optional(&state.people)
    .await?
    .ok_or(Error::Conflict("TOTP_ON"))?;
    let codes = codes_of(drawn.to_vec(), &owner.email)?;
    let otpauth_uri = codes.to_url().map_err(|error| anyhow!("a second factor's address: {error}"))?;
    let secret = codes.secret().to_base32();
    Ok(HttpResponse::Ok().json(Enrolled { success: true, secret, otpauth_uri }))
}

#[derive(Deserialize, ToSchema)]
struct FirstCode {
    /// Six digits that the app shows now.
    #[schema(example = "123456", min_length = 6, max_length = 64)]
    code: String,
}

#[derive(Serialize, ToSchema)]
struct RecoveryCodes {
    #[schema(example = true)]
    success: bool,
    /// For when the app is lost: each signs in once. Shown this once; keep them on paper.
    #[schema(example = json!(["7Q2M4-X9TKB-0V6HD-R3PWA-C8ZNE-1"]))]
    recovery_codes: Vec<String>,
}

/// Switch the second factor on, with a code of the app. Every other device is signed out. Whoever is signed in may call.
///
/// Wrong codes count like those to sign in.
#[utoipa::path(tag = "people", path = "/api/auth/totp/confirm", request_body = FirstCode, security(("session" = [])),
    responses((status = 200, body = RecoveryCodes), (status = 400, description = "also a wrong code", body = ErrorBody),
        (status = 401, body = ErrorBody),
        (status = 409, description = "`TOTP_ON`, or `TOTP_OFF`: `/api/auth/totp/enrol` comes first", body = ErrorBody),
        (status = 429, body = ErrorBody)))]
#[post("/api/auth/totp/confirm")]
async fn confirm(
    request: HttpRequest,
    person: Enrolling,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<FirstCode>,
) -> Result<HttpResponse> {
    let Person { user_id, session_id, .. } = person.0;
    check_code(&body.code)?;
    begun(&mut *state.people.acquire().await?, user_id).await?;
    // Who has no more than the session of somebody half enrolled must not guess their way to the recovery codes.
    let account = throttle::codes_of(user_id);
    let failures = throttle::count(&state.people, &account).await?;
    let mut tx = state.people.begin().await?;
    hold(&mut tx, user_id).await?;
    let sealed = begun(&mut tx, user_id).await?;
    let codes = codes_of(people.vault.unseal(user_id, &sealed)?, "")?;
    let Some(step) = step_of(&codes, &without_spaces(&body.code), Utc::now().timestamp(), 0) else {
        tx.rollback().await?;
        let mut conn = state.people.acquire().await?;
        wrong(&mut conn, &request, Some(user_id), failures, "wrong code").await?;
        return Err(Error::field(
            "code",
            "salah: periksa jam di perangkat Anda",
            "is wrong: see that the device's clock is right",
        ));
    };
    sqlx::query!(
        "update user_totp set confirmed_at = now(), used_step = $2 where user_id = $1",
        user_id,
        step
    )
    .execute(&mut *tx)
    .await?;
    let recovery_codes: Vec<String> =
        (0..RECOVERY_CODES).map(|_| secret::draw_claim()).collect::<anyhow::Result<_>>()?;
    let hashes: Vec<Vec<u8>> =
        recovery_codes.iter().map(|code| secret::hash(&secret::normalise_claim(code))).collect();
    sqlx::query!(
        "insert into recovery_code (user_id, code_hash) select $1, unnest($2::bytea[])",
        user_id,
        &hashes
    )
    .execute(&mut *tx)
    .await?;
    let by = By::request(Actor::Person(user_id), &request);
    changed(&mut tx, user_id, Change::On, &by, Some(session_id)).await?;
    tx.commit().await?;
    throttle::forgive(&state.people, &account).await?;
    people.forget(user_id);
    Ok(HttpResponse::Ok().json(RecoveryCodes { success: true, recovery_codes }))
}

/// The sealed secret that waits for its first code.
async fn begun(conn: &mut PgConnection, user_id: i64) -> Result<Vec<u8>> {
    let factor =
        sqlx::query!("select sealed_secret, confirmed_at from user_totp where user_id = $1", user_id)
            .fetch_optional(conn)
            .await?
            .ok_or(Error::Conflict("TOTP_OFF"))?;
    factor.confirmed_at.is_none().then_some(factor.sealed_secret).ok_or(Error::Conflict("TOTP_ON"))
}

#[derive(Deserialize, ToSchema)]
struct SwitchOff {
    /// Yours. Without, when the account has none, the sign-in must be of the last ten minutes.
    #[schema(example = "sepeda merah tua", min_length = 1)]
    password: Option<String>,
    /// Six digits that the app shows now, or a recovery code.
    #[schema(example = "123456", min_length = 6, max_length = 64)]
    code: String,
}

/// Switch the second factor off, with the password and a code. Every other device is signed out. Whoever is signed in
/// may call.
///
/// Wrong passwords and codes count like those to sign in. Who is required to have one can then only begin another.
#[utoipa::path(tag = "people", path = "/api/auth/totp/off", request_body = SwitchOff, security(("session" = [])),
    responses((status = 200, body = Done), (status = 400, description = "also a wrong code", body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, description = "`SIGN_IN_AGAIN`", body = ErrorBody),
        (status = 409, description = "`TOTP_OFF`", body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, description = "too many at once", body = ErrorBody)))]
#[post("/api/auth/totp/off")]
async fn off(
    request: HttpRequest,
    person: Enrolling,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<SwitchOff>,
) -> Result<HttpResponse> {
    let person = person.0;
    let SwitchOff { password, code } = body.into_inner();
    check_code(&code)?;
    let mut conn = state.people.acquire().await?;
    if !is_on(&mut conn, person.user_id).await? {
        return Err(Error::Conflict("TOTP_OFF"));
    }
    drop(conn);
    owner::confirm(&request, &state, &people, &person, password).await?;
    let account = throttle::codes_of(person.user_id);
    let failures = throttle::count(&state.people, &account).await?;
    let mut tx = state.people.begin().await?;
    hold(&mut tx, person.user_id).await?;
    if take(&mut tx, &people, person.user_id, &code).await?.is_none() {
        tx.rollback().await?;
        let mut conn = state.people.acquire().await?;
        wrong(&mut conn, &request, Some(person.user_id), failures, "wrong code").await?;
        return Err(Error::field("code", "salah", "is wrong"));
    }
    remove(&mut tx, person.user_id).await?;
    let by = person.by(&request);
    changed(&mut tx, person.user_id, Change::Off, &by, Some(person.session_id)).await?;
    tx.commit().await?;
    throttle::forgive(&state.people, &account).await?;
    people.forget(person.user_id);
    let message = language_of(&request).pick(
        "Langkah kedua sudah dimatikan; perangkat lain dikeluarkan",
        "The second factor is off; other devices are signed out",
    );
    Ok(HttpResponse::Ok().json(Done { success: true, message }))
}
