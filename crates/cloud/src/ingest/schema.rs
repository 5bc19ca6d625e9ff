//! The shapes of `lumbung_shared::wire`, for the OpenAPI document only.
#![allow(dead_code, reason = "read by the schema only")]

use serde::Serialize;
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
    #[schema(example = 1)]
    protocol: u16,
    /// The sending run's epoch, 16 hex digits.
    #[schema(example = "9f86d081884c7d65")]
    run: String,
    /// The gateway's idea of now.
    #[schema(example = "2026-11-21T02:30:00.000Z")]
    sent_at: String,
    /// Milliseconds since the gateway booted.
    mono_ms: i64,
    /// `unset`, `held` or `synced`.
    #[schema(example = "held")]
    clock: String,
    statuses: Vec<String>,
    /// Oldest first: `{epoch, start?, streams: {scan | reading | event: [{seq, n, step?, cols}]}}`.
    runs: Vec<serde_json::Value>,
    health: Option<serde_json::Value>,
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
    alarms: Vec<String>,
}
