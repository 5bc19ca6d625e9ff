//! `POST /api/auth/login/totp`: the second step of a sign-in.

use super::super::bans;
use super::super::entries::{did, wrong};
use super::super::notices;
use super::super::people::{People, SignedIn};
use super::super::profile;
use super::super::secret;
use super::super::sessions;
use super::super::throttle;
use super::{Taken, check_code, is_on, take};
use crate::audit::Action;
use crate::error::{Error, Result};
use crate::json::Json;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, post, web};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

pub(in crate::identity) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(second_step);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(second_step))]
pub(crate) struct Docs;

/// How long somebody may look for their app, seconds.
const PATIENCE: i32 = 300;
const PREFIX: &str = "lbc_";

/// For whoever passed the first step: what asks them for the second, if their account has one. It is true once the
/// caller's transaction is through.
pub(in crate::identity) async fn asked_of(
    conn: &mut PgConnection,
    user_id: i64,
    refresh: bool,
) -> Result<Option<Error>> {
    if !is_on(conn, user_id).await? {
        return Ok(None);
    }
    let challenge = secret::draw_key(PREFIX)?;
    sqlx::query!(
        "insert into sign_in_challenge (challenge_hash, user_id, refresh, expires_at)
         values ($1, $2, $3, now() + interval '1 second' * $4::int)",
        secret::hash(&challenge),
        user_id,
        refresh,
        PATIENCE
    )
    .execute(conn)
    .await?;
    Ok(Some(Error::TotpRequired { challenge, expires_in: PATIENCE }))
}

#[derive(Deserialize, ToSchema)]
struct SecondStep {
    /// `challenge` in the details of `TOTP_REQUIRED`.
    #[schema(example = "lbc_...", max_length = 64)]
    challenge: String,
    /// Six digits that the app shows now, or a recovery code.
    #[schema(example = "123456", min_length = 6, max_length = 64)]
    code: String,
}

/// The second step of signing in, with a code of the authenticator app. Whoever passed the first may call.
///
/// After `TOTP_REQUIRED` of `/api/auth/login` or `/api/auth/google`, within five minutes; a wrong code may be followed by
/// another. A code is good once. After five wrong codes each further one makes the account wait longer, as with passwords.
#[utoipa::path(tag = "people", path = "/api/auth/login/totp", request_body = SecondStep,
    responses((status = 200, body = SignedIn), (status = 400, body = crate::error::ErrorBody),
        (status = 401, description = "`WRONG_CODE`", body = crate::error::ErrorBody),
        (status = 403, description = "`ACCOUNT_INACTIVE`", body = crate::error::ErrorBody),
        (status = 404, description = "`CHALLENGE_UNKNOWN`: begin again with the first step", body = crate::error::ErrorBody),
        (status = 429, body = crate::error::ErrorBody)))]
#[post("/api/auth/login/totp")]
async fn second_step(
    request: HttpRequest,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<SecondStep>,
) -> Result<HttpResponse> {
    let SecondStep { challenge, code } = body.into_inner();
    check_code(&code)?;
    let unknown = || Error::NotFound("CHALLENGE_UNKNOWN");
    let challenge = secret::hash(&challenge);
    let user_id = sqlx::query_scalar!(
        "select user_id from sign_in_challenge where challenge_hash = $1 and expires_at > now()",
        challenge
    )
    .fetch_optional(&state.people)
    .await?
    .ok_or_else(unknown)?;
    let account = throttle::codes_of(user_id);
    let failures = throttle::count(&state.people, &account).await?;
    let mut tx = state.people.begin().await?;
    // What ends sessions ends challenges too, and holds the account's row: whichever came first is obeyed.
    bans::let_in(&mut tx, user_id).await?;
    let refresh = sqlx::query_scalar!(
        "delete from sign_in_challenge where challenge_hash = $1 returning refresh",
        challenge
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(unknown)?;
    let Some(taken) = take(&mut tx, &people, user_id, &code).await? else {
        // The challenge stays: people mistype.
        tx.rollback().await?;
        let mut conn = state.people.acquire().await?;
        wrong(&mut conn, &request, Some(user_id), failures, "wrong code").await?;
        return Err(Error::WrongCode);
    };
    if let Taken::Recovery { left } = taken {
        notices::recovery_code_used(&mut tx, user_id, left).await?;
    }
    did(&mut tx, &request, user_id, Action::LoginSuccess).await?;
    let handed = sessions::open(&mut tx, &people, user_id, &request, refresh).await?;
    tx.commit().await?;
    throttle::forgive(&state.people, &account).await?;
    let user_data = profile::of(&state, user_id).await?;
    Ok(HttpResponse::Ok().json(SignedIn { success: true, user_id, handed, user_data }))
}
