//! What an operator does before the first scan, by the same command lines: a programme, its places, a
//! claim for every gateway.

use super::children::{command, finish};
use super::country::{OWN_GATEWAY, OWN_SITE, PROGRAMME, SITES};
use super::place::write_whole;
use anyhow::{Context, Result};
use lumbung_tests::http::send;
use lumbung_tests::programs::Claim;
use reqwest::Client;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Who signs in to look around, and who looks after the programme.
pub(crate) const ADMIN: &str = "admin@lumbung.example";
pub(crate) const OPERATOR: &str = "operator@lumbung.example";

/// Whoever holds the cloud's command line.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    pub(crate) config: PathBuf,
    /// The cloud's address.
    pub(crate) cloud: String,
}

impl Operator {
    async fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut command = command("lumbung-cloud", &self.config)?;
        command.args(arguments);
        finish(command, &format!("lumbung-cloud {}", arguments.join(" "))).await
    }

    /// Leave for a gateway to enrol at a site.
    pub(crate) async fn claim(&self, gateway: &str, site: &str) -> Result<Claim> {
        let told = self.cli(&["gateway", "add", gateway, "--site", site, "--json"]).await?;
        serde_json::from_str(&told).context("what `gateway add --json` printed")
    }

    /// Adds the programme and the places that are not there yet. Answers how many places it added.
    pub(crate) async fn furnish(&self, http: &Client) -> Result<usize> {
        let summary = send(http.get(format!("{}/api/dashboard/summary", self.cloud))).await?.expect(200)?;
        let known: Vec<&str> = summary["checkpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|checkpoint| checkpoint["site"]["code"].as_str())
            .collect();
        let missing: Vec<_> = SITES.iter().filter(|site| !known.contains(&site.code)).collect();
        if !missing.is_empty() {
            self.cli(&["programme", "add", PROGRAMME.0, PROGRAMME.1]).await?;
        }
        for site in &missing {
            let kind = site.kind_word();
            self.cli(&[
                "site",
                "add",
                site.code,
                "--programme",
                PROGRAMME.0,
                "--name",
                site.name,
                "--kind",
                kind,
                "--time-zone",
                site.time_zone,
            ])
            .await?;
        }
        Ok(missing.len())
    }

    /// The demo's admin.
    pub(crate) async fn admin(&self, file: &Path) -> Result<Option<String>> {
        self.account(ADMIN, "admin", file).await
    }

    /// An operator of the whole programme.
    pub(crate) async fn programmes_operator(&self, file: &Path) -> Result<Option<String>> {
        let password = self.account(OPERATOR, "user", file).await?;
        if self.cli(&["user", "grants", OPERATOR]).await?.trim().is_empty() {
            self.cli(&["user", "grant", OPERATOR, "operator", "--programme", PROGRAMME.0]).await?;
        }
        Ok(password)
    }

    /// An account with a password that is drawn at the first start and kept beside the data; `None` when the
    /// account is there and its file is not.
    async fn account(&self, email: &str, role: &str, file: &Path) -> Result<Option<String>> {
        let known = self.cli(&["user", "list"]).await?.lines().any(|line| line.ends_with(email));
        if known && !file.exists() {
            return Ok(None);
        }
        if !file.exists() {
            write_whole(file, uuid::Uuid::new_v4().simple().to_string().as_bytes(), 0o600)?;
        }
        if !known {
            let mut command = command("lumbung-cloud", &self.config)?;
            command.args(["user", "add", "--email", email, "--role", role, "--password-stdin"]);
            command.stdin(std::fs::File::open(file)?);
            finish(command, "lumbung-cloud user add").await?;
        }
        Ok(Some(std::fs::read_to_string(file)?))
    }

    /// Enrols the real gateway of the demo, by its own command line, unless it is.
    pub(crate) async fn enrol_own(&self, gateway_config: &Path, gateway_dir: &Path) -> Result<bool> {
        if is_enrolled(&gateway_dir.join("identity.json")) {
            return Ok(false);
        }
        let claim = self.claim(OWN_GATEWAY, OWN_SITE).await?;
        let mut command = command("lumbung-gateway", gateway_config)?;
        command.args(["enrol", &claim.uri]);
        finish(command, "lumbung-gateway enrol").await?;
        Ok(true)
    }
}

/// Whether the file tells of an enrolment that was finished.
fn is_enrolled(identity: &Path) -> bool {
    std::fs::read(identity)
        .ok()
        .and_then(|text| serde_json::from_slice::<Value>(&text).ok())
        .is_some_and(|identity| identity["gateway_id"].is_string() && identity["key"].is_string())
}
