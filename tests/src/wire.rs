//! Batches made by hand: what a real gateway sends, and what none ever would.

use crate::http::{self, Reply};
use anyhow::{Context, Result};
use lumbung_shared::enrol::KEY_PREFIX;
use lumbung_shared::event::Event;
use lumbung_shared::reading::{Quality, Reading, ReadingContent, SeriesName, Unit};
use lumbung_shared::scan::{Scan, ScanContent, Source};
use lumbung_shared::tag::TagId;
use lumbung_shared::time::{ClockState, rfc3339};
use lumbung_shared::wire::{
    Answer, Batch, EVENT_STREAM, Epoch, PROTOCOL, READING_STREAM, RunSection, RunStart, SCAN_STREAM, Segment,
    Statuses, write_events, write_readings, write_scans,
};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// Somebody who holds a gateway's key and builds its requests byte by byte.
#[derive(Debug, Clone)]
pub struct HandMade {
    pub code: String,
    pub key: String,
    pub cloud: String,
    client: reqwest::Client,
}

impl HandMade {
    /// Enrols with a key of its own.
    pub async fn enrol(code: &str, cloud: &str, claim: &str) -> Result<Self> {
        let made = Self::with_key(code, cloud, &new_key())?;
        made.redeem(claim).await?.expect(200)?;
        Ok(made)
    }

    pub fn with_key(code: &str, cloud: &str, key: &str) -> Result<Self> {
        Ok(Self {
            code: code.to_owned(),
            key: key.to_owned(),
            cloud: cloud.to_owned(),
            client: http::client()?,
        })
    }

    /// Posts a claim with this key.
    pub async fn redeem(&self, claim: &str) -> Result<Reply> {
        let request = self
            .client
            .post(format!("{}/api/gateways/enrol", self.cloud))
            .header("content-type", "application/json")
            .body(json!({ "claim": claim, "key": self.key }).to_string());
        http::send(request).await
    }

    /// A request to the sync endpoint with the key and nothing else yet.
    pub fn request(&self) -> reqwest::RequestBuilder {
        self.client
            .post(format!("{}/api/sync_gateway_data", self.cloud))
            .bearer_auth(&self.key)
            .header("content-type", "application/json")
    }

    pub async fn post(&self, body: impl Into<reqwest::Body>) -> Result<Reply> {
        http::send(self.request().body(body)).await
    }

    pub async fn post_encoded(&self, encoding: &str, body: Vec<u8>) -> Result<Reply> {
        http::send(self.request().header("content-encoding", encoding).body(body)).await
    }

    /// Sends a batch that must be answered with verdicts.
    pub async fn send(&self, batch: &Batch) -> Result<Answer> {
        let reply = self.post(serde_json::to_string(batch)?).await?;
        let body = reply.expect(200)?;
        serde_json::from_value(body).context("the answer is not an Answer")
    }
}

/// A gateway key as a gateway draws it.
pub fn new_key() -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let body: String = (0..lumbung_shared::enrol::KEY_BODY_CHARS)
        .map(|_| char::from(letters[fastrand::usize(..letters.len())]))
        .collect();
    format!("{KEY_PREFIX}{body}")
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// A plain good scan.
pub fn scan(seq: i64, tag: &str, status: &str) -> Result<Scan> {
    Ok(Scan {
        seq,
        mono_ms: 60_000 + seq * 10,
        wall_ms: now_ms(),
        clock: ClockState::Synced,
        source: Source::Reader,
        content: ScanContent {
            tag: TagId::parse(tag)?,
            status: status.to_owned(),
            at_ms: None,
            note: None,
            officer: None,
            quantity: None,
            client_ref: None,
        },
    })
}

/// `count` good scans `PREFIX-<seq>` from `first` on.
pub fn scans(first: i64, count: i64, prefix: &str) -> Result<Vec<Scan>> {
    (first..first + count).map(|seq| scan(seq, &format!("{prefix}-{seq}"), "makanan_keluar")).collect()
}

/// A plain good reading.
pub fn reading(seq: i64, series: &str, unit: &str, value: f64) -> Result<Reading> {
    Ok(Reading {
        seq,
        mono_ms: 60_000 + seq * 10,
        wall_ms: now_ms(),
        clock: ClockState::Synced,
        content: ReadingContent {
            series: SeriesName::parse(series)?,
            unit: Unit::parse(unit)?,
            value,
            quality: Quality::Good,
            at_ms: None,
        },
    })
}

/// A plain good event.
pub fn event(seq: i64, kind: &str, body: &serde_json::Value) -> Event {
    Event {
        seq,
        mono_ms: 60_000 + seq * 10,
        wall_ms: now_ms(),
        clock: ClockState::Synced,
        kind: kind.to_owned(),
        body: body.to_string(),
    }
}

/// A batch of one run's readings and events.
pub fn telemetry(epoch: u64, readings: Vec<Reading>, events: Vec<Event>) -> Result<Batch> {
    let mut batch = whole(epoch, None, Vec::new(), Vec::new());
    batch.runs[0].streams = [
        (READING_STREAM.to_owned(), write_readings(readings)?.into_iter().collect()),
        (EVENT_STREAM.to_owned(), write_events(events)?.into_iter().collect()),
    ]
    .into();
    Ok(batch)
}

/// How a fresh run begins.
pub fn start(previous: Option<Epoch>) -> RunStart {
    RunStart {
        previous,
        boot: "8f0c1f1e-54f5-4f0e-9d38-3d2f6f1a7b11".to_owned(),
        site: Some("DAPUR-1".to_owned()),
        started_at: rfc3339(now_ms()),
        mono_ms: 60_000,
        clock: ClockState::Synced,
        version: "0.1.0".to_owned(),
    }
}

/// A batch of one run's scans.
pub fn batch(epoch: u64, previous: Option<u64>, scans: Vec<Scan>) -> Result<Batch> {
    let mut statuses = Statuses::default();
    let segments: Vec<Segment> = write_scans(scans, &mut statuses)?.into_iter().collect();
    Ok(whole(epoch, previous, segments, statuses.into_codes()))
}

/// A batch around segments that are made already.
pub fn whole(epoch: u64, previous: Option<u64>, segments: Vec<Segment>, statuses: Vec<String>) -> Batch {
    Batch {
        protocol: PROTOCOL,
        run: Epoch(epoch),
        sent_at: rfc3339(now_ms()),
        mono_ms: 120_000,
        clock: ClockState::Synced,
        statuses,
        runs: vec![RunSection {
            epoch: Epoch(epoch),
            start: Some(start(previous.map(Epoch))),
            streams: [(SCAN_STREAM.to_owned(), segments)].into(),
        }],
        health: None,
    }
}
