//! What admins, and operators for their places, do through the API. Stands above the domains and asks them.

pub(crate) mod gateways;
pub(crate) mod keys;
pub(crate) mod places;
pub(crate) mod second_factor;
pub(crate) mod standing;
pub(crate) mod users;

use actix_web::web::ServiceConfig;
use serde::Serialize;
use utoipa::ToSchema;

pub fn routes(routes: &mut ServiceConfig) {
    users::routes(routes);
    standing::routes(routes);
    second_factor::routes(routes);
    keys::routes(routes);
    places::routes(routes);
    gateways::routes(routes);
}

/// Most entries on a page.
const MOST: i64 = 50;

/// It was done.
#[derive(Serialize, ToSchema)]
#[schema(as = Success)]
struct Done {
    #[schema(example = true)]
    success: bool,
}

impl Done {
    const YES: Self = Self { success: true };
}
