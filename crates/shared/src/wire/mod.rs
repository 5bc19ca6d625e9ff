//! `POST /api/sync_gateway_data`, the object form: one section per run of a gateway, columns of records.
//!
//! What must stay true:
//! - A record is named by (gateway, epoch, stream, seq) and by nothing else; no time takes part in it.
//! - Unknown fields, streams and codes are carried, never refused: an older cloud must not lose what a
//!   newer gateway sends.
//! - One bad record spoils itself only. A column is first read as what it should be; when that fails the
//!   segment is read record by record, and each bad one comes out as a [`Refusal`] that holds it whole.
//! - [`Refusal::raw`] can be read again later by [`read_raw_scan`] and its like, after the program has learnt better.

mod answer;
mod columns;
mod events;
mod readings;
mod refusal;
mod scans;
mod tolerant;

pub use answer::{Answer, Exception, Held, RunAnswer, StreamAnswer, Verdict};
pub use events::{
    read_events, read_events_within, read_raw_event, read_raw_events, write_events, write_raw_event,
};
pub use readings::{
    read_raw_reading, read_raw_readings, read_readings, read_readings_within, write_raw_reading,
    write_readings,
};
pub use refusal::{Budget, Refusal, SegmentError, numbers, whole_segment};
pub use scans::{
    Statuses, read_raw_scan, read_raw_segment, read_scans, read_scans_within, write_raw_scan, write_scans,
};

use crate::time::ClockState;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// The protocol this build speaks; the cloud also serves the one before it.
pub const PROTOCOL: u16 = 1;
/// The stream of tag scans.
pub const SCAN_STREAM: &str = "scan";
/// The stream of what sensors and meters told.
pub const READING_STREAM: &str = "reading";
/// The stream of what happened to the gateway itself.
pub const EVENT_STREAM: &str = "event";
/// Most bytes kept of one batch's unreadable records.
pub const MAX_UNREADABLE_BYTES: usize = 32 << 20;
/// Most records in one batch; more is answered 413.
pub const MAX_BATCH_RECORDS: u64 = 10_000;
/// Most run sections in one batch; more is answered 413.
pub const MAX_BATCH_RUNS: usize = 2_000;

/// A run's random 64-bit name, written as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of clients that know nothing of runs.
    pub const LEGACY: Self = Self(0);

    /// The same 64 bits as the signed number that databases hold.
    pub fn to_db(self) -> i64 {
        i64::from_ne_bytes(self.0.to_ne_bytes())
    }

    /// The epoch behind a stored number.
    pub fn from_db(number: i64) -> Self {
        Self(u64::from_ne_bytes(number.to_ne_bytes()))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for Epoch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // from_str_radix would take a sign.
        (text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| "an epoch is 16 hex digits".to_owned())
    }
}

impl Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A batch as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub struct Batch {
    pub protocol: u16,
    /// The run that is sending.
    pub run: Epoch,
    /// The gateway's idea of now, RFC 3339.
    pub sent_at: String,
    /// Now, milliseconds since the gateway booted.
    pub mono_ms: i64,
    pub clock: ClockState,
    /// The status codes that `status` columns point into.
    #[serde(default)]
    pub statuses: Vec<String>,
    /// Oldest first.
    #[serde(default)]
    pub runs: Vec<RunSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// One run of the gateway with the records it sends.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunSection {
    pub epoch: Epoch,
    /// Present until the cloud has answered for this run once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<RunStart>,
    /// Segments by stream name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, Vec<Segment>>,
}

/// How a run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// The run before it in the same store; `None` for a new store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Epoch>,
    /// The kernel's boot id.
    pub boot: String,
    /// Code of the site the gateway believed it stood at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// RFC 3339, the gateway's clock.
    pub started_at: String,
    pub mono_ms: i64,
    pub clock: ClockState,
    pub version: String,
}

/// Consecutive records of one run and stream.
#[derive(Debug, Serialize, Deserialize)]
pub struct Segment {
    /// Number of the first record.
    pub seq: i64,
    /// How many records.
    pub n: u64,
    /// Distance of each record from the one before (the first is 0); absent where every one is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Vec<i64>>,
    /// The columns, read by whoever knows the stream.
    pub cols: Box<RawValue>,
}

/// What a gateway says of itself with each batch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Unsent records by stream, as of when the batch was made, the batch's own included.
    #[serde(default)]
    pub unsent: BTreeMap<String, u64>,
    /// RFC 3339 time of the oldest unsent record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unsent_at: Option<String>,
    /// Records set aside on the gateway because the cloud could not read the batch they were in.
    #[serde(default)]
    pub parked: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// `ok`, `down` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undervoltage: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undervoltage_since_boot: Option<bool>,
    /// Bytes written to the store's card over all boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card_written_bytes: Option<u64>,
    /// The store's file system was seen to refuse writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    #[serde(default)]
    pub version: String,
    /// Set after a corrupt store was salvaged in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salvaged: Option<u64>,
}

#[cfg(test)]
mod tests;
