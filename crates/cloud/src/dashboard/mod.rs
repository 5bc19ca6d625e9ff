//! What people look at first: the summary and the live page.

pub(crate) mod page;
pub(crate) mod summary;

use actix_web::web::ServiceConfig;

pub fn routes(routes: &mut ServiceConfig) {
    summary::routes(routes);
    page::routes(routes);
}
