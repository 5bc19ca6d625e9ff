//! Bodies that are too large, bodies that explode, clients that never finish a sentence.

use anyhow::{Context, Result};
use lumbung_shared::time::ClockState;
use lumbung_shared::wire::{Health, READING_STREAM};
use lumbung_tests::http;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, eventually_within, when};
use lumbung_tests::wire::{batch, event, reading, scan, scans, telemetry};
use serde_json::json;
use std::io::Write;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The most memory a process ever used, in bytes.
fn peak_memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    let kb: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kb * 1024)
}

#[test]
fn a_body_of_ten_megabytes_is_answered_413_by_both_programs() -> Result<()> {
    story(async |stand| {
        let (cloud, _proxy, gateway) = stand.trio().await?;
        let maker = cloud.hand_made("GW-2").await?;
        let huge = format!("[{}]", "\"aaaaaaaa\",".repeat(1_000_000));
        assert!(huge.len() > 10_000_000);
        let reply = maker.post(huge.clone()).await?;
        assert_eq!(reply.status, 413, "{}", reply.text);
        let note = json!({ "nfc_tag_id": "A", "status_scan": "b", "note": "x".repeat(10_000_000) });
        // The gateway may say so before the body is through; then the line ends instead.
        if let Ok(reply) = gateway.log_scan(&note).await {
            assert_eq!(reply.status, 413, "{:.300}", reply.text);
        }
        gateway.scan("MASIH-HIDUP", "makanan_keluar").await?;
        gateway.drained().await?;
        Ok(())
    })
}

#[test]
fn a_zip_bomb_is_put_out_at_the_limit_and_costs_little_memory() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        let zeros = vec![b' '; 300_000_000];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&zeros)?;
        let bombs = [("gzip", gzip.finish()?), ("zstd", zstd::encode_all(&zeros[..], 3)?)];
        drop(zeros);
        for (encoding, bomb) in bombs {
            assert!(bomb.len() < 1_000_000);
            let posts = (0..6).map(|_| {
                let (maker, bomb) = (maker.clone(), bomb.clone());
                async move { maker.post_encoded(encoding, bomb).await }
            });
            for reply in futures_of(posts).await {
                let reply = reply?;
                // Too many at once from one gateway are turned away before they are read.
                assert!(
                    matches!(reply.status, 413 | 429 | 503),
                    "{encoding}: {} {}",
                    reply.status,
                    reply.text
                );
            }
            let alone = eventually("the others are through", || async {
                let reply = maker.post_encoded(encoding, bomb.clone()).await?;
                Ok((reply.status != 429).then_some(reply.status))
            })
            .await?;
            assert_eq!(alone, 413);
            assert_eq!(maker.post_encoded(encoding, b"not compressed".to_vec()).await?.status, 400);
        }
        let peak = peak_memory(cloud.pid().context("the cloud is not running")?)?;
        assert!(peak < 400_000_000, "the cloud used {peak} bytes");
        let good = serde_json::to_vec(&batch(1, None, scans(1, 5, "BAIK")?)?)?;
        let reply = maker.post_encoded("zstd", zstd::encode_all(&good[..], 3)?).await?;
        reply.expect(200)?;
        assert_eq!(maker.post_encoded("br", good).await?.status, 415);
        Ok(())
    })
}

/// Runs them side by side.
async fn futures_of<F>(futures: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let mut set = tokio::task::JoinSet::new();
    for future in futures {
        set.spawn(future);
    }
    set.join_all().await
}

#[test]
fn clients_that_never_finish_their_request_are_let_go_and_delay_nobody() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("http.head_timeout", "1s").set("http.body_timeout", "1s");
        cloud.start().await?;
        cloud.furnish().await?;
        let gateway = stand.gateway("GW-1", &cloud, &cloud.base()).await?;
        let maker = cloud.hand_made("GW-2").await?;
        for address in [cloud.address(), gateway.address()] {
            let mut slow = Vec::new();
            for _ in 0..120 {
                let mut stream = TcpStream::connect(&address).await?;
                stream.write_all(b"POST /api/log_scan HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A").await?;
                slow.push(stream);
            }
            // Everybody else is served meanwhile.
            gateway.scan(&format!("CEPAT-{}", slow.len()), "makanan_keluar").await?;
            assert_eq!(cloud.get("/livez").await?.status, 200);
            for mut stream in slow {
                let mut rest = Vec::new();
                let ended =
                    tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut rest)).await;
                assert!(ended.is_ok(), "{address} keeps a client that never finishes its head");
            }
        }
        // A body that drips: announced whole, sent a byte at a time.
        let mut stream = TcpStream::connect(cloud.address()).await?;
        let head = format!(
            "POST /api/sync_gateway_data HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n",
            maker.key
        );
        stream.write_all(head.as_bytes()).await?;
        let (mut read, mut write) = stream.into_split();
        let drip = tokio::spawn(async move {
            while write.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), read.read_to_end(&mut answer))
            .await
            .context("a dripping body is waited for for ever")?
            .ok();
        drip.abort();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        let counted = r#"{route="/api/sync_gateway_data",method="POST",status="408"}"#;
        assert!(cloud.get("/metrics").await?.text.contains(counted), "nobody counts who took too long");
        gateway.drained().await
    })
}

#[test]
fn a_page_of_another_site_cannot_speak_to_the_gateway() -> Result<()> {
    story(async |stand| {
        let mut gateway = stand.bare_gateway("GW-1")?;
        gateway.start().await?;
        let post = |host: String, origin: Option<&'static str>| {
            let gateway = &gateway;
            async move {
                let mut stream = TcpStream::connect(gateway.address()).await?;
                let body = r#"{"nfc_tag_id":"JAHAT","status_scan":"makanan_keluar"}"#;
                let origin = origin.map(|o| format!("Origin: {o}\r\n")).unwrap_or_default();
                let request = format!(
                    "POST /api/log_scan HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Type: application/json\r\n\
                     Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(request.as_bytes()).await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await?;
                let status = answer.split(' ').nth(1).context("no status")?.parse::<u16>()?;
                anyhow::Ok(status)
            }
        };
        let rebound = post("evil.example".to_owned(), None).await?;
        assert!((400..500).contains(&rebound), "a rebound name got {rebound}");
        assert!(gateway.tags()?.is_empty());
        assert_eq!(post(format!("localhost:{}", gateway.port), None).await?, 201);
        Ok(())
    })
}

#[test]
fn a_gateway_refuses_to_open_itself_to_the_network_unless_told_to() -> Result<()> {
    story(async |stand| {
        let mut gateway = stand.bare_gateway("GW-1")?;
        let port = gateway.port;
        gateway.set("http.listen", format!("0.0.0.0:{port}"));
        gateway.spawn()?;
        let ended = gateway.wait_for_its_end().await?;
        assert_eq!(ended.code(), Some(2), "{}", gateway.logged());
        assert!(gateway.logged().contains("field_manual"), "{}", gateway.logged());
        Ok(())
    })
}

#[test]
fn a_storm_of_batches_is_shed_with_503_and_all_arrive_in_the_end() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("ingest.max_in_flight", 2);
        cloud.start().await?;
        cloud.furnish().await?;
        let mut gateways = Vec::new();
        for n in 1..=8 {
            gateways.push(cloud.hand_made(&format!("GW-{n}")).await?);
        }
        let posts = gateways.iter().cloned().map(|maker| async move {
            let body = serde_json::to_string(&batch(7, None, scans(1, 2_000, &maker.code)?)?)?;
            eventually_within(Duration::from_secs(60), "the batch is taken", || {
                let (maker, body) = (maker.clone(), body.clone());
                async move {
                    let reply = maker.post(body).await?;
                    if matches!(reply.status, 429 | 503) {
                        anyhow::ensure!(reply.header("retry-after").is_some(), "shed without Retry-After");
                    }
                    Ok(when(reply.status == 200))
                }
            })
            .await?;
            anyhow::Ok(())
        });
        for result in futures_of(posts).await {
            result?;
        }
        eventually("all are counted", || async {
            Ok(when(cloud.summary().await?["totals"]["scans"] == 16_000))
        })
        .await?;
        let client = http::client()?;
        assert_eq!(http::send(client.get(cloud.url("/livez"))).await?.status, 200);
        Ok(())
    })
}

#[test]
fn a_flood_of_series_goes_to_quarantine_and_what_a_gateway_measures_goes_on() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (maker, other) = (cloud.hand_made("GW-1").await?, cloud.hand_made("GW-2").await?);
        maker.send(&telemetry(1, vec![reading(1, "kulkas-1/temperature", "Cel", 4.0)?], vec![])?).await?;
        // A device that puts a counter into its topic.
        let flood =
            (2..=2_500).map(|n| reading(n, &format!("counter/{n}"), "1", 0.0)).collect::<Result<_>>()?;
        let answer = maker.send(&telemetry(1, flood, vec![])?).await?;
        let stream = &answer.runs[0].streams[READING_STREAM];
        assert_eq!((stream.acked_through, stream.held.count, stream.exceptions.len()), (2_500, 2_500, 500));
        let told = stream.exceptions.iter().all(|e| e.reason.as_deref() == Some("too_many_series"));
        assert!(told, "{:?}", stream.exceptions[0]);
        let more = vec![reading(2_501, "kulkas-1/temperature", "Cel", 5.0)?];
        let answer = maker.send(&telemetry(1, more, vec![])?).await?;
        assert_eq!(answer.runs[0].streams[READING_STREAM].exceptions.len(), 0);
        let answer = other.send(&telemetry(1, vec![reading(1, "suhu", "Cel", 4.0)?], vec![])?).await?;
        assert_eq!(answer.runs[0].streams[READING_STREAM].exceptions.len(), 0, "another is not in its way");
        // Once there is room, all of it can be taken after all.
        let database = cloud.database().await?;
        let unused = "delete from series where name like 'counter/%' and series_id not in (select series_id from reading)";
        sqlx::query(
            "with gone as (delete from reading r using series s where s.series_id = r.series_id
                 and s.name like 'counter/%' returning r.series_id)
             delete from series_latest where series_id in (select series_id from gone)",
        )
        .execute(&database)
        .await?;
        sqlx::query(unused).execute(&database).await?;
        cloud.must(&["quarantine", "replay", "--all"]).await?;
        let kept: i64 = sqlx::query_scalar("select count(*) from reading").fetch_one(&database).await?;
        assert_eq!(kept, 503);
        Ok(())
    })
}

#[test]
fn numbers_at_the_end_of_the_world_are_taken_or_set_aside_and_harm_nobody() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let maker = cloud.hand_made("GW-1").await?;
        let ends = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
        let mut seq = 0;
        for (epoch, mono_ms) in (1..).zip(ends) {
            let (mut all, mut events, mut taps) = (Vec::new(), Vec::new(), Vec::new());
            for wall_ms in ends {
                for clock in [ClockState::Unset, ClockState::Held, ClockState::Synced] {
                    seq += 1;
                    let mut one = reading(seq, "kulkas-1/temperature", "Cel", f64::MAX)?;
                    (one.mono_ms, one.wall_ms, one.clock) = (mono_ms, wall_ms, clock);
                    one.content.at_ms = (seq % 2 == 0).then_some(wall_ms);
                    all.push(one);
                    let body = json!({ "mono_ms": wall_ms, "wall_ms": mono_ms, "uncertainty_ms": wall_ms,
                        "source": "phone" });
                    let mut one = event(seq, "clock_anchor", &body);
                    (one.mono_ms, one.wall_ms, one.clock) = (mono_ms, wall_ms, clock);
                    events.push(one);
                    let mut one = scan(seq, "TAG", "makanan_keluar")?;
                    (one.mono_ms, one.wall_ms, one.clock) = (mono_ms, wall_ms, clock);
                    taps.push(one);
                }
            }
            let mut made = telemetry(epoch, all, events)?;
            let scanned = batch(epoch, None, taps)?;
            made.statuses = scanned.statuses;
            made.runs[0].streams.extend(scanned.runs.into_iter().flat_map(|run| run.streams));
            made.mono_ms = mono_ms;
            let unsent = [("scan".to_owned(), u64::MAX), (READING_STREAM.to_owned(), u64::MAX)].into();
            made.health = Some(Health { unsent, parked: u64::MAX, ..Health::default() });
            let answer = maker.send(&made).await?;
            let held: Vec<_> = answer.runs[0].streams.values().map(|stream| stream.held.count).collect();
            assert_eq!(held, [21, 21, 21], "{answer:?}");
        }
        let healthy = cloud.hand_made("GW-2").await?;
        healthy.send(&batch(1, None, scans(1, 5, "BAIK")?)?).await?;
        assert_eq!(cloud.summary_of("GW-2").await?["held"], 5);
        assert_eq!(cloud.get("/api/gateways/GW-1/events?limit=500").await?.status, 200);
        assert_eq!(cloud.get("/api/telemetry/series").await?.status, 200);
        let body = cloud.get("/api/telemetry/readings?series_id=1&limit=1000").await?.expect(200)?;
        assert!(body["readings"].as_array().is_some());
        Ok(())
    })
}
