//! What reading the cloud's code found, told so that it cannot come back.

use anyhow::Result;
use lumbung_shared::scan::Source;
use lumbung_tests::http;
use lumbung_tests::ledger::held;
use lumbung_tests::story::story;
use lumbung_tests::wire::{HandMade, batch, new_key, scans};
use serde_json::{Value, json};
use uuid::Uuid;

/// Brings `new` as another key of whoever holds `old`.
async fn rotate(cloud: &lumbung_tests::programs::Cloud, old: &str, new: &str) -> Result<u16> {
    let request = http::client()?
        .post(cloud.url("/api/gateways/rotate"))
        .bearer_auth(old)
        .header("content-type", "application/json")
        .body(json!({ "new_key": new }).to_string());
    Ok(http::send(request).await?.status)
}

#[test]
fn a_leaked_key_of_a_revoked_gateway_stays_dead_when_the_gateway_is_enrolled_again() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (leaked, fresh, thief) = (new_key(), new_key(), new_key());
        let claim = cloud.claim("GW-1").await?;
        assert_eq!(
            HandMade::with_key("GW-1", &cloud.base(), &leaked)?.redeem(&claim.claim).await?.status,
            200
        );
        let unused = cloud.claim("GW-1").await?;
        cloud.must(&["gateway", "revoke", "GW-1", "--reason", "stolen"]).await?;
        // A claim that nobody used ends with the welcome.
        let late = HandMade::with_key("GW-1", &cloud.base(), &new_key())?;
        assert_eq!(late.redeem(&unused.claim).await?.status, 404);
        let again = cloud.claim("GW-1").await?;
        let owner = HandMade::with_key("GW-1", &cloud.base(), &fresh)?;
        assert_eq!(owner.redeem(&again.claim).await?.status, 200);
        // Before the owner's key was ever used the thief tries to bring a key of his own.
        assert_eq!(rotate(&cloud, &leaked, &thief).await?, 401);
        owner.send(&batch(1, None, scans(1, 1, "O")?)?).await?;
        for key in [&leaked, &thief] {
            let reply = HandMade::with_key("GW-1", &cloud.base(), key)?.post("{}").await?;
            assert_eq!(reply.status, 401);
        }
        owner.send(&batch(1, None, scans(2, 1, "O")?)?).await?;
        Ok(())
    })
}

#[test]
fn text_that_postgresql_or_json_cannot_hold_spoils_only_its_own_record() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        let whole = serde_json::to_string(&batch(0xB1, None, scans(1, 3, "B")?)?)?;
        for (i, bad) in [r#""\ud800""#, "1e999", r#""B-2\u0000""#].into_iter().enumerate() {
            let body = whole
                .replace(r#""B-2""#, bad)
                .replace("00000000000000b1", &format!("00000000000000b{}", i + 1));
            let answer = maker.post(body).await?.expect(200)?;
            let stream = &answer["runs"][0]["streams"]["scan"];
            assert_eq!(stream["exceptions"].as_array().unwrap().len(), 1, "{bad}: {stream}");
            assert_eq!(stream["exceptions"][0]["seq"], 2);
        }
        // A NUL in what a parser quotes, and one in the name of a site.
        let clock = whole.replace(r#"[[0,"synced"]]"#, r#"[[0,"a\u0000b"]]"#).replace("00b1", "00b9");
        assert_ne!(clock, whole);
        maker.post(clock).await?.expect(200)?;
        let mut site: Value = serde_json::from_str(&whole)?;
        site["runs"][0]["start"]["site"] = json!("a\u{0}");
        maker.post(site.to_string()).await?.expect(400)?;
        assert_eq!(held(&cloud.database().await?).await?.len(), 6);
        Ok(())
    })
}

#[test]
fn every_field_of_a_scan_survives_both_roads_into_the_store() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        let dressed = |first: i64, count: i64| -> Result<_> {
            let mut scans = scans(first, count, "kotak é")?;
            scans.iter_mut().for_each(|scan| scan.wall_ms = 1_795_000_000_000 + scan.seq);
            for scan in scans.iter_mut().filter(|scan| scan.seq % 3 == 0) {
                scan.source = Source::Phone;
                scan.content.note = Some(format!("sup «tumpah»\n\t{} \\ , \"", scan.seq));
                scan.content.officer = Some("P-07".to_owned());
                scan.content.quantity = Some(24.125);
                scan.content.client_ref = Some(Uuid::from_u128(u128::from(scan.seq.unsigned_abs())));
            }
            Ok(scans)
        };
        // A thousand go in by COPY, ten by the ordinary road, and one of these again with what is new.
        maker.send(&batch(0xC1, None, dressed(1, 1_000)?)?).await?;
        maker.send(&batch(0xC1, None, dressed(1_001, 10)?)?).await?;
        let answer = maker.send(&batch(0xC1, None, dressed(1_010, 900)?)?).await?;
        let stream = &answer.runs[0].streams["scan"];
        assert_eq!((stream.exceptions.len(), stream.exceptions[0].seq), (1, 1_010));
        assert_eq!(stream.held.count, 1_909);
        let expected = dressed(1, 1_909)?;
        let mut cursor = String::new();
        let mut found = Vec::new();
        loop {
            let page = cloud.get(&format!("/api/scans?limit=500{cursor}")).await?.expect(200)?;
            found.extend(page["scans"].as_array().unwrap().clone());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        found.sort_by_key(|scan| scan["seq"].as_i64());
        assert_eq!(found.len(), expected.len());
        for (found, scan) in found.iter().zip(&expected) {
            let content = &scan.content;
            assert_eq!(found["seq"], scan.seq);
            assert_eq!(found["nfc_tag_id"], content.tag.as_str());
            assert_eq!(found["status_scan"], content.status);
            assert_eq!(found["note"], json!(content.note));
            assert_eq!(found["officer"], json!(content.officer));
            assert_eq!(found["quantity"], json!(content.quantity));
            assert_eq!(found["client_ref"], json!(content.client_ref));
            assert_eq!(found["source"], json!(scan.source));
            assert_eq!(found["timestamp"], lumbung_shared::time::rfc3339(scan.timestamp_ms()));
        }
        let of_site = |code: &str| format!("/api/scans?limit=5&site={code}");
        let here = found[0]["site"].as_str().unwrap().to_owned();
        assert_eq!(cloud.get(&of_site(&here)).await?.expect(200)?["scans"].as_array().unwrap().len(), 5);
        assert!(cloud.get(&of_site("NOWHERE")).await?.expect(200)?["scans"].as_array().unwrap().is_empty());
        Ok(())
    })
}

#[test]
fn an_old_client_scans_where_its_gateway_stands_today() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        cloud.add_site("SD-BARU").await?;
        let maker = cloud.hand_made("GW-1").await?;
        let record = |second: u32, gateway: &str| {
            let time = format!("2026-11-21T02:30:{second:02}");
            json!({ "nfc_tag_id": "T", "timestamp": time, "status_scan": "makanan_keluar", "gateway_id": gateway })
        };
        maker.post(json!([record(1, "GW-1")]).to_string()).await?.expect(200)?;
        cloud.must(&["gateway", "add", "GW-1", "--site", "SD-BARU", "--json"]).await?;
        // Beside a good record its twin in another gateway's name: each has its own verdict.
        let answer =
            maker.post(json!([record(2, "GW-1"), record(2, "GW-X")]).to_string()).await?.expect(200)?;
        assert_eq!((&answer["accepted"], &answer["quarantined"]), (&json!(1), &json!(1)), "{answer}");
        let sites: Vec<String> = sqlx::query_scalar(
            "select s.code from scan_event e join site s using (site_id) order by e.\"timestamp\"",
        )
        .fetch_all(&cloud.database().await?)
        .await?;
        assert_eq!(sites, ["DAPUR-1", "SD-BARU"]);
        // Another gateway's record does not become this one's by being replayed.
        cloud.must(&["quarantine", "replay", "--all"]).await?;
        assert_eq!(held(&cloud.database().await?).await?.len(), 2);
        Ok(())
    })
}

#[test]
fn a_replay_that_meets_a_conflict_changes_nothing() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        maker.send(&batch(0xD1, None, scans(1, 1, "ONE")?)?).await?;
        maker.send(&batch(0xD1, None, scans(1, 1, "OTHER")?)?).await?;
        let database = cloud.database().await?;
        let entries = || sqlx::query_scalar::<_, i64>("select count(*) from quarantine");
        assert_eq!(entries().fetch_one(&database).await?, 1);
        let said = cloud.must(&["quarantine", "replay", "--all"]).await?;
        assert!(said.contains("stays"), "{said}");
        assert_eq!(entries().fetch_one(&database).await?, 1);
        assert_eq!(held(&database).await?.len(), 1);
        Ok(())
    })
}
