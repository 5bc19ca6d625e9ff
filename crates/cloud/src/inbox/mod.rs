//! What people find when they look for their messages.

pub mod outbox;

use actix_web::web::ServiceConfig;

/// The endpoints of messages.
pub fn routes(routes: &mut ServiceConfig) {
    outbox::routes(routes);
}
