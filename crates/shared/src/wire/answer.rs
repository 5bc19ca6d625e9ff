//! The cloud's answer: a verdict per record.

use super::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The cloud's answer to a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub protocol: u16,
    /// The cloud's time, RFC 3339.
    pub server_time: String,
    /// The gateway's code, as the key says.
    pub gateway_id: String,
    /// One entry per run section of the batch.
    pub runs: Vec<RunAnswer>,
    /// Seconds to leave the cloud alone for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// What the operator should look at: `fork`, `conflict`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunAnswer {
    pub epoch: Epoch,
    #[serde(default)]
    pub streams: BTreeMap<String, StreamAnswer>,
}

/// The verdicts on one run's records of one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamAnswer {
    /// Every record of the batch up to this number has its verdict: accepted, unless `exceptions` says else.
    pub acked_through: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Exception>,
    /// What the cloud holds of this run and stream, quarantined records included.
    pub held: Held,
}

/// A verdict other than accepted, for `seq` or for `seq` through `through`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    pub seq: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<i64>,
    pub verdict: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Accepted,
    /// The cloud already had it, with the same content.
    Duplicate,
    /// The cloud keeps it, unread, for people to look at.
    Quarantined,
    /// A newer cloud says something that this build does not know: it settles nothing.
    #[serde(other)]
    Unknown,
}

/// A count and its ends: `last - first + 1 - count` records are missing between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub count: i64,
    pub first: Option<i64>,
    pub last: Option<i64>,
}
