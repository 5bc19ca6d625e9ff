//! Reading scans from a batch: quickly as what they should be, and where that fails record by record.

use super::Segment;
use super::columns::ScanColumns;
use super::raw::{RawScan, raw_from_object};
use super::refusal::{Refusal, SegmentError, numbers, whole_segment};
use crate::scan::{Scan, Source};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Reads a segment of scans: each record comes out as a scan or as a refusal, in order.
pub fn read_scans(
    segment: &Segment,
    statuses: &[String],
) -> Result<Vec<Result<Scan, Refusal>>, SegmentError> {
    let seqs = numbers(segment)?;
    let typed = serde_json::from_str::<ScanColumns>(segment.cols.get()).ok().filter(|cols| {
        let n = seqs.len();
        cols.t.len() == n && cols.tag.len() == n && cols.status.len() == n
    });
    Ok(match typed {
        Some(cols) => read_columns(cols, &seqs, statuses),
        None => read_tolerantly(segment, &seqs, statuses),
    })
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

fn read_columns(cols: ScanColumns, seqs: &[i64], statuses: &[String]) -> Vec<Result<Scan, Refusal>> {
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
            raw.into_scan(seq)
        })
        .collect()
}

/// The slow road: the columns as plain values, so that one bad value spoils one record.
fn read_tolerantly(segment: &Segment, seqs: &[i64], statuses: &[String]) -> Vec<Result<Scan, Refusal>> {
    let Ok(mut cols) = serde_json::from_str::<Map<String, Value>>(segment.cols.get()) else {
        return vec![Err(whole_segment(segment, seqs, statuses, "bad_columns", "cols is not an object"))];
    };
    let mut column = |name: &str| match cols.remove(name) {
        Some(Value::Array(values)) => values,
        _ => Vec::new(),
    };
    let (times, tags, status) = (column("t"), column("tag"), column("status"));
    let (mut offset, mut clock, mut source) =
        (Pairs::of(column("offset")), Pairs::of(column("clock")), Pairs::of(column("source")));
    let mut sparse: Vec<(&str, Pairs)> = ["at", "note", "officer", "quantity", "client_ref"]
        .map(|name| (name, Pairs::of(column(name))))
        .into();
    // A missing time breaks the chain of deltas for every record behind it.
    let mut mono = Some(0i64);
    seqs.iter()
        .enumerate()
        .map(|(i, &seq)| {
            mono = mono.zip(times.get(i).and_then(Value::as_i64)).map(|(m, t)| m.wrapping_add(t));
            let status = status.get(i).map_or(Value::Null, |value| {
                let known = value.as_u64().and_then(|at| statuses.get(usize::try_from(at).ok()?));
                known.map_or_else(|| json!({ "unknown": value }), |code| Value::from(code.as_str()))
            });
            let mut object = Map::new();
            object.insert("t".into(), mono.map_or(Value::Null, Value::from));
            object.insert("tag".into(), tags.get(i).cloned().unwrap_or(Value::Null));
            object.insert("status".into(), status);
            object.insert("offset".into(), offset.still(i));
            object.insert("clock".into(), clock.still(i));
            object.insert("source".into(), source.still(i));
            for (name, pairs) in &mut sparse {
                object.insert((*name).to_owned(), pairs.only_at(i));
            }
            let raw = Value::Object(object.clone()).to_string();
            let refusal = |detail| Refusal { seq, through: seq, reason: "bad_field", detail, raw };
            raw_from_object(object).map_err(refusal)?.into_scan(seq)
        })
        .collect()
}

/// Pairs whose values may be anything.
struct Pairs {
    by_index: BTreeMap<u64, Value>,
    current: Value,
}

impl Pairs {
    fn of(values: Vec<Value>) -> Self {
        let by_index = values
            .into_iter()
            .filter_map(|pair| match pair {
                Value::Array(mut pair) if pair.len() == 2 => {
                    let value = pair.pop()?;
                    Some((pair.pop()?.as_u64()?, value))
                }
                _ => None,
            })
            .collect();
        Self { by_index, current: Value::Null }
    }

    fn only_at(&mut self, i: usize) -> Value {
        self.by_index.remove(&(i as u64)).unwrap_or(Value::Null)
    }

    fn still(&mut self, i: usize) -> Value {
        if let Some(value) = self.by_index.remove(&(i as u64)) {
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
