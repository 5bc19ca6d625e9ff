//! Rows a second into the cloud, durable and idempotent, beside raw COPY into the same table.

use super::Line;
use super::line::{Goal, median};
use crate::stand::Stand;
use crate::wire::{HandMade, batch, scan};
use anyhow::{Result, ensure};
use sqlx::PgPool;
use std::fmt::Write as _;
use std::time::Instant;

const GATEWAYS: usize = 4;
const PER_BATCH: i64 = 5_000;
const BATCHES: i64 = 6;
const ROUNDS: i64 = 3;

pub(super) async fn rows(stand: &Stand) -> Result<Vec<Line>> {
    let cloud = stand.cloud().await?;
    let database = cloud.database().await?;
    let mut makers = Vec::new();
    for n in 1..=GATEWAYS {
        makers.push(cloud.hand_made(&format!("GW-{n}")).await?);
    }
    // A table of its own with every key and index, so that COPY pays for the same.
    sqlx::query("create table copied (like scan_event including all)").execute(&database).await?;
    let (mut ours, mut copies) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        ours.push(through_the_cloud(&makers, round).await?);
        // As many at once as the cloud has writers, and alone; the better one counts.
        let mut best = 0f64;
        for connections in [1, 2] {
            best = best.max(copy(&database, connections, round).await?);
        }
        copies.push(best);
    }
    let stored: i64 = sqlx::query_scalar("select count(*) from scan_event").fetch_one(&database).await?;
    ensure!(stored == ROUNDS * GATEWAYS as i64 * BATCHES * PER_BATCH, "{stored} rows are there");
    let (value, baseline) = (median(&mut ours), median(&mut copies));
    let goal = Goal::RatioAtLeast(0.8);
    Ok(vec![Line::new("cloud_ingest_rows_per_second", "/s", value, Some(baseline), goal)])
}

fn body(gateway: usize, round: i64, number: i64) -> Result<Vec<u8>> {
    let first = (round * BATCHES + number) * PER_BATCH + 1;
    let scans = (first..first + PER_BATCH)
        .map(|seq| scan(seq, &tag(gateway, seq), ["makanan_keluar", "makanan_masuk"][seq as usize % 2]))
        .collect::<Result<Vec<_>>>()?;
    let json = serde_json::to_vec(&batch(100 + gateway as u64, None, scans)?)?;
    Ok(zstd::encode_all(&json[..], 3)?)
}

fn tag(gateway: usize, seq: i64) -> String {
    // Spread as UIDs are, over 2,000 tags.
    let n = (seq as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 2_000;
    format!("04{:012X}", (n + gateway as u64 * 7).wrapping_mul(0x5851_F42D_4C95) & 0xFFFF_FFFF_FFFF)
}

async fn through_the_cloud(makers: &[HandMade], round: i64) -> Result<f64> {
    let mut bodies = Vec::new();
    for gateway in 0..makers.len() {
        let of_gateway = (0..BATCHES).map(|n| body(gateway, round, n)).collect::<Result<Vec<_>>>()?;
        bodies.push(of_gateway);
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
async fn copy(database: &PgPool, connections: usize, round: i64) -> Result<f64> {
    let texts: Vec<Vec<String>> = (0..GATEWAYS)
        .map(|gateway| (0..BATCHES).map(|n| rows_as_text(gateway, connections, round, n)).collect())
        .collect();
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
fn rows_as_text(gateway: usize, connections: usize, round: i64, number: i64) -> String {
    let first = (round * BATCHES + number) * PER_BATCH + 1;
    let epoch = gateway * 10 + connections;
    let mut text = String::new();
    for seq in first..first + PER_BATCH {
        let at = format!("2026-11-21 02:{:02}:{:02}.{:03}+00", seq / 60 % 60, seq % 60, seq % 1000);
        let status = ["makanan_keluar", "makanan_masuk"][seq as usize % 2];
        let tag = tag(gateway, seq);
        let _ = writeln!(
            text,
            "{gateway}\t{epoch}\t{seq}\t1\t{tag}\t{status}\t{at}\t{at}\t0\t{at}\t2026-11-21\t{seq}\t2\t0\t\\N\t\\N\t\\N\t\\N\t1000"
        );
    }
    text
}
