//! `sensor list`, `sensor read`: from the running gateway, which has the buses, or from the sensors themselves.

use super::{Context, Failure, Outcome, SensorAction, print};
use crate::capture::sensors::ReadNow;
use crate::config::{SensorPlan, Turns};
use crate::sync::{LocalError, LocalGateway};
use anyhow::anyhow;
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) async fn sensor(context: &Context, action: SensorAction) -> Result<Outcome, Failure> {
    let plans = context.config.sensor_plans()?;
    if plans.is_empty() {
        let text = context.say(
            "tidak ada [[sensor]] di konfigurasi (lihat lumbung-gateway config)",
            "there is no [[sensor]] in the configuration (see lumbung-gateway config)",
        );
        return Ok(Outcome::NothingToDo(text.to_owned()));
    }
    match action {
        SensorAction::List { json } => list(context, &plans, json).await,
        SensorAction::Read { names, json } => read(context, plans, &names, json).await,
    }
}

async fn list(context: &Context, plans: &[SensorPlan], as_json: bool) -> Result<Outcome, Failure> {
    let gateway = LocalGateway::at(context.config.http.listen).map_err(anyhow::Error::from)?;
    let running = match gateway.get("/api/status").await {
        Ok(status) => status["sensors"].as_array().cloned(),
        Err(LocalError::NotRunning(_)) => None,
        Err(error) => return Err(anyhow!(error).into()),
    };
    let rows: Vec<Value> = plans.iter().map(|plan| row(plan, running.as_deref())).collect();
    if as_json {
        let text = serde_json::to_string_pretty(&rows).map_err(anyhow::Error::from)?;
        print(&text)?;
        return Ok(Outcome::Done);
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut page = String::new();
    for row in &rows {
        // Writing into a String cannot fail.
        let _ = writeln!(
            page,
            "{:<20} {:<10} {:<24} {:<18} {}",
            text(&row["name"]),
            text(&row["kind"]),
            text(&row["address"]),
            text(&row["turns"]),
            state(context, &row["now"])
        );
        let mut last = row["now"]["values"].as_array().into_iter().flatten();
        for series in row["series"].as_array().into_iter().flatten() {
            let value = last.next().map(shown).unwrap_or_default();
            let _ = writeln!(page, "  {:<38} {value}", text(series));
        }
    }
    print(&page)?;
    Ok(Outcome::Done)
}

fn row(plan: &SensorPlan, running: Option<&[Value]>) -> Value {
    let turns = match &plan.turns {
        Turns::Every(every) => format!("{} s", every.as_secs_f64()),
        Turns::Cron(cron) => cron.clone(),
    };
    let names: Vec<_> = plan.series.iter().map(|series| series.name.as_str()).collect();
    json!({
        "name": plan.name,
        "kind": plan.kind.name(),
        "address": if plan.address.is_empty() { None } else { Some(&plan.address) },
        "turns": turns,
        "series": names,
        "now": running.into_iter().flatten().find(|sensor| sensor["name"] == plan.name.as_str()),
    })
}

/// How a sensor is, from its part of the gateway's status.
pub(super) fn state(context: &Context, sensor: &Value) -> String {
    let say = |id, en| context.say(id, en);
    let state = match sensor["state"].as_str() {
        Some("waiting") => say("belum dibaca", "not read yet"),
        Some("ok") => say("baik", "ok"),
        Some("failing") => say("gagal dibaca, dicoba lagi", "failing, will try again"),
        Some("down") => say("MATI, dicoba terus", "DOWN, trying on"),
        _ => say("gateway tidak berjalan", "the gateway does not run"),
    };
    let mut text = state.to_owned();
    if sensor["unstored"] == json!(true) {
        text.push_str(say("; TIDAK TERSIMPAN", "; NOT STORED"));
    }
    if let Some(code) = sensor["error"].as_str() {
        let _ = write!(text, ": {}", reason(context, code));
    }
    text
}

/// Why a sensor cannot be read, in words.
fn reason<'a>(context: &Context, code: &'a str) -> &'a str {
    match code {
        "absent" => {
            context.say("tidak ada jawaban, periksa kabel dan alamat", "no answer, check wires and address")
        }
        "bus_failed" => context.say("busnya gagal", "its bus failed"),
        "checksum" => context.say("data rusak, periksa kabel", "damaged data, check the wires"),
        "late" => context.say("terlalu lama mengukur", "measuring took too long"),
        "wrong_answer" => context.say("jawabannya tidak masuk akal", "its answer makes no sense"),
        "stuck" => context.say("bus macet", "its bus is stuck"),
        other => other,
    }
}

async fn read(
    context: &Context,
    plans: Vec<SensorPlan>,
    names: &[String],
    as_json: bool,
) -> Result<Outcome, Failure> {
    if let Some(name) = names.iter().find(|name| !plans.iter().any(|plan| plan.name == **name)) {
        let known: Vec<_> = plans.iter().map(|plan| plan.name.as_str()).collect();
        let text = context.say("tidak ada sensor", "there is no sensor");
        return Err(Failure::Usage(format!("{text} \"{name}\": {}", known.join(", "))));
    }
    let gateway = LocalGateway::at(context.config.http.listen).map_err(anyhow::Error::from)?;
    let mut all = Vec::new();
    for plan in plans {
        if names.is_empty() || names.contains(&plan.name) {
            all.push(read_one(&gateway, plan).await?);
        }
    }
    if as_json {
        let text = serde_json::to_string_pretty(&all).map_err(anyhow::Error::from)?;
        print(&text)?;
    } else {
        print(&page(context, &all))?;
    }
    let failed: Vec<&str> = all
        .iter()
        .filter(|read| read["error"].is_string())
        .filter_map(|read| read["sensor"].as_str())
        .collect();
    if failed.is_empty() {
        return Ok(Outcome::Done);
    }
    let text = context.say("tidak terbaca", "not read");
    Err(anyhow!("{text}: {}", failed.join(", ")).into())
}

async fn read_one(gateway: &LocalGateway, plan: SensorPlan) -> anyhow::Result<Value> {
    match gateway.post(&format!("/api/sensors/read?name={}", plan.name), &json!({})).await {
        Err(LocalError::NotRunning(_)) => {}
        answer => return Ok(answer?),
    }
    // Nobody else has the buses.
    let read = tokio::task::spawn_blocking(move || {
        let answer = plan.device.open().and_then(|mut sensor| sensor.read());
        ReadNow::of(&plan, answer)
    });
    Ok(serde_json::to_value(read.await?)?)
}

fn page(context: &Context, all: &[Value]) -> String {
    let mut page = String::new();
    for read in all {
        if let Some(code) = read["error"].as_str() {
            let sensor = read["sensor"].as_str().unwrap_or_default();
            let detail = read["detail"].as_str().unwrap_or_default();
            let _ = writeln!(page, "{sensor:<38} {} ({detail})", reason(context, code));
        }
        for value in read["values"].as_array().into_iter().flatten() {
            let doubt = match value["quality"].as_str() {
                Some("good") => "",
                _ => context.say("  (tidak masuk akal)", "  (implausible)"),
            };
            let series = value["series"].as_str().unwrap_or_default();
            let _ = writeln!(page, "{series:<38} {}{doubt}", shown(value));
        }
    }
    page
}

fn shown(value: &Value) -> String {
    let number = value["value"].as_f64().unwrap_or_default();
    format!("{:>10} {}", (number * 1_000.0).round() / 1_000.0, value["unit"].as_str().unwrap_or_default())
}
