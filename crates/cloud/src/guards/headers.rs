//! What every answer tells browsers: take it for what it says it is, frame it nowhere, run nothing in it.

use super::request_id::{self, RequestId};
use crate::state::State;
use actix_web::dev::ServiceRequest;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::web;

/// Pages that run scripts bring a policy of their own; this one is for data, and for pages without any.
const NOTHING: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Swagger UI comes from this program; its styles are partly written by its script.
const DOCUMENTATION: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
const DEVICES: &str = "camera=(), geolocation=(), microphone=(), payment=(), usb=()";

/// What an answer will wear, known before its request is taken apart.
pub(super) struct Dress {
    policy: &'static str,
    /// Whose pages may show it.
    embedded_by: &'static str,
    /// People reach this cloud by https only.
    secure: bool,
}

impl Dress {
    pub(super) fn of(request: &ServiceRequest) -> Self {
        let policy = if request.path().starts_with("/docs/") { DOCUMENTATION } else { NOTHING };
        // Pictures are shown by apps wherever they live; their names are secrets.
        let embedded_by = if request.path().starts_with("/files/") { "cross-origin" } else { "same-origin" };
        let state = request.app_data::<web::Data<State>>();
        let secure = state.is_some_and(|state| state.config.is_https());
        Self { policy, embedded_by, secure }
    }

    /// Adds the id, and what the handler did not say itself.
    pub(super) fn put_on(&self, headers: &mut HeaderMap, id: &RequestId) {
        if let Ok(id) = HeaderValue::from_str(id.as_str()) {
            headers.insert(request_id::HEADER, id);
        }
        let always = [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, self.policy),
            (header::PERMISSIONS_POLICY, DEVICES),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), self.embedded_by),
        ];
        let secure = self.secure.then_some((header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"));
        for (name, value) in always.into_iter().chain(secure) {
            if !headers.contains_key(&name) {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
    }
}
