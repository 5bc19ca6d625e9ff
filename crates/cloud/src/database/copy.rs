//! Rows in the binary format of PostgreSQL's COPY.

use chrono::{DateTime, NaiveDate, Utc};

/// Rows that are being written, field by field.
pub(crate) struct Rows {
    bytes: Vec<u8>,
    columns: i16,
}

impl Rows {
    /// For rows of so many columns, in about so many bytes.
    pub(crate) fn new(columns: i16, bytes: usize) -> Self {
        let mut rows = Self { bytes: Vec::with_capacity(bytes), columns };
        rows.bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        rows
    }

    /// Begins a row: every column follows, in order.
    pub(crate) fn row(&mut self) {
        self.bytes.extend_from_slice(&self.columns.to_be_bytes());
    }

    pub(crate) fn field(&mut self, value: &[u8]) {
        // Every value is bounded far below what a length can say.
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn optional(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.field(value),
            None => self.bytes.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }

    /// Microseconds since 2000-01-01.
    pub(crate) fn moment(&mut self, time: DateTime<Utc>) {
        const YEAR_2000: i64 = 946_684_800_000_000;
        self.field(&time.timestamp_micros().saturating_sub(YEAR_2000).to_be_bytes());
    }

    /// Days since 2000-01-01.
    pub(crate) fn day(&mut self, day: NaiveDate) {
        let days = day.signed_duration_since(NaiveDate::default()).num_days() - 10_957;
        self.field(&i32::try_from(days).unwrap_or(i32::MAX).to_be_bytes());
    }

    /// What COPY reads.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&(-1i16).to_be_bytes());
        self.bytes
    }
}
