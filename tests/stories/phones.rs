//! Phones post to the gateway: fields are checked, a phone's own key makes a repeat harmless.

use anyhow::Result;
use lumbung_tests::http;
use lumbung_tests::ledger::held;
use lumbung_tests::programs::stored;
use lumbung_tests::stand::cloud_holds;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use serde_json::{Value, json};
use uuid::Uuid;

fn with_ref(key: Uuid, tag: &str) -> Value {
    json!({ "nfc_tag_id": tag, "status_scan": "makanan_diterima", "client_ref": key, "note": "sekali saja" })
}

#[test]
fn the_same_key_with_the_same_body_is_one_scan_and_with_another_body_a_conflict() -> Result<()> {
    story(async |stand| {
        let (cloud, _proxy, mut gateway) = stand.trio().await?;
        let key = Uuid::new_v4();
        let body = with_ref(key, "HP-1");
        let first = stored(&gateway.log_scan(&body).await?.expect(201)?)?;
        let again = gateway.log_scan(&body).await?.expect(200)?;
        assert_eq!(stored(&again)?, first);
        let other = gateway.log_scan(&with_ref(key, "HP-2")).await?;
        assert_eq!(other.status, 409, "{}", other.text);
        gateway.drained().await?;
        // After a restart, and after it was sent, it is still the same scan, with its present state.
        gateway.restart().await?;
        let again = gateway.log_scan(&body).await?.expect(200)?;
        assert_eq!(stored(&again)?, first);
        assert_eq!(again["synced_to_main_server"], true, "{again}");
        assert_eq!(gateway.log_scan(&with_ref(key, "HP-2")).await?.status, 409);
        cloud_holds(&cloud.database().await?, &["HP-1".to_owned()]).await
    })
}

#[test]
fn a_phone_that_asks_twenty_times_at_once_makes_one_scan() -> Result<()> {
    story(async |stand| {
        let (cloud, _proxy, gateway) = stand.trio().await?;
        let body = with_ref(Uuid::new_v4(), "SERENTAK");
        let client = http::client()?;
        let mut tries = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let request = client
                .post(gateway.url("/api/log_scan"))
                .header("content-type", "application/json")
                .body(body.to_string());
            tries.spawn(http::send(request));
        }
        let mut statuses = Vec::new();
        for reply in tries.join_all().await {
            statuses.push(reply?.status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 19, "{statuses:?}");
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &["SERENTAK".to_owned()]).await
    })
}

#[test]
fn a_phone_that_posts_the_same_scan_to_two_gateways_makes_one_scan_in_the_cloud() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let first = stand.gateway("GW-1", &cloud, &cloud.base()).await?;
        let second = stand.gateway("GW-2", &cloud, &cloud.base()).await?;
        let body = with_ref(Uuid::new_v4(), "PINDAH");
        first.log_scan(&body).await?.expect(201)?;
        first.drained().await?;
        second.log_scan(&body).await?.expect(201)?;
        second.drained().await?;
        let database = cloud.database().await?;
        cloud_holds(&database, &["PINDAH".to_owned()]).await?;
        assert_eq!(cloud.summary().await?["totals"]["scans"], 1);
        // The same key with another body at another gateway: kept, but not as a scan of its own.
        let key = Uuid::new_v4();
        first.log_scan(&with_ref(key, "ASLI")).await?.expect(201)?;
        first.drained().await?;
        second.log_scan(&with_ref(key, "LAIN")).await?.expect(201)?;
        second.drained().await?;
        let tags: Vec<String> = held(&database).await?.into_iter().map(|row| row.tag).collect();
        assert!(tags.contains(&"ASLI".to_owned()) && !tags.contains(&"LAIN".to_owned()), "{tags:?}");
        assert_eq!(cloud.summary().await?["totals"]["quarantined"], 1);
        Ok(())
    })
}

#[test]
fn a_phones_own_time_is_kept_and_believed() -> Result<()> {
    story(async |stand| {
        let (cloud, _proxy, gateway) = stand.trio().await?;
        let told =
            (chrono::Utc::now() - chrono::TimeDelta::hours(3)).format("%Y-%m-%dT%H:%M:%S+00:00").to_string();
        let body = json!({ "nfc_tag_id": "SIANG", "status_scan": "makanan_masuk", "timestamp": told });
        gateway.log_scan(&body).await?.expect(201)?;
        gateway.drained().await?;
        let scan = eventually("the scan is listed", || async {
            let scans = cloud.get("/api/tags/SIANG").await?.expect(200)?;
            Ok(scans["scans"].get(0).cloned())
        })
        .await?;
        let instant =
            |value: &Value| value.as_str().unwrap_or_default().parse::<chrono::DateTime<chrono::Utc>>();
        assert_eq!(instant(&scan["event_time"])?, told.parse::<chrono::DateTime<chrono::Utc>>()?);
        assert_eq!(scan["time_basis"], "phone");
        Ok(())
    })
}

#[test]
fn a_bad_field_is_named_in_the_readers_language_and_stores_nothing() -> Result<()> {
    story(async |stand| {
        let mut gateway = stand.bare_gateway("GW-1")?;
        gateway.start().await?;
        let good = json!({ "nfc_tag_id": "A", "status_scan": "b" });
        let bad = |field: &str, value: Value| {
            let mut body = good.clone();
            body[field] = value;
            body
        };
        let cases = [
            ("nfc_tag_id", bad("nfc_tag_id", json!(""))),
            ("nfc_tag_id", json!({ "status_scan": "b" })),
            ("nfc_tag_id", bad("nfc_tag_id", json!("x".repeat(129)))),
            ("nfc_tag_id", bad("nfc_tag_id", json!("a\u{0}b"))),
            ("nfc_tag_id", bad("nfc_tag_id", json!(7))),
            ("status_scan", bad("status_scan", json!(""))),
            ("status_scan", json!({ "nfc_tag_id": "A" })),
            ("status_scan", bad("status_scan", json!("x".repeat(65)))),
            ("timestamp", bad("timestamp", json!("2026-11-21T03:00:00"))),
            ("timestamp", bad("timestamp", json!("kemarin"))),
            ("note", bad("note", json!("x".repeat(501)))),
            ("officer", bad("officer", json!("x".repeat(65)))),
            ("quantity", bad("quantity", json!(-1))),
            ("quantity", bad("quantity", json!("banyak"))),
            ("client_ref", bad("client_ref", json!("bukan-uuid"))),
        ];
        for (field, body) in cases {
            let reply = gateway.log_scan(&body).await?;
            assert_eq!(reply.status, 400, "{field}: {}", reply.text);
            let answer = reply.json()?;
            assert_eq!(answer["success"], false);
            assert_eq!(answer["error"]["details"][0]["field"], field, "{answer}");
            assert!(answer["request_id"].is_string());
        }
        for body in ["", "{", "[]", "null", "7"] {
            let request = http::client()?
                .post(gateway.url("/api/log_scan"))
                .header("content-type", "application/json")
                .body(body);
            let reply = http::send(request).await?;
            assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        }
        let words = |language: &'static str| {
            let (client, url) = (http::client(), gateway.url("/api/log_scan"));
            async move {
                let request = client?
                    .post(url)
                    .header("content-type", "application/json")
                    .header("accept-language", language)
                    .body(r#"{"nfc_tag_id":"","status_scan":"b"}"#);
                let body = http::send(request).await?.json()?;
                anyhow::Ok(body["error"]["details"][0]["message"].as_str().unwrap_or_default().to_owned())
            }
        };
        let (indonesian, english) = (words("id").await?, words("en").await?);
        assert_ne!(indonesian, english);
        assert!(english.contains("empty"), "{english}");
        assert!(gateway.tags()?.is_empty(), "a refused scan was stored");
        let text = http::send(
            http::client()?
                .post(gateway.url("/api/log_scan"))
                .header("content-type", "text/plain")
                .body(good.to_string()),
        )
        .await?;
        assert_eq!(text.status, 415, "{}", text.text);
        Ok(())
    })
}

#[test]
fn recent_scans_are_listed_unsent_first() -> Result<()> {
    story(async |stand| {
        let (_cloud, proxy, gateway) = stand.trio().await?;
        gateway.scan_many("TERKIRIM", 3).await?;
        gateway.drained().await?;
        proxy.line(lumbung_tests::proxy::Line::Refused);
        gateway.scan_many("TERTAHAN", 2).await?;
        let listed = gateway.get("/api/scans?limit=4").await?.expect(200)?;
        let scans = listed["scans"].as_array().unwrap();
        assert_eq!(scans.len(), 4);
        let unsent = |scan: &Value| scan["nfc_tag_id"].as_str().unwrap_or_default().starts_with("TERTAHAN");
        assert!(unsent(&scans[0]) && unsent(&scans[1]), "{listed}");
        assert!(!unsent(&scans[2]) && !unsent(&scans[3]), "{listed}");
        let status = gateway.status().await?;
        assert_eq!(status["unsent"]["scan"], 2, "{status}");
        let finished = gateway.cli(&["status", "--json"]).await?.ok()?;
        let told: Value = serde_json::from_str(&finished)?;
        assert_eq!(told["unsent"]["scan"], 2, "{told}");
        eventually("the measures say so too", || async {
            let text = gateway.get("/metrics").await?.text;
            Ok(when(text.contains("lumbung_gateway_")))
        })
        .await
    })
}
