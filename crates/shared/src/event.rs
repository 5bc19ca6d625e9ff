//! Something that happened to a gateway itself: a sensor went silent, the clock was set, the power sagged.

use crate::FieldError;
use crate::time::ClockState;
use serde_json::{Map, Value};

/// Longest kind, in characters.
pub const KIND_MAX_CHARS: usize = 64;
/// Longest body, in bytes of JSON.
pub const BODY_MAX_BYTES: usize = 4 << 10;

/// An event with its place in a gateway's history. Kinds that a program does not know are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The gateway's number for it in the stream `event`; never used twice within a run.
    pub seq: i64,
    /// Milliseconds since the gateway booted (suspend included).
    pub mono_ms: i64,
    /// The gateway's wall clock, milliseconds since 1970; to be believed as far as `clock` says.
    pub wall_ms: i64,
    pub clock: ClockState,
    /// `snake_case`.
    pub kind: String,
    /// The text of a JSON object.
    pub body: String,
}

impl Event {
    /// Checks every limit that both programs hold.
    pub fn check(&self) -> Result<(), FieldError> {
        check_event(&self.kind, &self.body)
    }
}

/// Checks an event's kind and body.
pub fn check_event(kind: &str, body: &str) -> Result<(), FieldError> {
    let begins = kind.bytes().next().is_some_and(|c| c.is_ascii_lowercase());
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    if !begins || kind.len() > KIND_MAX_CHARS || !kind.bytes().all(allowed) {
        return Err(FieldError::new(
            "kind",
            format!("harus 1 sampai {KIND_MAX_CHARS} dari a-z, 0-9 dan _, diawali huruf"),
            format!("must be 1 to {KIND_MAX_CHARS} of a-z, 0-9 and _, and begin with a letter"),
        ));
    }
    if body.len() > BODY_MAX_BYTES {
        return Err(FieldError::new(
            "body",
            format!("paling banyak {BODY_MAX_BYTES} byte JSON"),
            format!("must be at most {BODY_MAX_BYTES} bytes of JSON"),
        ));
    }
    if serde_json::from_str::<Map<String, Value>>(body).is_err() {
        return Err(FieldError::new("body", "harus berupa objek JSON", "must be a JSON object"));
    }
    // PostgreSQL's jsonb cannot hold it.
    if body.contains("\\u0000") {
        return Err(FieldError::new(
            "body",
            "tidak boleh berisi karakter NUL",
            "must not contain the character NUL",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_snake_case_kind_and_an_object_for_a_body() {
        check_event("sensor_down", r#"{"sensor":"kulkas-1"}"#).unwrap();
        check_event("a", "{}").unwrap();
        for bad in ["", "SensorDown", "_x", "sensor-down", &"a".repeat(65)] {
            assert_eq!(check_event(bad, "{}").unwrap_err().field, "kind", "{bad}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(BODY_MAX_BYTES));
        for bad in ["", "[]", "{", r#"{"a":"\ud800"}"#, r#"{"a":"\u0000"}"#, &long] {
            assert_eq!(check_event("a", bad).unwrap_err().field, "body", "{bad}");
        }
    }
}
