//! Asking the gateway that runs on this machine: what the command line shows comes from there.

use super::client::{self, Answered, ClientError, http_client};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Nobody listens there.
    #[error("no gateway answers on this machine: {0}")]
    NotRunning(String),
    #[error("the gateway answered: {0}")]
    Refused(String),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The API of the gateway on this machine.
#[derive(Debug)]
pub struct LocalGateway {
    client: reqwest::Client,
    base: String,
}

/// How long an answer may take that is there at once.
const SOON: Duration = Duration::from_secs(10);
/// And one that takes as long as the store is large.
const IN_ITS_TIME: Duration = Duration::from_secs(24 * 3_600);

impl LocalGateway {
    pub fn at(listen: SocketAddr) -> Result<Self, LocalError> {
        Self::within(SOON, listen)
    }

    /// For what goes over everything that is stored.
    pub fn at_leisure(listen: SocketAddr) -> Result<Self, LocalError> {
        Self::within(IN_ITS_TIME, listen)
    }

    fn within(patience: Duration, listen: SocketAddr) -> Result<Self, LocalError> {
        let mut address = listen;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let client = http_client("", patience, Arc::default())?.http;
        Ok(Self { client, base: format!("http://{address}") })
    }

    pub async fn get(&self, path: &str) -> Result<Value, LocalError> {
        let response = self.client.get(format!("{}{path}", self.base)).send().await;
        let response =
            response.map_err(|error| LocalError::NotRunning(client::chain(&error.without_url())))?;
        understood(client::read(response).await)
    }

    pub async fn delete(&self, path: &str) -> Result<Value, LocalError> {
        let response = self.client.delete(format!("{}{path}", self.base)).send().await;
        let response =
            response.map_err(|error| LocalError::NotRunning(client::chain(&error.without_url())))?;
        understood(client::read(response).await)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, LocalError> {
        self.post_bytes(path, body.to_string().into_bytes()).await
    }

    /// A JSON text as it is.
    pub async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Result<Value, LocalError> {
        let url = format!("{}{path}", self.base);
        understood(client::post(&self.client, &url, None, None, body).await)
    }
}

fn understood(answer: Result<Answered, client::NoAnswer>) -> Result<Value, LocalError> {
    let answer = answer.map_err(|error| LocalError::NotRunning(error.text))?;
    match serde_json::from_slice(&answer.body) {
        Ok(value) if answer.status.is_success() => Ok(value),
        _ => Err(LocalError::Refused(answer.message())),
    }
}
