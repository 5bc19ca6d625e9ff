//! The stories: what must hold between a tap and the cloud, told with the real programs and a real
//! PostgreSQL. One file per group, one test per sentence.
#![cfg(test)]

mod admin;
mod audit;
mod backup;
mod carried;
mod clock;
mod contract;
mod corrections;
mod credentials;
mod disk;
mod doctor;
mod door;
mod durability;
#[path = "../../crates/gateway/tests/reader/emulator.rs"]
#[allow(dead_code, reason = "its SPI and I2C are for the driver's own tests")]
mod emulator;
mod enrolment;
mod google;
mod grants;
mod guards;
mod hostile;
mod inbox;
mod jobs;
mod leaving;
mod live;
mod logs;
mod made_once;
mod messages;
mod monitoring;
mod mqtt;
mod nginx;
mod object_store;
mod offline;
mod old_clients;
mod once;
mod outage;
mod oversight;
mod pairing;
mod people;
mod phones;
mod pi;
mod places;
mod poison;
mod power_cut;
mod privacy;
mod push;
mod reader;
mod readings;
mod refresh;
mod refusals;
mod reset;
mod restart;
mod retention;
mod reviewed;
mod runs;
mod second_factor;
mod sensors;
mod store;
mod systemd;
mod telemetry;
mod texts;
mod tls;
mod told;
mod uploads;
mod webhooks;
