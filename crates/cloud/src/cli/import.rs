//! `import sites`: a spreadsheet of sites, all of it or none of it. `import bundle`: what people carried here
//! from a gateway without a network.

use super::say;
use crate::audit::{self, Action, Actor, Entry, Object};
use crate::config::Config;
use crate::error::Error;
use crate::ingest::{Ingest, carried};
use crate::metrics::Metrics;
use crate::places::{self, NewSite};
use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use lumbung_shared::bundle::MAX_BYTES;
use serde::Deserialize;
use serde_json::json;
use sqlx::PgPool;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Subcommand)]
pub(super) enum Import {
    /// Sites from a CSV file with the columns programme,code,name,kind,time_zone
    #[command(
        after_help = "Example:\n  lumbung-cloud import sites sites.csv\n\nEvery row is checked before the first is stored; sites that are there already are brought up to date."
    )]
    Sites { file: PathBuf },
    /// Records from a file that `lumbung-gateway export` wrote
    #[command(
        after_help = "Example:\n  lumbung-cloud import bundle /media/usb/GW-1.lumbung --receipt /media/usb/GW-1.receipt\n\nThe same file again does no harm: its records are duplicates then. Carry the receipt back:\n  lumbung-gateway settle /media/usb/GW-1.receipt"
    )]
    Bundle {
        file: PathBuf,
        /// Where the signed receipt for the gateway goes
        #[arg(long, value_name = "OUT")]
        receipt: PathBuf,
    },
}

#[derive(Deserialize)]
struct Row {
    programme: String,
    code: String,
    name: String,
    kind: String,
    time_zone: String,
}

impl Import {
    pub(super) async fn run(self, config: &Config, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::Sites { file } => sites(pool, &file).await,
            Self::Bundle { file, receipt } => bundle(config, pool, &file, &receipt).await,
        }
    }
}

async fn bundle(config: &Config, pool: &PgPool, file: &Path, receipt: &Path) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    // One more than is taken, so that a larger file is noticed.
    File::open(file)
        .and_then(|opened| opened.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", file.display()))?;
    let (ingest, writers) = Ingest::new(pool.clone(), Arc::new(Metrics::new()), config.ingest.clone());
    let stop = CancellationToken::new();
    let writing = tokio::spawn(writers.run(stop.clone()));
    let imported = carried::import(pool, &ingest, config, bytes).await;
    stop.cancel();
    writing.await.context("the writers")?;
    let imported = imported.map_err(|error| match error {
        Error::Unexpected(error) => error,
        error => {
            let words = format!("{} was not imported: {}", file.display(), error.explained());
            anyhow!(error).context(words)
        }
    })?;
    let entry = Entry {
        object: Some(Object::new("gateway", &imported.gateway)),
        detail: json!({ "records": imported.records, "duplicates": imported.duplicates,
            "quarantined": imported.quarantined }),
        ..Entry::of(Actor::Command, Action::RecordsImported)
    };
    // The writers have stored the records already, batch by batch, as they do for a gateway on the line.
    audit::record(&mut *pool.acquire().await?, &entry).await?;
    let text = serde_json::to_vec(&imported.receipt)?;
    write_whole(receipt, &text).with_context(|| {
        format!(
            "everything is stored, but the receipt cannot be written to {}; import again",
            receipt.display()
        )
    })?;
    say(format_args!(
        "{}: {} records, of them {} known before and {} in quarantine; receipt in {}",
        imported.gateway,
        imported.records,
        imported.duplicates,
        imported.quarantined,
        receipt.display()
    ))
}

/// The stick may be pulled out at any moment: the name stands for all of it or for nothing.
fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut file = File::create(&part)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

async fn sites(pool: &PgPool, file: &Path) -> anyhow::Result<()> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let (mut sites, mut wrong) = (Vec::new(), Vec::new());
    for (i, row) in reader.deserialize::<Row>().enumerate() {
        // The heading is line 1.
        let line = i + 2;
        match row {
            Err(error) => wrong.push(format!("line {line}: {error}")),
            Ok(r) => match NewSite::parse(&r.programme, &r.code, &r.name, &r.kind, &r.time_zone) {
                Ok(site) => sites.push((line, site)),
                Err(error) => wrong.push(format!("line {line}: {error}")),
            },
        }
    }
    if !wrong.is_empty() {
        bail!("nothing was imported:\n{}", wrong.join("\n"));
    }
    let mut added = 0;
    let mut tx = pool.begin().await?;
    for (line, site) in &sites {
        let new = places::add_site(&mut *tx, site)
            .await
            .with_context(|| format!("nothing was imported: line {line}"))?;
        added += usize::from(new);
    }
    let entry = Entry {
        object: Some(Object::new("site", &"*")),
        detail: json!({ "sites": sites.len(), "added": added }),
        ..Entry::of(Actor::Command, Action::PlaceChanged)
    };
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    say(format_args!("{} sites: {added} added, {} brought up to date", sites.len(), sites.len() - added))
}
