//! One value that a sensor or a meter told, as both programs understand it.

use crate::FieldError;
use crate::time::ClockState;
use serde::{Deserialize, Serialize};

/// Longest name of a series, in characters.
pub const SERIES_MAX_CHARS: usize = 128;
/// Longest unit, in characters.
pub const UNIT_MAX_CHARS: usize = 32;

/// What is measured, by SenML's rules for names (RFC 8428): `kulkas-1/temperature`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SeriesName(String);

impl SeriesName {
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        Self::try_from(text.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SeriesName {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        let begins = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-:./_".contains(&c);
        if !begins || text.len() > SERIES_MAX_CHARS || !text.bytes().all(allowed) {
            return Err(FieldError::new(
                "series",
                format!(
                    "harus 1 sampai {SERIES_MAX_CHARS} huruf, angka dan - : . / _, diawali huruf atau angka"
                ),
                format!(
                    "must be 1 to {SERIES_MAX_CHARS} letters, digits and - : . / _, and begin with a letter or digit"
                ),
            ));
        }
        Ok(Self(text))
    }
}

impl From<SeriesName> for String {
    fn from(name: SeriesName) -> Self {
        name.0
    }
}

/// The unit of a value, written as SenML and UCUM do: `Cel`, `%RH`, `kW.h`, `1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Unit(String);

impl Unit {
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        Self::try_from(text.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Unit {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        if !(1..=UNIT_MAX_CHARS).contains(&text.len()) || !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(FieldError::new(
                "unit",
                format!("harus 1 sampai {UNIT_MAX_CHARS} karakter ASCII tanpa spasi"),
                format!("must be 1 to {UNIT_MAX_CHARS} printable ASCII characters without a space"),
            ));
        }
        Ok(Self(text))
    }
}

impl From<Unit> for String {
    fn from(unit: Unit) -> Self {
        unit.0
    }
}

/// How far a value is to be believed. A doubtful one is kept and marked, never dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    #[default]
    Good = 0,
    /// Outside what the sensor can measure or the place can be.
    Implausible = 1,
}

impl Quality {
    /// The small number stores keep.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The quality behind a stored number; anything unknown is doubtful.
    pub fn from_code(code: i16) -> Self {
        if code == 0 { Self::Good } else { Self::Implausible }
    }
}

/// What was measured, whoever says so: the part of a reading that two tellings of it must agree on.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadingContent {
    pub series: SeriesName,
    pub unit: Unit,
    /// Finite.
    pub value: f64,
    pub quality: Quality,
    /// The source's own time, milliseconds since 1970; `None` when the gateway's clock is the only witness.
    pub at_ms: Option<i64>,
}

impl ReadingContent {
    /// Checks what the types do not; names and units were checked when they were parsed.
    pub fn check(&self) -> Result<(), FieldError> {
        self.value.is_finite().then_some(()).ok_or_else(|| {
            FieldError::new("value", "harus berupa angka yang terhingga", "must be a finite number")
        })
    }
}

/// A reading with its place in a gateway's history.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The gateway's number for it in the stream `reading`; never used twice within a run.
    pub seq: i64,
    /// Milliseconds since the gateway booted (suspend included).
    pub mono_ms: i64,
    /// The gateway's wall clock, milliseconds since 1970; to be believed as far as `clock` says.
    pub wall_ms: i64,
    pub clock: ClockState,
    pub content: ReadingContent,
}

impl Reading {
    /// When it was measured as far as the source or the gateway could tell, milliseconds since 1970.
    pub fn timestamp_ms(&self) -> i64 {
        self.content.at_ms.unwrap_or(self.wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_named_by_senmls_rules() {
        for good in ["kulkas-1/temperature", "urn:dev:ow:10e2073a01080063", "0", &"a".repeat(128)] {
            assert!(SeriesName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "/suhu", "-1", "suhu kulkas", "suhu°", "a\0", &"a".repeat(129)] {
            assert_eq!(SeriesName::parse(bad).unwrap_err().field, "series", "{bad}");
        }
    }

    #[test]
    fn a_unit_is_short_and_printable() {
        for good in ["Cel", "%RH", "kW.h", "1", "m/s2"] {
            assert!(Unit::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "°C", "k W", "\t", &"x".repeat(33)] {
            assert_eq!(Unit::parse(bad).unwrap_err().field, "unit", "{bad}");
        }
    }
}
