//! From the cloud's answer to what is settled. Pure.

use crate::outbox::{SeqRange, Settlement, Stream};
#[cfg(any(test, fuzzing))]
use lumbung_shared::wire::Exception;
use lumbung_shared::wire::{Answer, Epoch, Verdict};

/// What a batch held of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SentRun {
    pub(super) epoch: Epoch,
    /// By stream, in rising order.
    pub(super) seqs: Vec<(Stream, i64)>,
}

/// Settles what was sent by what was answered: a record needs a verdict that this build knows, and a
/// verdict on anything that was not sent is none.
pub(super) fn settlement(sent: &[SentRun], answer: &Answer, at: &str) -> Settlement {
    let mut settlement = Settlement { at: at.to_owned(), ..Settlement::default() };
    for run in sent {
        let Some(answered) = answer.runs.iter().find(|answered| answered.epoch == run.epoch) else {
            continue;
        };
        settlement.runs.push(run.epoch);
        for &(stream, seq) in &run.seqs {
            let Some(told) = answered.streams.get(stream.name()) else {
                continue;
            };
            let exception =
                told.exceptions.iter().find(|e| (e.seq..=e.through.unwrap_or(e.seq)).contains(&seq));
            let verdict = match exception {
                Some(exception) => exception.verdict,
                None if seq <= told.acked_through => Verdict::Accepted,
                None => continue,
            };
            match verdict {
                Verdict::Accepted | Verdict::Duplicate => {}
                Verdict::Quarantined => {
                    let reason = exception.and_then(|e| e.reason.clone()).unwrap_or_default();
                    settlement.quarantined.push((stream, seq, reason));
                }
                Verdict::Unknown => continue,
            }
            push(&mut settlement.ranges, stream, seq);
        }
    }
    settlement
}

/// Adds a number, to the last range where it continues it.
fn push(ranges: &mut Vec<SeqRange>, stream: Stream, seq: i64) {
    match ranges.last_mut() {
        Some(last) if last.stream == stream && last.through + 1 == seq => last.through = seq,
        _ => ranges.push(SeqRange { stream, first: seq, through: seq }),
    }
}

/// Everything that was sent, as ranges: what a known-bad build takes for settled.
pub(super) fn ranges(sent: &[SentRun]) -> Vec<SeqRange> {
    let mut ranges = Vec::new();
    for &(stream, seq) in sent.iter().flat_map(|run| &run.seqs) {
        push(&mut ranges, stream, seq);
    }
    ranges
}

/// Whatever the cloud says, or whoever else answers in its place: nothing is settled but what was sent, each record at
/// most once and none without a verdict, and what is shown of it fits on a page.
#[cfg(any(test, fuzzing))]
pub fn must_hold(body: &[u8]) {
    use super::client::Answered;
    for status in [200, 400, 409, 503] {
        let status = reqwest::StatusCode::from_u16(status).unwrap_or_default();
        let answered = Answered { status, retry_after: None, body: body.to_vec() };
        let shown = answered.message();
        assert!(shown.chars().count() <= 310 && !shown.contains(char::is_control), "{shown:?}");
        let Ok(answer) = answered.judge() else { continue };
        let seqs = |stream| (1..40).filter(|seq| seq % 7 > 0).map(move |seq| (stream, seq));
        let sent = [0xaa, 0xbb].map(|epoch| SentRun {
            epoch: Epoch(epoch),
            seqs: seqs(Stream::Scan).chain(seqs(Stream::Reading)).collect(),
        });
        for run in sent {
            let run = [run];
            let settled = settlement(&run, &answer, "now");
            let told = answer.runs.iter().find(|told| told.epoch == run[0].epoch);
            assert_eq!(settled.runs.len(), usize::from(told.is_some()));
            let numbers =
                settled.ranges.iter().flat_map(|r| (r.first..=r.through).map(|seq| (r.stream, seq)));
            let mut left = run[0].seqs.iter();
            for (stream, seq) in numbers {
                assert!(left.any(|record| *record == (stream, seq)), "{seq} was not sent, or twice settled");
                let verdict = told.and_then(|told| told.streams.get(stream.name()));
                assert!(verdict.is_some_and(|told| {
                    let named = |e: &Exception| (e.seq..=e.through.unwrap_or(e.seq)).contains(&seq);
                    seq <= told.acked_through || told.exceptions.iter().any(named)
                }));
            }
            assert!(
                settled.quarantined.iter().all(|(stream, seq, _)| run[0].seqs.contains(&(*stream, *seq)))
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(streams: &str) -> Answer {
        serde_json::from_str(&format!(
            r#"{{"protocol":1,"server_time":"2026-11-21T00:00:00Z","gateway_id":"G","runs":[
                {{"epoch":"00000000000000aa","streams":{streams}}},
                {{"epoch":"00000000000000ff","streams":{{}}}}]}}"#
        ))
        .unwrap()
    }

    fn sent(seqs: &[i64]) -> Vec<SentRun> {
        let scans = |seqs: &[i64]| seqs.iter().map(|seq| (Stream::Scan, *seq)).collect();
        vec![
            SentRun { epoch: Epoch(0xaa), seqs: scans(seqs) },
            SentRun { epoch: Epoch(0xbb), seqs: scans(&[90]) },
        ]
    }

    fn ranges(settlement: &Settlement) -> Vec<(i64, i64)> {
        settlement.ranges.iter().map(|r| (r.first, r.through)).collect()
    }

    #[test]
    fn every_record_up_to_acked_through_is_settled_and_none_that_was_not_sent() {
        let answer = answer(r#"{"scan":{"acked_through":8,"held":{"count":0,"first":null,"last":null}}}"#);
        let settlement = settlement(&sent(&[3, 4, 5, 7, 8, 9]), &answer, "now");
        assert_eq!(ranges(&settlement), [(3, 5), (7, 8)]);
        assert_eq!(settlement.runs, [Epoch(0xaa)], "a run without an answer was not heard");
    }

    #[test]
    fn quarantined_records_are_settled_with_their_reason_and_unknown_verdicts_are_not() {
        let answer = answer(
            r#"{"scan":{"acked_through":9,"held":{"count":0,"first":null,"last":null},"exceptions":[
                {"seq":4,"through":5,"verdict":"quarantined","reason":"bad_field"},
                {"seq":6,"verdict":"duplicate"},
                {"seq":7,"verdict":"deferred_to_committee"}]}}"#,
        );
        let settlement = settlement(&sent(&[3, 4, 5, 6, 7, 8]), &answer, "now");
        assert_eq!(ranges(&settlement), [(3, 6), (8, 8)]);
        let noted: Vec<_> = settlement.quarantined.iter().map(|(_, seq, why)| (*seq, why.as_str())).collect();
        assert_eq!(noted, [(4, "bad_field"), (5, "bad_field")]);
    }

    #[test]
    fn each_stream_is_settled_by_its_own_verdicts() {
        let answer = answer(
            r#"{"scan":{"acked_through":3,"held":{"count":0,"first":null,"last":null}},
                "reading":{"acked_through":5,"held":{"count":0,"first":null,"last":null},
                           "exceptions":[{"seq":4,"verdict":"quarantined","reason":"bad_field"}]}}"#,
        );
        let seqs = vec![
            (Stream::Scan, 3),
            (Stream::Event, 4),
            (Stream::Reading, 4),
            (Stream::Reading, 5),
            (Stream::Reading, 6),
        ];
        let settlement = settlement(&[SentRun { epoch: Epoch(0xaa), seqs }], &answer, "now");
        let range = |stream, first, through| SeqRange { stream, first, through };
        assert_eq!(settlement.ranges, [range(Stream::Scan, 3, 3), range(Stream::Reading, 4, 5)]);
        assert_eq!(settlement.quarantined, [(Stream::Reading, 4, "bad_field".to_owned())]);
    }

    #[test]
    fn an_answer_without_the_stream_settles_nothing() {
        let settlement = settlement(&sent(&[3, 4]), &answer("{}"), "now");
        assert!(settlement.ranges.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_answered_settles_nothing_but_what_was_sent(
            acked in prop::collection::vec(prop_oneof![-2..50_i64, any::<i64>()], 4),
            seq in prop_oneof![-2..50_i64, any::<i64>()],
            through in prop::option::of(prop_oneof![-2..50_i64, any::<i64>()]),
            verdict in "accepted|duplicate|quarantined|later",
            noise in prop::option::of("\\PC{0,400}"),
        ) {
            let exception = serde_json::json!({ "seq": seq, "through": through, "verdict": verdict });
            let told = |acked: i64| {
                let held = serde_json::json!({ "count": 0, "first": null, "last": null });
                serde_json::json!({ "acked_through": acked, "exceptions": [exception], "held": held })
            };
            let run = |epoch: &str, acked: &[i64]| {
                let streams = serde_json::json!({ "scan": told(acked[0]), "reading": told(acked[1]) });
                serde_json::json!({ "epoch": epoch, "streams": streams })
            };
            let answer = serde_json::json!({
                "protocol": 1, "server_time": "2026-11-21T00:00:00Z", "gateway_id": "G",
                "runs": [run("00000000000000aa", &acked[..2]), run("00000000000000cc", &acked[2..])],
            });
            must_hold(noise.unwrap_or_else(|| answer.to_string()).as_bytes());
        }
    }
}
