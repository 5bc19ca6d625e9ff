//! What admins, and operators for their places, do through the API. Stands above the domains and asks them.

pub(crate) mod audit;
pub(crate) mod dashboard;
pub(crate) mod gateways;
pub(crate) mod keys;
pub(crate) mod places;
pub(crate) mod second_factor;
pub(crate) mod standing;
pub(crate) mod users;

pub use dashboard::Board;

use crate::error::Result;
use crate::page::{self, Page};
use actix_web::web::ServiceConfig;
use serde::Deserialize;
use utoipa::IntoParams;

pub fn routes(routes: &mut ServiceConfig) {
    users::routes(routes);
    standing::routes(routes);
    second_factor::routes(routes);
    keys::routes(routes);
    places::routes(routes);
    gateways::routes(routes);
    audit::routes(routes);
    dashboard::routes(routes);
}

/// Most entries on a page.
const MOST: i64 = 50;

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// From 1.
    #[param(minimum = 1, maximum = 100_000)]
    page: Option<i64>,
    /// 1 to 50, default 50.
    #[param(minimum = 1, maximum = 50)]
    limit: Option<i64>,
    /// `next_cursor` of the page before; `page` does not count then.
    #[param(schema_with = page::cursor::<1>)]
    cursor: Option<String>,
}

impl Wanted {
    fn read(&self) -> Result<Page> {
        Page::read(self.page, self.limit, self.cursor.as_deref(), MOST)
    }
}
