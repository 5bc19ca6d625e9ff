//! TLS by this program itself, for an installation without a proxy in front.
//!
//! What must stay true:
//! - Nothing is served without a certificate and the key that belongs to it; the program does not start instead.
//! - Every handshake is answered with the newest pair that was whole. Files that are missing, half-written or do
//!   not belong together change nothing but the log.
//! - Another certificate ends no connection.

mod pair;
mod redirect;

pub use redirect::serve as redirect;

use crate::config;
use crate::finding::Finding;
use crate::metrics::Metrics;
use chrono::{DateTime, Utc};
use pair::{Pair, PairError, Read};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Two small files: nobody notices that they are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Who renews by itself does so a month before; after that something is wrong.
const SOON: chrono::Duration = chrono::Duration::days(21);

/// The certificate of this program, and the files it comes from.
pub struct Tls {
    files: config::Tls,
    shown: Arc<Shown>,
    /// What was read last, good or not: each content is tried and told once.
    tried: String,
    metrics: Arc<Metrics>,
}

/// What handshakes are answered with.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// Reads the files that the settings name; none where they name none.
    ///
    /// # Errors
    /// Files that are missing, cannot be read or do not belong together.
    pub fn open(files: &config::Tls, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Self>> {
        if !files.is_on() {
            return Ok(None);
        }
        let Read { tried, pair } = pair::read(files);
        let pair = pair?;
        tell(&pair, metrics, "the certificate is");
        let shown = Arc::new(Shown(RwLock::new(pair.key)));
        Ok(Some(Self { files: files.clone(), shown, tried, metrics: Arc::clone(metrics) }))
    }

    /// What the server answers handshakes by. It adds HTTP/2 and HTTP/1.1 itself.
    ///
    /// # Errors
    /// Never in practice: the provider has both versions.
    pub fn server(&self) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        Ok(config.with_no_client_auth().with_cert_resolver(Arc::clone(&self.shown) as _))
    }

    /// Reads the files again; `told` to, or because it is time to see whether they have changed.
    async fn look(&mut self, told: bool) {
        let files = self.files.clone();
        let Ok(Read { tried, pair }) = tokio::task::spawn_blocking(move || pair::read(&files)).await else {
            return;
        };
        if std::mem::replace(&mut self.tried, tried) == self.tried && !told {
            return;
        }
        match pair {
            Ok(pair) => {
                tell(&pair, &self.metrics, "the certificate was read again and is");
                *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = pair.key;
            }
            Err(error) => tracing::error!(
                "the new certificate cannot be used, the one before stays: {error}. Mend the files; \
                 they are read again by themselves, and at once on SIGHUP"
            ),
        }
    }
}

/// Follows the files, and SIGHUP, until the stop. Without TLS a SIGHUP finds nothing to do and does no harm.
///
/// # Errors
/// Signals that cannot be heard.
pub async fn run(mut tls: Option<Tls>, stop: CancellationToken) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = hangup.recv() => true,
            _ = look.tick() => false,
        };
        match &mut tls {
            Some(tls) => tls.look(told).await,
            None if told => tracing::info!("SIGHUP: nothing is read again, TLS is not this program's"),
            None => {}
        }
    }
}

/// Says until when a certificate is good.
fn tell(pair: &Pair, metrics: &Metrics, what: &str) {
    let Some(end) = pair.not_after else {
        tracing::warn!("{what} in use, and its end cannot be told");
        return;
    };
    metrics.certificate_ends(end);
    let day = end.format("%Y-%m-%d");
    if end < Utc::now() {
        tracing::warn!("{what} in use and ended on {day}: gateways and browsers refuse it; renew it");
    } else {
        tracing::info!("{what} good until {day}");
    }
}

/// The files, as `doctor` sees them; nothing where TLS is not this program's.
pub fn check(files: &config::Tls) -> Option<Finding> {
    files.is_on().then(|| finding(pair::read(files).pair, Utc::now()))
}

fn finding(pair: Result<Pair, PairError>, now: DateTime<Utc>) -> Finding {
    let pair = match pair {
        Ok(pair) => pair,
        Err(error) => {
            let advice = "the cloud does not start so; one that runs goes on with the certificate before";
            return Finding::fail("tls", error.to_string(), advice);
        }
    };
    let Some(end) = pair.not_after else {
        return Finding::warn("tls", "good, and its end is not told", "look at it with openssl");
    };
    let day = end.format("%Y-%m-%d");
    if end < now {
        return Finding::fail(
            "tls",
            format!("ended on {day}"),
            "renew it (certbot renew); see certbot's log",
        );
    }
    let found = format!("good for {} days, until {day}", (end - now).num_days());
    if end - now < SOON {
        let advice = "it should have been renewed by now: see certbot's timer and log";
        return Finding::warn("tls", found, advice);
    }
    Finding::ok("tls", found)
}

#[cfg(test)]
mod tests;
