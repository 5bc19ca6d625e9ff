//! The stories: what must hold between a tap and the cloud, told with the real programs and a real
//! PostgreSQL. One file per group, one test per sentence.
#![cfg(test)]

mod carried;
mod clock;
mod disk;
mod durability;
mod enrolment;
mod hostile;
mod live;
mod offline;
mod old_clients;
mod outage;
mod phones;
mod poison;
mod power_cut;
mod refusals;
mod reviewed;
mod runs;
mod store;
mod systemd;
mod telemetry;
