//! One stand: a folder of its own, and the programs and proxies that a story puts on it.

use crate::http;
use crate::ledger::{self, Held};
use crate::postgres;
use crate::programs::{Cloud, Gateway, settings};
use crate::proxy::Proxy;
use crate::wait::eventually;
use anyhow::{Context, Result};
use lumbung_cloud::database::embedded::{Settings, running};
use sqlx::PgPool;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where a story stands.
#[derive(Debug)]
pub struct Stand {
    dir: TempDir,
}

impl Stand {
    pub fn new() -> Result<Self> {
        // Also installs the TLS provider that every client needs.
        http::client()?;
        let dir = tempfile::Builder::new().prefix("lumbung-").tempdir()?;
        postgres::open_to_others(dir.path())?;
        Ok(Self { dir })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A started cloud on a fresh database, with a programme and a kitchen.
    pub async fn cloud(&self) -> Result<Cloud> {
        let mut cloud = self.cloud_not_started().await?;
        cloud.start().await?;
        cloud.furnish().await?;
        Ok(cloud)
    }

    /// A cloud on a fresh database, to be configured before it starts.
    pub async fn cloud_not_started(&self) -> Result<Cloud> {
        let url = postgres::fresh_database("story").await?;
        Cloud::new(settings("cloud", self.path(), Some(url)))
    }

    /// Another replica on the database of `first`.
    pub async fn replica_of(&self, first: &Cloud) -> Result<Cloud> {
        let url = first.settings.database_url.clone();
        let mut cloud = Cloud::new(settings("replica", self.path(), url))?;
        cloud.start().await?;
        Ok(cloud)
    }

    /// A started cloud with its own embedded PostgreSQL.
    pub async fn cloud_embedded(&self) -> Result<Cloud> {
        let mut cloud = Cloud::new(settings("cloud", self.path(), None))?;
        cloud.start().await?;
        cloud.furnish().await?;
        Ok(cloud)
    }

    /// A gateway that nobody has enrolled, not started.
    pub fn bare_gateway(&self, code: &str) -> Result<Gateway> {
        Gateway::new(code, &self.path().join(code), &self.log(code))
    }

    /// An enrolled gateway that reaches the cloud at `base`, not started.
    pub async fn gateway_not_started(&self, code: &str, cloud: &Cloud, base: &str) -> Result<Gateway> {
        let gateway = self.bare_gateway(code)?;
        let claim = cloud.claim(code).await?;
        gateway.enrol(base, &claim.claim).await?;
        Ok(gateway)
    }

    /// An enrolled and started gateway that reaches the cloud at `base`.
    pub async fn gateway(&self, code: &str, cloud: &Cloud, base: &str) -> Result<Gateway> {
        let mut gateway = self.gateway_not_started(code, cloud, base).await?;
        gateway.start().await?;
        Ok(gateway)
    }

    /// The usual stand: a cloud, a line that can fail, a gateway behind it.
    pub async fn trio(&self) -> Result<(Cloud, Proxy, Gateway)> {
        let cloud = self.cloud().await?;
        let proxy = Proxy::start(&cloud.address())?;
        let gateway = self.gateway("GW-1", &cloud, &proxy.base()).await?;
        Ok((cloud, proxy, gateway))
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.path().join(format!("{name}.log"))
    }

    /// The ends of all logs, for a story that failed.
    pub fn logs(&self) -> String {
        let mut out = String::new();
        let entries = std::fs::read_dir(self.path()).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "log") {
                let text = std::fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let lines: Vec<&str> = text.lines().collect();
                let (before, tail) = lines.split_at(lines.len().saturating_sub(60));
                let _ = writeln!(out, "\n--- {} ---", path.display());
                let grave = |line: &&&str| line.contains(" WARN ") || line.contains(" ERROR ");
                for line in before.iter().filter(grave).chain(tail) {
                    let _ = writeln!(out, "{line}");
                }
            }
        }
        out
    }
}

/// Waits until the cloud holds exactly these tags, each once, in any order.
pub async fn cloud_holds(database: &PgPool, tags: &[String]) -> Result<()> {
    let mut expected: Vec<&str> = tags.iter().map(String::as_str).collect();
    expected.sort_unstable();
    eventually("the cloud holds exactly what was scanned", || async {
        let held = ledger::held(database).await?;
        let mut found: Vec<&str> = held.iter().map(|row: &Held| row.tag.as_str()).collect();
        found.sort_unstable();
        if found == expected {
            return Ok(Some(()));
        }
        anyhow::bail!("expected {} tags, found {}: {:.300}", expected.len(), found.len(), found.join(" "))
    })
    .await
}

/// Opens the database of a cloud that runs its own PostgreSQL.
pub async fn embedded_database(cloud: &Cloud) -> Result<PgPool> {
    let settings = Settings { data_dir: cloud.settings.dir.clone(), bin_dir: None };
    let options = running(&settings).await?.context("the cloud's PostgreSQL is not running")?;
    Ok(sqlx::postgres::PgPoolOptions::new().max_connections(2).connect_with(options).await?)
}
