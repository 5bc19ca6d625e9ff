//! Which other origins' pages may call: those of `http.cors_origins` and nobody else's.

use crate::config::Http;
use actix_cors::Cors;
use actix_web::dev::ServiceRequest;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use std::time::Duration;

/// Nothing here is done with cookies, so no page ever acts for a person by being open in their browser.
pub(crate) fn cors(config: &Http) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
        .allowed_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::ACCEPT,
            header::ACCEPT_LANGUAGE,
        ])
        .allowed_headers([header::IF_MATCH, header::IF_NONE_MATCH, header::RANGE])
        .allowed_headers(["idempotency-key", "last-event-id", "x-request-id"])
        .expose_headers([header::RETRY_AFTER, header::ETAG, header::LOCATION, header::CONTENT_DISPOSITION])
        .expose_headers(["x-request-id", "ratelimit", "ratelimit-policy", "idempotency-replayed"])
        .max_age(Some(Duration::from_secs(3_600).as_secs() as usize));
    config.cors_origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// Whose page asks, when it may read the answer.
pub(super) fn reader(request: &ServiceRequest, config: &Http) -> Option<HeaderValue> {
    let origin = request.headers().get(header::ORIGIN)?;
    config.cors_origins.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

/// Lets that page read an answer that is made outside of [`cors`].
pub(super) fn let_read(headers: &mut HeaderMap, reader: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, reader);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
}
