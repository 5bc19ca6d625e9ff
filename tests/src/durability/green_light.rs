//! The plug is pulled at the worst moment there is: just as somebody is told that a scan is safe.
//!
//! A random kill hardly ever falls between an answer and the commit behind it; this one always tries.

use super::load::Shared;
use crate::ledger::{Content, Outcome};
use crate::programs::Gateway;
use anyhow::{Context, Result};
use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::PoisonError;
use std::time::Duration;

/// Posts a scan and kills the gateway with the first byte of the answer.
pub(super) async fn pull_the_plug_at(gateway: &mut Gateway, ledger: &Shared, rng: &mut Rng) -> Result<()> {
    let tag = format!("{}-green-{:016x}", gateway.code, rng.u64(..));
    let status = "makanan_diterima".to_owned();
    let content = Content { gateway: gateway.code.clone(), status: status.clone(), note: None };
    ledger.lock().unwrap_or_else(PoisonError::into_inner).invoke(&tag, content)?;
    let body = json!({ "nfc_tag_id": tag, "status_scan": status }).to_string();
    let (address, pid) = (gateway.address(), gateway.pid());
    let outcome = tokio::task::spawn_blocking(move || post_and_kill(&address, &body, pid)).await?;
    gateway.kill();
    // Whether it was there to be asked is not known for certain once a line was open.
    let outcome = outcome.unwrap_or(Outcome::Unknown);
    ledger.lock().unwrap_or_else(PoisonError::into_inner).complete(&tag, outcome)
}

/// Plain blocking calls: the way from the answer to the kill must be short.
fn post_and_kill(address: &str, body: &str, pid: Option<u32>) -> Result<Outcome> {
    let pid = Pid::from_raw(i32::try_from(pid.context("the gateway is not running")?)?);
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let request = format!(
        "POST /api/log_scan HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = [0; 64];
    let read = stream.read(&mut answer)?;
    kill(pid, Signal::SIGKILL)?;
    Ok(if answer[..read].starts_with(b"HTTP/1.1 201") { Outcome::Ok } else { Outcome::Unknown })
}
