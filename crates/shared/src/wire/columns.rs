//! Scans as columns: what both ends of the wire agree on.

use crate::scan::Source;
use crate::time::ClockState;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The columns of scans. `t` is milliseconds since boot, each from the record before (the first from 0).
/// A pair (index, value) stands for that record only in sparse columns (`at` … `client_ref`), and from
/// that record on in `offset`, `clock` and `source`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ScanColumns {
    pub(super) t: Vec<i64>,
    pub(super) tag: Vec<String>,
    pub(super) status: Vec<u32>,
    /// Wall clock minus milliseconds since boot.
    pub(super) offset: Vec<(u32, i64)>,
    pub(super) clock: Vec<(u32, ClockState)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) source: Vec<(u32, Source)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) at: Vec<(u32, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) note: Vec<(u32, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) officer: Vec<(u32, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) quantity: Vec<(u32, f64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) client_ref: Vec<(u32, Uuid)>,
}
