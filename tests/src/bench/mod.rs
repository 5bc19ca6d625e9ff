//! Every measure of design/sync.md beside its baseline, taken in the same run on the same disk.
//!
//! A line is `name value baseline ratio goal ok|short`. Absolute numbers belong to the machine; the
//! ratios travel.

mod bare;
mod capture;
mod card;
mod clients;
mod ingest;
mod line;
mod outbox;
mod people;

pub use bare::bare_server;
pub use capture::null_server;
pub use line::Line;

use crate::stand::Stand;
use anyhow::Result;
use std::io::Write;

/// Which measures to take; all when none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Tap to durable answer, beside fdatasync of the same disk.
    Ack,
    /// The same on a card that takes 1.3 ms a flush and now and then stands still for 411 ms.
    SlowCard,
    /// Durable scans a second with 32 posting.
    Rate,
    /// Draining 100,000 scans, and the memory it takes.
    Drain,
    /// Starting on 1,000,000 unsent scans, and the memory they take.
    Million,
    /// Bytes a scan on the line.
    Payload,
    /// Bytes a scan on the card.
    Card,
    /// Scans a second into the cloud, beside COPY.
    Ingest,
    /// Readings a second into the cloud, beside COPY.
    Readings,
    /// Somebody reads while two hundred sign in.
    LoginFlood,
    /// Requests of people a second, beside a bare server.
    People,
}

impl Measure {
    pub const ALL: [Self; 11] = [
        Self::Ack,
        Self::SlowCard,
        Self::Rate,
        Self::Payload,
        Self::Card,
        Self::Drain,
        Self::Million,
        Self::Ingest,
        Self::Readings,
        Self::LoginFlood,
        Self::People,
    ];
}

/// Takes the measures and prints each as it is known; whether all goals were met.
pub async fn run(measures: &[Measure], out: &mut (dyn Write + Send)) -> Result<bool> {
    let mut good = true;
    writeln!(out, "{}", line::HEAD)?;
    for measure in measures {
        let stand = Stand::new()?;
        let lines = match measure {
            Measure::Ack => capture::ack(&stand).await?,
            Measure::SlowCard => capture::ack_on_a_slow_card(&stand).await?,
            Measure::Rate => capture::rate(&stand).await?,
            Measure::Drain => outbox::drain(&stand).await?,
            Measure::Million => outbox::million(&stand).await?,
            Measure::Payload => outbox::payload(&stand).await?,
            Measure::Card => card::bytes_written(&stand).await?,
            Measure::Ingest => ingest::rows(&stand).await?,
            Measure::Readings => ingest::readings(&stand).await?,
            Measure::LoginFlood => people::login_flood(&stand).await?,
            Measure::People => people::people(&stand).await?,
        };
        for line in lines {
            good &= line.good();
            writeln!(out, "{line}")?;
        }
    }
    writeln!(out, "# not run here: 20 x the Flask original (it is not part of this repository)")?;
    Ok(good)
}
