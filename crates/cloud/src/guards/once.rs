//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a request that is sent again, because its answer was
//! lost, is answered again and not done again, whichever replica hears it.
//!
//! What must stay true:
//! - An answer is given again only to whoever it was for: their credential is looked at first, every time.
//! - Only what was done is kept, for a day; a refusal did nothing, so its key is free again.
//! - A program that died in the middle blocks its key no longer than a turn.
//!
//! The answer is kept after the work is committed, not with it: a program that dies between the two leaves work whose
//! repeat, a turn later, is tried once more. So what is listed has a constraint that refuses a second one, and what
//! answers with a secret is not listed, for a secret is stored nowhere.

use super::principal::{self, Principal};
use super::refuse;
use crate::error::{Error, Result};
use crate::state::State;
use actix_web::body::{BoxBody, MessageBody, to_bytes_limited};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::{self, Bytes};
use actix_web::{FromRequest, HttpResponse, rt};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// A body or an answer beyond this is not one of these endpoints'.
const LARGEST: usize = 64 * 1024;

/// The endpoints whose POST takes the header.
pub(crate) const TAKES_KEYS: &[&str] = &[
    "/api/admin/users/{id}/grants",
    "/api/notifications/push-subscriptions",
    "/api/programmes",
    "/api/sites",
    "/api/users/me/privacy-requests",
];

/// Lets a request of [`TAKES_KEYS`] with a key through once. `C` is whoever may call any of them, a person or a
/// service, found out by `identity`; the handler still decides.
pub(crate) async fn once<C>(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> std::result::Result<ServiceResponse<BoxBody>, actix_web::Error>
where
    C: FromRequest<Error = Error>,
{
    let listed = request.method() == Method::POST
        && request.match_pattern().is_some_and(|pattern| TAKES_KEYS.contains(&pattern.as_str()));
    let state = request.app_data::<web::Data<State>>().cloned();
    let (true, Some(state), Some(key)) = (listed, state, request.headers().get(KEY).cloned()) else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let (named, body) = match named::<C>(&mut request, &key).await {
        Ok(named) => named,
        Err(error) => return Ok(refuse(request, error)),
    };
    let turn = match begin(&state.people, &named).await {
        Ok(Begun::Mine(turn)) => turn,
        Ok(Begun::Done(answer)) => return Ok(request.into_response(answer)),
        Err(error) => return Ok(refuse(request, error)),
    };
    request.set_payload(body.into());
    // In a task of its own: a client that hangs up must not leave it half done and its key taken.
    let answered = rt::spawn(async move {
        let response = next.call(request).await.map(ServiceResponse::map_into_boxed_body);
        let (response, kept) = match response {
            Ok(response) if response.status().is_success() => {
                let (request, response) = response.into_parts();
                let (response, body) = response.into_parts();
                let body = to_bytes_limited(body, LARGEST).await.ok().and_then(std::result::Result::ok);
                let Some(body) = body else {
                    let error = anyhow::anyhow!("an answer that cannot be kept");
                    return Err(Error::Unexpected(error).into());
                };
                let kept = keep(&state.people, &named, turn, &response, &body).await;
                (Ok(ServiceResponse::new(request, response.set_body(BoxBody::new(body)))), kept)
            }
            refused => (refused, give_back(&state.people, &named, turn).await),
        };
        // The work is as done as it is; its key only stays taken for the rest of the turn.
        if let Err(error) = kept {
            tracing::warn!("an idempotency key was left behind: {error}");
        }
        response
    });
    answered.await.map_err(|error| Error::Unexpected(error.into()))?
}

/// A request as it will be known again.
struct Named {
    user_id: Option<i64>,
    request_hash: Vec<u8>,
    body_hash: Vec<u8>,
}

async fn named<C>(request: &mut ServiceRequest, key: &HeaderValue) -> Result<(Named, Bytes)>
where
    C: FromRequest<Error = Error>,
{
    request.extract::<C>().await?;
    let (user_id, who) = match principal::accepted(request.request()) {
        Some(Principal::Person(user_id)) => (Some(user_id), user_id.to_be_bytes().to_vec()),
        Some(Principal::Key(hash)) => (None, hash.to_vec()),
        None => return Err(Error::Unauthenticated),
    };
    let key = key.as_bytes();
    if !is_usable(key) {
        return Err(Error::field("Idempotency-Key", "must be 1 to 64 visible ASCII characters, best a UUID"));
    }
    let body = request.extract::<Bytes>().await.map_err(|error| Error::Unreadable(error.to_string()))?;
    if body.len() > LARGEST {
        return Err(Error::TooLarge(format!("at most {LARGEST} bytes")));
    }
    let mut hash = Sha256::new();
    for part in [&who, request.method().as_str().as_bytes(), request.path().as_bytes(), key] {
        // With its length, so that no two lists of parts read alike.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let (request_hash, body_hash) = (hash.finalize().to_vec(), Sha256::digest(&body).to_vec());
    Ok((Named { user_id, request_hash, body_hash }, body))
}

fn is_usable(key: &[u8]) -> bool {
    (1..=64).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic)
}

enum Begun {
    Mine(Uuid),
    Done(HttpResponse),
}

/// Takes the turn, or finds out who has it.
async fn begin(pool: &PgPool, named: &Named) -> Result<Begun> {
    let turn = Uuid::new_v4();
    let mine = sqlx::query_scalar!(
        "insert into idempotent_request as kept (request_hash, body_hash, turn, turn_ends_at, user_id)
         values ($1, $2, $3, now() + interval '2 minutes', $4)
         on conflict on constraint idempotent_request_pk do update
         set body_hash = excluded.body_hash, turn = excluded.turn, turn_ends_at = excluded.turn_ends_at,
             begun_at = now(), status = null, content_type = null, body = null
         where kept.begun_at <= now() - interval '24 hours'
             or kept.status is null and kept.turn_ends_at <= now() and kept.body_hash = excluded.body_hash
         returning turn",
        named.request_hash,
        named.body_hash,
        turn,
        named.user_id
    )
    .fetch_optional(pool)
    .await?;
    if mine.is_some() {
        return Ok(Begun::Mine(turn));
    }
    let kept = sqlx::query!(
        "select body_hash, status, content_type, body from idempotent_request where request_hash = $1",
        named.request_hash
    )
    .fetch_optional(pool)
    .await?;
    // Without a row: the first try was refused just now.
    let Some(kept) = kept else { return Err(Error::InFlight) };
    if kept.body_hash != named.body_hash {
        return Err(Error::KeyReused);
    }
    let status = kept.status.and_then(|status| StatusCode::from_u16(status.try_into().ok()?).ok());
    let (Some(status), Some(body)) = (status, kept.body) else { return Err(Error::InFlight) };
    let mut answer = HttpResponse::build(status);
    if let Some(kind) = kept.content_type {
        answer.insert_header((header::CONTENT_TYPE, kind));
    }
    Ok(Begun::Done(answer.insert_header((REPLAYED, "true")).body(body)))
}

async fn keep(
    pool: &PgPool,
    named: &Named,
    turn: Uuid,
    answer: &HttpResponse<()>,
    body: &[u8],
) -> sqlx::Result<()> {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    sqlx::query!(
        "update idempotent_request set status = $3, content_type = $4, body = $5
         where request_hash = $1 and turn = $2",
        named.request_hash,
        turn,
        answer.status().as_u16().cast_signed(),
        kind,
        body
    )
    .execute(pool)
    .await?;
    Ok(())
}

async fn give_back(pool: &PgPool, named: &Named, turn: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from idempotent_request where request_hash = $1 and turn = $2",
        named.request_hash,
        turn
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets the answers older than a day; how many.
///
/// # Errors
/// The database's.
pub(crate) async fn forget_answers(pool: &PgPool) -> sqlx::Result<u64> {
    let old = sqlx::query!("delete from idempotent_request where begun_at <= now() - interval '24 hours'");
    Ok(old.execute(pool).await?.rows_affected())
}

/// Forgets what a person was answered.
///
/// # Errors
/// The database's.
pub(crate) async fn forget_person(conn: &mut PgConnection, user_id: i64) -> sqlx::Result<()> {
    sqlx::query!("delete from idempotent_request where user_id = $1", user_id).execute(conn).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_short_and_visible() {
        assert!(is_usable(b"8e03978e-40d5-43dd-bc93-6894a57f9324") && is_usable(&[b'x'; 64]));
        for key in [&b""[..], b"dua kata", b"\xc3\xa9", b"a\tb", &[b'x'; 65]] {
            assert!(!is_usable(key), "{key:?}");
        }
    }
}
