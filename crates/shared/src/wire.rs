//! `POST /api/sync_gateway_data`, the object form: one section per run of a gateway, columns of records.
//!
//! What must stay true:
//! - A record is named by (gateway, epoch, stream, seq) and by nothing else; no time takes part in it.
//! - Unknown fields, streams and codes are carried, never refused: an older cloud must not lose what a
//!   newer gateway sends.
//! - One bad record spoils itself only. A column is first read as what it should be; when that fails the
//!   segment is read record by record, and each bad one comes out as a [`Refusal`] that holds it whole.
//! - [`Refusal::raw`] can be read again later by [`read_raw_scan`], after the program has learnt better.

use crate::scan::{Scan, ScanContent, Source};
use crate::tag::TagId;
use crate::time::ClockState;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// The protocol this build speaks; the cloud also serves the one before it.
pub const PROTOCOL: u16 = 1;
/// The stream of tag scans.
pub const SCAN_STREAM: &str = "scan";
/// Most records in one batch; more is answered 413.
pub const MAX_BATCH_RECORDS: u64 = 10_000;
/// Most run sections in one batch; more is answered 413.
pub const MAX_BATCH_RUNS: usize = 2_000;

/// A run's random 64-bit name, written as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of clients that know nothing of runs.
    pub const LEGACY: Self = Self(0);

    /// The same 64 bits as the signed number that databases hold.
    pub fn to_db(self) -> i64 {
        i64::from_ne_bytes(self.0.to_ne_bytes())
    }

    /// The epoch behind a stored number.
    pub fn from_db(number: i64) -> Self {
        Self(u64::from_ne_bytes(number.to_ne_bytes()))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for Epoch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        (text.len() == 16)
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| "an epoch is 16 hex digits".to_owned())
    }
}

impl Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A batch as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub struct Batch {
    pub protocol: u16,
    /// The run that is sending.
    pub run: Epoch,
    /// The gateway's idea of now, RFC 3339.
    pub sent_at: String,
    /// Now, milliseconds since the gateway booted.
    pub mono_ms: i64,
    pub clock: ClockState,
    /// The status codes that `status` columns point into.
    #[serde(default)]
    pub statuses: Vec<String>,
    /// Oldest first.
    #[serde(default)]
    pub runs: Vec<RunSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// One run of the gateway with the records it sends.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunSection {
    pub epoch: Epoch,
    /// Present until the cloud has answered for this run once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<RunStart>,
    /// Segments by stream name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, Vec<Segment>>,
}

/// How a run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// The run before it in the same store; `None` for a new store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Epoch>,
    /// The kernel's boot id.
    pub boot: String,
    /// Code of the site the gateway believed it stood at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// RFC 3339, the gateway's clock.
    pub started_at: String,
    pub mono_ms: i64,
    pub clock: ClockState,
    pub version: String,
}

/// Consecutive records of one run and stream.
#[derive(Debug, Serialize, Deserialize)]
pub struct Segment {
    /// Number of the first record.
    pub seq: i64,
    /// How many records.
    pub n: u64,
    /// Distance of each record from the one before (the first is 0); absent where every one is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Vec<i64>>,
    /// The columns, read by whoever knows the stream.
    pub cols: Box<RawValue>,
}

/// What a gateway says of itself with each batch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Unsent records by stream, as of when the batch was made, the batch's own included.
    #[serde(default)]
    pub unsent: BTreeMap<String, u64>,
    /// RFC 3339 time of the oldest unsent record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unsent_at: Option<String>,
    /// Records set aside on the gateway because the cloud could not read the batch they were in.
    #[serde(default)]
    pub parked: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// `ok`, `down` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undervoltage: Option<bool>,
    #[serde(default)]
    pub version: String,
    /// Set after a corrupt store was salvaged in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salvaged: Option<u64>,
}

/// The columns of scans. `t` is milliseconds since boot, each from the record before (the first from 0).
/// A pair (index, value) stands for that record only in sparse columns (`at` … `client_ref`), and from
/// that record on in `offset`, `clock` and `source`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ScanColumns {
    t: Vec<i64>,
    tag: Vec<String>,
    status: Vec<u32>,
    /// Wall clock minus milliseconds since boot.
    offset: Vec<(u32, i64)>,
    clock: Vec<(u32, ClockState)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    source: Vec<(u32, Source)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    at: Vec<(u32, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    note: Vec<(u32, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    officer: Vec<(u32, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    quantity: Vec<(u32, f64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    client_ref: Vec<(u32, Uuid)>,
}

/// The status table of a batch while it is being written.
#[derive(Debug, Default)]
pub struct Statuses {
    codes: Vec<String>,
}

impl Statuses {
    fn index_of(&mut self, status: &str) -> u32 {
        let at = self.codes.iter().position(|known| known == status).unwrap_or_else(|| {
            self.codes.push(status.to_owned());
            self.codes.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    pub fn into_codes(self) -> Vec<String> {
        self.codes
    }
}

/// Writes scans of one run, in rising `seq`, as one segment. `None` when there are none.
pub fn write_scans(scans: Vec<Scan>, statuses: &mut Statuses) -> Result<Option<Segment>, serde_json::Error> {
    let Some(first) = scans.first().map(|scan| scan.seq) else {
        return Ok(None);
    };
    let n = scans.len() as u64;
    let mut cols = ScanColumns::default();
    let mut step = Vec::with_capacity(scans.len());
    let (mut last_seq, mut last_mono) = (first, 0);
    for (i, scan) in (0u32..).zip(scans) {
        step.push(scan.seq - last_seq);
        cols.t.push(scan.mono_ms.wrapping_sub(last_mono));
        (last_seq, last_mono) = (scan.seq, scan.mono_ms);
        let content = scan.content;
        cols.status.push(statuses.index_of(&content.status));
        cols.tag.push(content.tag.into_string());
        push_change(&mut cols.offset, i, scan.wall_ms.wrapping_sub(scan.mono_ms), None);
        push_change(&mut cols.clock, i, scan.clock, None);
        push_change(&mut cols.source, i, scan.source, Some(Source::Reader));
        cols.at.extend(content.at_ms.map(|v| (i, v)));
        cols.note.extend(content.note.map(|v| (i, v)));
        cols.officer.extend(content.officer.map(|v| (i, v)));
        cols.quantity.extend(content.quantity.map(|v| (i, v)));
        cols.client_ref.extend(content.client_ref.map(|v| (i, v)));
    }
    let contiguous = step.iter().skip(1).all(|&distance| distance == 1);
    let cols = serde_json::value::to_raw_value(&cols)?;
    Ok(Some(Segment { seq: first, n, step: (!contiguous).then_some(step), cols }))
}

fn push_change<T: PartialEq + Copy>(column: &mut Vec<(u32, T)>, i: u32, value: T, start: Option<T>) {
    if column.last().map(|(_, current)| *current).or(start) != Some(value) {
        column.push((i, value));
    }
}

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

/// One scan outside its columns: what a refusal keeps and what can be read again.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RawScan {
    t: Option<i64>,
    offset: Option<i64>,
    clock: Option<ClockState>,
    #[serde(default)]
    source: Source,
    tag: Option<String>,
    status: Option<String>,
    at: Option<i64>,
    note: Option<String>,
    officer: Option<String>,
    quantity: Option<f64>,
    client_ref: Option<Uuid>,
}

impl RawScan {
    fn into_scan(self, seq: i64) -> Result<Scan, Refusal> {
        let refuse = |raw: &Self, detail: String| Refusal {
            seq,
            through: seq,
            reason: "bad_field",
            detail,
            raw: serde_json::to_string(raw).unwrap_or_default(),
        };
        let (Some(t), Some(offset), Some(clock)) = (self.t, self.offset, self.clock) else {
            return Err(refuse(&self, "t, offset and clock must say when it happened".to_owned()));
        };
        let Some(status) = self.status.clone() else {
            return Err(refuse(&self, "status_scan: must point into the batch's statuses".to_owned()));
        };
        let Some(tag) = self.tag.clone() else {
            return Err(refuse(&self, "nfc_tag_id: is missing".to_owned()));
        };
        let tag = TagId::try_from(tag).map_err(|error| refuse(&self, error.to_string()))?;
        let content = ScanContent {
            tag,
            status,
            at_ms: self.at,
            note: self.note.clone(),
            officer: self.officer.clone(),
            quantity: self.quantity,
            client_ref: self.client_ref,
        };
        if let Err(error) = content.check() {
            return Err(refuse(&self, error.to_string()));
        }
        Ok(Scan { seq, mono_ms: t, wall_ms: t.wrapping_add(offset), clock, source: self.source, content })
    }
}

/// Writes a scan in the form that [`Refusal::raw`] keeps and [`read_raw_scan`] reads.
pub fn write_raw_scan(scan: &Scan) -> String {
    let content = &scan.content;
    let raw = RawScan {
        t: Some(scan.mono_ms),
        offset: Some(scan.wall_ms.wrapping_sub(scan.mono_ms)),
        clock: Some(scan.clock),
        source: scan.source,
        tag: Some(content.tag.as_str().to_owned()),
        status: Some(content.status.clone()),
        at: content.at_ms,
        note: content.note.clone(),
        officer: content.officer.clone(),
        quantity: content.quantity,
        client_ref: content.client_ref,
    };
    serde_json::to_string(&raw).unwrap_or_default()
}

/// Reads a scan again from what [`Refusal::raw`] kept of it.
pub fn read_raw_scan(seq: i64, raw: &str) -> Result<Scan, Refusal> {
    let unreadable =
        |detail: String| Refusal { seq, through: seq, reason: "bad_field", detail, raw: raw.to_owned() };
    let object: Map<String, Value> = serde_json::from_str(raw).map_err(|e| unreadable(e.to_string()))?;
    raw_from_object(object).map_err(unreadable)?.into_scan(seq)
}

/// A record's fields as what they should be; says which one is not.
fn raw_from_object(mut object: Map<String, Value>) -> Result<RawScan, String> {
    let mut field = |name: &str| object.remove(name).filter(|value| !value.is_null());
    fn typed<T: serde::de::DeserializeOwned>(name: &str, value: Option<Value>) -> Result<Option<T>, String> {
        value.map(serde_json::from_value).transpose().map_err(|error| format!("{name}: {error}"))
    }
    Ok(RawScan {
        tag: typed("nfc_tag_id", field("tag"))?,
        status: typed("status_scan", field("status"))?,
        t: typed("t", field("t"))?,
        offset: typed("offset", field("offset"))?,
        clock: typed("clock", field("clock"))?,
        source: typed("source", field("source"))?.unwrap_or_default(),
        at: typed("at", field("at"))?,
        note: typed("note", field("note"))?,
        officer: typed("officer", field("officer"))?,
        quantity: typed("quantity", field("quantity"))?,
        client_ref: typed("client_ref", field("client_ref"))?,
    })
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

/// A refusal that stands for a whole segment: an unknown stream, or columns that are none.
pub fn whole_segment(
    segment: &Segment,
    seqs: &[i64],
    statuses: &[String],
    reason: &'static str,
    detail: impl Into<String>,
) -> Refusal {
    let raw = json!({ "n": segment.n, "step": segment.step, "cols": segment.cols, "statuses": statuses });
    Refusal {
        seq: segment.seq,
        through: seqs.last().copied().unwrap_or(segment.seq),
        reason,
        detail: detail.into(),
        raw: raw.to_string(),
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

/// The cloud's answer to a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub protocol: u16,
    /// The cloud's time, RFC 3339.
    pub server_time: String,
    /// The gateway's code, as the key says.
    pub gateway_id: String,
    /// One entry per run section of the batch.
    pub runs: Vec<RunAnswer>,
    /// Seconds to leave the cloud alone for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// What the operator should look at: `fork`, `conflict`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunAnswer {
    pub epoch: Epoch,
    #[serde(default)]
    pub streams: BTreeMap<String, StreamAnswer>,
}

/// The verdicts on one run's records of one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamAnswer {
    /// Every record of the batch up to this number has its verdict: accepted, unless `exceptions` says else.
    pub acked_through: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Exception>,
    /// What the cloud holds of this run and stream, quarantined records included.
    pub held: Held,
}

/// A verdict other than accepted, for `seq` or for `seq` through `through`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    pub seq: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<i64>,
    pub verdict: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Accepted,
    /// The cloud already had it, with the same content.
    Duplicate,
    /// The cloud keeps it, unread, for people to look at.
    Quarantined,
    /// A newer cloud says something that this build does not know: it settles nothing.
    #[serde(other)]
    Unknown,
}

/// A count and its ends: `last - first + 1 - count` records are missing between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub count: i64,
    pub first: Option<i64>,
    pub last: Option<i64>,
}

#[cfg(test)]
mod tests;
