//! One cloud replica: its process, its command line and the database behind it.

use super::{Finished, Program, binary, clean_environment, free_port, run, variable};
use crate::http::{self, Reply};
use crate::tls::{Authority, CertificateFiles};
use crate::wire::HandMade;
use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// What a cloud is started with.
#[derive(Debug, Clone)]
pub struct CloudSettings {
    pub name: String,
    pub dir: PathBuf,
    pub log: PathBuf,
    /// `None`: it runs its own embedded PostgreSQL.
    pub database_url: Option<String>,
}

/// A cloud under test.
#[derive(Debug)]
pub struct Cloud {
    pub port: u16,
    pub settings: CloudSettings,
    configuration: BTreeMap<String, String>,
    file: Option<PathBuf>,
    program: Option<Program>,
    client: reqwest::Client,
    scheme: &'static str,
}

/// `lumbung-cloud gateway add --json`
#[derive(Debug, Clone, Deserialize)]
pub struct Claim {
    pub gateway_id: String,
    pub site: String,
    pub claim: String,
    pub uri: String,
    pub expires_at: String,
}

/// The names of the cloud's jobs.
fn jobs() -> impl Iterator<Item = &'static str> {
    let (_, jobs) =
        include_str!("../../../crates/cloud/cloud.toml").split_once("\n[jobs]\n").unwrap_or_default();
    let lines = jobs.lines().take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
}

impl Cloud {
    pub fn new(settings: CloudSettings) -> Result<Self> {
        std::fs::create_dir_all(&settings.dir)?;
        // A story has a job run when it wants it to; the clock on the wall does not come in between.
        let asked_for = jobs().map(|job| (format!("jobs.{job}"), String::new()));
        Ok(Self {
            port: free_port()?,
            settings,
            configuration: [
                ("development.open_loopback", "true"),
                // Nobody stands before it, unless a story says so.
                ("http.drain", "0s"),
                // Six stories at once on two cores: a slow connection is no reason to say BUSY.
                ("database.people_wait", "10s"),
                // Everyone in a story comes from the same address.
                ("limits.sign_in", "10000/1m"),
                ("limits.register", "10000/1m"),
                ("limits.enrol", "10000/1m"),
                ("limits.read", "100000/1m"),
                ("limits.write", "100000/1m"),
                ("limits.upload", "10000/1m"),
                ("limits.picture", "100000/1m"),
                ("limits.expensive", "10000/1m"),
                ("limits.refused", "10000/1m"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .chain(asked_for)
            .collect(),
            file: None,
            program: None,
            client: http::client()?,
            scheme: "http",
        })
    }

    /// Changes a configuration key for the next start.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass numbers, texts and paths as they are")]
    pub fn set(&mut self, key: &str, value: impl ToString) -> &mut Self {
        self.configuration.insert(key.to_owned(), value.to_string());
        self
    }

    /// Gives it a configuration file, beside which its credentials may lie.
    pub fn with_file(&mut self, file: PathBuf) -> &mut Self {
        self.file = Some(file);
        self
    }

    /// Lets it end TLS itself, as `localhost`, and asks it through a client that knows the authority.
    pub fn with_tls(&mut self, tls: &CertificateFiles, authority: &Authority) -> Result<&mut Self> {
        (self.scheme, self.client) = ("https", authority.client()?);
        let url = self.base();
        Ok(self
            .set("http.tls.certificate", tls.certificate.display())
            .set("http.tls.key", tls.key.display())
            .set("http.public_url", url))
    }

    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("lumbung-cloud")?);
        clean_environment(&mut command);
        command
            .env("LUMBUNG_CLOUD__DATA_DIR", &self.settings.dir)
            .env("LUMBUNG_CLOUD__HTTP__LISTEN", self.address())
            .env("RUST_LOG", self.configuration.get("log.filter").map_or("info", String::as_str))
            .env("RUST_BACKTRACE", "1");
        if let Some(url) = &self.settings.database_url {
            command.env("DATABASE_URL", url);
        }
        if let Some(file) = &self.file {
            command.env("LUMBUNG_CLOUD_CONFIG", file);
        }
        for (key, value) in &self.configuration {
            command.env(variable("LUMBUNG_CLOUD", key), value);
        }
        command.args(arguments);
        Ok(command)
    }

    /// Runs the command line to its end.
    pub async fn cli(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.command(arguments)?;
        tokio::task::spawn_blocking(move || run(&mut command)).await?
    }

    /// [`Self::cli`] that must succeed; its output.
    pub async fn must(&self, arguments: &[&str]) -> Result<String> {
        self.cli(arguments).await?.ok().with_context(|| format!("lumbung-cloud {}", arguments.join(" ")))
    }

    /// Starts it and waits until it is ready to take records.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    pub fn spawn(&mut self) -> Result<()> {
        let mut command = self.command(&["serve"])?;
        self.program = Some(Program::start(&self.settings.name, &mut command, &self.settings.log)?);
        Ok(())
    }

    /// Waits until `/readyz` says 200; a cloud that ended is an error at once.
    pub async fn ready(&mut self) -> Result<()> {
        let url = self.url("/readyz");
        let client = self.client.clone();
        for _ in 0..3_000 {
            if let Some(status) = self.ended()? {
                return Err(anyhow!("{} ended at start: {status}", self.settings.name));
            }
            if let Ok(reply) = client.get(&url).send().await
                && reply.status().is_success()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(anyhow!("{} does not become ready", self.settings.name))
    }

    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut program) = self.program.take() {
            tokio::task::spawn_blocking(move || program.stop()).await??;
        }
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill();
        }
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(program) = &self.program {
            program.signal(signal);
        }
    }

    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.program {
            Some(program) => program.ended(),
            None => Ok(None),
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.program.as_ref().map(Program::pid)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn base(&self) -> String {
        match self.scheme {
            "https" => format!("https://localhost:{}", self.port),
            _ => format!("http://{}", self.address()),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base())
    }

    pub async fn get(&self, path: &str) -> Result<Reply> {
        http::send(self.client.get(self.url(path))).await
    }

    pub async fn summary(&self) -> Result<Value> {
        self.get("/api/dashboard/summary").await?.expect(200)
    }

    /// The summary's lines about one gateway.
    pub async fn summary_of(&self, gateway: &str) -> Result<Value> {
        let summary = self.summary().await?;
        let checkpoints = summary["checkpoints"].as_array().cloned().unwrap_or_default();
        checkpoints
            .iter()
            .filter_map(|checkpoint| checkpoint["gateways"].as_array())
            .flatten()
            .find(|entry| entry["gateway_id"] == gateway)
            .cloned()
            .with_context(|| format!("the summary does not know {gateway}: {summary}"))
    }

    /// A programme and a kitchen, as `make run` has them; enough for gateways to stand somewhere.
    pub async fn furnish(&self) -> Result<()> {
        self.must(&["programme", "add", "MBG", "Makan Bergizi"]).await?;
        self.add_site("DAPUR-1").await
    }

    pub async fn add_site(&self, code: &str) -> Result<()> {
        let mut arguments = vec!["site", "add", code, "--programme", "MBG", "--name", code];
        arguments.extend(["--kind", "kitchen", "--time-zone", "Asia/Jakarta"]);
        self.must(&arguments).await?;
        Ok(())
    }

    /// Makes a claim for a gateway at `DAPUR-1`.
    pub async fn claim(&self, code: &str) -> Result<Claim> {
        self.claim_with(&[code, "--site", "DAPUR-1"]).await
    }

    pub async fn claim_with(&self, arguments: &[&str]) -> Result<Claim> {
        let mut all = vec!["gateway", "add"];
        all.extend(arguments);
        all.push("--json");
        let out = self.must(&all).await?;
        serde_json::from_str(&out).with_context(|| format!("gateway add --json printed {out}"))
    }

    /// A gateway made of nothing but a key, for batches no real gateway would send.
    pub async fn hand_made(&self, code: &str) -> Result<HandMade> {
        let claim = self.claim(code).await?;
        HandMade::enrol(code, &self.base(), &claim.claim).await
    }

    /// A pool on the database behind it; `None` when that is embedded.
    pub async fn database(&self) -> Result<PgPool> {
        let url = self.settings.database_url.as_ref().context("this cloud keeps its database to itself")?;
        connect(url).await
    }
}

/// Connects to a database of the stand.
pub async fn connect(url: &str) -> Result<PgPool> {
    Ok(PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(20)).connect(url).await?)
}

/// The settings of a replica whose files lie under `dir`.
pub fn settings(name: &str, dir: &Path, database_url: Option<String>) -> CloudSettings {
    CloudSettings {
        name: name.to_owned(),
        dir: dir.join(name),
        log: dir.join(format!("{name}.log")),
        database_url,
    }
}
