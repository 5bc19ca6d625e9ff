//! `quarantine list` and `quarantine retry`

use super::{Context, Failure, Outcome, print};
use crate::outbox::{Glance, Stream};
use crate::sync::{LocalError, LocalGateway};
use anyhow::anyhow;
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) async fn list(context: &Context, as_json: bool) -> Result<Outcome, Failure> {
    let gateway = LocalGateway::at(context.config.http.listen).map_err(anyhow::Error::from)?;
    let found = match gateway.get("/api/quarantine").await {
        Ok(found) => found,
        Err(LocalError::NotRunning(_)) => {
            let glance = Glance::at(&context.config.data_dir).map_err(anyhow::Error::from)?;
            json!({ "parked": glance.parked, "quarantined": glance.quarantined })
        }
        Err(error) => return Err(anyhow!(error).into()),
    };
    if as_json {
        let text = serde_json::to_string_pretty(&found).map_err(anyhow::Error::from)?;
        print(&text)?;
        return Ok(Outcome::Done);
    }
    let empty = Vec::new();
    let records = |name: &str| found[name].as_array().unwrap_or(&empty).clone();
    let (parked, quarantined) = (records("parked"), records("quarantined"));
    if parked.is_empty() && quarantined.is_empty() {
        let text = context.say("Tidak ada yang disisihkan.", "Nothing is set aside.");
        print(text)?;
        return Ok(Outcome::Done);
    }
    let mut page = String::new();
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    for record in parked {
        // Writing into a String cannot fail.
        let _ = writeln!(
            page,
            "{}:{}  {}  {} {}  {}: {}",
            word(&record["stream"]),
            record["seq"],
            word(&record["parked_at"]),
            word(&record["nfc_tag_id"]),
            word(&record["status_scan"]),
            context.say("disisihkan di sini", "set aside here"),
            word(&record["reason"]),
        );
    }
    for record in quarantined {
        let _ = writeln!(
            page,
            "{}:{}  {}  {}: {}",
            word(&record["stream"]),
            record["seq"],
            word(&record["noted_at"]),
            context.say("dikarantina cloud", "quarantined by the cloud"),
            word(&record["reason"]),
        );
    }
    print(&page)?;
    Ok(Outcome::Done)
}

pub(super) async fn retry(context: &Context, records: &[String]) -> Result<Outcome, Failure> {
    let mut requests = Vec::new();
    for record in records {
        let parsed = record
            .split_once(':')
            .and_then(|(stream, seq)| Some((Stream::from_name(stream)?, seq.parse::<i64>().ok()?)));
        let Some((stream, seq)) = parsed else {
            let expected = context.say("tulis STREAM:SEQ, misalnya", "expected STREAM:SEQ, such as");
            return Err(Failure::Usage(format!("{record}: {expected} scan:417")));
        };
        requests.push(json!({ "stream": stream.name(), "seq": seq }));
    }
    if requests.is_empty() {
        requests.push(json!({}));
    }
    let gateway = LocalGateway::at(context.config.http.listen).map_err(anyhow::Error::from)?;
    let mut released = 0;
    for request in &requests {
        let answer = gateway.post("/api/quarantine/retry", request).await;
        released += answer.map_err(anyhow::Error::from)?["released"].as_u64().unwrap_or(0);
    }
    if released == 0 {
        let text = context.say("Tidak ada yang perlu dikirim ulang.", "There is nothing to send again.");
        return Ok(Outcome::NothingToDo(text.to_owned()));
    }
    let text = context.say("catatan akan dikirim ulang", "records will be sent again");
    print(&format!("{released} {text}"))?;
    Ok(Outcome::Done)
}
