//! The language the gateway and the cloud speak: what a scan, a reading and an event are, what a batch looks
//! like on the wire, what the cloud answers, and how a gateway enrols. Nothing here does any input or output.

pub mod bundle;
pub mod enrol;
pub mod event;
pub mod reading;
pub mod receipt;
pub mod scan;
pub mod signing;
pub mod tag;
pub mod time;
pub mod wire;

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
#[error("{field}: {message}")]
pub struct FieldError {
    /// The field as the caller wrote it.
    pub field: &'static str,
    /// What is wrong and what to send instead.
    pub message: String,
}

impl FieldError {
    pub fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }
}

/// Checks a text field: 1 to `max` characters, none of them a control character
/// (PostgreSQL cannot hold NUL, and no reader or keyboard means the others).
pub fn check_text(field: &'static str, value: &str, max: usize) -> Result<(), FieldError> {
    if value.is_empty() {
        return Err(FieldError::new(field, "must not be empty"));
    }
    // Fewer bytes than the limit cannot be more characters: the common case needs no counting.
    if value.len() > max && value.chars().count() > max {
        return Err(FieldError::new(field, format!("must be at most {max} characters")));
    }
    if value.chars().any(char::is_control) {
        return Err(FieldError::new(field, "must not contain control characters"));
    }
    Ok(())
}
