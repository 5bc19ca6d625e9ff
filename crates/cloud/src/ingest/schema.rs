//! The shapes of `lumbung_shared::wire`, for the OpenAPI document only.
#![allow(dead_code, reason = "read by the schema only")]

use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The object form or the old clients' array.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum SyncBody {
    Batch(SyncBatch),
    Records(Vec<LegacyRecord>),
}

#[derive(Serialize, ToSchema)]
pub(super) struct SyncBatch {
    #[schema(example = 1, minimum = 1, maximum = 1)]
    protocol: u16,
    /// The sending run's epoch, 16 hex digits.
    #[schema(example = "9f86d081884c7d65", pattern = "^[0-9a-f]{16}$")]
    run: String,
    /// The gateway's idea of now.
    #[schema(example = "2026-11-21T02:30:00.000Z", format = DateTime)]
    sent_at: String,
    /// Milliseconds since the gateway booted.
    mono_ms: i64,
    /// `unset`, `held` or `synced`.
    #[schema(example = "held", pattern = "^(unset|held|synced)$")]
    clock: String,
    /// The codes that columns of scans point into.
    statuses: Vec<String>,
    /// Oldest first, each once; at most 2,000.
    #[schema(max_items = 2000)]
    runs: Vec<SyncRun>,
    /// What the gateway says of itself.
    health: Option<SyncHealth>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct SyncRun {
    /// 16 hex digits, not all 0.
    #[schema(example = "9f86d081884c7d65", pattern = "^[0-9a-f]{16}$")]
    epoch: String,
    /// Until it was answered for once.
    start: Option<SyncStart>,
    /// By name: `scan`, `reading`, `event`. A stream that is not known yet goes into quarantine.
    #[schema(required = false)]
    streams: BTreeMap<String, Vec<SyncSegment>>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct SyncStart {
    /// The run before it in the same store.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    previous: Option<String>,
    /// The kernel's boot id.
    #[schema(min_length = 1, max_length = 64)]
    boot: String,
    /// Code of the site where the gateway believed to stand.
    site: Option<String>,
    #[schema(example = "2026-11-21T02:30:00.000Z", format = DateTime)]
    started_at: String,
    mono_ms: i64,
    #[schema(example = "held", pattern = "^(unset|held|synced)$")]
    clock: String,
    #[schema(min_length = 1, max_length = 64)]
    version: String,
}

/// Records that follow each other.
#[derive(Serialize, ToSchema)]
pub(super) struct SyncSegment {
    /// The first one's number.
    #[schema(minimum = 1)]
    seq: i64,
    /// How many; at most 10,000 in a batch.
    #[schema(minimum = 1, maximum = 10_000)]
    n: u64,
    /// How far each is from the one before; every one 1 without.
    step: Option<Vec<i64>>,
    /// Its columns, by the stream's own rules.
    #[schema(value_type = Object)]
    cols: serde_json::Value,
}

#[derive(Serialize, ToSchema)]
pub(super) struct SyncHealth {
    #[schema(required = false)]
    unsent: BTreeMap<String, u64>,
    #[schema(required = false, example = "1.4.0")]
    version: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct LegacyRecord {
    #[schema(example = "NFC_TAG_ALPHA")]
    nfc_tag_id: String,
    #[schema(example = "2026-11-21T02:30:00")]
    timestamp: String,
    #[schema(example = "makanan_keluar")]
    status_scan: String,
    #[schema(example = "GW-DAPUR-MENTENG")]
    gateway_id: String,
}

/// The answer to the object form: verdicts by run and stream.
#[derive(Serialize, ToSchema)]
pub(super) struct SyncAnswer {
    protocol: u16,
    server_time: String,
    gateway_id: String,
    /// `{epoch, streams: {scan | reading | event: {acked_through, exceptions: [{seq, through?, verdict, reason?}], held}}}`
    runs: Vec<serde_json::Value>,
    /// What an operator should look at: `fork`, `conflict`.
    #[schema(required = false)]
    alarms: Vec<String>,
}

/// The answer to the array form: a verdict for each place of the array.
#[derive(Serialize, ToSchema)]
pub(super) struct LegacyAnswer {
    #[schema(example = "success")]
    status: String,
    #[schema(example = "Berhasil menerima 12 data")]
    message: String,
    #[schema(example = 12)]
    accepted: u64,
    duplicate: u64,
    quarantined: u64,
    records: Vec<LegacyVerdict>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct LegacyVerdict {
    index: u64,
    /// `accepted`, `duplicate` or `quarantined`
    #[schema(example = "accepted")]
    verdict: String,
    /// Of a quarantined one.
    #[schema(required = false, nullable = false)]
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum SyncAnswered {
    Verdicts(SyncAnswer),
    Counted(LegacyAnswer),
}
