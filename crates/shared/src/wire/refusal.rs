//! What cannot be read, how that is kept, and the numbers of what should be there.

use super::{MAX_BATCH_RECORDS, Segment};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A record that could not be read, with all there is of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub seq: i64,
    /// The last record it stands for; `seq` for a single one.
    pub through: i64,
    /// A stable code for people and programs: `bad_field`, `unknown_stream`, …
    pub reason: &'static str,
    /// In words, with the field's name.
    pub detail: String,
    /// JSON from which the record can be read again.
    pub raw: String,
}

/// Why a whole segment is unusable: the envelope's fault, not a record's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    #[error("a segment's seq, n and step do not number its records: {0}")]
    Numbering(&'static str),
    /// The batch holds more unreadable text than is kept at once: send less of it.
    #[error("the records that cannot be read are too large together; send fewer at once")]
    TooMuch,
}

/// How much of what cannot be read is kept of one batch. Values that many records share are kept with each
/// of them, so without a bound a few bytes could ask for any amount of memory.
#[derive(Debug)]
pub struct Budget {
    bytes: usize,
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Self { bytes }
    }

    /// Takes what a refusal holds.
    pub fn charge(&mut self, refusal: &Refusal) -> Result<(), SegmentError> {
        let kept = refusal.raw.len() + refusal.detail.len();
        self.bytes = self.bytes.checked_sub(kept).ok_or(SegmentError::TooMuch)?;
        Ok(())
    }
}

/// The numbers of a segment's records.
pub fn numbers(segment: &Segment) -> Result<Vec<i64>, SegmentError> {
    use SegmentError::Numbering;
    if segment.n > MAX_BATCH_RECORDS {
        return Err(Numbering("n is larger than a batch may be"));
    }
    if segment.seq < 1 {
        return Err(Numbering("seq starts at 1"));
    }
    // Columns of nothing would be kept under a number that another record has.
    if segment.n == 0 {
        return Err(Numbering("n starts at 1"));
    }
    let n = usize::try_from(segment.n).map_err(|_| Numbering("n is too large"))?;
    let mut seqs = Vec::with_capacity(n);
    let mut seq = segment.seq;
    match &segment.step {
        Some(step) if step.len() != n => return Err(Numbering("step must have n entries")),
        Some(step) => {
            for (i, &distance) in step.iter().enumerate() {
                if distance < i64::from(i > 0) || (i == 0 && distance != 0) {
                    return Err(Numbering("step must rise"));
                }
                seq = seq.checked_add(distance).ok_or(Numbering("step leaves the range of numbers"))?;
                // One beyond the last must be a number too, here as in the databases' ranges.
                if seq == i64::MAX {
                    return Err(Numbering("step leaves the range of numbers"));
                }
                seqs.push(seq);
            }
        }
        None => {
            let end = seq.checked_add(n as i64).ok_or(Numbering("n leaves the range of numbers"))?;
            seqs.extend(seq..end);
        }
    }
    Ok(seqs)
}

/// A refusal of one record with its fields.
pub(super) fn refuse(seq: i64, raw: &impl Serialize, detail: impl Into<String>) -> Refusal {
    Refusal {
        seq,
        through: seq,
        reason: "bad_field",
        detail: detail.into(),
        raw: serde_json::to_string(raw).unwrap_or_default(),
    }
}

/// The segment, and the statuses it points into, that [`whole_segment`] kept.
pub(super) fn kept_segment(seq: i64, raw: &str) -> Result<(Segment, Vec<String>), String> {
    #[derive(Deserialize)]
    struct Kept {
        n: u64,
        step: Option<Vec<i64>>,
        cols: Box<RawValue>,
        statuses: Vec<String>,
    }
    let kept: Kept = serde_json::from_str(raw).map_err(|error| error.to_string())?;
    Ok((Segment { seq, n: kept.n, step: kept.step, cols: kept.cols }, kept.statuses))
}

/// A refusal that stands for a whole segment: an unknown stream, or columns that are none.
pub fn whole_segment(
    segment: &Segment,
    seqs: &[i64],
    statuses: &[String],
    reason: &'static str,
    detail: impl Into<String>,
) -> Refusal {
    // The columns stay as they came: a value would lose what JSON can say and a value cannot.
    #[derive(Serialize)]
    struct Kept<'a> {
        n: u64,
        step: &'a Option<Vec<i64>>,
        cols: &'a RawValue,
        statuses: &'a [String],
    }
    let kept = Kept { n: segment.n, step: &segment.step, cols: &segment.cols, statuses };
    Refusal {
        seq: segment.seq,
        through: seqs.last().copied().unwrap_or(segment.seq),
        reason,
        detail: detail.into(),
        raw: serde_json::to_string(&kept).unwrap_or_default(),
    }
}
