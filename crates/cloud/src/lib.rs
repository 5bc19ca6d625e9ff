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
