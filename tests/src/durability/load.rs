//! Officers that never stop tapping, and write down what they were told.

use crate::http;
use crate::ledger::{Content, Ledger, Outcome};
use crate::programs::Gateway;
use anyhow::Result;
use fastrand::Rng;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The ledger of everybody who taps.
pub(super) type Shared = Arc<Mutex<Ledger>>;

/// Tappers at each gateway.
const TAPPERS: usize = 4;

pub(super) struct Load {
    stop: CancellationToken,
    tappers: JoinSet<()>,
}

impl Load {
    pub(super) fn start(gateways: &[Gateway], ledger: &Shared, seed: u64) -> Result<Self> {
        let stop = CancellationToken::new();
        let mut tappers = JoinSet::new();
        for (g, gateway) in gateways.iter().enumerate() {
            for t in 0..TAPPERS {
                let tapper = Tapper {
                    name: format!("{}-{t}", gateway.code),
                    gateway: gateway.code.clone(),
                    url: gateway.url("/api/log_scan"),
                    client: http::client_with(Duration::from_secs(5))?,
                    ledger: Arc::clone(ledger),
                    rng: Rng::with_seed(seed ^ ((g * TAPPERS + t + 1) as u64).wrapping_mul(0x9E37_79B9)),
                    stop: stop.clone(),
                };
                tappers.spawn(tapper.tap());
            }
        }
        Ok(Self { stop, tappers })
    }

    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while self.tappers.join_next().await.is_some() {}
    }
}

struct Tapper {
    name: String,
    gateway: String,
    url: String,
    client: reqwest::Client,
    ledger: Shared,
    rng: Rng,
    stop: CancellationToken,
}

impl Tapper {
    async fn tap(mut self) {
        for n in 1.. {
            if self.stop.is_cancelled() {
                return;
            }
            let pause = self.rng.u64(0..40);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            // The ledger's file is on this machine; when it cannot be written there is nothing to check.
            if self.one(n).await.is_err() {
                return;
            }
        }
    }

    async fn one(&mut self, n: u64) -> Result<()> {
        let tag = format!("{}-{n}", self.name);
        let statuses = ["makanan_keluar", "makanan_masuk", "makanan_dibagikan", "wadah_kembali"];
        let status = statuses[self.rng.usize(..statuses.len())];
        let note = self.rng.bool().then(|| format!("catatan {}", self.rng.u32(..)));
        let mut body = json!({ "nfc_tag_id": tag, "status_scan": status });
        if let Some(note) = &note {
            body["note"] = json!(note);
        }
        let kind = self.rng.u8(..20);
        if kind == 0 {
            // A scan that must be refused, and then be nowhere.
            body["quantity"] = json!(-1);
        }
        let key = (kind >= 15).then(|| Uuid::from_u128(self.rng.u128(..)));
        if let Some(key) = key {
            body["client_ref"] = json!(key);
        }
        let content = Content { gateway: self.gateway.clone(), status: status.to_owned(), note };
        self.ledger().invoke(&tag, content)?;
        let mut outcome = self.post(&body).await;
        // A phone with a key of its own asks again until it knows.
        while key.is_some() && outcome != Outcome::Ok && kind != 0 && !self.stop.is_cancelled() {
            let pause = self.rng.u64(5..40);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let again = self.post(&body).await;
            // Once it may have arrived, a later "nobody there" does not take that back.
            if again == Outcome::Ok || outcome == Outcome::Failed {
                outcome = again;
            }
        }
        self.ledger().complete(&tag, outcome)?;
        if outcome == Outcome::Failed && kind != 0 {
            // Nobody there; it is being started again.
            let pause = self.rng.u64(10..60);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(())
    }

    async fn post(&self, body: &Value) -> Outcome {
        let request =
            self.client.post(&self.url).header("content-type", "application/json").body(body.to_string());
        match request.send().await {
            Ok(answer) => match answer.status().as_u16() {
                200 | 201 => Outcome::Ok,
                400..=499 => Outcome::Failed,
                _ => Outcome::Unknown,
            },
            // Never reached anybody.
            Err(error) if error.is_connect() => Outcome::Failed,
            Err(_) => Outcome::Unknown,
        }
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
