//! Reading scans from a batch: quickly as what they should be, and where that fails record by record.

use super::Segment;
use super::columns::ScanColumns;
use super::raw::{RawScan, raw_from_object};
use super::refusal::{Budget, Refusal, SegmentError, numbers, whole_segment};
use crate::scan::{Scan, Source};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Most bytes kept of one batch's unreadable records.
pub const MAX_UNREADABLE_BYTES: usize = 32 << 20;

/// Reads a segment of scans: each record comes out as a scan or as a refusal, in order.
pub fn read_scans(
    segment: &Segment,
    statuses: &[String],
) -> Result<Vec<Result<Scan, Refusal>>, SegmentError> {
    read_scans_within(segment, statuses, &mut Budget::new(MAX_UNREADABLE_BYTES))
}

/// Reads a segment of scans of a batch whose segments share one budget for what cannot be read.
pub fn read_scans_within(
    segment: &Segment,
    statuses: &[String],
    budget: &mut Budget,
) -> Result<Vec<Result<Scan, Refusal>>, SegmentError> {
    let seqs = numbers(segment)?;
    let typed = serde_json::from_str::<ScanColumns>(segment.cols.get()).ok();
    match typed.filter(|cols| is_orderly(cols, seqs.len())) {
        Some(cols) => read_columns(cols, &seqs, statuses, budget),
        None => read_tolerantly(segment, &seqs, statuses, budget),
    }
}

/// Whether every record has its values and every pair its record: then nothing can be lost or moved.
fn is_orderly(cols: &ScanColumns, n: usize) -> bool {
    fn rises<T>(pairs: &[(u32, T)], n: usize) -> bool {
        pairs.is_sorted_by(|a, b| a.0 < b.0) && pairs.last().is_none_or(|(last, _)| (*last as usize) < n)
    }
    cols.t.len() == n
        && cols.tag.len() == n
        && cols.status.len() == n
        && rises(&cols.offset, n)
        && rises(&cols.clock, n)
        && rises(&cols.source, n)
        && rises(&cols.at, n)
        && rises(&cols.note, n)
        && rises(&cols.officer, n)
        && rises(&cols.quantity, n)
        && rises(&cols.client_ref, n)
}

/// Walks a column of (index, value) pairs beside the records.
struct Cursor<T> {
    pairs: std::iter::Peekable<std::vec::IntoIter<(u32, T)>>,
}

impl<T> Cursor<T> {
    fn new(pairs: Vec<(u32, T)>) -> Self {
        Self { pairs: pairs.into_iter().peekable() }
    }

    fn at(&mut self, i: u32) -> Option<T> {
        let mut found = None;
        while let Some((_, value)) = self.pairs.next_if(|(index, _)| *index <= i) {
            found = Some(value);
        }
        found
    }
}

fn read_columns(
    cols: ScanColumns,
    seqs: &[i64],
    statuses: &[String],
    budget: &mut Budget,
) -> Result<Vec<Result<Scan, Refusal>>, SegmentError> {
    let (mut offset, mut clock, mut source) = (None, None, Source::Reader);
    let (mut offsets, mut clocks, mut sources) =
        (Cursor::new(cols.offset), Cursor::new(cols.clock), Cursor::new(cols.source));
    let (mut ats, mut notes, mut officers) =
        (Cursor::new(cols.at), Cursor::new(cols.note), Cursor::new(cols.officer));
    let (mut quantities, mut refs) = (Cursor::new(cols.quantity), Cursor::new(cols.client_ref));
    let mut mono_ms = 0i64;
    let columns = cols.t.into_iter().zip(cols.tag).zip(cols.status);
    (0u32..)
        .zip(seqs)
        .zip(columns)
        .map(|((i, &seq), ((t, tag), status))| {
            mono_ms = mono_ms.wrapping_add(t);
            offset = offsets.at(i).or(offset);
            clock = clocks.at(i).or(clock);
            source = sources.at(i).unwrap_or(source);
            let raw = RawScan {
                t: Some(mono_ms),
                offset,
                clock,
                source,
                status: statuses.get(status as usize).cloned(),
                tag: Some(tag),
                at: ats.at(i),
                note: notes.at(i),
                officer: officers.at(i),
                quantity: quantities.at(i),
                client_ref: refs.at(i),
            };
            charged(raw.into_scan(seq), budget)
        })
        .collect()
}

/// Takes what a refusal holds from the budget.
fn charged(read: Result<Scan, Refusal>, budget: &mut Budget) -> Result<Result<Scan, Refusal>, SegmentError> {
    if let Err(refusal) = &read {
        budget.charge(refusal)?;
    }
    Ok(read)
}

/// The slow road: each value by itself, so that one bad value spoils one record.
fn read_tolerantly(
    segment: &Segment,
    seqs: &[i64],
    statuses: &[String],
    budget: &mut Budget,
) -> Result<Vec<Result<Scan, Refusal>>, SegmentError> {
    let mut columns = match Columns::of(segment, seqs.len()) {
        Ok(columns) => columns,
        Err(why) => {
            let refusal = whole_segment(segment, seqs, statuses, "bad_columns", why);
            budget.charge(&refusal)?;
            return Ok(vec![Err(refusal)]);
        }
    };
    // A missing time breaks the chain of deltas for every record behind it.
    let mut mono = Some(0i64);
    let mut read = Vec::with_capacity(seqs.len());
    for (i, &seq) in seqs.iter().enumerate() {
        mono = mono.zip(columns.t.get(i).and_then(Value::as_i64)).map(|(m, t)| m.wrapping_add(t));
        let status = columns.status.get(i).map_or(Value::Null, |value| {
            let known = value.as_u64().and_then(|at| statuses.get(usize::try_from(at).ok()?));
            known.map_or_else(|| json!({ "unknown": value }), |code| Value::from(code.as_str()))
        });
        let mut object = Map::new();
        object.insert("t".into(), mono.map_or(Value::Null, Value::from));
        object.insert("tag".into(), columns.tag.get_mut(i).map_or(Value::Null, Value::take));
        object.insert("status".into(), status);
        for (name, pairs) in &mut columns.from_there_on {
            object.insert((*name).to_owned(), pairs.still(i));
        }
        for (name, pairs) in &mut columns.just_there {
            object.insert((*name).to_owned(), pairs.only_at(i));
        }
        let raw = Value::Object(object.clone()).to_string();
        let refusal = |detail| Refusal { seq, through: seq, reason: "bad_field", detail, raw };
        let scan = raw_from_object(object).map_err(refusal).and_then(|raw| raw.into_scan(seq));
        read.push(charged(scan, budget)?);
    }
    Ok(read)
}

/// The columns with values that may be anything.
struct Columns {
    t: Vec<Value>,
    tag: Vec<Value>,
    status: Vec<Value>,
    from_there_on: [(&'static str, Pairs); 3],
    just_there: [(&'static str, Pairs); 5],
}

impl Columns {
    /// # Errors
    /// Names the column whose values cannot be told apart: then no record is safe to take.
    fn of(segment: &Segment, n: usize) -> Result<Self, String> {
        let cols: BTreeMap<String, &RawValue> =
            serde_json::from_str(segment.cols.get()).map_err(|_| "cols is not an object".to_owned())?;
        let values = |name: &str| match cols.get(name) {
            None => Ok(Vec::new()),
            Some(column) => serde_json::from_str::<Vec<&RawValue>>(column.get())
                .map_err(|_| format!("the column {name} is not an array")),
        };
        let plain = |name: &str| Ok::<_, String>(values(name)?.into_iter().map(value).collect::<Vec<_>>());
        let pairs = |name: &'static str| Ok::<_, String>((name, Pairs::of(name, values(name)?, n)?));
        Ok(Self {
            t: plain("t")?,
            tag: plain("tag")?,
            status: plain("status")?,
            from_there_on: [pairs("offset")?, pairs("clock")?, pairs("source")?],
            just_there: [
                pairs("at")?,
                pairs("note")?,
                pairs("officer")?,
                pairs("quantity")?,
                pairs("client_ref")?,
            ],
        })
    }
}

/// A value, or what stands there when it is none: half a surrogate pair, 1e999, a well of brackets.
fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| json!({ "unreadable": raw.get() }))
}

/// Pairs of an index and a value that may be anything.
struct Pairs {
    by_index: BTreeMap<usize, Value>,
    current: Value,
}

impl Pairs {
    fn of(name: &str, pairs: Vec<&RawValue>, n: usize) -> Result<Self, String> {
        let mut by_index = BTreeMap::new();
        for pair in pairs {
            let (index, of) = serde_json::from_str::<(usize, &RawValue)>(pair.get())
                .map_err(|_| format!("the column {name} is not made of [index, value]"))?;
            if index >= n || by_index.insert(index, value(of)).is_some() {
                return Err(format!("the column {name} names a record that is not there, or one twice"));
            }
        }
        Ok(Self { by_index, current: Value::Null })
    }

    fn only_at(&mut self, i: usize) -> Value {
        self.by_index.remove(&i).unwrap_or(Value::Null)
    }

    fn still(&mut self, i: usize) -> Value {
        if let Some(value) = self.by_index.remove(&i) {
            self.current = value;
        }
        self.current.clone()
    }
}

/// Reads again what [`whole_segment`] kept of a segment of scans.
pub fn read_raw_segment(seq: i64, raw: &str) -> Result<Vec<Result<Scan, Refusal>>, String> {
    #[derive(Deserialize)]
    struct Kept {
        n: u64,
        step: Option<Vec<i64>>,
        cols: Box<RawValue>,
        statuses: Vec<String>,
    }
    let kept: Kept = serde_json::from_str(raw).map_err(|error| error.to_string())?;
    let segment = Segment { seq, n: kept.n, step: kept.step, cols: kept.cols };
    read_scans(&segment, &kept.statuses).map_err(|error| error.to_string())
}
