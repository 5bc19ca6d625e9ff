//! Records the cloud cannot read: kept raw, answered, never in the way of the others.

use anyhow::Result;
use lumbung_shared::wire::{Epoch, Held, SCAN_STREAM, Segment, Verdict};
use lumbung_tests::ledger::held;
use lumbung_tests::story::story;
use lumbung_tests::wire::{batch, scans, whole};
use serde_json::{Value, json};
use sqlx::Row;

/// A batch of `n` scans with the given tags replaced by anything at all.
fn crafted(epoch: u64, n: i64, bad: &[(usize, Value)]) -> Result<Value> {
    let mut value = serde_json::to_value(batch(epoch, None, scans(1, n, "B")?)?)?;
    for (index, tag) in bad {
        value["runs"][0]["streams"]["scan"][0]["cols"]["tag"][*index] = tag.clone();
    }
    Ok(value)
}

#[test]
fn one_bad_record_among_500_is_kept_aside_and_replayed_after_a_fix() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        let body = crafted(0xA1, 500, &[(250, json!(""))])?;
        let answer = maker.post(body.to_string()).await?.expect(200)?;
        let stream = &answer["runs"][0]["streams"]["scan"];
        assert_eq!(stream["acked_through"], 500);
        let exceptions = stream["exceptions"].as_array().unwrap();
        assert_eq!(exceptions.len(), 1, "{stream}");
        assert_eq!(exceptions[0]["seq"], 251);
        assert_eq!(exceptions[0]["verdict"], "quarantined");
        assert!(exceptions[0]["reason"].is_string());
        assert_eq!(stream["held"]["count"], 500);

        let database = cloud.database().await?;
        assert_eq!(held(&database).await?.len(), 499);
        assert_eq!(cloud.summary().await?["totals"]["quarantined"], 1);
        let list = cloud.must(&["quarantine", "list"]).await?;
        assert!(list.contains("GW-1") && list.contains("251"), "{list}");
        let id: i64 = sqlx::query("select quarantine_id from quarantine").fetch_one(&database).await?.get(0);
        let shown = cloud.must(&["quarantine", "show", &id.to_string()]).await?;
        assert!(shown.contains("nfc_tag_id"), "{shown}");

        // Nothing learnt yet: it stays.
        cloud.cli(&["quarantine", "replay", "--all"]).await?;
        assert_eq!(held(&database).await?.len(), 499);
        // Somebody finds out what the tag was.
        sqlx::query(r#"update quarantine set raw = replace(raw, '"tag":""', '"tag":"B-251"')"#)
            .execute(&database)
            .await?;
        cloud.must(&["quarantine", "replay", "--all"]).await?;
        let mut found: Vec<String> = held(&database).await?.into_iter().map(|row| row.tag).collect();
        found.sort();
        let mut expected: Vec<String> = (1..=500).map(|n| format!("B-{n}")).collect();
        expected.sort();
        assert_eq!(found, expected);
        // Again is nothing new, and the gateway that sends it once more gets its answer too.
        cloud.cli(&["quarantine", "replay", "--all"]).await?;
        maker.post(body.to_string()).await?.expect(200)?;
        assert_eq!(held(&database).await?.len(), 500);
        assert_eq!(cloud.summary().await?["totals"]["scans"], 500);
        Ok(())
    })
}

#[test]
fn a_batch_of_only_bad_records_is_answered_and_kept() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        let bad: Vec<(usize, Value)> = (0..20)
            .map(|i| match i % 4 {
                0 => (i, json!("")),
                1 => (i, json!(17)),
                2 => (i, json!("x".repeat(129))),
                _ => (i, json!({ "uid": "04" })),
            })
            .collect();
        let body = crafted(0xA2, 20, &bad)?;
        for _ in 0..2 {
            let answer = maker.post(body.to_string()).await?.expect(200)?;
            let stream = &answer["runs"][0]["streams"]["scan"];
            assert_eq!(stream["acked_through"], 20, "{stream}");
            let exceptions = stream["exceptions"].as_array().unwrap();
            let covered: i64 = exceptions
                .iter()
                .map(|e| {
                    e["through"].as_i64().unwrap_or(e["seq"].as_i64().unwrap()) + 1
                        - e["seq"].as_i64().unwrap()
                })
                .sum();
            assert_eq!(covered, 20);
            assert_eq!(cloud.summary().await?["totals"]["quarantined"], 20);
        }
        Ok(())
    })
}

#[test]
fn a_batch_of_only_bad_records_does_not_hold_up_the_next_one() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        let all: Vec<(usize, Value)> = (0..10).map(|i| (i, json!(null))).collect();
        maker.post(crafted(0xA3, 10, &all)?.to_string()).await?.expect(200)?;
        let answer = maker.send(&batch(0xA3, None, scans(11, 10, "SESUDAH")?)?).await?;
        let stream = &answer.runs[0].streams[SCAN_STREAM];
        assert_eq!(stream.acked_through, 20);
        assert!(stream.exceptions.is_empty());
        let all_held = Held { count: 20, first: Some(1), last: Some(20) };
        assert_eq!(stream.held, all_held);
        Ok(())
    })
}

#[test]
fn an_unknown_kind_of_record_is_kept_raw_and_unknown_fields_are_ignored() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        let mut value = serde_json::to_value(batch(0xA4, None, scans(1, 3, "KENAL")?)?)?;
        value["mood"] = json!("good");
        value["runs"][0]["weather"] = json!({ "rain": true });
        value["runs"][0]["start"]["moon"] = json!("full");
        value["runs"][0]["streams"]["scan"][0]["cols"]["colour"] = json!([[0, "red"]]);
        value["runs"][0]["streams"]["vibration"] =
            json!([{ "seq": 5, "n": 2, "cols": { "hz": [1.5, 2.5] }, "later": 1 }]);
        let answer = maker.post(value.to_string()).await?.expect(200)?;
        let streams = &answer["runs"][0]["streams"];
        assert_eq!(streams["scan"]["acked_through"], 3);
        assert_eq!(streams["scan"]["exceptions"], Value::Null);
        assert_eq!(streams["vibration"]["acked_through"], 6);
        assert_eq!(streams["vibration"]["exceptions"][0]["verdict"], "quarantined");
        let database = cloud.database().await?;
        assert_eq!(held(&database).await?.len(), 3);
        let raw: String = sqlx::query("select raw from quarantine where stream = 'vibration'")
            .fetch_one(&database)
            .await?
            .get(0);
        assert!(raw.contains("2.5"), "{raw}");
        Ok(())
    })
}

#[test]
fn the_same_number_with_other_content_is_kept_aside_and_raised() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        maker.send(&batch(0xA5, None, scans(1, 3, "ASLI")?)?).await?;
        let answer = maker.send(&batch(0xA5, None, scans(2, 1, "PALSU")?)?).await?;
        let exceptions = &answer.runs[0].streams[SCAN_STREAM].exceptions;
        assert_eq!(exceptions.len(), 1);
        assert_eq!((exceptions[0].seq, exceptions[0].verdict), (2, Verdict::Quarantined));
        assert!(answer.alarms.contains(&"conflict".to_owned()), "{:?}", answer.alarms);
        let database = cloud.database().await?;
        let tags: Vec<String> = held(&database).await?.into_iter().map(|row| row.tag).collect();
        assert!(!tags.contains(&"PALSU-2".to_owned()));
        let summary = cloud.summary_of("GW-1").await?;
        assert!(summary["alarms"].to_string().contains("conflict"), "{summary}");
        assert_eq!(cloud.summary().await?["totals"]["quarantined"], 1);
        Ok(())
    })
}

#[test]
fn an_envelope_that_numbers_nothing_is_refused_whole() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        let cols = || serde_json::value::to_raw_value(&json!({ "t": [1] })).unwrap();
        let absurd = [
            Segment { seq: 0, n: 1, step: None, cols: cols() },
            Segment { seq: 1, n: 2, step: Some(vec![0]), cols: cols() },
            Segment { seq: i64::MAX, n: 3, step: None, cols: cols() },
            Segment { seq: 9, n: 2, step: Some(vec![0, -4]), cols: cols() },
        ];
        for segment in absurd {
            let body = serde_json::to_string(&whole(0xA6, None, vec![segment], Vec::new()))?;
            let reply = maker.post(body).await?;
            assert_eq!(reply.status, 400, "{}", reply.text);
        }
        for nonsense in ["", "{", "null", "17", "\"x\"", "{}", r#"{"protocol":1}"#] {
            let reply = maker.post(nonsense).await?;
            assert!(matches!(reply.status, 400 | 422), "{nonsense}: {} {}", reply.status, reply.text);
            assert!(reply.json()?["request_id"].is_string(), "{}", reply.text);
        }
        let too_many = Segment { seq: 1, n: 10_001, step: None, cols: cols() };
        let body = serde_json::to_string(&whole(0xA6, None, vec![too_many], Vec::new()))?;
        assert_eq!(maker.post(body).await?.status, 413);
        assert!(held(&cloud.database().await?).await?.is_empty());
        // None of it left a trace that gets in the way of the real thing.
        let answer = maker.send(&batch(0xA6, None, scans(1, 2, "BENAR")?)?).await?;
        assert_eq!(answer.runs[0].epoch, Epoch(0xA6));
        assert_eq!(answer.runs[0].streams[SCAN_STREAM].acked_through, 2);
        Ok(())
    })
}

#[test]
fn gaps_in_the_numbers_are_seen_and_closed() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        maker.send(&batch(0xA7, None, scans(1, 10, "G")?)?).await?;
        let answer = maker.send(&batch(0xA7, None, scans(21, 10, "G")?)?).await?;
        let stream = &answer.runs[0].streams[SCAN_STREAM];
        let with_gap = Held { count: 20, first: Some(1), last: Some(30) };
        assert_eq!(stream.held, with_gap);
        assert_eq!(cloud.summary_of("GW-1").await?["gaps"], 10);
        let answer = maker.send(&batch(0xA7, None, scans(11, 10, "G")?)?).await?;
        assert_eq!(answer.runs[0].streams[SCAN_STREAM].held.count, 30);
        assert_eq!(cloud.summary_of("GW-1").await?["gaps"], 0);
        Ok(())
    })
}
