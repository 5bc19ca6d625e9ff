//! Scans on the wire.

use super::columns::{Cursor, RawTime, Steps, TimeColumns, push_change, rises};
use super::refusal::{Budget, Refusal, kept_segment, numbers, refuse};
use super::tolerant::{self, Layout, Object, Raw, Read, charged, field};
use super::{MAX_UNREADABLE_BYTES, Segment};
use crate::scan::{Scan, ScanContent, Source};
use crate::tag::TagId;
use crate::time::ClockState;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// The columns of scans: `t`, `offset` and `clock` as in [`TimeColumns`]; `status` points into the batch's
/// statuses, `source` holds from there on, and `at` … `client_ref` are for one record each.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ScanColumns {
    t: Vec<i64>,
    tag: Vec<String>,
    status: Vec<u32>,
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
    let (mut cols, mut time, mut steps) = (ScanColumns::default(), TimeColumns::default(), Steps::new(first));
    for (i, scan) in (0u32..).zip(scans) {
        steps.push(scan.seq);
        time.push(i, scan.mono_ms, scan.wall_ms, scan.clock);
        let content = scan.content;
        cols.status.push(statuses.index_of(&content.status));
        cols.tag.push(content.tag.into_string());
        push_change(&mut cols.source, i, scan.source, Some(Source::Reader));
        cols.at.extend(content.at_ms.map(|v| (i, v)));
        cols.note.extend(content.note.map(|v| (i, v)));
        cols.officer.extend(content.officer.map(|v| (i, v)));
        cols.quantity.extend(content.quantity.map(|v| (i, v)));
        cols.client_ref.extend(content.client_ref.map(|v| (i, v)));
    }
    (cols.t, cols.offset, cols.clock) = time.into_columns();
    steps.segment(first, &cols).map(Some)
}

/// Reads a segment of scans: each record comes out as a scan or as a refusal, in order.
pub fn read_scans(segment: &Segment, statuses: &[String]) -> Read<Scan> {
    read_scans_within(segment, statuses, &mut Budget::new(MAX_UNREADABLE_BYTES))
}

/// Reads a segment of scans of a batch whose segments share one budget for what cannot be read.
pub fn read_scans_within(segment: &Segment, statuses: &[String], budget: &mut Budget) -> Read<Scan> {
    let seqs = numbers(segment)?;
    let typed = serde_json::from_str::<ScanColumns>(segment.cols.get()).ok();
    match typed.filter(|cols| is_orderly(cols, seqs.len())) {
        Some(cols) => read_columns(cols, &seqs, statuses, budget),
        None => tolerant::read::<RawScan, _>(segment, &seqs, statuses, budget, |_| {
            Ok(|object: &mut Object| {
                let status = object.remove("status").filter(|value| !value.is_null());
                let status = status.map_or(Value::Null, |value| {
                    let known = value.as_u64().and_then(|at| statuses.get(usize::try_from(at).ok()?));
                    known.map_or_else(|| json!({ "unknown": value }), |code| Value::from(code.as_str()))
                });
                object.insert("status".into(), status);
            })
        }),
    }
}

/// Whether every record has its values and every pair its record: then nothing can be lost or moved.
fn is_orderly(cols: &ScanColumns, n: usize) -> bool {
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

fn read_columns(cols: ScanColumns, seqs: &[i64], statuses: &[String], budget: &mut Budget) -> Read<Scan> {
    let times = TimeColumns::of(cols.t, cols.offset, cols.clock).into_times();
    let mut source = Source::Reader;
    let mut sources = Cursor::new(cols.source);
    let (mut ats, mut notes, mut officers) =
        (Cursor::new(cols.at), Cursor::new(cols.note), Cursor::new(cols.officer));
    let (mut quantities, mut refs) = (Cursor::new(cols.quantity), Cursor::new(cols.client_ref));
    let columns = times.zip(cols.tag).zip(cols.status);
    (0u32..)
        .zip(seqs)
        .zip(columns)
        .map(|((i, &seq), ((time, tag), status))| {
            source = sources.at(i).unwrap_or(source);
            let raw = RawScan {
                time,
                source,
                status: statuses.get(status as usize).cloned(),
                tag: Some(tag),
                at: ats.at(i),
                note: notes.at(i),
                officer: officers.at(i),
                quantity: quantities.at(i),
                client_ref: refs.at(i),
            };
            charged(raw.into_record(seq), budget)
        })
        .collect()
}

/// One scan outside its columns: what a refusal keeps and what can be read again.
#[derive(Debug, Clone, Serialize)]
struct RawScan {
    #[serde(flatten)]
    time: RawTime,
    source: Source,
    tag: Option<String>,
    status: Option<String>,
    at: Option<i64>,
    note: Option<String>,
    officer: Option<String>,
    quantity: Option<f64>,
    client_ref: Option<Uuid>,
}

impl Raw for RawScan {
    type Record = Scan;
    const LAYOUT: Layout = Layout {
        each: &["tag", "status"],
        from_there_on: &["offset", "clock", "source"],
        just_there: &["at", "note", "officer", "quantity", "client_ref"],
    };

    fn from_object(mut object: Object) -> Result<Self, String> {
        let object = &mut object;
        Ok(Self {
            tag: field(object, "tag", "nfc_tag_id")?,
            status: field(object, "status", "status_scan")?,
            time: RawTime::from_object(object)?,
            source: field(object, "source", "source")?.unwrap_or_default(),
            at: field(object, "at", "at")?,
            note: field(object, "note", "note")?,
            officer: field(object, "officer", "officer")?,
            quantity: field(object, "quantity", "quantity")?,
            client_ref: field(object, "client_ref", "client_ref")?,
        })
    }

    fn into_record(self, seq: i64) -> Result<Scan, Refusal> {
        let (mono_ms, wall_ms, clock) = self.time.told().map_err(|why| refuse(seq, &self, why))?;
        let Some(status) = self.status.clone() else {
            return Err(refuse(seq, &self, "status_scan: must point into the batch's statuses"));
        };
        let Some(tag) = self.tag.clone() else {
            return Err(refuse(seq, &self, "nfc_tag_id: is missing"));
        };
        let tag = TagId::try_from(tag).map_err(|error| refuse(seq, &self, error.to_string()))?;
        let content = ScanContent {
            tag,
            status,
            at_ms: self.at,
            note: self.note.clone(),
            officer: self.officer.clone(),
            quantity: self.quantity,
            client_ref: self.client_ref,
        };
        content.check().map_err(|error| refuse(seq, &self, error.to_string()))?;
        Ok(Scan { seq, mono_ms, wall_ms, clock, source: self.source, content })
    }
}

/// Writes a scan in the form that [`Refusal::raw`] keeps and [`read_raw_scan`] reads.
pub fn write_raw_scan(scan: &Scan) -> String {
    let content = &scan.content;
    let raw = RawScan {
        time: RawTime::of(scan.mono_ms, scan.wall_ms, scan.clock),
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
    tolerant::read_raw::<RawScan>(seq, raw)
}

/// Reads again what [`super::whole_segment`] kept of a segment of scans.
pub fn read_raw_segment(seq: i64, raw: &str) -> Result<Vec<Result<Scan, Refusal>>, String> {
    let (segment, statuses) = kept_segment(seq, raw)?;
    read_scans(&segment, &statuses).map_err(|error| error.to_string())
}
