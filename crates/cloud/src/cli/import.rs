//! `import sites`: a spreadsheet of sites, all of it or none of it.

use super::say;
use crate::places::{self, NewSite};
use anyhow::{Context, bail};
use clap::Subcommand;
use serde::Deserialize;
use sqlx::PgPool;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum Import {
    /// Sites from a CSV file with the columns programme,code,name,kind,time_zone
    #[command(
        after_help = "Example:\n  lumbung-cloud import sites sites.csv\n\nEvery row is checked before the first is stored; sites that are there already are brought up to date."
    )]
    Sites { file: PathBuf },
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
    pub(super) async fn run(self, pool: &PgPool) -> anyhow::Result<()> {
        let Self::Sites { file } = self;
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_path(&file)
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
        tx.commit().await?;
        say(format_args!("{} sites: {added} added, {} brought up to date", sites.len(), sites.len() - added))
    }
}
