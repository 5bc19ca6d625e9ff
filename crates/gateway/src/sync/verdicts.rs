//! From the cloud's answer to what is settled. Pure.

use crate::outbox::{SeqRange, Settlement, Stream};
use lumbung_shared::wire::{Answer, Epoch, Verdict};

/// What a batch held of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SentRun {
    pub(super) epoch: Epoch,
    /// In rising order.
    pub(super) seqs: Vec<i64>,
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
        let Some(scans) = answered.streams.get(Stream::Scan.name()) else {
            continue;
        };
        for &seq in &run.seqs {
            let exception =
                scans.exceptions.iter().find(|e| (e.seq..=e.through.unwrap_or(e.seq)).contains(&seq));
            let verdict = match exception {
                Some(exception) => exception.verdict,
                None if seq <= scans.acked_through => Verdict::Accepted,
                None => continue,
            };
            match verdict {
                Verdict::Accepted | Verdict::Duplicate => {}
                Verdict::Quarantined => {
                    let reason = exception.and_then(|e| e.reason.clone()).unwrap_or_default();
                    settlement.quarantined.push((Stream::Scan, seq, reason));
                }
                Verdict::Unknown => continue,
            }
            push(&mut settlement.ranges, seq);
        }
    }
    settlement
}

/// Adds a number, to the last range where it continues it.
fn push(ranges: &mut Vec<SeqRange>, seq: i64) {
    match ranges.last_mut() {
        Some(last) if last.through + 1 == seq => last.through = seq,
        _ => ranges.push(SeqRange { stream: Stream::Scan, first: seq, through: seq }),
    }
}

/// Everything that was sent, as ranges: what a known-bad build takes for settled.
pub(super) fn ranges(sent: &[SentRun]) -> Vec<SeqRange> {
    let mut ranges = Vec::new();
    for &seq in sent.iter().flat_map(|run| &run.seqs) {
        push(&mut ranges, seq);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(streams: &str) -> Answer {
        serde_json::from_str(&format!(
            r#"{{"protocol":1,"server_time":"2026-11-21T00:00:00Z","gateway_id":"G","runs":[
                {{"epoch":"00000000000000aa","streams":{streams}}},
                {{"epoch":"00000000000000ff","streams":{{}}}}]}}"#
        ))
        .unwrap()
    }

    fn sent(seqs: &[i64]) -> Vec<SentRun> {
        vec![
            SentRun { epoch: Epoch(0xaa), seqs: seqs.to_vec() },
            SentRun { epoch: Epoch(0xbb), seqs: vec![90] },
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
    fn an_answer_without_the_stream_settles_nothing() {
        let settlement = settlement(&sent(&[3, 4]), &answer("{}"), "now");
        assert!(settlement.ranges.is_empty());
    }
}
