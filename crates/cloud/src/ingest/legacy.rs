//! The old clients' records: `{nfc_tag_id, timestamp, status_scan, gateway_id}`, without a number of their own.

use chrono::{DateTime, NaiveDateTime};
use lumbung_shared::scan::{Scan, ScanContent, Source};
use lumbung_shared::tag::TagId;
use lumbung_shared::time::ClockState;
use lumbung_shared::wire::Refusal;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The reason of a record that names a gateway other than the key's.
pub(super) const FOREIGN: &str = "foreign_gateway_id";

/// Reads one record of the array form. Its number is a hash of tag, raw timestamp and status, so that the
/// same record sent twice is one scan.
pub(super) fn read(raw: &str, gateway: &str) -> Result<Scan, Refusal> {
    // What JSON can write and a value cannot hold becomes null here and is kept as it came.
    let value: &Value = &serde_json::from_str(raw).unwrap_or(Value::Null);
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let raw_time = value
        .get("timestamp")
        .map_or_else(String::new, |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    let (tag, status) = (text("nfc_tag_id"), text("status_scan"));
    let seq = match (tag, status) {
        (Some(tag), Some(status)) => number(&[&normal(tag), &raw_time, status]),
        _ => number(&[raw]),
    };
    let refuse = |reason: &'static str, detail: String| Refusal {
        seq,
        through: seq,
        reason,
        detail,
        raw: raw.to_owned(),
    };
    let bad = |detail: String| refuse("bad_field", detail);
    if text("gateway_id") != Some(gateway) {
        return Err(refuse(FOREIGN, format!("gateway_id: must be {gateway}, the gateway of the key")));
    }
    let tag = tag.ok_or_else(|| bad("nfc_tag_id: must be text".into()))?;
    let status = status.ok_or_else(|| bad("status_scan: must be text".into()))?;
    let tag = TagId::parse(tag).map_err(|error| bad(error.to_string()))?;
    let wall_ms = moment(&raw_time).ok_or_else(|| {
        bad("timestamp: must be ISO 8601, such as 2026-11-21T02:30:00Z; without an offset it is UTC".into())
    })?;
    let content = ScanContent {
        tag,
        status: status.to_owned(),
        // Whoever wrote it, it is a clock other than the cloud's: believed where plausible.
        at_ms: Some(wall_ms),
        note: None,
        officer: None,
        quantity: None,
        client_ref: None,
    };
    content.check().map_err(|error| bad(error.to_string()))?;
    Ok(Scan { seq, mono_ms: 0, wall_ms, clock: ClockState::Held, source: Source::Legacy, content })
}

fn normal(tag: &str) -> String {
    TagId::parse(tag).map_or_else(|_| tag.to_owned(), TagId::into_string)
}

/// 63 bits of SHA-256 over the length-marked parts.
fn number(parts: &[&str]) -> i64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let first = digest.iter().take(8).fold(0u64, |bits, &byte| (bits << 8) | u64::from(byte));
    i64::try_from(first >> 1).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970; a time without an offset is UTC.
fn moment(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|time| time.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(timestamp: &str) -> String {
        json!({ "nfc_tag_id": "04:a2:2b:1c", "timestamp": timestamp, "status_scan": "makanan_keluar", "gateway_id": "GW" })
            .to_string()
    }

    #[test]
    fn the_same_record_is_the_same_scan_and_a_naive_time_is_utc() {
        let one = read(&record("2026-11-21T02:30:00.5"), "GW").unwrap();
        assert_eq!(one, read(&record("2026-11-21T02:30:00.5"), "GW").unwrap());
        assert_eq!(one.wall_ms, read(&record("2026-11-21T09:30:00.5+07:00"), "GW").unwrap().wall_ms);
        assert_ne!(one.seq, read(&record("2026-11-21 02:30:01"), "GW").unwrap().seq);
        assert!(one.seq > 0);
    }

    #[test]
    fn what_cannot_be_read_says_which_field() {
        for (value, field) in [
            (json!({ "gateway_id": "GW" }).to_string(), "nfc_tag_id"),
            (json!({ "gateway_id": "GW", "nfc_tag_id": "A" }).to_string(), "status_scan"),
            (record("yesterday"), "timestamp"),
            (json!({ "nfc_tag_id": "A" }).to_string(), "gateway_id"),
            ("7".to_owned(), "gateway_id"),
            (r#"{"nfc_tag_id":"\ud800"}"#.to_owned(), "gateway_id"),
        ] {
            assert!(read(&value, "GW").unwrap_err().detail.starts_with(field), "{value}");
        }
    }
}
