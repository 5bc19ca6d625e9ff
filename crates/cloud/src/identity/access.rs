//! Who may read: holders of an access key, admins who are signed in, and in development whoever sits at this machine.

use super::secret;
use super::sessions::Person;
use crate::error::{Error, Result};
use crate::guards::{self, bearer};
use crate::state::State;
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use std::future::Future;
use std::pin::Pin;

/// What every access key starts with.
const PREFIX: &str = "lbk_";

/// Someone who may read. As a handler's argument it refuses strangers with 401 and people who are no
/// admins with 403: whoever wants an account may open one.
#[derive(Debug)]
pub struct Reader;

impl FromRequest for Reader {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let Some(state) = request.app_data::<web::Data<State>>().cloned() else {
            return Box::pin(async { Err(Error::Unauthenticated) });
        };
        let open = develops_here(request, &state);
        let key = bearer(request.headers()).filter(|key| key.starts_with(PREFIX)).map(secret::hash);
        let person = Person::from_request(request, payload);
        let request = request.clone();
        Box::pin(async move {
            if open {
                return Ok(Self);
            }
            let Some(hash) = key else {
                return if person.await?.is_admin() { Ok(Self) } else { Err(Error::Forbidden("ADMIN_ONLY")) };
            };
            let known = sqlx::query_scalar!(
                r#"select exists (select from access_key where key_hash = $1 and revoked_at is null) as "known!""#,
                hash
            )
            .fetch_one(&state.people)
            .await?;
            if !known {
                return Err(Error::Unauthenticated);
            }
            guards::accept_key(&request);
            Ok(Self)
        })
    }
}

/// Whether development is on and the client sits at this machine.
pub fn develops_here(request: &HttpRequest, state: &State) -> bool {
    state.config.development.open_loopback && sits_here(request)
}

/// A client on this machine that was not sent on by a proxy, nor by a page whose name was bent to this
/// address: it must have asked for this machine by a name of its own.
fn sits_here(request: &HttpRequest) -> bool {
    let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip"];
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |h| h.0);
    ["localhost", "127.0.0.1", "[::1]"].contains(&name)
        && request.peer_addr().is_some_and(|peer| peer.ip().is_loopback())
        && !forwarded.iter().any(|name| request.headers().contains_key(*name))
}

/// A key that was just made; this is the only time it is seen.
#[derive(Serialize)]
pub struct NewKey {
    pub id: i32,
    pub name: String,
    pub scope: &'static str,
    pub key: String,
}

/// Makes a key that may read everything a dashboard shows.
///
/// # Errors
/// [`Error::Fields`] for an unusable name, or the database's.
pub async fn add(pool: &PgPool, name: &str) -> Result<NewKey> {
    lumbung_shared::check_text("name", name, 100).map_err(|wrong| Error::Fields(vec![wrong]))?;
    let key = secret::draw_key(PREFIX)?;
    let id = sqlx::query_scalar!(
        "insert into access_key (name, key_hash, scope) values ($1, $2, 'read') returning access_key_id",
        name,
        secret::hash(&key)
    )
    .fetch_one(pool)
    .await?;
    Ok(NewKey { id, name: name.to_owned(), scope: "read", key })
}

/// A key as people list it.
#[derive(Debug, Serialize)]
pub struct Listed {
    pub id: i32,
    pub name: String,
    pub scope: String,
    pub created_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Every access key, oldest first.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool) -> Result<Vec<Listed>> {
    Ok(sqlx::query_as!(
        Listed,
        "select access_key_id as id, name, scope, created_at, revoked_at from access_key order by access_key_id"
    )
    .fetch_all(pool)
    .await?)
}

/// Ends a key.
///
/// # Errors
/// [`Error::NotFound`] for an unknown id, or the database's.
pub async fn revoke(pool: &PgPool, id: i32) -> Result<()> {
    let revoked = sqlx::query_scalar!(
        "update access_key set revoked_at = coalesce(revoked_at, now()) where access_key_id = $1
         returning access_key_id",
        id
    )
    .fetch_optional(pool)
    .await?;
    revoked.map(|_| ()).ok_or(Error::NotFound("NOT_FOUND"))
}
