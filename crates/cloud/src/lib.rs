//! The Lumbung cloud: keeps every record of every gateway exactly once and serves it to people.
//! ARCHITECTURE.md walks through it.

mod admin;
pub mod app;
pub mod audit;
mod backup;
pub mod cli;
pub mod config;
mod dashboard;
pub mod database;
mod distribution;
mod doctor;
mod door;
mod error;
mod files;
mod finding;
mod guards;
mod health;
mod identity;
mod inbox;
mod ingest;
mod jobs;
mod json;
mod metrics;
mod moment;
pub mod notify;
mod openapi;
mod outside;
mod page;
mod places;
mod privacy;
mod random;
mod sealed;
mod state;
mod telemetry;
mod tls;
mod watchdog;

/// What must hold of the parsers that face the network, for `fuzz/`; in no other build.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::files::must_hold as picture;
    pub use crate::files::serve::must_hold as path;
    pub use crate::guards::must_hold as headers;
    pub use crate::identity::must_hold as token;
    pub use crate::ingest::{must_hold as batch, sent_must_hold as sent};
    pub use crate::json::must_hold as json;
    pub use crate::outside::must_hold as google;
    pub use crate::page::must_hold as cursor;
}
