//! The parsers that face the network, with whatever proptest draws: what must hold stands in `invariants`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken invariant is a failed test")]

mod invariants;

use lumbung_shared::wire::{self, Batch};
use proptest::prelude::*;

/// A batch as gateways send them.
const BATCH: &str = include_str!("../../../fuzz/seeds/batch/three-streams.json");

/// JSON that begins as what is expected and has parts of it replaced by what nobody expects.
fn spoiled() -> impl Strategy<Value = Vec<u8>> {
    let other = prop_oneof![
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("-0.0".to_owned()),
        Just("1e308".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "\\PC{0,20}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let place = any::<prop::sample::Index>();
    prop::collection::vec((place, other), 0..4).prop_map(|changes| {
        let mut text = BATCH.trim_end().to_owned();
        for (place, other) in changes {
            // A value stands behind a colon, a comma or a bracket, and ends before the next of them.
            let starts: Vec<usize> = text
                .match_indices([':', ',', '['])
                .map(|(at, _)| at + 1)
                .filter(|at| text.is_char_boundary(*at))
                .collect();
            let at = starts[place.index(starts.len())];
            let end = text[at..].find([',', ']', '}']).map_or(text.len(), |length| at + length);
            text.replace_range(at..end, &other);
        }
        text.into_bytes()
    })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..400), spoiled()]
}

#[test]
fn the_batch_that_is_spoiled_is_a_good_one() {
    invariants::batch(BATCH.as_bytes());
    let batch: Batch = serde_json::from_str(BATCH).unwrap();
    let streams = &batch.runs[0].streams;
    assert!(wire::read_scans(&streams["scan"][0], &batch.statuses).unwrap().iter().all(Result::is_ok));
    assert!(wire::read_readings(&streams["reading"][0]).unwrap().iter().all(Result::is_ok));
    assert!(wire::read_events(&streams["event"][0]).unwrap().iter().all(Result::is_ok));
}

#[test]
fn a_value_is_read_to_its_last_bit() {
    let raw = r#"{"t":1,"offset":0,"clock":"held","series":"kulkas/suhu","unit":"Cel","v":9.045734096580991e+17,"quality":"good"}"#;
    let reading = wire::read_raw_reading(1, raw).unwrap();
    assert_eq!(reading.content.value.to_bits(), 9.045734096580991e17_f64.to_bits());
}

proptest! {
    #[test]
    fn no_record_of_a_batch_is_lost_and_what_is_taken_reads_the_same(bytes in bytes()) {
        invariants::batch(&bytes);
    }

    #[test]
    fn what_quarantine_kept_can_always_be_looked_at(bytes in bytes()) {
        invariants::kept(&bytes);
    }

    #[test]
    fn bundles_and_receipts_are_refused_or_opened(bytes in bytes()) {
        invariants::bundle(&bytes);
        invariants::receipt(&bytes);
    }

    #[test]
    fn texts_mean_the_same_when_they_are_written_again(
        text in "\\PC{0,40}|[0-9a-fA-F:. -]{0,24}|[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,9})?(Z|[+-][0-2][0-9]:[0-5][0-9])",
    ) {
        invariants::texts(&text);
    }
}
