//! One tap, as both programs understand it.

use crate::tag::TagId;
use crate::time::ClockState;
use crate::{FieldError, NOTE_MAX_CHARS, OFFICER_MAX_CHARS, QUANTITY_MAX, STATUS_MAX_CHARS, check_text};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where a scan came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The gateway's own tag reader.
    #[default]
    Reader,
    /// A phone or program that the gateway knows.
    Phone,
    /// An unpaired client on the LAN, let in by `lan.field_manual`.
    FieldManual,
    /// An old client that posted to the cloud itself.
    Legacy,
}

impl Source {
    /// The small number stores keep.
    pub fn code(self) -> i16 {
        match self {
            Self::Reader => 0,
            Self::Phone => 1,
            Self::FieldManual => 2,
            Self::Legacy => 3,
        }
    }

    /// The source behind a stored number.
    pub fn from_code(code: i16) -> Self {
        match code {
            1 => Self::Phone,
            2 => Self::FieldManual,
            3 => Self::Legacy,
            _ => Self::Reader,
        }
    }
}

/// What was scanned, whoever says so: the part of a scan that two tellings of it must agree on.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanContent {
    pub tag: TagId,
    /// 1 to 64 characters; unknown codes are kept.
    pub status: String,
    /// The moment a phone gave, milliseconds since 1970; `None` when the gateway's clock is the only witness.
    pub at_ms: Option<i64>,
    pub note: Option<String>,
    pub officer: Option<String>,
    /// Portions, kilograms, whatever the status counts; finite and not negative.
    pub quantity: Option<f64>,
    /// The phone's idempotency key.
    pub client_ref: Option<Uuid>,
}

impl ScanContent {
    /// Checks every limit that both programs hold; the tag was checked when it was parsed.
    pub fn check(&self) -> Result<(), FieldError> {
        check_text("status_scan", &self.status, STATUS_MAX_CHARS)?;
        if let Some(note) = &self.note {
            check_note(note)?;
        }
        if let Some(officer) = &self.officer {
            check_text("officer", officer, OFFICER_MAX_CHARS)?;
        }
        if let Some(quantity) = self.quantity
            && !(0.0..=QUANTITY_MAX).contains(&quantity)
        {
            return Err(FieldError::not_between("quantity", 0, QUANTITY_MAX));
        }
        Ok(())
    }
}

/// A note may hold line breaks and tabs; no other control characters.
fn check_note(note: &str) -> Result<(), FieldError> {
    if note.chars().count() > NOTE_MAX_CHARS {
        return Err(FieldError::too_long("note", NOTE_MAX_CHARS));
    }
    if note.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(FieldError::new(
            "note",
            "tidak boleh berisi karakter kendali selain ganti baris dan tab",
            "must not contain control characters other than line breaks and tabs",
        ));
    }
    Ok(())
}

/// A scan with its place in a gateway's history.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// The gateway's number for it in the stream `scan`; never used twice within a run.
    pub seq: i64,
    /// Milliseconds since the gateway booted (suspend included).
    pub mono_ms: i64,
    /// The gateway's wall clock, milliseconds since 1970; to be believed as far as `clock` says.
    pub wall_ms: i64,
    pub clock: ClockState,
    pub source: Source,
    pub content: ScanContent,
}

impl Scan {
    /// When it happened as far as the gateway or phone could tell, milliseconds since 1970.
    pub fn timestamp_ms(&self) -> i64 {
        self.content.at_ms.unwrap_or(self.wall_ms)
    }
}

/// A status code that the programme knows: its GS1 CBV business step and what people read.
pub struct KnownStatus {
    pub code: &'static str,
    /// GS1 Core Business Vocabulary bizStep.
    pub biz_step: &'static str,
    pub label_id: &'static str,
    pub label_en: &'static str,
}

/// The known codes. Any other code is kept and shown as it is.
pub const KNOWN_STATUSES: &[KnownStatus] = &[
    known("bahan_masuk", "receiving", "Bahan masuk", "Ingredients received"),
    known("masak_selesai", "commissioning", "Selesai dimasak", "Cooked"),
    known("makanan_dikemas", "packing", "Makanan dikemas", "Food packed"),
    known("makanan_keluar", "shipping", "Makanan keluar", "Food sent out"),
    known("makanan_masuk", "receiving", "Makanan masuk", "Food received"),
    known("makanan_diterima", "receiving", "Makanan diterima", "Food received"),
    known("makanan_dibagikan", "dispensing", "Makanan dibagikan", "Food handed out"),
    known("makanan_ditolak", "inspecting", "Makanan ditolak", "Food refused"),
    known("makanan_dibuang", "destroying", "Makanan dibuang", "Food thrown away"),
    known("wadah_kembali", "returning", "Wadah kembali", "Container returned"),
];

const fn known(
    code: &'static str,
    biz_step: &'static str,
    label_id: &'static str,
    label_en: &'static str,
) -> KnownStatus {
    KnownStatus { code, biz_step, label_id, label_en }
}

/// The entry of a known status code.
pub fn known_status(code: &str) -> Option<&'static KnownStatus> {
    KNOWN_STATUSES.iter().find(|known| known.code == code)
}
