//! What stands around every request, before and after its handler.

mod answer;
mod client;
mod content_policy;
mod cors;
mod crowd;
mod head;
mod headers;
mod host;
mod limits;
mod once;
mod principal;
mod request_id;

pub(crate) use answer::answer;
pub use client::client_address;
pub use content_policy::ContentPolicy;
pub(crate) use cors::cors;
pub use crowd::Crowd;
pub(crate) use crowd::crowd;
pub(crate) use head::{head, is_head};
pub use host::asks_for_loopback;
pub(crate) use host::host;
pub use limits::Limits;
#[cfg(test)]
pub(crate) use limits::named;
pub use limits::turn;
pub(crate) use limits::{counts, limit};
pub(crate) use once::{Keys, TAKES_KEYS, answers_to, commit, forget_answers, forget_person, once};
pub use principal::{Principal, accept_key, accept_person, accepted, accepted_person, bearer};
pub use request_id::RequestId;

/// Whatever headers say of who asks, and for whom.
#[cfg(fuzzing)]
pub fn must_hold(written: &str, config: &crate::config::Config) {
    client::must_hold(written);
    host::must_hold(written, config);
}

use crate::error::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};

/// An answer without the handler; what stands further out gives it its shape.
fn refuse(request: ServiceRequest, error: Error) -> ServiceResponse<BoxBody> {
    request.error_response(error)
}
