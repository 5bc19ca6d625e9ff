//! Rows a second into the cloud, durable and idempotent, beside raw COPY into the same table.

use super::Line;
use super::line::{Goal, median};
use crate::stand::Stand;
use crate::wire::{HandMade, batch, reading, scan, telemetry};
use anyhow::{Result, ensure};
use lumbung_shared::wire::Batch;
use sqlx::PgPool;
use std::time::Instant;

const GATEWAYS: usize = 4;
const PER_BATCH: i64 = 5_000;
const BATCHES: i64 = 6;
const ROUNDS: i64 = 3;
/// Series of one gateway.
const SERIES: i64 = 20;

pub(super) async fn rows(stand: &Stand) -> Result<Vec<Line>> {
    beside_copy(stand, "cloud_ingest_rows_per_second", "scan_event", scan_body, scan_as_text).await
}

/// The same for what sensors tell: 20 series a gateway.
pub(super) async fn readings(stand: &Stand) -> Result<Vec<Line>> {
    beside_copy(stand, "cloud_readings_per_second", "reading", reading_body, reading_as_text).await
}

async fn beside_copy(
    stand: &Stand,
    name: &str,
    table: &str,
    body: impl Fn(usize, i64) -> Result<Batch>,
    row: impl Fn(usize, usize, i64) -> String,
) -> Result<Vec<Line>> {
    let cloud = stand.cloud().await?;
    let database = cloud.database().await?;
    let mut makers = Vec::new();
    for n in 1..=GATEWAYS {
        makers.push(cloud.hand_made(&format!("GW-{n}")).await?);
    }
    // A table of its own with every key and index, so that COPY pays for the same.
    let sql = format!("create table copied (like {table} including all)");
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&database).await?;
    let (mut ours, mut copies) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        ours.push(through_the_cloud(&makers, round, &body).await?);
        // As many at once as the cloud has writers, and alone; the better one counts.
        let mut best = 0f64;
        for connections in [1, 2] {
            best = best.max(copy(&database, connections, round, &row).await?);
        }
        copies.push(best);
    }
    let sql = format!("select count(*) from {table}");
    let stored: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&database).await?;
    ensure!(stored == ROUNDS * GATEWAYS as i64 * BATCHES * PER_BATCH, "{stored} rows are there");
    let (value, baseline) = (median(&mut ours), median(&mut copies));
    let goal = Goal::RatioAtLeast(0.8);
    Ok(vec![Line::new(name, "/s", value, Some(baseline), goal)])
}

/// The batch that begins with number `first`.
fn scan_body(gateway: usize, first: i64) -> Result<Batch> {
    let scans = (first..first + PER_BATCH)
        .map(|seq| scan(seq, &tag(gateway, seq), ["makanan_keluar", "makanan_masuk"][seq as usize % 2]))
        .collect::<Result<Vec<_>>>()?;
    batch(100 + gateway as u64, None, scans)
}

fn reading_body(gateway: usize, first: i64) -> Result<Batch> {
    let readings = (first..first + PER_BATCH)
        .map(|seq| {
            let name = format!("sensor-{}/temperature", seq % SERIES);
            reading(seq, &name, "Cel", 20.0 + (seq % 500) as f64 / 100.0)
        })
        .collect::<Result<Vec<_>>>()?;
    telemetry(100 + gateway as u64, readings, Vec::new())
}

fn tag(gateway: usize, seq: i64) -> String {
    // Spread as UIDs are, over 2,000 tags.
    let n = (seq as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 2_000;
    format!("04{:012X}", (n + gateway as u64 * 7).wrapping_mul(0x5851_F42D_4C95) & 0xFFFF_FFFF_FFFF)
}

/// The first number of a batch.
fn first_of(round: i64, number: i64) -> i64 {
    (round * BATCHES + number) * PER_BATCH + 1
}

async fn through_the_cloud(
    makers: &[HandMade],
    round: i64,
    body: impl Fn(usize, i64) -> Result<Batch>,
) -> Result<f64> {
    let mut bodies = Vec::new();
    for gateway in 0..makers.len() {
        let compressed = |n| {
            let json = serde_json::to_vec(&body(gateway, first_of(round, n))?)?;
            anyhow::Ok(zstd::encode_all(&json[..], 3)?)
        };
        bodies.push((0..BATCHES).map(compressed).collect::<Result<Vec<_>>>()?);
    }
    let began = Instant::now();
    let mut posting = tokio::task::JoinSet::new();
    for (maker, bodies) in makers.iter().cloned().zip(bodies) {
        posting.spawn(async move {
            for body in bodies {
                maker.post_encoded("zstd", body).await?.expect(200)?;
            }
            anyhow::Ok(())
        });
    }
    for result in posting.join_all().await {
        result?;
    }
    let rows = makers.len() as f64 * (BATCHES * PER_BATCH) as f64;
    Ok(rows / began.elapsed().as_secs_f64())
}

/// The same rows by COPY, a transaction per batch.
async fn copy(
    database: &PgPool,
    connections: usize,
    round: i64,
    row: impl Fn(usize, usize, i64) -> String,
) -> Result<f64> {
    let text = |gateway, n| -> String {
        let first = first_of(round, n);
        (first..first + PER_BATCH).map(|seq| row(gateway, connections, seq)).collect()
    };
    let texts: Vec<Vec<String>> =
        (0..GATEWAYS).map(|gateway| (0..BATCHES).map(|n| text(gateway, n)).collect()).collect();
    let mut shares = vec![Vec::new(); connections];
    for (n, text) in texts.into_iter().flatten().enumerate() {
        shares[n % connections].push(text);
    }
    let began = Instant::now();
    let mut copying = tokio::task::JoinSet::new();
    for share in shares {
        let database = database.clone();
        copying.spawn(async move {
            let mut connection = database.acquire().await?;
            for text in share {
                let mut copy = connection.copy_in_raw("copy copied from stdin").await?;
                copy.send(text.into_bytes()).await?;
                copy.finish().await?;
            }
            anyhow::Ok(())
        });
    }
    for result in copying.join_all().await {
        result?;
    }
    Ok((GATEWAYS as i64 * BATCHES * PER_BATCH) as f64 / began.elapsed().as_secs_f64())
}

/// In the order of the table's columns.
fn scan_as_text(gateway: usize, connections: usize, seq: i64) -> String {
    let epoch = gateway * 10 + connections;
    let at = format!("2026-11-21 02:{:02}:{:02}.{:03}+00", seq / 60 % 60, seq % 60, seq % 1000);
    let status = ["makanan_keluar", "makanan_masuk"][seq as usize % 2];
    let tag = tag(gateway, seq);
    format!(
        "{gateway}\t{epoch}\t{seq}\t1\t{tag}\t{status}\t{at}\t{at}\t0\t{at}\t2026-11-21\t{seq}\t2\t0\t\\N\t\\N\t\\N\t\\N\t1000\n"
    )
}

/// In the order of the table's columns.
fn reading_as_text(gateway: usize, connections: usize, seq: i64) -> String {
    let epoch = gateway * 10 + connections;
    let series = gateway as i64 * SERIES + seq % SERIES;
    let value = 20.0 + (seq % 500) as f64 / 100.0;
    let at = format!("2026-11-21 02:{:02}:{:02}.{:03}+00", seq / 60 % 60, seq % 60, seq % 1000);
    format!("{series}\t{at}\t{epoch}\t{seq}\t{value}\t0\t0\t2\t1000\t{at}\t{at}\t{seq}\n")
}
