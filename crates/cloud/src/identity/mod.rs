//! Who is asking: gateways with their own keys, readers with access keys, people with a session.

pub mod access;
pub mod account;
pub mod bans;
pub mod claims;
pub mod consent;
pub mod email;
pub mod enrol;
mod entries;
mod figures;
pub mod gateways;
pub mod google;
pub mod grants;
pub mod keys;
pub mod language;
mod letters;
pub mod mail_page;
mod notices;
pub mod owner;
mod passwords;
pub mod people;
pub mod personal;
pub mod picture;
pub mod profile;
pub mod receipts;
pub mod refresh;
mod refused;
pub mod reset;
pub mod roles;
pub mod roster;
pub mod second_factor;
mod secret;
mod sessions;
pub mod signing;
mod sweep;
mod throttle;
mod tokens;
pub mod verification;

pub use access::{MetricsReader, SiteReader};
pub use figures::{Accounts, accounts, sign_ups_per_day};
pub use gateways::Gateway;
pub use grants::Sites;
pub use people::People;
pub use refused::Excess;
pub(crate) use refused::tell_refused;
pub use roles::{Admin, Role};
pub use sessions::Person;
pub use sweep::{purge_bans, purge_claims, purge_failures, purge_mail_tokens, purge_sessions};
#[cfg(fuzzing)]
pub use tokens::must_hold;

use actix_web::web::ServiceConfig;

/// The endpoints of enrolment and of accounts.
pub fn routes(routes: &mut ServiceConfig) {
    enrol::routes(routes);
    people::routes(routes);
    refresh::routes(routes);
    account::routes(routes);
    google::routes(routes);
    second_factor::sign_in::routes(routes);
    second_factor::own::routes(routes);
    verification::routes(routes);
    reset::routes(routes);
    email::routes(routes);
    mail_page::routes(routes);
    profile::routes(routes);
    picture::routes(routes);
    consent::routes(routes);
}
