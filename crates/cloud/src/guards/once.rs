//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a request that is sent again, because its answer was
//! lost, is answered again and not done again, whichever replica hears it.
//!
//! What must stay true:
//! - The answer is kept in the transaction that did the work ([`commit`]), and only by whoever has the turn: what was
//!   done is answered for a day and never done twice, wherever a program dies; of what was not done nothing is kept.
//! - An answer is given again only to whoever it was for: their credential is looked at first, every time. What they
//!   may do by then is not asked, for they were told already; what a key, a claim or a token opens by then, it says
//!   itself when it is used.
//! - An answer is kept sealed. What opens it is made of the client's key and the request's body, and neither is kept:
//!   the row is found by a keyed hash, and so is a body known again, for it may hold a password. An answer with a
//!   secret in it asks for a key that nobody guesses who has the database; hence UUIDs of version 4 there, of
//!   which a client that draws them badly has only itself to blame.
//! - A program that died in the middle blocks its key no longer than a turn.

use super::principal::{self, Principal};
use super::refuse;
use crate::error::{Error, Result};
use crate::sealed;
use crate::state::State;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{ContentType, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::{self, Bytes};
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, rt};
use ring::hmac;
use serde::Serialize;
use sqlx::{PgConnection, PgPool, PgTransaction};
use uuid::{Uuid, Variant, Version};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// A body beyond this is not one of these endpoints'.
const LARGEST: usize = 64 * 1024;

/// Which keys an endpoint takes, and of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Any, of whoever is known.
    Any,
    /// Random ones, for it answers a secret; of whoever is known.
    Random,
    /// Random ones, of people whom nobody knows yet: whoever has the key and the body is who asked.
    RandomOfAnyone,
}

/// The endpoints whose POST takes the header. Their handlers end with [`commit`].
pub(crate) const TAKES_KEYS: &[(&str, Keys)] = &[
    ("/api/admin/ban-user", Keys::Any),
    ("/api/admin/users/{id}/grants", Keys::Any),
    ("/api/auth/register", Keys::RandomOfAnyone),
    ("/api/gateways", Keys::Random),
    ("/api/gateways/{gateway_id}/claim", Keys::Random),
    ("/api/keys", Keys::Random),
    ("/api/notifications/push-subscriptions", Keys::Any),
    ("/api/programmes", Keys::Any),
    ("/api/sites", Keys::Any),
    ("/api/users/me/privacy-requests", Keys::Any),
    ("/api/webhooks", Keys::Random),
    ("/api/webhooks/{id}/rotate", Keys::Random),
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
    let takes = (request.method() == Method::POST)
        .then(|| request.match_pattern())
        .flatten()
        .and_then(|pattern| TAKES_KEYS.iter().find(|(path, _)| *path == pattern));
    let state = request.app_data::<web::Data<State>>().cloned();
    let key = request.headers().get(KEY).cloned();
    let (Some((_, keys)), Some(state), Some(key)) = (takes, state, key) else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let (named, body) = match named::<C>(&mut request, *keys, &key).await {
        Ok(named) => named,
        Err(error) => return Ok(refuse(request, error)),
    };
    let turn = Turn { id: Uuid::new_v4(), named };
    // In a task of its own: a client that hangs up must not leave it half done, or not begun and its key taken.
    let answered = rt::spawn(state.unfinished.clone().track_future(async move {
        match begin(&state.people, &turn).await {
            Ok(None) => {}
            Ok(Some(before)) => return Ok(request.into_response(before)),
            Err(error) => return Ok(refuse(request, error)),
        }
        let (request_hash, turn_id) = (turn.named.request_hash.clone(), turn.id);
        request.extensions_mut().insert(turn);
        request.set_payload(body.into());
        let response = next.call(request).await.map(ServiceResponse::map_into_boxed_body);
        let done = response.as_ref().is_ok_and(|response| response.status().is_success());
        // Nothing was done; should this fail, its key only stays taken for the rest of the turn.
        if !done && let Err(error) = give_back(&state.people, &request_hash, turn_id).await {
            tracing::warn!("an idempotency key was left behind: {error}");
        }
        response
    }));
    answered.await.map_err(|error| Error::Unexpected(error.into()))?
}

/// Commits what a handler did, together with the answer that says so: what is done and what was answered are known
/// both or neither.
///
/// # Errors
/// [`Error::InFlight`] when the turn was over and somebody else has it now, or the database's; nothing was done then.
pub(crate) async fn commit(
    request: &HttpRequest,
    mut tx: PgTransaction<'_>,
    status: StatusCode,
    done: &impl Serialize,
) -> Result<HttpResponse> {
    let body = serde_json::to_vec(done).map_err(anyhow::Error::from)?;
    let turn = request.extensions_mut().remove::<Turn>();
    if let Some(turn) = turn {
        turn.keep(&mut tx, status, &body).await?;
    }
    tx.commit().await?;
    Ok(answer(status, body))
}

fn answer(status: StatusCode, json: Vec<u8>) -> HttpResponse {
    HttpResponse::build(status).insert_header(ContentType::json()).body(json)
}

/// The answer is to somebody who was nobody before: it is forgotten with them.
pub(crate) fn answers_to(request: &HttpRequest, user_id: i64) {
    if let Some(turn) = request.extensions_mut().get_mut::<Turn>() {
        turn.named.user_id = Some(user_id);
    }
}

/// A request as it will be known again, and what seals its answer.
struct Named {
    user_id: Option<i64>,
    request_hash: Vec<u8>,
    body_hash: Vec<u8>,
    seal: sealed::Key,
}

impl Named {
    fn of(key: &[u8], user_id: Option<i64>, asked: [&[u8]; 3], body: &[u8]) -> Result<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let tag = |purpose: &[u8], parts: &[&[u8]]| {
            let mut context = hmac::Context::with_key(&key);
            for part in [purpose].iter().chain(parts) {
                // With its length, so that no two lists of parts read alike.
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            context.sign()
        };
        let [who, method, path] = asked;
        Ok(Self {
            user_id,
            request_hash: tag(b"request", &asked).as_ref().to_vec(),
            body_hash: tag(b"body", &[body]).as_ref().to_vec(),
            seal: sealed::Key::of(&tag(b"answer", &[who, method, path, body]))?,
        })
    }
}

async fn named<C>(request: &mut ServiceRequest, keys: Keys, key: &HeaderValue) -> Result<(Named, Bytes)>
where
    C: FromRequest<Error = Error>,
{
    let (user_id, who) = match keys {
        Keys::RandomOfAnyone => (None, Vec::new()),
        Keys::Any | Keys::Random => {
            request.extract::<C>().await?;
            match principal::accepted(request.request()) {
                Some(Principal::Person(user_id)) => (Some(user_id), user_id.to_be_bytes().to_vec()),
                Some(Principal::Key(hash)) => (None, hash.to_vec()),
                None => return Err(Error::Unauthenticated),
            }
        }
    };
    check(keys, key.as_bytes())?;
    let body = request.extract::<Bytes>().await.map_err(|error| Error::refused(&error))?;
    if body.len() > LARGEST {
        return Err(Error::too_large(LARGEST));
    }
    let asked = [&who[..], request.method().as_str().as_bytes(), request.path().as_bytes()];
    Ok((Named::of(key.as_bytes(), user_id, asked, &body)?, body))
}

fn check(keys: Keys, key: &[u8]) -> Result<()> {
    let usable = (1..=64).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    // 36 characters: other ways to write a UUID are shorter or longer.
    let random = || {
        Uuid::try_parse_ascii(key).is_ok_and(|uuid| {
            key.len() == 36
                && uuid.get_version() == Some(Version::Random)
                && uuid.get_variant() == Variant::RFC4122
        })
    };
    match keys {
        Keys::Any if !usable => Err(Error::field(
            "Idempotency-Key",
            "harus 1 sampai 64 karakter ASCII tanpa spasi, sebaiknya UUID",
            "must be 1 to 64 visible ASCII characters, best a UUID",
        )),
        Keys::Random | Keys::RandomOfAnyone if !random() => Err(Error::field(
            "Idempotency-Key",
            "harus UUID acak (versi 4) di sini, karena jawabannya memuat rahasia; buat satu untuk tiap permintaan",
            "must be a random UUID (version 4) here, because the answer holds a secret; draw one for each request",
        )),
        _ => Ok(()),
    }
}

/// Whoever has it does the work, until it ends.
struct Turn {
    id: Uuid,
    named: Named,
}

impl Turn {
    async fn keep(&self, conn: &mut PgConnection, status: StatusCode, body: &[u8]) -> Result<()> {
        let Self { id, named } = self;
        let sealed = named.seal.seal(&named.request_hash, body)?;
        let kept = sqlx::query!(
            "update idempotent_request set status = $3, body = $4, user_id = $5
             where request_hash = $1 and turn = $2",
            named.request_hash,
            id,
            status.as_u16().cast_signed(),
            sealed,
            named.user_id
        )
        .execute(conn)
        .await?;
        if kept.rows_affected() == 0 { Err(Error::InFlight) } else { Ok(()) }
    }
}

/// Takes the turn; else what the request was answered before.
async fn begin(pool: &PgPool, Turn { id, named }: &Turn) -> Result<Option<HttpResponse>> {
    let mine = sqlx::query_scalar!(
        "insert into idempotent_request as kept (request_hash, body_hash, turn, turn_ends_at, user_id)
         values ($1, $2, $3, now() + interval '2 minutes', $4)
         on conflict on constraint idempotent_request_pk do update
         set body_hash = excluded.body_hash, turn = excluded.turn, turn_ends_at = excluded.turn_ends_at,
             begun_at = now(), status = null, body = null, user_id = excluded.user_id
         where kept.begun_at <= now() - interval '24 hours'
             or kept.status is null and kept.turn_ends_at <= now() and kept.body_hash = excluded.body_hash
         returning turn",
        named.request_hash,
        named.body_hash,
        id,
        named.user_id
    )
    .fetch_optional(pool)
    .await?;
    if mine.is_some() {
        return Ok(None);
    }
    let kept = sqlx::query!(
        "select body_hash, status, body from idempotent_request where request_hash = $1",
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
    let (Some(status), Some(sealed)) = (status, kept.body) else { return Err(Error::InFlight) };
    let mut again = answer(status, named.seal.open(&named.request_hash, &sealed)?);
    again.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(Some(again))
}

/// Whether or not the commit was heard of: an answer that was kept stays.
async fn give_back(pool: &PgPool, request_hash: &[u8], turn: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from idempotent_request where request_hash = $1 and turn = $2 and status is null",
        request_hash,
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

    const KEY: &[u8] = b"8e03978e-40d5-43dd-bc93-6894a57f9324";

    #[test]
    fn a_key_is_short_and_visible() {
        assert!(check(Keys::Any, KEY).is_ok() && check(Keys::Any, &[b'x'; 64]).is_ok());
        for key in [&b""[..], b"dua kata", b"\xc3\xa9", b"a\tb", &[b'x'; 65]] {
            assert!(check(Keys::Any, key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn where_a_secret_is_answered_a_key_is_a_random_uuid() {
        for keys in [Keys::Random, Keys::RandomOfAnyone] {
            assert!(check(keys, KEY).is_ok());
            assert!(check(keys, &KEY.to_ascii_uppercase()).is_ok());
            for guessable in [
                "satu",
                "1",
                // Of a clock and a machine, of a name, of a clock and 62 bits; all zeros, all ones; a foreign variant.
                "c232ab00-9414-11ec-b3c8-9f6bdeced846",
                "5df41881-3aed-3515-88a7-2f4a814cf09e",
                "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                "00000000-0000-0000-0000-000000000000",
                "ffffffff-ffff-ffff-ffff-ffffffffffff",
                "8e03978e-40d5-43dd-cc93-6894a57f9324",
                // The same one written otherwise is another key.
                "8e03978e40d543ddbc936894a57f9324",
                "{8e03978e-40d5-43dd-bc93-6894a57f9324}",
                "urn:uuid:8e03978e-40d5-43dd-bc93-6894a57f9324",
            ] {
                assert!(check(keys, guessable.as_bytes()).is_err(), "{guessable}");
            }
        }
    }

    fn of(key: &[u8], who: &[u8], path: &[u8], body: &[u8]) -> Named {
        Named::of(key, None, [who, b"POST", path], body).unwrap()
    }

    #[test]
    fn an_answer_opens_for_the_same_request_alone() {
        let first = of(KEY, b"ani", b"/api/keys", b"{}");
        let sealed = first.seal.seal(b"", b"lbk_rahasia").unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"rahasia"));
        assert_eq!(of(KEY, b"ani", b"/api/keys", b"{}").seal.open(b"", &sealed).unwrap(), b"lbk_rahasia");
        for other in [
            of(b"lain", b"ani", b"/api/keys", b"{}"),
            of(KEY, b"budi", b"/api/keys", b"{}"),
            of(KEY, b"ani", b"/api/webhooks", b"{}"),
            of(KEY, b"ani", b"/api/keys", b"{ }"),
            // The same letters, cut elsewhere.
            of(KEY, b"an", b"i/api/keys", b"{}"),
        ] {
            assert!(other.seal.open(b"", &sealed).is_err());
        }
    }

    #[test]
    fn a_request_is_named_without_its_body_and_nothing_that_is_kept_tells_a_body_without_the_key() {
        let (first, other) =
            (of(KEY, b"", b"/daftar", b"sandi satu"), of(KEY, b"", b"/daftar", b"sandi dua"));
        assert_eq!(first.request_hash, other.request_hash);
        assert_ne!(first.body_hash, other.body_hash);
        assert_ne!(first.body_hash, of(b"lain", b"", b"/daftar", b"sandi satu").body_hash);
    }
}
