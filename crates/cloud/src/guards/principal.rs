//! Whose credential came with a request, once it was found good. Finding out is `identity`'s; what stands around
//! the handlers only keeps the word.

use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpMessage, HttpRequest};
use sha2::{Digest, Sha256};

/// Who answers for a request: a person, whichever session it is, or else the holder of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Principal {
    Person(i64),
    /// The SHA-256 of the key.
    Key([u8; 32]),
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub(super) fn bearer_hash(headers: &HeaderMap) -> Option<[u8; 32]> {
    bearer(headers).map(|token| Sha256::digest(token.as_bytes()).into())
}

/// The request's token is this person's and good.
pub fn accept_person(request: &HttpRequest, user_id: i64) {
    request.extensions_mut().insert(Principal::Person(user_id));
    tracing::Span::current().record("principal", "person");
}

/// The request's key is known and good.
pub fn accept_key(request: &HttpRequest) {
    if let Some(hash) = bearer_hash(request.headers()) {
        request.extensions_mut().insert(Principal::Key(hash));
        tracing::Span::current().record("principal", "key");
    }
}

/// Whose session came with it, once that was found good.
pub fn accepted_person(request: &HttpRequest) -> Option<i64> {
    match accepted(request) {
        Some(Principal::Person(user_id)) => Some(user_id),
        _ => None,
    }
}

/// Who was found to answer for the request.
pub fn accepted(request: &HttpRequest) -> Option<Principal> {
    request.extensions().get::<Principal>().copied()
}
