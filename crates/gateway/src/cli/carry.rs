//! `export` and `settle`: records that people carry to the cloud, and its receipt that comes back.

use super::{Context, Failure, Outcome, print};
use crate::identity::IdentityFile;
use crate::outbox::Outbox;
use crate::sync::{ExportError, Exported, LocalError, LocalGateway, Receipts, SettleError, export as write};
use anyhow::anyhow;
use lumbung_shared::language::Language;
use lumbung_shared::receipt::MAX_BYTES;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) async fn export(context: &Context, out: &Path, as_json: bool) -> Result<Outcome, Failure> {
    let dir = context.config.data_dir.clone();
    let identity = IdentityFile::in_dir(&dir).read().map_err(anyhow::Error::from)?;
    let Some(enrolment) = identity.enrolled else {
        let text = context.say(
            "gateway ini belum terdaftar; cloud tidak akan mengenali berkasnya",
            "this gateway is not enrolled; no cloud would know its bundle",
        );
        return Err(anyhow!(text.to_owned()).into());
    };
    let now = crate::app::clock_of(&dir).now();
    let (path, word, lang) = (out.to_owned(), context.say("catatan", "records").to_owned(), context.lang);
    let written = tokio::task::spawn_blocking(move || {
        write(&dir, &enrolment, &path, now, |records| tell(records, &word))
    });
    match written.await.map_err(anyhow::Error::from)? {
        Ok(Some(exported)) => {
            let text =
                if as_json { described(&exported, out).to_string() } else { page(context, &exported, out) };
            print(&text)?;
            Ok(Outcome::Done)
        }
        Ok(None) => {
            let text = context.say("Tidak ada yang belum terkirim.", "Nothing is unsent.");
            Ok(Outcome::NothingToDo(text.to_owned()))
        }
        Err(error @ ExportError::Exists(_)) => Err(Failure::Usage(why_not(&error, lang))),
        Err(error) => Err(anyhow!(why_not(&error, lang)).into()),
    }
}

/// How far it is, for somebody who looks on.
fn tell(records: u64, word: &str) {
    let mut out = io::stderr();
    if out.is_terminal() {
        // Nobody is there to be told that nobody can be told.
        let _ = write!(out, "\r{records} {word}");
    }
}

fn described(exported: &Exported, out: &Path) -> Value {
    json!({
        "file": out,
        "gateway_id": exported.manifest.gateway_id,
        "counts": exported.manifest.counts,
        "batches": exported.manifest.batches.len(),
        "bytes": exported.bytes,
        "parked": exported.parked,
        "unreadable": exported.unreadable,
        "more": exported.more,
        "registered": exported.registered,
    })
}

fn page(context: &Context, exported: &Exported, out: &Path) -> String {
    let counts: Vec<String> =
        exported.manifest.counts.iter().map(|(stream, count)| format!("{count} {stream}")).collect();
    let mut lines = vec![
        format!("{}: {} ({} byte)", context.say("Berkas", "File"), out.display(), exported.bytes),
        format!("{}: {}", context.say("Isi", "Holds"), counts.join(", ")),
    ];
    let mut add = |id, en| lines.push(context.say(id, en).to_owned());
    if exported.more {
        add(
            "MASIH ADA LAGI yang tidak muat; ekspor lagi sesudah tanda terima berkas ini diproses.",
            "THERE IS MORE that does not fit; export again after this file's receipt was settled.",
        );
    }
    if exported.parked > 0 || exported.unreadable > 0 {
        add(
            "Catatan yang disisihkan atau tak terbaca TIDAK ikut (lumbung-gateway quarantine list).",
            "Records set aside or unreadable are NOT in it (lumbung-gateway quarantine list).",
        );
    }
    if !exported.registered {
        add(
            "PERHATIAN: cloud belum mengenal kunci tanda tangan gateway ini dan akan menolak berkas ini.",
            "ATTENTION: the cloud does not know this gateway's signing key yet and will refuse the file.",
        );
    }
    add(
        "Belum ada yang ditandai terkirim. Di cloud: lumbung-cloud import bundle BERKAS --receipt TANDA-TERIMA",
        "Nothing is marked as sent yet. At the cloud: lumbung-cloud import bundle FILE --receipt RECEIPT",
    );
    lines.join("\n")
}

fn why_not(error: &ExportError, lang: Language) -> String {
    if lang == Language::English {
        return error.to_string();
    }
    match error {
        ExportError::Exists(path) => format!("{} sudah ada; pilih nama lain", path.display()),
        ExportError::File { path, error } => format!("{} tidak dapat ditulis: {error}", path.display()),
        ExportError::Store(why) => format!("basis data tidak dapat dibaca: {why}"),
        ExportError::Signing(why) => format!("kunci tanda tangan: {why}"),
        ExportError::Random(why) => format!("sistem tidak memberi bilangan acak: {why}"),
        ExportError::Stuck => {
            "basis data berubah selagi dibaca, atau rusak; coba lagi, lalu mulai ulang gateway".to_owned()
        }
    }
}

pub(super) async fn settle(context: &Context, path: &PathBuf) -> Result<Outcome, Failure> {
    let mut receipt = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut receipt))
        .map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let gateway = LocalGateway::at(context.config.http.listen).map_err(anyhow::Error::from)?;
    let settled = match gateway.post_bytes("/api/receipt", receipt.clone()).await {
        Ok(answer) => answer["settled"].as_u64().unwrap_or(0),
        Err(LocalError::NotRunning(_)) => stopped(context, &receipt).await?,
        Err(error) => return Err(anyhow!(error).into()),
    };
    if settled == 0 {
        let text = context.say(
            "Tanda terima sah, tetapi tidak ada lagi catatan yang menunggunya.",
            "The receipt is good, but no record was waiting for it any more.",
        );
        return Ok(Outcome::NothingToDo(text.to_owned()));
    }
    print(&format!("{settled} {}", context.say("catatan ditandai terkirim", "records are marked as sent")))?;
    Ok(Outcome::Done)
}

/// A gateway that does not run: its store is opened as a start would.
async fn stopped(context: &Context, receipt: &[u8]) -> Result<u64, Failure> {
    let config = &context.config;
    let clock = Arc::new(crate::app::clock_of(&config.data_dir));
    let identity = IdentityFile::in_dir(&config.data_dir);
    let settings = crate::app::store_settings(config, &identity);
    let now = clock.now();
    let opened = tokio::task::spawn_blocking(move || Outbox::open(&settings, now)).await;
    let (outbox, ended) = opened.map_err(anyhow::Error::from)?.map_err(anyhow::Error::from)?;
    let receipts = Receipts::in_dir(&config.data_dir, outbox.clone(), clock);
    let settled = receipts.settle(receipt).await;
    outbox.close().await;
    drop((outbox, receipts));
    ended.wait().await.map_err(anyhow::Error::from)?;
    settled.map_err(|error| anyhow!(no_receipt(&error, context.lang)).into())
}

fn no_receipt(error: &SettleError, lang: Language) -> String {
    if lang == Language::English {
        return error.to_string();
    }
    use lumbung_shared::receipt::ReceiptError;
    match error {
        SettleError::Receipt(ReceiptError::NotAReceipt) => {
            "berkas ini bukan tanda terima cloud Lumbung".to_owned()
        }
        SettleError::Receipt(ReceiptError::Signature) => {
            "tanda terima ini tidak ditandatangani cloud milik gateway ini; tidak ada yang berubah".to_owned()
        }
        SettleError::Receipt(ReceiptError::Format(format)) => {
            format!("tanda terima berformat {format}, belum dikenal; perbarui program ini")
        }
        SettleError::Foreign(name) => {
            format!("tanda terima ini untuk gateway {name}; tidak ada yang berubah")
        }
        SettleError::NoCloud => {
            "gateway ini belum mengenal kunci cloud; hubungkan sekali ke cloud".to_owned()
        }
        SettleError::Identity(why) => format!("berkas identitas: {why}"),
        SettleError::Signing(why) => format!("kunci tanda tangan: {why}"),
        SettleError::Store(why) => format!("penyimpanan: {why}"),
    }
}
