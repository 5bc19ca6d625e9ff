//! What farms and meters say: series, their readings, and the latest of each.
//!
//! What must stay true:
//! - A reading is kept once. Whoever brings readings has claimed their numbers before (see `ingest`); nothing
//!   here looks for duplicates, so that readings can be packed later without losing that.
//! - An implausible value is kept and marked, never dropped.
//! - A reading whose clock stood at no time waits beside the series until its boot is tied to the time of
//!   day; what was told of its time is never changed.
//! - `series_latest` is the newest reading of its series, whatever order readings arrive in.

pub(crate) mod readings;
pub(crate) mod record;
pub(crate) mod series;

use actix_web::web::ServiceConfig;

pub fn routes(routes: &mut ServiceConfig) {
    series::routes(routes);
    readings::routes(routes);
}
