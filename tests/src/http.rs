//! A small HTTP client: an answer is its status, its headers and its JSON.

use anyhow::{Context, Result, bail};
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::sync::Once;
use std::time::Duration;

/// A client that trusts nobody outside and uses no proxy of the environment.
pub fn client() -> Result<reqwest::Client> {
    client_with(Duration::from_secs(20))
}

/// [`client`] with its own patience for one request.
pub fn client_with(timeout: Duration) -> Result<reqwest::Client> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails only when one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .timeout(timeout)
        .build()
        .context("building the HTTP client")
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text)
            .with_context(|| format!("answer {} is not JSON: {}", self.status, self.text))
    }

    /// The answer's JSON when the status is the expected one.
    pub fn expect(&self, status: u16) -> Result<Value> {
        if self.status != status {
            bail!("expected {status}, got {}: {}", self.status, self.text);
        }
        self.json()
    }

    /// `error.code` of a refusal.
    pub fn error_code(&self) -> String {
        self.json()
            .ok()
            .and_then(|body| body["error"]["code"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Sends a request and reads all of the answer.
pub async fn send(request: reqwest::RequestBuilder) -> Result<Reply> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let text = response.text().await?;
    Ok(Reply { status, headers, text })
}
