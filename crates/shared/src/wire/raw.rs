//! One scan outside its columns: what a refusal keeps of it, and reading that again.

use super::refusal::Refusal;
use crate::scan::{Scan, ScanContent, Source};
use crate::tag::TagId;
use crate::time::ClockState;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// One scan outside its columns: what a refusal keeps and what can be read again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RawScan {
    pub(super) t: Option<i64>,
    pub(super) offset: Option<i64>,
    pub(super) clock: Option<ClockState>,
    #[serde(default)]
    pub(super) source: Source,
    pub(super) tag: Option<String>,
    pub(super) status: Option<String>,
    pub(super) at: Option<i64>,
    pub(super) note: Option<String>,
    pub(super) officer: Option<String>,
    pub(super) quantity: Option<f64>,
    pub(super) client_ref: Option<Uuid>,
}

impl RawScan {
    pub(super) fn into_scan(self, seq: i64) -> Result<Scan, Refusal> {
        let refuse = |raw: &Self, detail: String| Refusal {
            seq,
            through: seq,
            reason: "bad_field",
            detail,
            raw: serde_json::to_string(raw).unwrap_or_default(),
        };
        let (Some(t), Some(offset), Some(clock)) = (self.t, self.offset, self.clock) else {
            return Err(refuse(&self, "t, offset and clock must say when it happened".to_owned()));
        };
        let Some(status) = self.status.clone() else {
            return Err(refuse(&self, "status_scan: must point into the batch's statuses".to_owned()));
        };
        let Some(tag) = self.tag.clone() else {
            return Err(refuse(&self, "nfc_tag_id: is missing".to_owned()));
        };
        let tag = TagId::try_from(tag).map_err(|error| refuse(&self, error.to_string()))?;
        let content = ScanContent {
            tag,
            status,
            at_ms: self.at,
            note: self.note.clone(),
            officer: self.officer.clone(),
            quantity: self.quantity,
            client_ref: self.client_ref,
        };
        if let Err(error) = content.check() {
            return Err(refuse(&self, error.to_string()));
        }
        Ok(Scan { seq, mono_ms: t, wall_ms: t.wrapping_add(offset), clock, source: self.source, content })
    }
}

/// Writes a scan in the form that [`Refusal::raw`] keeps and [`read_raw_scan`] reads.
pub fn write_raw_scan(scan: &Scan) -> String {
    let content = &scan.content;
    let raw = RawScan {
        t: Some(scan.mono_ms),
        offset: Some(scan.wall_ms.wrapping_sub(scan.mono_ms)),
        clock: Some(scan.clock),
        source: scan.source,
        tag: Some(content.tag.as_str().to_owned()),
        status: Some(content.status.clone()),
        at: content.at_ms,
        note: content.note.clone(),
        officer: content.officer.clone(),
        quantity: content.quantity,
        client_ref: content.client_ref,
    };
    serde_json::to_string(&raw).unwrap_or_default()
}

/// Reads a scan again from what [`Refusal::raw`] kept of it.
pub fn read_raw_scan(seq: i64, raw: &str) -> Result<Scan, Refusal> {
    let unreadable =
        |detail: String| Refusal { seq, through: seq, reason: "bad_field", detail, raw: raw.to_owned() };
    let object: Map<String, Value> = serde_json::from_str(raw).map_err(|e| unreadable(e.to_string()))?;
    raw_from_object(object).map_err(unreadable)?.into_scan(seq)
}

/// A record's fields as what they should be; says which one is not.
pub(super) fn raw_from_object(mut object: Map<String, Value>) -> Result<RawScan, String> {
    let mut field = |name: &str| object.remove(name).filter(|value| !value.is_null());
    fn typed<T: serde::de::DeserializeOwned>(name: &str, value: Option<Value>) -> Result<Option<T>, String> {
        value.map(serde_json::from_value).transpose().map_err(|error| format!("{name}: {error}"))
    }
    Ok(RawScan {
        tag: typed("nfc_tag_id", field("tag"))?,
        status: typed("status_scan", field("status"))?,
        t: typed("t", field("t"))?,
        offset: typed("offset", field("offset"))?,
        clock: typed("clock", field("clock"))?,
        source: typed("source", field("source"))?.unwrap_or_default(),
        at: typed("at", field("at"))?,
        note: typed("note", field("note"))?,
        officer: typed("officer", field("officer"))?,
        quantity: typed("quantity", field("quantity"))?,
        client_ref: typed("client_ref", field("client_ref"))?,
    })
}
