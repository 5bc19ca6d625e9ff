//! `phone pair`, `phone list` and `phone revoke`

use super::{Context, Failure, Outcome, print};
use crate::phones::{Phones, PhonesError};
use crate::sync::{LocalError, LocalGateway};
use anyhow::{anyhow, bail};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};
use std::fmt::Write;

/// What the new phone will be.
pub(super) struct Pairing {
    pub officer: Option<String>,
    pub name: Option<String>,
    pub may_pair: bool,
}

pub(super) async fn pair(context: &Context, new: Pairing, as_json: bool) -> Result<Outcome, Failure> {
    let gateway = LocalGateway::at(context.config.http.listen).map_err(anyhow::Error::from)?;
    let wish = json!({ "officer": new.officer, "name": new.name, "may_pair": new.may_pair });
    let opened = gateway.post("/api/phones/pairing", &wish).await.map_err(anyhow::Error::from)?;
    if as_json {
        print(&serde_json::to_string_pretty(&opened).map_err(anyhow::Error::from)?)?;
        return Ok(Outcome::Done);
    }
    print(&shown(context, &opened)?)?;
    Ok(Outcome::Done)
}

fn shown(context: &Context, opened: &Value) -> anyhow::Result<String> {
    let (Some(uri), Some(code)) = (opened["uri"].as_str(), opened["code"].as_str()) else {
        bail!("the gateway's answer has no pairing code");
    };
    let qr = QrCode::new(uri)?.render::<Dense1x2>().quiet_zone(true).build();
    let digits = format!("{} {}", code.get(..3).unwrap_or(code), code.get(3..).unwrap_or_default());
    let addresses = opened["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut page = format!("{qr}\n");
    for (name, value) in [
        (context.say("Kode", "Code"), digits),
        (context.say("Berlaku", "Holds for"), format!("{} s", opened["expires_in_s"])),
        (context.say("Alamat", "Address"), addresses.collect::<Vec<_>>().join("  ")),
        (context.say("Sidik jari", "Fingerprint"), opened["fingerprint"].as_str().unwrap_or("-").to_owned()),
    ] {
        // Writing into a String cannot fail.
        let _ = writeln!(page, "{name:<12} {value}");
    }
    page.push_str(context.say(
        "Pindai kode QR dengan aplikasi; atau buka alamat itu di ponsel, cocokkan sidik jari sertifikatnya, lalu ketik kodenya.",
        "Scan the QR code with the app; or open the address on the phone, compare the certificate's fingerprint, and type the code.",
    ));
    Ok(page)
}

pub(super) async fn list(context: &Context, as_json: bool) -> Result<Outcome, Failure> {
    let gateway = LocalGateway::at(context.config.http.listen).map_err(anyhow::Error::from)?;
    let found = match gateway.get("/api/phones").await {
        Ok(found) => found["phones"].clone(),
        Err(LocalError::NotRunning(_)) => json!(Phones::in_dir(&context.config.data_dir).list()),
        Err(error) => return Err(anyhow!(error).into()),
    };
    if as_json {
        print(&serde_json::to_string_pretty(&json!({ "phones": found })).map_err(anyhow::Error::from)?)?;
        return Ok(Outcome::Done);
    }
    let mut page = String::new();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    for phone in found.as_array().into_iter().flatten() {
        let right = if phone["may_pair"] == json!(true) {
            context.say("  boleh memasangkan", "  may pair others")
        } else {
            ""
        };
        // Writing into a String cannot fail.
        let _ = writeln!(
            page,
            "{}  {:<20}  {} {:<10}  {} {}  {} {}{right}",
            text(&phone["id"]),
            text(&phone["name"]),
            context.say("petugas", "officer"),
            text(&phone["officer"]),
            context.say("terpasang", "paired"),
            text(&phone["paired_at"]),
            context.say("terakhir dipakai", "last used"),
            text(&phone["last_used_at"]),
        );
    }
    if page.is_empty() {
        page.push_str(context.say("Belum ada ponsel yang dipasangkan.", "No phone is paired."));
    }
    print(&page)?;
    Ok(Outcome::Done)
}

pub(super) async fn revoke(context: &Context, id: &str) -> Result<Outcome, Failure> {
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        let expected = context.say("tulis id ponsel, misalnya", "expected a phone's id, such as");
        return Err(Failure::Usage(format!("{id}: {expected} 3fa9c1d2")));
    }
    let gateway = LocalGateway::at(context.config.http.listen).map_err(anyhow::Error::from)?;
    let name = match gateway.delete(&format!("/api/phones/{id}")).await {
        Ok(gone) => gone["phone"]["name"].as_str().unwrap_or_default().to_owned(),
        // Nobody else writes the file then.
        Err(LocalError::NotRunning(_)) => match Phones::in_dir(&context.config.data_dir).revoke(id) {
            Ok(phone) => phone.name,
            Err(PhonesError::Unknown) => return Ok(unknown(context)),
            Err(error) => return Err(anyhow!(error).into()),
        },
        Err(error) => return Err(anyhow!(error).into()),
    };
    print(&format!("{id} ({name}) {}", context.say("dicabut", "is revoked")))?;
    Ok(Outcome::Done)
}

fn unknown(context: &Context) -> Outcome {
    Outcome::NothingToDo(context.say("Tidak ada ponsel dengan id ini.", "No phone has this id.").to_owned())
}
