//! Readings on the wire. Their columns hold everything they need, the table of series included, so that a
//! segment that was kept unread can be read by itself.

use super::columns::{Cursor, RawTime, Steps, TimeColumns, push_change, rises};
use super::refusal::{Budget, Refusal, kept_segment, numbers, refuse};
use super::tolerant::{self, Layout, Object, Raw, Read, charged, field, values};
use super::{MAX_UNREADABLE_BYTES, Segment};
use crate::reading::{Quality, Reading, ReadingContent, SeriesName, Unit};
use crate::time::ClockState;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The columns of readings: `t`, `offset` and `clock` as in [`TimeColumns`]; `s` points into `series`, whose
/// entries are a name and a unit; `v` are the values, `quality` holds from there on and `at` is for one
/// record each.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ReadingColumns {
    series: Vec<(String, String)>,
    t: Vec<i64>,
    s: Vec<u32>,
    v: Vec<f64>,
    offset: Vec<(u32, i64)>,
    clock: Vec<(u32, ClockState)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    quality: Vec<(u32, Quality)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    at: Vec<(u32, i64)>,
}

/// Writes readings of one run, in rising `seq`, as one segment. `None` when there are none.
pub fn write_readings(readings: Vec<Reading>) -> Result<Option<Segment>, serde_json::Error> {
    let Some(first) = readings.first().map(|reading| reading.seq) else {
        return Ok(None);
    };
    let mut cols = ReadingColumns::default();
    let (mut time, mut steps) = (TimeColumns::default(), Steps::new(first));
    let mut places = HashMap::<(SeriesName, Unit), u32>::new();
    for (i, reading) in (0u32..).zip(readings) {
        steps.push(reading.seq);
        time.push(i, reading.mono_ms, reading.wall_ms, reading.clock);
        let ReadingContent { series, unit, value, quality, at_ms } = reading.content;
        let next = u32::try_from(cols.series.len()).unwrap_or(u32::MAX);
        let place = *places.entry((series, unit)).or_insert_with_key(|(series, unit)| {
            cols.series.push((series.as_str().to_owned(), unit.as_str().to_owned()));
            next
        });
        cols.s.push(place);
        cols.v.push(value);
        push_change(&mut cols.quality, i, quality, Some(Quality::Good));
        cols.at.extend(at_ms.map(|v| (i, v)));
    }
    (cols.t, cols.offset, cols.clock) = time.into_columns();
    steps.segment(first, &cols).map(Some)
}

/// Reads a segment of readings: each record comes out as a reading or as a refusal, in order.
pub fn read_readings(segment: &Segment) -> Read<Reading> {
    read_readings_within(segment, &mut Budget::new(MAX_UNREADABLE_BYTES))
}

/// Reads a segment of readings of a batch whose segments share one budget for what cannot be read.
pub fn read_readings_within(segment: &Segment, budget: &mut Budget) -> Read<Reading> {
    let seqs = numbers(segment)?;
    let typed = serde_json::from_str::<ReadingColumns>(segment.cols.get()).ok();
    match typed.filter(|cols| is_orderly(cols, seqs.len())) {
        Some(cols) => read_columns(cols, &seqs, budget),
        None => tolerant::read::<RawReading, _>(segment, &seqs, &[], budget, |cols| {
            let table = values(cols, "series")?;
            Ok(move |object: &mut Object| {
                let place = object.remove("s").unwrap_or_default();
                let entry = place.as_u64().and_then(|at| table.get(usize::try_from(at).ok()?));
                let (series, unit) = match entry.and_then(Value::as_array).map(Vec::as_slice) {
                    Some([series, unit]) => (series.clone(), unit.clone()),
                    // Kept with all there is of it.
                    _ if place.is_null() => (Value::Null, Value::Null),
                    _ => (json!({ "unknown": place, "entry": entry }), Value::Null),
                };
                object.insert("series".into(), series);
                object.insert("unit".into(), unit);
            })
        }),
    }
}

/// Whether every record has its values and every pair its record: then nothing can be lost or moved.
fn is_orderly(cols: &ReadingColumns, n: usize) -> bool {
    cols.t.len() == n
        && cols.s.len() == n
        && cols.v.len() == n
        && rises(&cols.offset, n)
        && rises(&cols.clock, n)
        && rises(&cols.quality, n)
        && rises(&cols.at, n)
}

fn read_columns(cols: ReadingColumns, seqs: &[i64], budget: &mut Budget) -> Read<Reading> {
    let times = TimeColumns::of(cols.t, cols.offset, cols.clock).into_times();
    let mut quality = Quality::Good;
    let (mut qualities, mut ats) = (Cursor::new(cols.quality), Cursor::new(cols.at));
    let columns = times.zip(cols.s).zip(cols.v);
    (0u32..)
        .zip(seqs)
        .zip(columns)
        .map(|((i, &seq), ((time, s), v))| {
            quality = qualities.at(i).unwrap_or(quality);
            let (series, unit) = cols.series.get(s as usize).cloned().unzip();
            let raw = RawReading { time, series, unit, v: Some(v), quality, at: ats.at(i) };
            charged(raw.into_record(seq), budget)
        })
        .collect()
}

/// One reading outside its columns: what a refusal keeps and what can be read again.
#[derive(Debug, Clone, Serialize)]
struct RawReading {
    #[serde(flatten)]
    time: RawTime,
    series: Option<String>,
    unit: Option<String>,
    v: Option<f64>,
    quality: Quality,
    at: Option<i64>,
}

impl Raw for RawReading {
    type Record = Reading;
    const LAYOUT: Layout =
        Layout { each: &["s", "v"], from_there_on: &["offset", "clock", "quality"], just_there: &["at"] };

    fn from_object(mut object: Object) -> Result<Self, String> {
        let object = &mut object;
        Ok(Self {
            series: field(object, "series", "series")?,
            unit: field(object, "unit", "unit")?,
            v: field(object, "v", "value")?,
            time: RawTime::from_object(object)?,
            quality: field(object, "quality", "quality")?.unwrap_or_default(),
            at: field(object, "at", "at")?,
        })
    }

    fn into_record(self, seq: i64) -> Result<Reading, Refusal> {
        let (mono_ms, wall_ms, clock) = self.time.told().map_err(|why| refuse(seq, &self, why))?;
        let (Some(series), Some(unit)) = (&self.series, &self.unit) else {
            return Err(refuse(seq, &self, "series: must point into the segment's series"));
        };
        let Some(value) = self.v else {
            return Err(refuse(seq, &self, "value: is missing"));
        };
        let content = ReadingContent {
            series: SeriesName::parse(series).map_err(|error| refuse(seq, &self, error.to_string()))?,
            unit: Unit::parse(unit).map_err(|error| refuse(seq, &self, error.to_string()))?,
            value,
            quality: self.quality,
            at_ms: self.at,
        };
        content.check().map_err(|error| refuse(seq, &self, error.to_string()))?;
        Ok(Reading { seq, mono_ms, wall_ms, clock, content })
    }
}

/// Writes a reading in the form that [`Refusal::raw`] keeps and [`read_raw_reading`] reads.
pub fn write_raw_reading(reading: &Reading) -> String {
    let content = &reading.content;
    let raw = RawReading {
        time: RawTime::of(reading.mono_ms, reading.wall_ms, reading.clock),
        series: Some(content.series.as_str().to_owned()),
        unit: Some(content.unit.as_str().to_owned()),
        v: Some(content.value),
        quality: content.quality,
        at: content.at_ms,
    };
    serde_json::to_string(&raw).unwrap_or_default()
}

/// Reads a reading again from what [`Refusal::raw`] kept of it.
pub fn read_raw_reading(seq: i64, raw: &str) -> Result<Reading, Refusal> {
    tolerant::read_raw::<RawReading>(seq, raw)
}

/// Reads again what [`super::whole_segment`] kept of a segment of readings.
pub fn read_raw_readings(seq: i64, raw: &str) -> Result<Vec<Result<Reading, Refusal>>, String> {
    let (segment, _) = kept_segment(seq, raw)?;
    read_readings(&segment).map_err(|error| error.to_string())
}
