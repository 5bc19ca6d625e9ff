//! What must hold of every batch, whatever is in it: drawn here, and by libFuzzer (`fuzz/`).

use super::parse::{Form, Outcome, Refused, parse};
use super::streams::Records;
use crate::identity::Gateway;
use chrono::DateTime;
use lumbung_shared::wire::{EVENT_STREAM, Epoch, READING_STREAM, SCAN_STREAM};
use std::collections::HashSet;

/// Whatever a gateway sends: each record that it numbers is taken or is part of a refusal, and is answered for; what is
/// taken can be written down and read again.
pub fn must_hold(body: &[u8]) {
    let gateway = Gateway { id: 1, code: "GW-1".to_owned() };
    let Ok(mut incoming) = parse(&gateway, body.to_vec(), DateTime::UNIX_EPOCH) else { return };
    let taken: HashSet<(Epoch, &str, i64)> = {
        let Records { scans, readings, events } = &incoming.records;
        let scans = scans.iter().map(|record| (record.epoch, SCAN_STREAM, record.of.seq));
        let readings = readings.iter().map(|record| (record.epoch, READING_STREAM, record.of.seq));
        scans
            .chain(readings)
            .chain(events.iter().map(|record| (record.epoch, EVENT_STREAM, record.of.seq)))
            .collect()
    };
    let of = |r: &Refused| (r.epoch, r.stream.clone());
    let (alone, wide): (Vec<_>, Vec<_>) =
        incoming.refusals.iter().partition(|r| r.refusal.seq == r.refusal.through);
    let alone: HashSet<_> = alone.into_iter().map(|r| (of(r), r.refusal.seq)).collect();
    let refused = |epoch: Epoch, stream: &str, seq: i64| {
        alone.contains(&((epoch, stream.to_owned()), seq))
            || wide.iter().any(|r| {
                r.epoch == epoch && r.stream == stream && (r.refusal.seq..=r.refusal.through).contains(&seq)
            })
    };
    let mut numbered = HashSet::new();
    for run in &incoming.runs {
        for (stream, ranges) in &run.ranges {
            for seq in ranges.iter().flat_map(|(first, last)| *first..=*last) {
                let known = taken.contains(&(run.epoch, stream.as_str(), seq));
                assert!(known || refused(run.epoch, stream, seq), "{stream} {seq} is lost");
                numbered.insert((run.epoch, stream.as_str(), seq));
            }
        }
    }
    let answer = incoming.form().answer(&gateway.code, DateTime::UNIX_EPOCH, Outcome::default());
    match incoming.form() {
        Form::Object(sent) => {
            assert!(taken.is_subset(&numbered), "a record that nobody numbered");
            assert_eq!(answer["runs"].as_array().map(Vec::len), Some(sent.len()));
        }
        Form::Array(told) => {
            assert_eq!(told.len(), incoming.count());
            let counts = ["accepted", "duplicate", "quarantined"].map(|verdict| answer[verdict].as_u64());
            assert_eq!(counts.into_iter().flatten().sum::<u64>(), told.len() as u64, "{answer}");
        }
    }
    for Refused { epoch, stream, refusal } in &incoming.refusals {
        drop(Records::read_again(stream, *epoch, (refusal.seq, refusal.through), &refusal.raw));
    }
    let taken: Vec<_> = taken.into_iter().take(50).collect();
    for (epoch, stream, seq) in taken {
        let raw = incoming.records.withdraw(stream, epoch, seq).unwrap_or_default();
        let again = Records::read_again(stream, epoch, (seq, seq), &raw);
        assert_eq!(again.map(|records| records.len()), Ok(1), "{raw}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const BATCH: &str = include_str!("../../../../fuzz/seeds/batch/three-streams.json");

    fn taken(body: &str) -> usize {
        let gateway = Gateway { id: 1, code: "GW-1".to_owned() };
        let incoming = parse(&gateway, body.into(), DateTime::UNIX_EPOCH).unwrap();
        assert!(incoming.refusals.is_empty(), "{body}");
        incoming.count()
    }

    #[test]
    fn a_whole_number_of_a_batch_may_be_written_with_a_point() {
        let with_points = BATCH.replace("[0,1,3]", "[0,1.0,3e0]").replace("\"n\":2", "\"n\":2.0");
        assert_ne!(with_points, BATCH);
        assert_eq!((taken(BATCH), taken(&with_points)), (6, 6));
    }

    /// A segment whose numbers may be right.
    fn segment() -> impl Strategy<Value = Value> {
        let seq = prop_oneof![1..9_i64, any::<i64>()];
        let step = prop::option::of(prop::collection::vec(prop_oneof![0..3_i64, any::<i64>()], 0..5));
        let cols = prop_oneof![
            Just(
                json!({"t": [1, 2], "tag": ["A", "B"], "status": [0, 0], "offset": [[0, 1]], "clock": [[0, "held"]]})
            ),
            Just(
                json!({"t": [1], "kind": ["clock_set"], "body": [{}], "offset": [[0, 1]], "clock": [[0, "held"]]})
            ),
            Just(json!({"t": [1, "x"], "tag": [7, "B"], "offset": [[1, 1]]})),
            Just(json!({"t": 5})),
            Just(json!([])),
        ];
        (seq, 0..5_u64, step, cols)
            .prop_map(|(seq, n, step, cols)| json!({"seq": seq, "n": n, "step": step, "cols": cols}))
    }

    proptest! {
        #[test]
        fn every_record_of_a_batch_is_taken_or_refused_and_answered_for(
            runs in prop::collection::vec(
                (0..4_u8, prop::collection::btree_map("scan|reading|event|baru", prop::collection::vec(segment(), 0..3), 0..4)),
                0..3,
            ),
        ) {
            let runs: Vec<_> = runs
                .into_iter()
                .map(|(epoch, streams)| json!({"epoch": format!("{epoch:016x}"), "streams": streams}))
                .collect();
            let batch = json!({"protocol": 1, "run": "00000000000000aa", "sent_at": "", "mono_ms": 1, "clock": "held",
                "statuses": ["makanan_keluar"], "runs": runs});
            must_hold(batch.to_string().as_bytes());
        }

        #[test]
        fn every_place_of_an_old_clients_array_is_answered_for(
            records in prop::collection::vec(
                ("[A-C]{0,2}", "20[0-9]{2}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](Z|\\+0[0-9]:00)?|\\PC{0,9}", "a{0,2}", "GW-[12]"),
                0..5,
            ),
            noise in prop::option::of("[\\[{]?\\PC{0,60}"),
        ) {
            let record = |(tag, at, status, gateway)| json!({"nfc_tag_id": tag, "timestamp": at, "status_scan": status, "gateway_id": gateway});
            let body = noise.unwrap_or_else(|| Value::from_iter(records.into_iter().map(record)).to_string());
            must_hold(body.as_bytes());
        }
    }
}
