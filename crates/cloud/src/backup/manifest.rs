//! What a backup says of itself: `manifest.json`, written last.

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

pub(super) const NAME: &str = "manifest.json";
pub(super) const DUMP: &str = "database.dump";
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The program that made it.
    pub version: String,
    /// The moment that it shows.
    pub made_at: DateTime<Utc>,
    /// The newest migration of its schema.
    pub migration: i64,
    /// Major version of the server.
    pub postgresql: u32,
    pub parts: Vec<Part>,
    /// How many rows each table has.
    pub rows: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Part {
    /// Its path in the backup's folder.
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

impl Manifest {
    pub(super) fn new(made_at: DateTime<Utc>, migration: i64, postgresql: u32) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (parts, rows) = (Vec::new(), BTreeMap::new());
        Self { format: FORMAT, version, made_at, migration, postgresql, parts, rows }
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// It is none, or one of a newer program.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(NAME);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} is no backup of lumbung-cloud: {NAME}", folder.display()))?;
        let format = serde_json::from_str::<serde_json::Value>(&text)?["format"].as_u64();
        ensure!(
            format == Some(FORMAT.into()),
            "this backup's format is not known: use a newer lumbung-cloud"
        );
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Reads every part again and compares.
    ///
    /// # Errors
    /// Names the part that is missing or was changed.
    pub(super) fn check_parts(&self, folder: &Path) -> anyhow::Result<()> {
        for part in &self.parts {
            let plain =
                Path::new(&part.name).components().all(|c| matches!(c, std::path::Component::Normal(_)));
            ensure!(plain, "{} leads out of the backup", part.name);
            let there = Part::of(folder, &part.name)?;
            ensure!(there == *part, "{} is not what was written: the backup is damaged", part.name);
        }
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

impl Part {
    pub(super) fn of(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let path = folder.join(name);
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0_u64, vec![0; 1 << 20]);
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context(path.display().to_string()),
            };
            bytes += read as u64;
            digest.update(buffer.get(..read).unwrap_or_default());
        }
        let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: name.to_owned(), bytes, sha256 })
    }
}

/// Rows of each table, as the connection's transaction sees them.
pub(super) async fn rows(connection: &mut PgConnection) -> anyhow::Result<BTreeMap<String, i64>> {
    let tables = sqlx::query_scalar!(
        r#"select tablename::text as "name!" from pg_tables where schemaname = 'public' order by 1"#
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut rows = BTreeMap::new();
    for table in tables {
        // A name cannot be bound; ours hold no quote, and one that does is doubled.
        let sql = format!("select count(*) from public.\"{}\"", table.replace('"', "\"\""));
        let count = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?;
        rows.insert(table, count);
    }
    Ok(rows)
}
