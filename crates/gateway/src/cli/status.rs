//! `status`: from the running gateway, or from its files when it does not run.

use super::{Context, Failure, Outcome, print};
use crate::identity::IdentityFile;
use crate::outbox::Glance;
use crate::sync::{LocalError, LocalGateway};
use anyhow::anyhow;
use serde_json::{Map, Value, json};
use std::fmt::Write;

pub(super) async fn status(context: &Context, as_json: bool) -> Result<Outcome, Failure> {
    let gateway = LocalGateway::at(context.config.http.listen).map_err(anyhow::Error::from)?;
    let status = match gateway.get("/api/status").await {
        Ok(mut status) => {
            status["running"] = json!(true);
            status
        }
        Err(LocalError::NotRunning(_)) => stopped(context)?,
        Err(error) => return Err(anyhow!(error).into()),
    };
    if as_json {
        let text = serde_json::to_string_pretty(&status).map_err(anyhow::Error::from)?;
        print(&text)?;
    } else {
        print(&page(context, &status))?;
    }
    Ok(Outcome::Done)
}

/// What the files of a gateway say that does not run.
fn stopped(context: &Context) -> anyhow::Result<Value> {
    let dir = &context.config.data_dir;
    let identity = IdentityFile::in_dir(dir).read()?.enrolled;
    let glance = match dir.join(crate::outbox::DATABASE).exists() {
        true => Some(Glance::at(dir)?),
        false => None,
    };
    let unsent: Map<String, Value> = glance
        .iter()
        .flat_map(|glance| &glance.unsent)
        .map(|(stream, count)| (stream.name().to_owned(), json!(count)))
        .collect();
    Ok(json!({
        "running": false,
        "gateway_id": identity.as_ref().map(|identity| &identity.gateway_id),
        "site": identity.as_ref().map(|identity| &identity.site.code),
        "cloud": identity.as_ref().map(|identity| &identity.cloud_url),
        "unsent": unsent,
        "oldest_unsent_at": glance.as_ref().and_then(|glance| glance.oldest_unsent_at.clone()),
        "parked": glance.as_ref().map_or(0, |glance| glance.parked.len()),
        "quarantined": glance.as_ref().map_or(0, |glance| glance.quarantined.len()),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

fn page(context: &Context, status: &Value) -> String {
    let say = |id, en| context.say(id, en);
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let running = status["running"] == json!(true);
    let state = match status["sync"]["state"].as_str() {
        Some("idle") => say("siap, menunggu scan", "ready, waiting for scans"),
        Some("sending") => say("sedang mengirim", "sending"),
        Some("backing_off") => say("cloud tak terjangkau, dicoba lagi", "cloud not reached, will try again"),
        Some("unauthorised") => {
            say("kunci DITOLAK cloud; scan disimpan", "key REFUSED by the cloud; scans are kept")
        }
        Some("revoked") => say(
            "gateway DICABUT oleh operator; scan disimpan",
            "gateway REVOKED by the operator; scans are kept",
        ),
        Some("not_enrolled") => {
            say("belum terdaftar (lumbung-gateway enrol)", "not enrolled (lumbung-gateway enrol)")
        }
        _ => "-",
    };
    let unsent: u64 =
        status["unsent"].as_object().map_or(0, |streams| streams.values().filter_map(Value::as_u64).sum());
    let clock = match status["clock"]["state"].as_str() {
        Some("synced") => say("tepat", "confirmed by a time source"),
        Some("held") => say("belum dipastikan", "not confirmed in this boot"),
        Some("unset") => say("belum disetel", "not set"),
        _ => "-",
    };
    let disk = match status["disk"]["free_bytes"].as_u64() {
        Some(free) if status["disk"]["full"] == json!(true) => {
            format!("{} ({} MB)", say("PENUH: scan ditolak", "FULL: scans are refused"), free / 1_000_000)
        }
        Some(free) => format!("{} MB {}", free / 1_000_000, say("tersisa", "free")),
        None => "-".to_owned(),
    };
    let board = &status["board"];
    let power = match (board["undervoltage"].as_bool(), board["undervoltage_since_boot"].as_bool()) {
        (Some(true), _) => say("LEMAH: ganti adaptor atau kabel", "WEAK: replace the supply or its cable"),
        (_, Some(true)) => say("pernah lemah sejak menyala", "was weak since it was switched on"),
        (Some(false), _) => say("baik", "good"),
        _ => "-",
    };
    let written = board["card_written_bytes"].as_u64().map_or("-".to_owned(), |bytes| {
        let read_only = board["read_only"] == json!(true);
        let worn =
            if read_only { say(" - HANYA BACA: ganti kartu", " - READ-ONLY: replace the card") } else { "" };
        format!("{:.1} GB{worn}", bytes as f64 / 1e9)
    });
    let last = match &status["last_answer"] {
        Value::Null => "-".to_owned(),
        answer => format!("{} ({})", text(&answer["message"]), text(&answer["at"])),
    };
    let mut rows = vec![
        (
            say("Berjalan", "Running"),
            say(if running { "ya" } else { "tidak" }, if running { "yes" } else { "no" }).to_owned(),
        ),
        ("Gateway", text(&status["gateway_id"])),
        (say("Lokasi", "Site"), text(&status["site"])),
        ("Cloud", text(&status["cloud"])),
        (say("Sinkronisasi", "Sync"), state.to_owned()),
        (
            say("Belum terkirim", "Unsent"),
            match &status["oldest_unsent_at"] {
                Value::String(oldest) => format!("{unsent} ({} {oldest})", say("sejak", "since")),
                _ => unsent.to_string(),
            },
        ),
        (say("Disisihkan", "Set aside"), text(&status["parked"])),
        (say("Dikarantina cloud", "Quarantined by the cloud"), text(&status["quarantined"])),
        (say("Terkirim terakhir", "Last sent"), text(&status["last_sent_at"])),
        (say("Jawaban terakhir", "Last answer"), last),
        (say("Jam", "Clock"), clock.to_owned()),
        ("Disk", disk),
        (say("Catu daya", "Power"), power.to_owned()),
        (say("Kartu SD ditulis", "Written to the card"), written),
        (say("Pembaca tag", "Tag reader"), text(&status["reader"])),
        (say("Arti tap", "Taps mean"), text(&status["action"])),
        (say("Versi", "Version"), text(&status["version"])),
    ];
    for sensor in status["sensors"].as_array().into_iter().flatten() {
        let name = sensor["name"].as_str().unwrap_or_default();
        rows.push(("Sensor", format!("{name}: {}", super::sensor::state(context, sensor))));
    }
    if let Some(saved) = status["salvaged"].as_u64() {
        let text = say("basis data rusak; catatan diselamatkan", "the database was corrupt; records saved");
        rows.push((say("PERHATIAN", "ATTENTION"), format!("{text}: {saved}")));
    }
    let mut page = String::new();
    for (name, value) in rows {
        // Writing into a String cannot fail.
        let _ = writeln!(page, "{name:<26} {value}");
    }
    page
}
