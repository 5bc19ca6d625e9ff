//! What people see: live events on every replica, the summary's counts, pages of scans.

use anyhow::{Context, Result, ensure};
use lumbung_tests::http;
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::{PATIENCE, eventually, when};
use lumbung_tests::wire::{batch, scans};
use serde_json::Value;
use std::time::Duration;

/// A page that listens.
struct Listener {
    response: reqwest::Response,
    text: String,
}

impl Listener {
    async fn on(cloud: &Cloud) -> Result<Self> {
        let response =
            http::client_with(Duration::from_secs(120))?.get(cloud.url("/api/live")).send().await?;
        ensure!(response.status() == 200, "/api/live answered {}", response.status());
        let kind = response.headers().get("content-type").context("no content type")?.to_str()?;
        ensure!(kind.starts_with("text/event-stream"), "{kind}");
        Ok(Self { response, text: String::new() })
    }

    /// Reads until `count` scans were heard of; the tags listed, and how many were only counted.
    async fn hear(&mut self, count: usize) -> Result<(Vec<String>, usize)> {
        let mut read = 0;
        loop {
            let (mut tags, mut more) = (Vec::new(), 0);
            for event in self.text.split("\n\n").filter(|event| event.contains("event: scans")) {
                let data: String = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
                // The last event may not have arrived whole.
                let Ok(data) = serde_json::from_str::<Value>(&data) else {
                    continue;
                };
                more += usize::try_from(data["more"].as_u64().unwrap_or(0))?;
                for scan in data["scans"].as_array().context("no scans")? {
                    tags.push(scan["nfc_tag_id"].as_str().context("no tag")?.to_owned());
                }
            }
            if tags.len() + more >= count {
                return Ok((tags, more));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk())
                .await
                .with_context(|| format!("heard of {} of {count}: {:.500}", tags.len() + more, self.text))??
                .context("the stream ended")?;
            read += chunk.len();
            ensure!(read < 50_000_000, "the stream never says what it should");
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
}

#[test]
fn a_scan_is_seen_live_on_every_replica() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let gateway = stand.gateway("GW-1", &cloud, &cloud.base()).await?;
        let mut here = Listener::on(&cloud).await?;
        let mut there = Listener::on(&replica).await?;
        let tags = gateway.scan_many("LANGSUNG", 8).await?;
        for listener in [&mut here, &mut there] {
            let (mut heard, _) = listener.hear(8).await?;
            heard.sort();
            let mut expected = tags.clone();
            expected.sort();
            assert_eq!(heard, expected, "each once");
        }
        // And the other way round: pushed to the replica, seen at the first.
        let maker = replica.hand_made("GW-2").await?;
        maker.send(&batch(5, None, scans(1, 300, "BANYAK")?)?).await?;
        for listener in [&mut here, &mut there] {
            let (heard, more) = listener.hear(308).await?;
            assert_eq!(heard.len() + more, 308);
        }
        // What is only a duplicate is no news.
        maker.send(&batch(5, None, scans(1, 300, "BANYAK")?)?).await?;
        maker.send(&batch(5, None, scans(301, 1, "TERAKHIR")?)?).await?;
        for listener in [&mut here, &mut there] {
            let (heard, more) = listener.hear(309).await?;
            assert_eq!(heard.len() + more, 309);
            assert_eq!(heard.last().map(String::as_str), Some("TERAKHIR-301"));
        }
        Ok(())
    })
}

#[test]
fn one_reader_cannot_hold_all_the_streams_and_all_together_have_an_end() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("limits.live_streams_each", 2).set("limits.live_streams", 3);
        cloud.start().await?;
        let added = cloud.must(&["key", "add", "layar", "--scope", "read", "--json"]).await?;
        let added: Value = serde_json::from_str(&added)?;
        let key = added["key"].as_str().context("key")?;
        let client = http::client_with(Duration::from_secs(120))?;
        let open = async |bearer: Option<&str>| {
            let request = client.get(cloud.url("/api/live"));
            request_of(request, bearer).send().await
        };
        let (first, _second) = (open(Some(key)).await?, open(Some(key)).await?);
        let third = open(Some(key)).await?;
        assert_eq!((third.status().as_u16(), third.headers().contains_key("retry-after")), (429, true));
        let _other = Listener::on(&cloud).await?;
        let full = open(None).await?;
        assert_eq!((full.status().as_u16(), full.headers().contains_key("retry-after")), (503, true));
        // Whoever leaves makes room.
        drop(first);
        eventually("there is room again", || async { Ok(when(open(Some(key)).await?.status() == 200)) }).await
    })
}

fn request_of(request: reqwest::RequestBuilder, bearer: Option<&str>) -> reqwest::RequestBuilder {
    match bearer {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

#[test]
fn two_replicas_that_get_the_same_batch_keep_it_once() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let maker = cloud.hand_made("GW-1").await?;
        let mut other = maker.clone();
        other.cloud = replica.base();
        for round in 0..10 {
            let made = batch(9, None, scans(1 + round * 50, 50, "KEMBAR")?)?;
            let (a, b) = tokio::join!(maker.send(&made), other.send(&made));
            let exceptions: usize = [a?, b?]
                .iter()
                .flat_map(|answer| &answer.runs)
                .flat_map(|run| run.streams.values())
                .flat_map(|stream| &stream.exceptions)
                .map(|e| usize::try_from(e.through.unwrap_or(e.seq) + 1 - e.seq).unwrap_or(0))
                .sum();
            assert_eq!(exceptions, 50, "each record is accepted once and a duplicate once");
        }
        let summary = replica.summary().await?;
        assert_eq!(summary["totals"]["scans"], 500);
        assert_eq!(summary["totals"]["quarantined"], 0);
        Ok(())
    })
}

#[test]
fn the_summary_counts_what_is_there() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let gateway = stand.gateway("GW-1", &cloud, &cloud.base()).await?;
        for n in 0..7 {
            gateway.scan(&format!("KELUAR-{n}"), "makanan_keluar").await?;
        }
        for n in 0..4 {
            gateway.scan(&format!("ANEH-{n}"), "kode_baru").await?;
        }
        gateway.drained().await?;
        let summary = eventually("the summary has caught up", || async {
            let summary = cloud.summary().await?;
            let gateway = cloud.summary_of("GW-1").await?;
            Ok((summary["totals"]["scans"] == 11 && gateway["unsent"] == 0).then_some(summary))
        })
        .await?;
        assert_eq!(summary["totals"]["gateways"], 1);
        assert_eq!(summary["totals"]["sites"], 1);
        let count = |code: &str| {
            let today = summary["today"].as_array().unwrap();
            today.iter().find(|line| line["status_scan"] == code).cloned().unwrap_or_default()
        };
        assert_eq!(count("makanan_keluar")["count"], 7, "{summary}");
        assert_eq!(count("makanan_keluar")["biz_step"], "shipping");
        assert_eq!(count("makanan_keluar")["label"]["id"], "Makanan keluar");
        assert_eq!(count("kode_baru")["count"], 4);
        assert_eq!(count("kode_baru")["label"], Value::Null);
        let checkpoint = &summary["checkpoints"][0];
        assert_eq!(checkpoint["site"]["code"], "DAPUR-1");
        assert_eq!(checkpoint["site"]["time_zone"], "Asia/Jakarta");
        assert_eq!(checkpoint["today"], 11);
        assert_eq!(checkpoint["by_status"]["kode_baru"], 4);
        let line = &checkpoint["gateways"][0];
        assert_eq!(line["gateway_id"], "GW-1");
        assert_eq!(line["held"], 11);
        assert_eq!(line["gaps"], 0);
        assert_eq!(line["alarms"], serde_json::json!([]));
        assert!(line["last_heard_at"].is_string());
        assert_eq!(summary["latest"].as_array().unwrap().len(), 11);
        Ok(())
    })
}

#[test]
fn pages_of_scans_show_each_scan_once_while_new_ones_arrive() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        maker.send(&batch(3, None, scans(1, 137, "HAL")?)?).await?;
        let mut seen = Vec::new();
        let mut path = "/api/scans?limit=20&gateway_id=GW-1&status_scan=makanan_keluar".to_owned();
        let mut newest = 1_000;
        loop {
            let page = cloud.get(&path).await?.expect(200)?;
            for scan in page["scans"].as_array().context("no scans")? {
                seen.push(scan["nfc_tag_id"].as_str().unwrap_or_default().to_owned());
            }
            newest += 1;
            maker.send(&batch(3, None, scans(newest, 1, "SUSUL")?)?).await?;
            let Some(cursor) = page["next_cursor"].as_str() else {
                break;
            };
            path = format!("/api/scans?limit=20&gateway_id=GW-1&status_scan=makanan_keluar&cursor={cursor}");
        }
        let mut old: Vec<&String> = seen.iter().filter(|tag| tag.starts_with("HAL")).collect();
        old.sort();
        let found = old.len();
        old.dedup();
        assert_eq!((found, old.len()), (137, 137));
        for bad in ["limit=0", "limit=501", "cursor=x", "site=NIHIL&cursor=x", "from=kemarin", "limit=abc"] {
            let reply = cloud.get(&format!("/api/scans?{bad}")).await?;
            assert_eq!(reply.status, 400, "{bad}: {}", reply.text);
        }
        let none = cloud.get("/api/scans?gateway_id=TIDAK-ADA").await?.expect(200)?;
        assert_eq!(none["scans"], serde_json::json!([]));
        Ok(())
    })
}

#[test]
fn health_metrics_api_description_and_page_are_served() -> Result<()> {
    story(async |stand| {
        let (cloud, _proxy, gateway) = stand.trio().await?;
        for path in ["/livez", "/readyz", "/api/health", "/api/health/detailed", "/metrics", "/", "/docs/"] {
            assert_eq!(cloud.get(path).await?.status, 200, "{path}");
        }
        let api = cloud.get("/openapi.json").await?.expect(200)?;
        assert!(api["openapi"].as_str().unwrap_or_default().starts_with("3.1"), "{}", api["openapi"]);
        for path in ["/api/sync_gateway_data", "/api/dashboard/summary", "/api/scans", "/api/live"] {
            assert!(api["paths"][path].is_object(), "{path} is not described");
        }
        for path in ["/livez", "/readyz", "/api/health", "/metrics"] {
            assert_eq!(gateway.get(path).await?.status, 200, "gateway {path}");
        }
        eventually("the cloud knows of the gateway", || async {
            Ok(when(cloud.summary_of("GW-1").await?["last_heard_at"].is_string()))
        })
        .await
    })
}
