//! Runs the real gateway under strace: scans, settling, a clean stop, a new start, more scans, a kill.

use super::Mutant;
use super::trace::{self, Event};
use crate::programs::{Gateway, mutant_gateway, tool};
use crate::proxy::Proxy;
use crate::stand::Stand;
use anyhow::{Result, ensure};
use serde_json::json;
use std::path::PathBuf;

const CALLS: &str =
    "trace=openat,lseek,write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,ftruncate,unlink,unlinkat";
/// Enough commits for checkpoints of the log and for its beginning anew.
const LONE: usize = 260;
const BURSTS: usize = 16;
const BURST: usize = 8;

/// What was asked of the kernel, and who was told what.
pub(super) async fn record(stand: &Stand, mutant: Option<Mutant>) -> Result<Vec<Event>> {
    let cloud = stand.cloud().await?;
    let proxy = Proxy::start(&cloud.address())?;
    let mut gateway = stand.gateway_not_started("GW-1", &cloud, &proxy.base()).await?;
    ensure!(!gateway.database().exists(), "enrolment must not make the store");
    if let Some(mutant) = mutant {
        gateway.with_binary(mutant_gateway()?).env("LUMBUNG_MUTANT", mutant.name());
    }
    let mut events = Vec::new();
    for part in 0..2 {
        let log = stand.path().join(format!("calls-{part}"));
        gateway.under(strace(&log)?);
        gateway.start().await?;
        tap(&gateway, part).await?;
        if part == 0 {
            gateway.drained().await?;
            gateway.stop().await?;
        } else {
            gateway.kill();
        }
        events.extend(read_when_whole(&log).await?);
    }
    Ok(events)
}

fn strace(log: &std::path::Path) -> Result<Vec<std::ffi::OsString>> {
    let mut wrapper: Vec<std::ffi::OsString> = vec![tool("strace")?.into()];
    // `-D`: the gateway keeps its own number, so signals reach it.
    for argument in ["-D", "-f", "-qq", "-y", "-xx", "-s", "1000000", "--seccomp-bpf", "-e", CALLS, "-o"] {
        wrapper.push(argument.into());
    }
    wrapper.push(log.into());
    Ok(wrapper)
}

/// Lone scans and bursts of several at once, some of them long.
async fn tap(gateway: &Gateway, part: usize) -> Result<()> {
    for n in 0..LONE {
        let mut body = json!({ "nfc_tag_id": format!("P{part}-{n}"), "status_scan": "makanan_keluar" });
        if n % 10 == 0 {
            body["note"] = json!("catatan panjang ".repeat(30));
        }
        gateway.log_scan(&body).await?.expect(201)?;
    }
    for burst in 0..BURSTS {
        let one = |n: usize| {
            let body =
                json!({ "nfc_tag_id": format!("P{part}-B{burst}-{n}"), "status_scan": "makanan_masuk" });
            async move { gateway.log_scan(&body).await?.expect(201) }
        };
        let all: Vec<_> = (0..BURST).map(one).collect();
        for result in futures_util::future::join_all(all).await {
            result?;
        }
    }
    Ok(())
}

/// strace writes on for a moment after the gateway is gone.
async fn read_when_whole(log: &PathBuf) -> Result<Vec<Event>> {
    let text = crate::wait::eventually("strace has written its log", || async {
        let text = std::fs::read_to_string(log)?;
        let ended = text
            .lines()
            .next_back()
            .is_some_and(|line| line.contains("+++ exited with") || line.contains("+++ killed by"));
        // `-qq` leaves the last word out where the version does so; then the file stands still.
        let still = !text.is_empty() && std::fs::metadata(log)?.modified()?.elapsed()?.as_millis() > 500;
        Ok((ended || still).then_some(text))
    })
    .await?;
    trace::read(&text)
}
