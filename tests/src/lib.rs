//! The real programs on one stand: the gateway's binary against the cloud's binary and a real
//! PostgreSQL, with a network in between that can be made to fail. Stories, the kill harness, the
//! power cuts and the benchmarks are built from the same parts.

pub mod backlog;
pub mod bench;
pub mod crash_images;
pub mod durability;
pub mod http;
pub mod ledger;
pub mod peer;
pub mod postgres;
pub mod programs;
pub mod proxy;
pub mod s3;
pub mod stand;
pub mod story;
pub mod tls;
pub mod wait;
pub mod wire;
