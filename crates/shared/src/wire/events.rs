//! Events on the wire.

use super::columns::{RawTime, Steps, TimeColumns, rises};
use super::refusal::{Budget, Refusal, kept_segment, numbers, refuse};
use super::tolerant::{self, Layout, Object, Raw, Read, charged, field};
use super::{MAX_UNREADABLE_BYTES, Segment};
use crate::event::Event;
use crate::time::ClockState;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// The columns of events: `t`, `offset` and `clock` as in [`TimeColumns`]; the bodies are objects.
#[derive(Debug, Default, Serialize, Deserialize)]
struct EventColumns {
    t: Vec<i64>,
    kind: Vec<String>,
    body: Vec<Box<RawValue>>,
    offset: Vec<(u32, i64)>,
    clock: Vec<(u32, ClockState)>,
}

/// Writes events of one run, in rising `seq`, as one segment. `None` when there are none.
pub fn write_events(events: Vec<Event>) -> Result<Option<Segment>, serde_json::Error> {
    let Some(first) = events.first().map(|event| event.seq) else {
        return Ok(None);
    };
    let mut cols = EventColumns::default();
    let (mut time, mut steps) = (TimeColumns::default(), Steps::new(first));
    for (i, event) in (0u32..).zip(events) {
        steps.push(event.seq);
        time.push(i, event.mono_ms, event.wall_ms, event.clock);
        cols.kind.push(event.kind);
        cols.body.push(RawValue::from_string(event.body)?);
    }
    (cols.t, cols.offset, cols.clock) = time.into_columns();
    steps.segment(first, &cols).map(Some)
}

/// Reads a segment of events: each record comes out as an event or as a refusal, in order.
pub fn read_events(segment: &Segment) -> Read<Event> {
    read_events_within(segment, &mut Budget::new(MAX_UNREADABLE_BYTES))
}

/// Reads a segment of events of a batch whose segments share one budget for what cannot be read.
pub fn read_events_within(segment: &Segment, budget: &mut Budget) -> Read<Event> {
    let seqs = numbers(segment)?;
    let typed = serde_json::from_str::<EventColumns>(segment.cols.get()).ok();
    match typed.filter(|cols| is_orderly(cols, seqs.len())) {
        Some(cols) => {
            let times = TimeColumns::of(cols.t, cols.offset, cols.clock).into_times();
            let columns = times.zip(cols.kind).zip(cols.body);
            seqs.iter()
                .zip(columns)
                .map(|(&seq, ((time, kind), body))| {
                    charged(RawEvent { time, kind: Some(kind), body: Some(body) }.into_record(seq), budget)
                })
                .collect()
        }
        None => tolerant::read::<RawEvent, _>(segment, &seqs, &[], budget, |_| Ok(|_: &mut Object| {})),
    }
}

/// Whether every record has its values and every pair its record: then nothing can be lost or moved.
fn is_orderly(cols: &EventColumns, n: usize) -> bool {
    cols.t.len() == n
        && cols.kind.len() == n
        && cols.body.len() == n
        && rises(&cols.offset, n)
        && rises(&cols.clock, n)
}

/// One event outside its columns: what a refusal keeps and what can be read again.
#[derive(Debug, Clone, Serialize)]
struct RawEvent {
    #[serde(flatten)]
    time: RawTime,
    kind: Option<String>,
    body: Option<Box<RawValue>>,
}

impl Raw for RawEvent {
    type Record = Event;
    const LAYOUT: Layout =
        Layout { each: &["kind", "body"], from_there_on: &["offset", "clock"], just_there: &[] };

    fn from_object(mut object: Object) -> Result<Self, String> {
        let object = &mut object;
        let body: Option<Value> = field(object, "body", "body")?;
        let body = body.map(|body| serde_json::value::to_raw_value(&body)).transpose();
        Ok(Self {
            time: RawTime::from_object(object)?,
            kind: field(object, "kind", "kind")?,
            body: body.map_err(|error| format!("body: {error}"))?,
        })
    }

    fn into_record(self, seq: i64) -> Result<Event, Refusal> {
        let (mono_ms, wall_ms, clock) = self.time.told().map_err(|why| refuse(seq, &self, why))?;
        let (Some(kind), Some(body)) = (&self.kind, &self.body) else {
            return Err(refuse(seq, &self, "kind and body: must be there"));
        };
        let (kind, body) = (kind.clone(), body.get().to_owned());
        let event = Event { seq, mono_ms, wall_ms, clock, kind, body };
        event.check().map_err(|error| refuse(seq, &self, error.to_string()))?;
        Ok(event)
    }
}

/// Writes an event in the form that [`Refusal::raw`] keeps and [`read_raw_event`] reads.
pub fn write_raw_event(event: &Event) -> String {
    let raw = RawEvent {
        time: RawTime::of(event.mono_ms, event.wall_ms, event.clock),
        kind: Some(event.kind.clone()),
        body: RawValue::from_string(event.body.clone()).ok(),
    };
    serde_json::to_string(&raw).unwrap_or_default()
}

/// Reads an event again from what [`Refusal::raw`] kept of it.
pub fn read_raw_event(seq: i64, raw: &str) -> Result<Event, Refusal> {
    tolerant::read_raw::<RawEvent>(seq, raw)
}

/// Reads again what [`super::whole_segment`] kept of a segment of events.
pub fn read_raw_events(seq: i64, raw: &str) -> Result<Vec<Result<Event, Refusal>>, String> {
    let (segment, _) = kept_segment(seq, raw)?;
    read_events(&segment).map_err(|error| error.to_string())
}
