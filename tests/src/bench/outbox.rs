//! A backlog of 100,000 scans: how fast it drains, what it takes in memory, what it weighs on the line.

use super::Line;
use super::line::Goal;
use crate::backlog::days_of_scans;
use crate::programs::Gateway;
use crate::proxy::{Line as Network, Proxy};
use crate::stand::Stand;
use crate::wait::{eventually_within, when};
use anyhow::{Context, Result};
use serde_json::json;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const BACKLOG: usize = 100_000;

pub(super) fn megabytes(pid: u32, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).context("no such field")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kilobytes / 1024.0)
}

/// Draining over the loopback, the gateway's memory before and at its peak.
pub(super) async fn drain(stand: &Stand) -> Result<Vec<Line>> {
    let cloud = stand.cloud().await?;
    let mut gateway = stand.gateway_not_started("GW-DRAIN", &cloud, &cloud.base()).await?;
    gateway.start().await?;
    gateway.scan("04AABBCCDDEE00", "makanan_keluar").await?;
    gateway.drained().await?;
    gateway.stop().await?;
    days_of_scans(&gateway.database(), BACKLOG, 7)?;
    // Offline first, to see what a backlog costs that only lies there.
    let proxy = Proxy::start(&cloud.address())?;
    proxy.line(Network::Refused);
    gateway.env("MAIN_SERVER_API_URL", proxy.base());
    gateway.set("sync.backoff_max", "1h").set("sync.backoff_base", "1h");
    gateway.start().await?;
    gateway.until_state("backing_off").await?;
    for n in 0..2_000 {
        gateway.scan(&format!("04AABBCCDD{n:04X}"), "makanan_masuk").await?;
    }
    let pid = gateway.pid().context("the gateway is not running")?;
    let lying = megabytes(pid, "VmRSS:")?;
    gateway.stop().await?;
    // And now with the cloud there.
    gateway.env("MAIN_SERVER_API_URL", cloud.base());
    gateway.set("sync.backoff_max", "200ms").set("sync.backoff_base", "20ms");
    let before: i64 =
        sqlx::query_scalar("select count(*) from scan_event").fetch_one(&cloud.database().await?).await?;
    let backlog = gateway.unsent()?;
    gateway.start().await?;
    let began = Instant::now();
    eventually_within(Duration::from_secs(300), "the backlog has drained", || async {
        Ok(when(gateway.status().await?["unsent"]["scan"] == 0))
    })
    .await?;
    let seconds = began.elapsed().as_secs_f64();
    let pid = gateway.pid().context("the gateway is not running")?;
    let peak = megabytes(pid, "VmHWM:")?;
    let after: i64 =
        sqlx::query_scalar("select count(*) from scan_event").fetch_one(&cloud.database().await?).await?;
    anyhow::ensure!(after - before == backlog, "{} of {backlog} arrived", after - before);
    Ok(vec![
        Line::new("drain_100k_backlog", "s", seconds, None, Goal::ValueAtMost(5.0)),
        Line::new("gateway_rss_100k_offline", "MB", lying, None, Goal::ValueAtMost(25.0)),
        Line::new("gateway_rss_100k_drain_peak", "MB", peak, None, Goal::ValueAtMost(25.0)),
    ])
}

const MILLION: usize = 1_000_000;

/// From the start of the program to its first durable answer, beside the same with an empty store, and its
/// memory with a million scans that no cloud has taken yet.
pub(super) async fn million(stand: &Stand) -> Result<Vec<Line>> {
    let mut gateway = stand.bare_gateway("GW-MILLION")?;
    let empty = first_ack(&mut gateway).await?;
    gateway.stop().await?;
    days_of_scans(&gateway.database(), MILLION, 7)?;
    let (mut starts, mut memory) = (Vec::new(), 0.0);
    for _ in 0..3 {
        starts.push(first_ack(&mut gateway).await?);
        gateway.status().await?;
        memory = megabytes(gateway.pid().context("the gateway is not running")?, "VmHWM:")?;
        gateway.stop().await?;
    }
    let start = super::line::median(&mut starts);
    Ok(vec![
        Line::new("start_to_first_ack_1m_unsent", "s", start, Some(empty), Goal::ValueAtMost(5.0)),
        Line::new("gateway_rss_1m_unsent_peak", "MB", memory, None, Goal::ValueAtMost(25.0)),
    ])
}

async fn first_ack(gateway: &mut Gateway) -> Result<f64> {
    let began = Instant::now();
    gateway.start().await?;
    gateway.scan("04AABBCCDDEE00", "makanan_keluar").await?;
    Ok(began.elapsed().as_secs_f64())
}

/// One batch of 500 as the gateway sends it, beside the documents' JSON of the same scans.
pub(super) async fn payload(stand: &Stand) -> Result<Vec<Line>> {
    let cloud = stand.cloud().await?;
    let proxy = Proxy::start(&cloud.address())?;
    let mut gateway = stand.gateway_not_started("GW-PAYLOAD", &cloud, &proxy.base()).await?;
    gateway.set("sync.batch_max", 500);
    gateway.start().await?;
    gateway.scan("04AABBCCDDEE00", "makanan_keluar").await?;
    gateway.drained().await?;
    gateway.stop().await?;
    days_of_scans(&gateway.database(), 5_000, 11)?;
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    proxy.rule(move |request| {
        if request.records() == 500 {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(request.message.body().len() as f64 / 500.0);
        }
        crate::proxy::Fate::Pass
    });
    gateway.start().await?;
    gateway.drained().await?;
    let mut bodies = bodies.lock().unwrap_or_else(PoisonError::into_inner).clone();
    anyhow::ensure!(!bodies.is_empty(), "no batch of 500 was sent");
    let ours = super::line::median(&mut bodies);
    let (plain, gzip) = documents_json(&gateway.look()?)?;
    Ok(vec![
        Line::new("payload_bytes_per_scan_500", "B", ours, Some(plain), Goal::ValueAtMost(12.0)),
        Line::new("payload_bytes_per_scan_500_vs_json_gzip", "B", ours, Some(gzip), Goal::None),
    ])
}

/// Bytes a scan in the documents' array form, plain and gzipped.
fn documents_json(store: &rusqlite::Connection) -> Result<(f64, f64)> {
    let mut statement = store
        .prepare("select nfc_tag_id, timestamp, status_scan from scan_event order by id desc limit 500")?;
    let rows = statement.query_map([], |row| {
        let (tag, timestamp, status): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(json!({ "nfc_tag_id": tag, "timestamp": timestamp, "status_scan": status, "gateway_id": "GW-PAYLOAD" }))
    })?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let plain = serde_json::to_vec(&rows)?;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain)?;
    let count = rows.len() as f64;
    Ok((plain.len() as f64 / count, gzip.finish()?.len() as f64 / count))
}
