//! What people find when they look for their messages.

pub mod deliveries;
pub mod list;
pub mod outbox;
pub mod phone;
pub mod preferences;
pub mod push;
pub mod webhooks;

use actix_web::web::ServiceConfig;

/// The endpoints of messages.
pub fn routes(routes: &mut ServiceConfig) {
    deliveries::routes(routes);
    preferences::routes(routes);
    phone::routes(routes);
    push::routes(routes);
    webhooks::routes(routes);
    list::routes(routes);
    outbox::routes(routes);
}
