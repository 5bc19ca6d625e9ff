//! From the tap to the durable answer.

use super::Line;
use super::clients::{Client, storm};
use super::line::{Goal, median, percentile};
use crate::programs::{Program, faults, free_port};
use crate::stand::Stand;
use crate::wait::eventually;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::{Context, Result};
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 8;
const PER_ROUND: usize = 150;
const POSTING: usize = 32;
const STORM: Duration = Duration::from_secs(4);

/// Tap → durable answer beside a 4 KiB append and fdatasync of the same disk, turn about.
pub(super) async fn ack(stand: &Stand) -> Result<Vec<Line>> {
    let mut gateway = stand.bare_gateway("GW-ACK")?;
    gateway.start().await?;
    let mut client = Client::connect(&gateway.address()).await?;
    client.tap("04AABBCCDDEE00").await?;
    let mut probe = File::create(stand.path().join("probe"))?;
    let (mut taps, mut flushes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for _ in 0..PER_ROUND {
            flushes.push(flush(&mut probe)?);
        }
        for n in 0..PER_ROUND {
            let began = Instant::now();
            client.tap(&format!("04AABBCCDD{n:04X}")).await?;
            taps.push(milliseconds(began));
        }
    }
    let (tap, flush) = (median(&mut taps), median(&mut flushes));
    let (slow_tap, slow_flush) = (percentile(&mut taps, 0.99), percentile(&mut flushes, 0.99));
    Ok(vec![
        Line::new("tap_to_ack_p50", "ms", tap, Some(flush), Goal::RatioAtMost(2.0)),
        Line::new("tap_to_ack_p99", "ms", slow_tap, Some(slow_flush), Goal::ValueAtMost(350.0)),
    ])
}

const SLOW_TAPS: usize = 4_000;

/// Tap → durable answer on a card whose flushes take 1.3 ms more than this disk's and that now and then
/// stands still for 411 ms, as a cheap SD card was measured to do.
pub(super) async fn ack_on_a_slow_card(stand: &Stand) -> Result<Vec<Line>> {
    let mut gateway = stand.bare_gateway("GW-SLOW")?;
    let wrapper = faults::failing(&gateway, &SLOW_CARD)?;
    gateway.under(wrapper);
    gateway.start().await?;
    let mut client = Client::connect(&gateway.address()).await?;
    let mut taps = Vec::with_capacity(SLOW_TAPS);
    for n in 0..SLOW_TAPS {
        let began = Instant::now();
        client.tap(&format!("04AABBCCDD{n:04X}")).await?;
        taps.push(milliseconds(began));
    }
    let line = |name: &str, value, most| Line::new(name, "ms", value, None, Goal::ValueAtMost(most));
    let mut lines = vec![
        line("tap_to_ack_slow_card_p50", median(&mut taps), 15.0),
        line("tap_to_ack_slow_card_p99", percentile(&mut taps, 0.99), 60.0),
        line("tap_to_ack_slow_card_p99.9", percentile(&mut taps, 0.999), 500.0),
    ];
    let standstills = taps.iter().filter(|ms| **ms >= 400.0).count();
    anyhow::ensure!(standstills > SLOW_TAPS / 1_000, "the card never stood still");
    lines.push(Line::new("taps_that_met_a_standstill", "", standstills as f64, None, Goal::None));
    Ok(lines)
}

/// Each flush of the log 1.3 ms longer; a write in about 700 taps stands still.
const SLOW_CARD: [&str; 2] =
    ["fdatasync,fsync:delay_exit=1300", "pwrite64,write:delay_enter=411000:when=700+1400"];

fn flush(probe: &mut File) -> Result<f64> {
    let began = Instant::now();
    probe.write_all(&[7; 4096])?;
    probe.sync_data()?;
    Ok(milliseconds(began))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Durable scans a second with 32 posting, beside the same server without a store and the store without
/// a server, turn about.
pub(super) async fn rate(stand: &Stand) -> Result<Vec<Line>> {
    let mut gateway = stand.bare_gateway("GW-RATE")?;
    gateway.start().await?;
    let port = free_port()?;
    let mut server = Command::new(std::env::current_exe()?);
    server.args(["null-server", "--port", &port.to_string()]);
    let _server = Program::start("null server", &mut server, &stand.log("null-server"))?;
    let address = format!("127.0.0.1:{port}");
    eventually("the server without a store answers", || async {
        Ok(Client::connect(&address).await?.tap("04AA").await.ok())
    })
    .await?;
    let (mut ours, mut no_store, mut no_server) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..3 {
        ours.push(storm(&gateway.address(), POSTING, STORM).await?);
        no_store.push(storm(&address, POSTING, STORM).await?);
        let file = stand.path().join(format!("bare-{round}.db"));
        no_server.push(tokio::task::spawn_blocking(move || group_commit(&file, POSTING, STORM)).await??);
    }
    let (value, http, store) = (median(&mut ours), median(&mut no_store), median(&mut no_server));
    Ok(vec![
        Line::new("same_server_without_store_32", "/s", http, None, Goal::None),
        Line::new("bare_group_commit_32", "/s", store, None, Goal::None),
        Line::new("durable_scans_per_second_32", "/s", value, Some(http.min(store)), Goal::RatioAtLeast(0.6)),
    ])
}

/// The gateway's own HTTP server and JSON, and nothing behind it.
pub async fn null_server(port: u16) -> Result<()> {
    #[derive(Deserialize)]
    struct Scan {
        nfc_tag_id: String,
        status_scan: String,
    }
    async fn log_scan(body: web::Bytes) -> HttpResponse {
        let Ok(scan) = serde_json::from_slice::<Scan>(&body) else {
            return HttpResponse::BadRequest().finish();
        };
        HttpResponse::Created().json(json!({
            "success": true, "id": 1, "run": "0000000000000000", "state": "stored",
            "nfc_tag_id": scan.nfc_tag_id, "status_scan": scan.status_scan,
            "timestamp": "2026-11-21T02:00:00.000Z", "synced_to_main_server": false,
        }))
    }
    HttpServer::new(|| App::new().route("/api/log_scan", web::post().to(log_scan)))
        .bind(("127.0.0.1", port))?
        .run()
        .await?;
    Ok(())
}

/// Rows a second of one SQLite connection that commits whatever waits, asked by `callers` threads.
fn group_commit(file: &Path, callers: usize, lasting: Duration) -> Result<f64> {
    let store = open(file)?;
    let (ask, asked) = mpsc::channel::<(String, mpsc::SyncSender<()>)>();
    let writer = std::thread::spawn(move || write_groups(&store, &asked));
    let began = Instant::now();
    let threads: Vec<_> = (0..callers)
        .map(|caller| {
            let ask = ask.clone();
            std::thread::spawn(move || {
                let mut count = 0u64;
                while began.elapsed() < lasting {
                    let (done, wait) = mpsc::sync_channel(1);
                    let tag = format!("04{caller:04X}{count:08X}");
                    if ask.send((tag, done)).is_err() || wait.recv().is_err() {
                        break;
                    }
                    count += 1;
                }
                count
            })
        })
        .collect();
    drop(ask);
    let total: u64 = threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum();
    let seconds = began.elapsed().as_secs_f64();
    writer.join().ok().context("the writer panicked")??;
    Ok(total as f64 / seconds)
}

/// A store as the gateway's, with the columns that every scan fills.
pub(super) fn open(file: &Path) -> Result<Connection> {
    let store = Connection::open(file)?;
    store.query_row("pragma journal_mode = wal", [], |_| Ok(()))?;
    store.pragma_update(None, "synchronous", "full")?;
    store.execute_batch(
        "create table scan_event (id integer primary key autoincrement, run_id integer not null,
             nfc_tag_id text not null, status_scan text not null, timestamp text not null,
             mono_ms integer not null, synced_to_main_server integer not null default 0)",
    )?;
    Ok(store)
}

pub(super) const INSERT: &str = "insert into scan_event (run_id, nfc_tag_id, status_scan, timestamp, mono_ms) \
     values (1, ?1, 'makanan_keluar', '2026-11-21T02:00:00.000Z', 123456789)";

fn write_groups(store: &Connection, asked: &mpsc::Receiver<(String, mpsc::SyncSender<()>)>) -> Result<()> {
    while let Ok(first) = asked.recv() {
        let mut group = vec![first];
        group.extend(asked.try_iter());
        let transaction = store.unchecked_transaction()?;
        for (tag, _) in &group {
            transaction.prepare_cached(INSERT)?.execute([tag])?;
        }
        transaction.commit()?;
        for (_, done) in group {
            let _ = done.send(());
        }
    }
    Ok(())
}
