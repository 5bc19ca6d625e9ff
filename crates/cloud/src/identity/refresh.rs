//! `POST /api/auth/refresh`: for apps that asked for it, a short token and another that is exchanged for the next pair.
//!
//! What must stay true:
//! - A refresh token names its session as the short token does, and carries a secret that is good once; only hashes
//!   are kept, that of the secret with the key of the short tokens, so that both end with it.
//! - What happens to one session's refresh tokens happens one after the other, whichever replica is asked: every
//!   exchange holds the session's row.
//! - An exchange ends every refresh token of its session that was out before it. So of two holders of one chain the
//!   later comes with an ended token; then the session ends, for the owner and for the thief.
//! - A token that has just ended is answered all the same: two tabs of one app may come together, and an answer may
//!   get lost. What it is given is good, and ends with the others at the next exchange.

use super::entries::tried;
use super::people::People;
use super::secret;
use super::tokens::Named;
use crate::audit::Action;
use crate::error::{Error, Result};
use crate::json::Json;
use crate::state::State;
use actix_web::{HttpRequest, HttpResponse, post, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(refresh);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(refresh))]
pub(crate) struct Docs;

const PREFIX: &str = "lbr_";
/// How long a short token is good.
const SHORT: chrono::Duration = chrono::Duration::minutes(10);
/// How long a session lasts whose app does not come back, and one whose app always does.
pub(super) const IDLE: chrono::Duration = chrono::Duration::days(14);

/// What signing in hands out.
#[derive(Serialize, ToSchema)]
pub(super) struct Handed {
    /// For `Authorization: Bearer`, good for 24 hours; with `refresh` for 10 minutes.
    #[schema(example = "eyJhbGciOiJIUzI1NiIs...")]
    pub token: String,
    /// Only with `refresh`: for `/api/auth/refresh`, good once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "lbr_...")]
    pub refresh_token: Option<String>,
    /// Only with `refresh`: seconds that `token` is good for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 600)]
    pub expires_in: Option<i64>,
}

/// A session that a pair of tokens is made for.
pub(super) struct Session {
    pub session_id: i64,
    pub named: Named,
    pub expires: DateTime<Utc>,
}

/// Another pair of tokens for a session.
pub(super) async fn pair(conn: &mut PgConnection, people: &People, session: Session) -> Result<Handed> {
    let Session { session_id, named, expires } = session;
    let drawn = secret::draw_key("")?;
    sqlx::query!(
        "insert into refresh_token (session_id, secret_hash) values ($1, $2)",
        session_id,
        people.tokens.hash(&drawn)
    )
    .execute(conn)
    .await?;
    let now = Utc::now();
    let until = expires.min(now + SHORT);
    Ok(Handed {
        token: people.tokens.issue(&named, now.timestamp(), until.timestamp())?,
        refresh_token: Some(format!("{PREFIX}{}{drawn}", named.token_id)),
        expires_in: Some((until - now).num_seconds()),
    })
}

/// The session's name and the secret in a refresh token: each is 256 bits in 43 characters.
fn parts(token: &str) -> Option<(&str, &str)> {
    let parts = token.strip_prefix(PREFIX)?.split_at_checked(43)?;
    (parts.1.len() == 43).then_some(parts)
}

#[derive(Deserialize, ToSchema)]
struct Presented {
    #[schema(example = "lbr_...")]
    refresh_token: String,
}

#[derive(Serialize, ToSchema)]
struct Refreshed {
    #[schema(example = true)]
    success: bool,
    #[serde(flatten)]
    handed: Handed,
}

/// Exchange a refresh token for a new pair. Whoever holds one may call.
///
/// Keep the newest refresh token that you were given and forget the one before. One that was exchanged is answered
/// for 20 seconds more; after that its second use ends the session everywhere, because somebody has a copy. A
/// session ends 14 days after its last refresh, 30 days after the sign-in, and with logout, a ban or a new password.
#[utoipa::path(tag = "people", path = "/api/auth/refresh", request_body = Presented,
    responses((status = 200, body = Refreshed), (status = 400, body = crate::error::ErrorBody),
        (status = 401, description = "sign in again", body = crate::error::ErrorBody)))]
#[post("/api/auth/refresh")]
async fn refresh(
    request: HttpRequest,
    state: web::Data<State>,
    people: web::Data<People>,
    body: Json<Presented>,
) -> Result<HttpResponse> {
    let (token_id, drawn) = parts(&body.refresh_token).ok_or(Error::Unauthenticated)?;
    let mut tx = state.people.begin().await?;
    let session = sqlx::query!(
        "select s.session_id, s.user_id from user_session s join app_user u using (user_id)
         where s.token_id_hash = $1 and s.revoked_at is null and s.expires_at > now() and u.is_active
         for update of s",
        secret::hash(token_id)
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::Unauthenticated)?;
    let session_id = session.session_id;
    // A statement of its own: only now is seen what the one before in line did.
    let known = sqlx::query!(
        r#"select used_at is not null as "used!", coalesce(used_at < now() - interval '20 seconds', false) as "late!"
           from refresh_token where session_id = $1 and secret_hash = $2"#,
        session_id,
        people.tokens.hash(drawn)
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::Unauthenticated)?;
    if known.late {
        sqlx::query!("update user_session set revoked_at = now() where session_id = $1", session_id)
            .execute(&mut *tx)
            .await?;
        tried(&mut tx, &request, Some(session.user_id), Action::TokenReuse, "a refresh token came twice")
            .await?;
        tx.commit().await?;
        people.sessions.forget(|person| person.session_id == session_id);
        tracing::warn!(
            user_id = session.user_id,
            session_id,
            "a refresh token came twice; its session ended"
        );
        return Err(Error::Unauthenticated);
    }
    if !known.used {
        sqlx::query!(
            "update refresh_token set used_at = now() where session_id = $1 and used_at is null",
            session_id
        )
        .execute(&mut *tx)
        .await?;
    }
    let expires = sqlx::query_scalar!(
        "update user_session
         set expires_at = least(created_at + interval '30 days', $2), last_seen_at = now()
         where session_id = $1 returning expires_at",
        session_id,
        Utc::now() + IDLE
    )
    .fetch_one(&mut *tx)
    .await?;
    let named = Named { user_id: session.user_id, token_id: token_id.to_owned() };
    let handed = pair(&mut tx, &people, Session { session_id, named, expires }).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(Refreshed { success: true, handed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_is_a_sessions_name_and_a_secret_and_nothing_else_is_one() {
        let (name, drawn) = ("n".repeat(43), "s".repeat(43));
        assert_eq!(parts(&format!("lbr_{name}{drawn}")), Some((name.as_str(), drawn.as_str())));
        let accented = format!("lbr_{}é{drawn}", "n".repeat(42));
        for bad in ["", "lbr_", "lbr_x", &format!("{name}{drawn}"), &format!("lbr_{name}{drawn}x"), &accented]
        {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
