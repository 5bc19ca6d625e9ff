//! Goods on the move: every scan, a tag's history, and scans as they arrive.

pub mod live;
pub(crate) mod record;
pub(crate) mod scans;

pub(crate) use scans::scans_per_day;

use actix_web::web::ServiceConfig;

pub fn routes(routes: &mut ServiceConfig) {
    scans::routes(routes);
    live::routes(routes);
}
