//! Who is asking: gateways with their own keys, and readers with access keys.

pub mod access;
mod attempts;
pub mod claims;
pub mod enrol;
pub mod gateways;
mod secret;
pub mod signing;

pub use access::Reader;
pub use attempts::Attempts;
pub use gateways::Gateway;

use actix_web::web::ServiceConfig;

/// The endpoints of enrolment.
pub fn routes(routes: &mut ServiceConfig) {
    enrol::routes(routes);
}
