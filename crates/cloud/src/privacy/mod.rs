//! What a person may ask of their own data (UU PDP 27/2022): a copy of it, its end, and an answer in time.
//!
//! What must stay true:
//! - Each module gives and takes away what it knows itself; this one only asks them in turn, in one transaction.
//! - After an erasure no row and no object names the person. docs/privacy.md has the rule of every table, and a
//!   story fails when a table that knows people has none.

pub mod export;
pub mod leave;
pub mod requests;
pub mod retention;

use actix_web::web::ServiceConfig;

pub fn routes(routes: &mut ServiceConfig) {
    export::routes(routes);
    leave::routes(routes);
    requests::routes(routes);
}
