//! The line between gateway and cloud fails in every way a line can.

use anyhow::Result;
use lumbung_tests::proxy::{Fate, Line};
use lumbung_tests::stand::cloud_holds;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[test]
fn a_scan_is_in_the_cloud_and_marked_as_sent() -> Result<()> {
    story(async |stand| {
        let (cloud, _proxy, gateway) = stand.trio().await?;
        let reply = gateway
            .log_scan(&json!({ "nfc_tag_id": "04:a2:2b:1c:5d:6e:80", "status_scan": "makanan_keluar",
                "note": "dua kotak", "officer": "P-07", "quantity": 40.5 }))
            .await?;
        let body = reply.expect(201)?;
        assert_eq!(body["success"], true);
        assert_eq!(body["state"], "stored");
        assert_eq!(body["nfc_tag_id"], "04A22B1C5D6E80");
        assert_eq!(body["synced_to_main_server"], false);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &["04A22B1C5D6E80".to_owned()]).await?;
        let scans = cloud.get("/api/scans").await?.expect(200)?;
        let scan = &scans["scans"][0];
        assert_eq!(scan["gateway_id"], "GW-1");
        assert_eq!(scan["seq"], body["id"]);
        assert_eq!(scan["epoch"], body["run"]);
        assert_eq!(scan["note"], "dua kotak");
        assert_eq!(scan["officer"], "P-07");
        assert_eq!(scan["quantity"], 40.5);
        assert_eq!(scan["site"], "DAPUR-1");
        assert_eq!(scan["timestamp"], body["timestamp"]);
        assert_eq!(scan["biz_step"], "shipping");
        Ok(())
    })
}

#[test]
fn a_new_scan_wakes_the_gateway_long_before_its_next_round() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let mut gateway = stand.gateway_not_started("GW-1", &cloud, &cloud.base()).await?;
        gateway.set("sync.interval", "1h");
        gateway.start().await?;
        gateway.scan("WAKE-1", "makanan_keluar").await?;
        gateway.drained().await?;
        gateway.scan("WAKE-2", "makanan_keluar").await?;
        gateway.drained().await
    })
}

#[test]
fn scans_made_offline_arrive_when_the_cloud_is_back() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let mut tags = gateway.scan_many("PAGI", 40).await?;
        gateway.restart().await?;
        tags.extend(gateway.scan_many("SIANG", 40).await?);
        gateway.kill();
        gateway.start().await?;
        tags.extend(gateway.scan_many("SORE", 40).await?);
        assert_eq!(gateway.unsent()?, 120);
        let status = gateway.until_state("backing_off").await?;
        assert!(status["oldest_unsent_at"].is_string(), "{status}");
        proxy.line(Line::Up);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        gateway.until_state("idle").await?;
        Ok(())
    })
}

#[test]
fn an_answer_lost_after_the_commit_makes_no_second_scan() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let tags = gateway.scan_many("HILANG", 30).await?;
        proxy.next([Fate::LoseAnswer, Fate::LoseAnswer, Fate::LoseRequest]);
        proxy.line(Line::Up);
        gateway.drained().await?;
        assert!(proxy.records() >= 60, "the answers were not lost: {}", proxy.records());
        cloud_holds(&cloud.database().await?, &tags).await
    })
}

#[test]
fn a_batch_delivered_twice_is_kept_once() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        proxy.rule(|_| Fate::Twice);
        let tags = gateway.scan_many("DUA", 25).await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        let summary = cloud.summary().await?;
        assert_eq!(summary["totals"]["scans"], 25);
        assert_eq!(summary["totals"]["quarantined"], 0);
        Ok(())
    })
}

#[test]
fn a_line_that_resets_in_the_middle_of_bodies_delivers_in_the_end() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let tags = gateway.scan_many("PUTUS", 50).await?;
        proxy.next(vec![Fate::ResetMidBody; 4]);
        proxy.line(Line::Up);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await
    })
}

#[test]
fn a_line_of_small_slices_and_long_pauses_delivers() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        proxy.rule(|request| match request.number % 2 {
            0 => Fate::Sliced(7),
            _ => Fate::Slow(Duration::from_millis(150)),
        });
        let tags = gateway.scan_many("PELAN", 20).await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await
    })
}

#[test]
fn a_line_that_swallows_everything_is_given_up_after_the_timeout() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let proxy = lumbung_tests::proxy::Proxy::start(&cloud.address())?;
        let mut gateway = stand.gateway_not_started("GW-1", &cloud, &proxy.base()).await?;
        gateway.set("sync.request_timeout", "400ms");
        gateway.start().await?;
        proxy.line(Line::Silent);
        let tags = gateway.scan_many("SUNYI", 5).await?;
        gateway.until_state("backing_off").await?;
        proxy.line(Line::Up);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await
    })
}

#[test]
fn a_captive_portal_is_not_taken_for_the_cloud() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        let portal = |status, body: &str| Fate::Answer {
            status,
            headers: vec![("Location".to_owned(), "http://login.example/".to_owned())],
            body: body.to_owned(),
        };
        let pages = [
            portal(200, "<html>Selamat datang di WiFi gratis</html>"),
            portal(302, ""),
            portal(200, r#"{"status":"success"}"#),
        ];
        let mut turn = 0;
        proxy.rule(move |_| {
            turn += 1;
            pages[turn % pages.len()].clone()
        });
        let tags = gateway.scan_many("PORTAL", 10).await?;
        let before = proxy.syncs();
        eventually("the gateway has tried six times", || async { Ok(when(proxy.syncs() >= before + 6)) })
            .await?;
        assert_eq!(gateway.unsent()?, 10);
        let status = gateway.status().await?;
        assert_eq!(status["parked"], 0, "{status}");
        proxy.heal();
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await
    })
}

#[test]
fn an_answer_that_settles_nothing_is_a_failure_and_no_reason_to_spin() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        let nothing = json!({ "protocol": 1, "server_time": "2026-11-21T02:00:00.000Z",
            "gateway_id": "GW-1", "runs": [] });
        let times = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&times);
        proxy.rule(move |_| {
            seen.lock().unwrap().push(Instant::now());
            Fate::Answer { status: 200, headers: Vec::new(), body: nothing.to_string() }
        });
        gateway.scan("KOSONG-1", "makanan_keluar").await?;
        gateway.until_state("backing_off").await?;
        let times = eventually("twenty rounds were made", || async {
            let times = times.lock().unwrap().clone();
            Ok((times.len() >= 20).then_some(times))
        })
        .await?;
        // Full jitter below 200 ms makes that two seconds; a spin makes it a fifth of one.
        let taken = times[19] - times[0];
        assert!(taken > Duration::from_millis(500), "twenty rounds in {taken:?}");
        assert_eq!(gateway.unsent()?, 1);
        proxy.heal();
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &["KOSONG-1".to_owned()]).await
    })
}
