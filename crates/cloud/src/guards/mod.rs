//! What stands around every request, before and after its handler.

mod client;
mod content_policy;
mod limits;
mod principal;
mod request_id;

pub use client::client_address;
pub use content_policy::ContentPolicy;
pub use limits::Limits;
pub(crate) use limits::limit;
pub use principal::{accept_key, accept_person, bearer};
pub(crate) use request_id::HEADER as REQUEST_ID;
pub use request_id::RequestId;

use crate::error::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};

/// An answer without the handler; what stands further out gives it its shape.
fn refuse(request: ServiceRequest, error: Error) -> ServiceResponse<BoxBody> {
    request.error_response(error)
}
