//! The program on the Raspberry Pi: stores every scan before it says ok, sends it when there is a network.

pub mod clock;
pub mod config;
pub mod identity;
mod mutant;
pub mod outbox;
