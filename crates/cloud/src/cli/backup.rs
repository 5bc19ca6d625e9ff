//! `lumbung-cloud backup` and `restore`.

use super::say;
use crate::backup;
use crate::config::{Config, Store};
use crate::finding::bytes;
use std::path::Path;

pub(super) const EXAMPLES: &str = "\
Examples:
  lumbung-cloud backup /var/backups/lumbung --verify --keep 14
  lumbung-cloud restore /var/backups/lumbung/lumbung-20261121T020000Z --verify
  lumbung-cloud restore /var/backups/lumbung/lumbung-20261121T020000Z

A backup holds people's data and secrets: keep it where only its keeper reads it, and copy it to another machine.";

pub(super) async fn backup(
    config: &Config,
    dir: &Path,
    verify: bool,
    keep: Option<usize>,
) -> anyhow::Result<()> {
    let (folder, manifest) = backup::make(config, dir).await?;
    say(format_args!(
        "{}: {} rows of {} tables, {}",
        folder.display(),
        manifest.rows.values().sum::<i64>(),
        manifest.rows.len(),
        bytes(manifest.bytes())
    ))?;
    if config.files.store == Store::S3 {
        say(format_args!(
            "uploads are in the bucket {} and not in this backup: it needs versioning or copies of its own",
            config.files.bucket
        ))?;
    }
    if verify {
        try_out(config, &folder).await?;
    }
    if let Some(keep) = keep {
        let removed = backup::prune(dir, keep)?;
        say(format_args!("{removed} older backups removed"))?;
    }
    Ok(())
}

pub(super) async fn restore(
    config: &Config,
    folder: &Path,
    replace: bool,
    verify: bool,
) -> anyhow::Result<()> {
    if verify {
        return try_out(config, folder).await;
    }
    let manifest = backup::restore(config, folder, replace, |line| say(line)).await?;
    say(format_args!("restored as it was at {}; now start the cloud", manifest.made_at))
}

async fn try_out(config: &Config, folder: &Path) -> anyhow::Result<()> {
    backup::try_out(config, folder, |line| say(line)).await?;
    say("verified: every table has the rows that it had")
}
