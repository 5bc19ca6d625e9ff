//! The program on the Raspberry Pi: stores every scan before it says ok, sends it when there is a network.
//!
//! ```text
//! hardware, outbox ◀─ capture, sync ◀─ http ◀─ app ◀─ main
//! ```

pub mod app;
pub mod board;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
mod durable;
pub mod hardware;
pub mod housekeeping;
pub mod http;
pub mod identity;
pub mod metrics;
mod mutant;
pub mod outbox;
pub mod phones;
pub mod signing;
pub mod sync;
mod watchdog;
pub mod words;
