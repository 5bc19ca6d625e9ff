//! The language the gateway and the cloud speak: what a scan, a reading and an event are, what a batch looks
//! like on the wire, what the cloud answers, and how a gateway enrols. Nothing here does any input or output.

pub mod bundle;
pub mod enrol;
pub mod event;
pub mod language;
pub mod reading;
pub mod receipt;
pub mod scan;
pub mod signing;
pub mod tag;
pub mod time;
pub mod wire;

use language::Words;
use std::borrow::Cow;
use std::fmt::Display;

/// Longest `status_scan`, in characters.
pub const STATUS_MAX_CHARS: usize = 64;
/// Longest free `note`, in characters.
pub const NOTE_MAX_CHARS: usize = 500;
/// Longest `officer` code, in characters.
pub const OFFICER_MAX_CHARS: usize = 64;
/// Largest `quantity` of one scan; portions and kilograms stay far below it.
pub const QUANTITY_MAX: f64 = 1_000_000_000.0;

/// Why a field cannot be taken, in words a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {words}")]
pub struct FieldError {
    /// The field as the caller wrote it.
    pub field: &'static str,
    /// What is wrong and what to send instead.
    pub words: Words,
}

impl FieldError {
    pub fn new(
        field: &'static str,
        indonesian: impl Into<Cow<'static, str>>,
        english: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field, words: Words::new(indonesian, english) }
    }

    pub fn empty(field: &'static str) -> Self {
        Self::new(field, "tidak boleh kosong", "must not be empty")
    }

    pub fn too_long(field: &'static str, max: usize) -> Self {
        Self::new(field, format!("paling banyak {max} karakter"), format!("must be at most {max} characters"))
    }

    pub fn not_between(field: &'static str, least: impl Display, most: impl Display) -> Self {
        Self::new(
            field,
            format!("harus antara {least} dan {most}"),
            format!("must be between {least} and {most}"),
        )
    }

    pub fn not_one_of(field: &'static str, known: &[&str]) -> Self {
        let known = known.join(", ");
        Self::new(field, format!("harus salah satu dari {known}"), format!("must be one of {known}"))
    }

    pub fn unknown(field: &'static str) -> Self {
        Self::new(field, "tidak dikenal", "is not known")
    }
}

/// Checks a text field: 1 to `max` characters, none of them a control character
/// (PostgreSQL cannot hold NUL, and no reader or keyboard means the others).
pub fn check_text(field: &'static str, value: &str, max: usize) -> Result<(), FieldError> {
    if value.is_empty() {
        return Err(FieldError::empty(field));
    }
    // Fewer bytes than the limit cannot be more characters: the common case needs no counting.
    if value.len() > max && value.chars().count() > max {
        return Err(FieldError::too_long(field, max));
    }
    if value.chars().any(char::is_control) {
        return Err(FieldError::new(
            field,
            "tidak boleh berisi karakter kendali",
            "must not contain control characters",
        ));
    }
    Ok(())
}
