//! From bytes to records with names: both forms of the body become one [`Incoming`].

use super::legacy;
use super::streams::{Record, Records};
use crate::error::{Error, Result};
use crate::identity::Gateway;
use crate::json;
use chrono::{DateTime, Utc};
use lumbung_shared::FieldError;
use lumbung_shared::language::Words;
use lumbung_shared::scan::Scan;
use lumbung_shared::time::{ClockState, parse_rfc3339, rfc3339};
use lumbung_shared::wire::{
    Answer, Batch, Budget, Epoch, Exception, Health, Held, MAX_BATCH_RECORDS, MAX_BATCH_RUNS,
    MAX_UNREADABLE_BYTES, PROTOCOL, Refusal, RunAnswer, RunStart, SCAN_STREAM, SegmentError, StreamAnswer,
    Verdict, numbers, whole_segment,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A batch that has been read, on its way to the store.
pub(super) struct Incoming {
    pub(super) gateway_id: i32,
    pub(super) received_at: DateTime<Utc>,
    pub(super) sender: Option<Sender>,
    pub(super) runs: Vec<Run>,
    pub(super) records: Records,
    pub(super) refusals: Vec<Refused>,
    form: Form,
}

/// The run that sent the batch and its clock.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) epoch: Epoch,
    pub(super) mono_ms: i64,
    pub(super) clock: ClockState,
    pub(super) sent_ms: Option<i64>,
    pub(super) health: Option<Health>,
}

pub(super) struct Run {
    pub(super) epoch: Epoch,
    pub(super) start: Option<RunStart>,
    /// The numbers it sends, as closed ranges, by stream.
    pub(super) ranges: BTreeMap<String, Vec<(i64, i64)>>,
}

pub(super) struct Refused {
    pub(super) epoch: Epoch,
    pub(super) stream: String,
    pub(super) refusal: Refusal,
}

/// First and last number, and the reason.
pub(super) type RefusedRange = (i64, i64, String);

/// What the store decided.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) duplicates: HashMap<(Epoch, String), Vec<i64>>,
    pub(super) quarantined: HashMap<(Epoch, String), Vec<RefusedRange>>,
    pub(super) held: HashMap<(Epoch, String), Held>,
    pub(super) alarms: Vec<String>,
}

/// How the answer is to be written.
#[derive(Clone)]
pub(super) enum Form {
    /// The last number sent of each run and stream.
    Object(Vec<(Epoch, BTreeMap<String, i64>)>),
    /// The number of each record in the order of the array, and why it was refused if it was.
    Array(Vec<(i64, Option<&'static str>)>),
}

impl Incoming {
    pub(super) fn count(&self) -> usize {
        self.records.len() + self.refusals.len()
    }

    /// Records that were refused once, to be stored after all; nothing is said of the gateway itself.
    pub(super) fn again(gateway_id: i32, epoch: Epoch, records: Records, received_at: DateTime<Utc>) -> Self {
        Self {
            gateway_id,
            received_at,
            sender: None,
            runs: vec![Run { epoch, start: None, ranges: BTreeMap::new() }],
            records,
            refusals: Vec::new(),
            form: Form::Array(Vec::new()),
        }
    }

    /// For a batch that people carried: when it arrived says nothing of when it was sent, and its sender may
    /// have gone on meanwhile. So nobody speaks in it but its records.
    pub(super) fn carried(self) -> Self {
        Self { sender: None, ..self }
    }

    pub(super) fn is_carried(&self) -> bool {
        self.sender.is_none() && matches!(self.form, Form::Object(_))
    }

    pub(super) fn form(&self) -> Form {
        self.form.clone()
    }
}

/// Reads a decoded body.
///
/// # Errors
/// [`Error::Unreadable`] when the envelope is unusable, [`Error::TooLarge`] for too many records,
/// `FOREIGN_GATEWAY_ID` when the array form speaks for another gateway.
pub(super) fn parse(gateway: &Gateway, body: Vec<u8>, received_at: DateTime<Utc>) -> Result<Incoming> {
    let text = String::from_utf8(body).map_err(|_| Error::unreadable("harus UTF-8", "must be UTF-8"))?;
    match text.trim_start().as_bytes().first() {
        Some(b'[') => array(gateway, &text, received_at),
        _ => object(gateway, &text, received_at),
    }
}

fn object(gateway: &Gateway, text: &str, received_at: DateTime<Utc>) -> Result<Incoming> {
    let batch: Batch = json::read(text).map_err(|error| Error::unread_json(&error))?;
    if batch.protocol == 0 || batch.protocol > PROTOCOL {
        return Err(Error::field(
            "protocol",
            format!("cloud ini melayani protokol 1 sampai {PROTOCOL}"),
            format!("this cloud serves protocol 1 to {PROTOCOL}"),
        ));
    }
    let records = batch.runs.iter().flat_map(|run| run.streams.values().flatten());
    let count = records.fold(0u64, |sum, segment| sum.saturating_add(segment.n));
    if count > MAX_BATCH_RECORDS || batch.runs.len() > MAX_BATCH_RUNS {
        return Err(Error::TooLarge(Words::new(
            format!("paling banyak {MAX_BATCH_RECORDS} catatan dari {MAX_BATCH_RUNS} run sekaligus"),
            format!("at most {MAX_BATCH_RECORDS} records of {MAX_BATCH_RUNS} runs at once"),
        )));
    }
    let mut incoming = Incoming {
        gateway_id: gateway.id,
        received_at,
        sender: Some(Sender {
            epoch: batch.run,
            mono_ms: batch.mono_ms,
            clock: batch.clock,
            sent_ms: parse_rfc3339(&batch.sent_at),
            health: batch.health,
        }),
        runs: Vec::with_capacity(batch.runs.len()),
        records: Records::default(),
        refusals: Vec::new(),
        form: Form::Object(Vec::new()),
    };
    let mut sent = Vec::with_capacity(batch.runs.len());
    let mut epochs = HashSet::new();
    let mut budget = Budget::new(MAX_UNREADABLE_BYTES);
    let unusable = |error: SegmentError| match error {
        SegmentError::Numbering(_) => {
            Error::unreadable("seq, n dan step sebuah segmen tidak menomori catatannya", error.to_string())
        }
        SegmentError::TooMuch => Error::TooLarge(Words::new(
            "catatan yang tidak dapat dibaca terlalu besar; kirim lebih sedikit sekaligus",
            error.to_string(),
        )),
    };
    for section in batch.runs {
        let epoch = section.epoch;
        if epoch == Epoch::LEGACY || batch.run == Epoch::LEGACY {
            return Err(Error::field(
                "epoch",
                "0 disediakan bagi klien yang tidak mengenal run",
                "0 is kept for clients that know no runs",
            ));
        }
        if !epochs.insert(epoch) {
            return Err(Error::field(
                "epoch",
                "sebuah run hanya punya satu bagian dalam satu kiriman",
                "a run has one section in a batch",
            ));
        }
        check_start(section.start.as_ref())?;
        let mut ranges = BTreeMap::new();
        for (stream, segments) in section.streams {
            lumbung_shared::check_text("streams", &stream, 32)?;
            let covered: &mut Vec<(i64, i64)> = ranges.entry(stream.clone()).or_default();
            for segment in segments.into_iter().filter(|segment| segment.n > 0) {
                let seqs = numbers(&segment).map_err(unusable)?;
                extend_ranges(covered, &seqs);
                let records = &mut incoming.records;
                let refusals = match records.read(&stream, epoch, &segment, &batch.statuses, &mut budget) {
                    Some(read) => read.map_err(unusable)?,
                    None => {
                        let detail = "this cloud does not know the stream yet; replay after an update";
                        let refusal =
                            whole_segment(&segment, &seqs, &batch.statuses, "unknown_stream", detail);
                        budget.charge(&refusal).map_err(unusable)?;
                        vec![refusal]
                    }
                };
                let refused = |refusal| Refused { epoch, stream: stream.clone(), refusal };
                incoming.refusals.extend(refusals.into_iter().map(refused));
            }
        }
        let last = |covered: &Vec<(i64, i64)>| covered.iter().map(|range| range.1).max().unwrap_or(0);
        sent.push((epoch, ranges.iter().map(|(stream, covered)| (stream.clone(), last(covered))).collect()));
        incoming.runs.push(Run { epoch, start: section.start, ranges });
    }
    incoming.form = Form::Object(sent);
    Ok(incoming)
}

fn check_start(start: Option<&RunStart>) -> std::result::Result<(), FieldError> {
    let Some(start) = start else { return Ok(()) };
    lumbung_shared::check_text("boot", &start.boot, 64)?;
    lumbung_shared::check_text("version", &start.version, 64)?;
    if let Some(site) = &start.site {
        lumbung_shared::check_text("site", site, 64)?;
    }
    parse_rfc3339(&start.started_at).map(|_| ()).ok_or_else(|| {
        FieldError::new(
            "started_at",
            "harus RFC 3339, misalnya 2026-11-21T02:30:00.000Z",
            "must be RFC 3339, such as 2026-11-21T02:30:00.000Z",
        )
    })
}

pub(super) fn extend_ranges(ranges: &mut Vec<(i64, i64)>, seqs: &[i64]) {
    for &seq in seqs {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(seq) => *last = seq,
            _ => ranges.push((seq, seq)),
        }
    }
}

fn array(gateway: &Gateway, text: &str, received_at: DateTime<Utc>) -> Result<Incoming> {
    // Raw at first: a million tiny values would take fifty times their bytes as values.
    let raws: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| Error::unread_json(&error))?;
    if raws.len() as u64 > MAX_BATCH_RECORDS {
        return Err(Error::TooLarge(Words::new(
            format!("paling banyak {MAX_BATCH_RECORDS} catatan sekaligus"),
            format!("at most {MAX_BATCH_RECORDS} records at once"),
        )));
    }
    let read: Vec<_> = raws.iter().map(|raw| legacy::read(raw.get(), &gateway.code)).collect();
    let foreign = |r: &std::result::Result<Scan, Refusal>| matches!(r, Err(e) if e.reason == legacy::FOREIGN);
    if !read.is_empty() && read.iter().all(foreign) {
        return Err(Error::Forbidden("FOREIGN_GATEWAY_ID"));
    }
    let told = |r: &std::result::Result<Scan, Refusal>| match r {
        Ok(scan) => (scan.seq, None),
        Err(refusal) => (refusal.seq, Some(refusal.reason)),
    };
    let mut incoming = Incoming {
        gateway_id: gateway.id,
        received_at,
        sender: None,
        runs: vec![Run { epoch: Epoch::LEGACY, start: None, ranges: BTreeMap::new() }],
        records: Records::default(),
        refusals: Vec::new(),
        form: Form::Array(read.iter().map(told).collect()),
    };
    for record in read {
        match record {
            Ok(of) => incoming.records.scans.push(Record { epoch: Epoch::LEGACY, of }),
            Err(refusal) => {
                incoming.refusals.push(Refused {
                    epoch: Epoch::LEGACY,
                    stream: SCAN_STREAM.to_owned(),
                    refusal,
                });
            }
        }
    }
    Ok(incoming)
}

impl Form {
    /// The answer's body.
    pub(super) fn answer(self, gateway: &str, received_at: DateTime<Utc>, outcome: Outcome) -> Value {
        match self {
            Self::Object(sent) => object_answer(sent, gateway, received_at, outcome),
            Self::Array(told) => array_answer(&told, &outcome),
        }
    }
}

fn object_answer(
    sent: Vec<(Epoch, BTreeMap<String, i64>)>,
    gateway: &str,
    received_at: DateTime<Utc>,
    mut outcome: Outcome,
) -> Value {
    let runs = sent
        .into_iter()
        .map(|(epoch, streams)| RunAnswer {
            epoch,
            streams: streams
                .into_iter()
                .map(|(stream, acked_through)| {
                    let key = (epoch, stream);
                    let mut exceptions =
                        merge_duplicates(outcome.duplicates.remove(&key).unwrap_or_default());
                    let refused = outcome.quarantined.remove(&key).unwrap_or_default();
                    exceptions.extend(refused.into_iter().map(|(seq, through, reason)| Exception {
                        seq,
                        through: (through != seq).then_some(through),
                        verdict: Verdict::Quarantined,
                        reason: Some(reason),
                    }));
                    exceptions.sort_by_key(|exception| exception.seq);
                    let held = outcome.held.remove(&key).unwrap_or_default();
                    (key.1, StreamAnswer { acked_through, exceptions, held })
                })
                .collect(),
        })
        .collect();
    let answer = Answer {
        protocol: PROTOCOL,
        server_time: rfc3339(received_at.timestamp_millis()),
        gateway_id: gateway.to_owned(),
        runs,
        retry_after: None,
        alarms: outcome.alarms,
    };
    json!(answer)
}

fn merge_duplicates(mut seqs: Vec<i64>) -> Vec<Exception> {
    seqs.sort_unstable();
    seqs.dedup();
    let mut ranges = Vec::new();
    extend_ranges(&mut ranges, &seqs);
    let exception = |(first, last): (i64, i64)| Exception {
        seq: first,
        through: (last != first).then_some(last),
        verdict: Verdict::Duplicate,
        reason: None,
    };
    ranges.into_iter().map(exception).collect()
}

fn array_answer(told: &[(i64, Option<&'static str>)], outcome: &Outcome) -> Value {
    let key = (Epoch::LEGACY, SCAN_STREAM.to_owned());
    // What could not be read says so itself; the rest of the quarantine the store refused.
    let conflicts: HashMap<i64, &str> = match outcome.quarantined.get(&key) {
        Some(refused) => refused.iter().map(|(seq, _, reason)| (*seq, reason.as_str())).collect(),
        None => HashMap::new(),
    };
    // A number that came twice was new at most once: the first time.
    let mut fresh: HashMap<i64, i64> = HashMap::new();
    let readable = told.iter().filter(|(_, refused)| refused.is_none());
    readable.for_each(|(seq, _)| *fresh.entry(*seq).or_default() += 1);
    let duplicates = outcome.duplicates.get(&key).map_or(&[][..], Vec::as_slice);
    duplicates.iter().for_each(|seq| *fresh.entry(*seq).or_default() -= 1);
    let read_by_seq: HashSet<i64> =
        told.iter().filter(|(_, refused)| refused.is_some()).map(|(seq, _)| *seq).collect();
    let mut counts = [0usize; 3];
    let records: Vec<Value> = told
        .iter()
        .enumerate()
        .map(|(index, (seq, refused))| {
            let conflict = conflicts.get(seq).copied().filter(|_| !read_by_seq.contains(seq));
            if let Some(reason) = refused.or(conflict) {
                counts[2] += 1;
                json!({ "index": index, "verdict": "quarantined", "reason": reason })
            } else if fresh.insert(*seq, 0).is_some_and(|left| left > 0) {
                counts[0] += 1;
                json!({ "index": index, "verdict": "accepted" })
            } else {
                counts[1] += 1;
                json!({ "index": index, "verdict": "duplicate" })
            }
        })
        .collect();
    json!({
        "status": "success",
        "message": format!("Berhasil menerima {} data", told.len()),
        "accepted": counts[0],
        "duplicate": counts[1],
        "quarantined": counts[2],
        "records": records,
    })
}
