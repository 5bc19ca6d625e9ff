//! Officers that never stop tapping and meters that never stop telling, who write down what they were told.

use crate::http;
use crate::ledger::{self, Content, Ledger, Outcome};
use crate::programs::{Broker, Gateway, Published, Publisher};
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

/// The unit of what meters count.
pub(super) const UNIT: &str = "1";
/// Tappers at each gateway.
const TAPPERS: usize = 4;

pub(super) struct Load {
    stop: CancellationToken,
    tappers: JoinSet<()>,
}

impl Load {
    pub(super) fn start(gateways: &[Gateway], broker: &Broker, ledger: &Shared, seed: u64) -> Result<Self> {
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
            let meter = |way: &str| Meter {
                series: format!("{}/{way}", gateway.code),
                gateway: gateway.code.clone(),
                ledger: Arc::clone(ledger),
                rng: Rng::with_seed(seed ^ (g as u64 + 1).wrapping_mul(0x51_7C_C1_B7)),
                stop: stop.clone(),
            };
            let client = http::client_with(Duration::from_secs(5))?;
            tappers.spawn(meter("post").tell(Way::Post { url: gateway.url("/api/readings"), client }));
            let device = broker.device(&gateway.code);
            tappers.spawn(meter("mqtt").tell(Way::Mqtt(Box::new(device))));
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
        told(request.send().await)
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a gateway's own meter publishes; gateways share a broker and none listens to another's.
pub(super) fn topic(gateway: &str) -> String {
    format!("hitung/{gateway}")
}

/// How a meter's readings come to the gateway.
enum Way {
    Post { url: String, client: reqwest::Client },
    Mqtt(Box<Publisher>),
}

/// Tells 1, 2, 3 … as the values of one series.
struct Meter {
    series: String,
    gateway: String,
    ledger: Shared,
    rng: Rng,
    stop: CancellationToken,
}

impl Meter {
    async fn tell(mut self, mut way: Way) {
        for n in 1.. {
            if self.stop.is_cancelled() {
                return;
            }
            let pause = self.rng.u64(0..30);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if self.one(n, &mut way).await.is_err() {
                return;
            }
        }
    }

    async fn one(&mut self, n: u64, way: &mut Way) -> Result<()> {
        let tag = ledger::reading(&self.series, n);
        let content = Content { gateway: self.gateway.clone(), status: UNIT.to_owned(), note: None };
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).invoke(&tag, content)?;
        let outcome = match way {
            Way::Post { url, client } => self.post(n, url, client).await,
            // The broker's word is as good as the gateway's: it goes on until the gateway has it.
            Way::Mqtt(device) => {
                match device.publish(&topic(&self.gateway), n.to_string().as_bytes()).await {
                    Ok(Published::Yes) => Outcome::Ok,
                    Ok(Published::Unknown) => Outcome::Unknown,
                    Err(_) => Outcome::Failed,
                }
            }
        };
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).complete(&tag, outcome)?;
        if outcome == Outcome::Failed {
            let pause = self.rng.u64(10..60);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(())
    }

    /// Half of the posts have a key, and are sent again until somebody knows.
    async fn post(&mut self, n: u64, url: &str, client: &reqwest::Client) -> Outcome {
        let keyed = self.rng.bool();
        let body = json!({ "readings": [{ "series": self.series, "unit": UNIT, "value": n }] }).to_string();
        let mut outcome = Outcome::Failed;
        loop {
            let mut request = client.post(url).header("content-type", "application/json").body(body.clone());
            if keyed {
                request = request.header("idempotency-key", format!("{}-{n}", self.series));
            }
            let again = told(request.send().await);
            if again == Outcome::Ok || outcome == Outcome::Failed {
                outcome = again;
            }
            if !keyed || outcome == Outcome::Ok || self.stop.is_cancelled() {
                return outcome;
            }
            let pause = self.rng.u64(5..40);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

fn told(answer: reqwest::Result<reqwest::Response>) -> Outcome {
    match answer {
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
