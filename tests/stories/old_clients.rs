//! The documents' first clients post a bare array to the cloud. It still works, given one Bearer header.

use anyhow::Result;
use lumbung_tests::http;
use lumbung_tests::ledger::held;
use lumbung_tests::story::story;
use serde_json::{Value, json};

fn record(gateway: &str, tag: &str, timestamp: &str) -> Value {
    json!({ "nfc_tag_id": tag, "timestamp": timestamp, "status_scan": "makanan_keluar", "gateway_id": gateway })
}

#[test]
fn an_array_is_taken_and_the_same_record_twice_is_one_scan() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let old = cloud.hand_made("GW-TUA").await?;
        let batch = json!([
            record("GW-TUA", "NFC_TAG_ALPHA", "2026-11-20T03:00:00"),
            record("GW-TUA", "NFC_TAG_ALPHA", "2026-11-20T03:05:00.250000"),
            record("GW-TUA", "NFC_TAG_BETA", "2026-11-20T10:00:00+07:00"),
        ]);
        let answer = old.post(batch.to_string()).await?.expect(200)?;
        assert_eq!(answer["status"], "success");
        assert_eq!(answer["message"], "Berhasil menerima 3 data");
        assert_eq!((answer["accepted"].clone(), answer["duplicate"].clone()), (json!(3), json!(0)));
        // The whole array again, as after a lost answer, with one record more and one of them twice in it.
        let again = json!([
            record("GW-TUA", "NFC_TAG_ALPHA", "2026-11-20T03:00:00"),
            record("GW-TUA", "NFC_TAG_ALPHA", "2026-11-20T03:05:00.250000"),
            record("GW-TUA", "NFC_TAG_GAMMA", "2026-11-20T03:06:00"),
            record("GW-TUA", "NFC_TAG_GAMMA", "2026-11-20T03:06:00"),
        ]);
        let answer = old.post(again.to_string()).await?.expect(200)?;
        assert_eq!(
            (answer["accepted"].clone(), answer["duplicate"].clone()),
            (json!(1), json!(3)),
            "{answer}"
        );
        assert_eq!(held(&cloud.database().await?).await?.len(), 4);
        let scans = cloud.get("/api/scans?limit=10").await?.expect(200)?;
        let times: Vec<&str> =
            scans["scans"].as_array().unwrap().iter().map(|s| s["timestamp"].as_str().unwrap()).collect();
        assert!(times.contains(&"2026-11-20T03:00:00.000Z"), "a naive time is UTC: {times:?}");
        Ok(())
    })
}

#[test]
fn an_array_needs_the_key_and_must_speak_for_its_own_gateway() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let old = cloud.hand_made("GW-TUA").await?;
        cloud.hand_made("GW-LAIN").await?;
        let body = json!([record("GW-TUA", "A", "2026-11-20T03:00:00")]).to_string();
        let bare = http::client()?
            .post(cloud.url("/api/sync_gateway_data"))
            .header("content-type", "application/json")
            .body(body.clone());
        assert_eq!(http::send(bare).await?.status, 401);
        let foreign = json!([record("GW-LAIN", "A", "2026-11-20T03:00:00")]).to_string();
        let reply = old.post(foreign).await?;
        assert!(matches!(reply.status, 400 | 403), "{} {}", reply.status, reply.text);
        let database = cloud.database().await?;
        assert!(held(&database).await?.is_empty());
        // One foreign record among its own is kept aside; it never becomes the other gateway's scan.
        let mixed = json!([
            record("GW-TUA", "A", "2026-11-20T03:00:00"),
            record("GW-LAIN", "B", "2026-11-20T03:00:00")
        ]);
        let reply = old.post(mixed.to_string()).await?;
        let rows = held(&database).await?;
        assert!(
            rows.iter().all(|row| row.content.gateway == "GW-TUA" && row.tag == "A"),
            "{rows:?} {}",
            reply.text
        );
        Ok(())
    })
}

#[test]
fn a_bad_record_in_an_array_is_kept_aside_and_the_others_are_taken() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let old = cloud.hand_made("GW-TUA").await?;
        let batch = json!([
            record("GW-TUA", "BAIK-1", "2026-11-20T03:00:00"),
            record("GW-TUA", "", "2026-11-20T03:00:00"),
            record("GW-TUA", "BAIK-2", "kemarin"),
            record("GW-TUA", "BAIK-3", "2026-11-20T03:00:00"),
        ]);
        let answer = old.post(batch.to_string()).await?.expect(200)?;
        assert_eq!(answer["quarantined"], 2, "{answer}");
        assert_eq!(answer["accepted"], 2, "{answer}");
        let verdicts: Vec<&str> =
            answer["records"].as_array().unwrap().iter().map(|r| r["verdict"].as_str().unwrap()).collect();
        assert_eq!(verdicts, ["accepted", "quarantined", "quarantined", "accepted"]);
        assert_eq!(cloud.summary().await?["totals"]["quarantined"], 2);
        let empty = old.post("[]").await?.expect(200)?;
        assert_eq!(empty["accepted"], 0);
        Ok(())
    })
}
