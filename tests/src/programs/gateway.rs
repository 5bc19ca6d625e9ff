//! One gateway: its data directory, its process and the requests a person makes of it.

use super::{Finished, Program, binary, clean_environment, free_port, run, variable};
use crate::http::{self, Reply};
use crate::wait::{eventually, when};
use anyhow::{Context, Result, anyhow};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// A gateway under test.
#[derive(Debug)]
pub struct Gateway {
    pub code: String,
    pub dir: PathBuf,
    pub port: u16,
    log: PathBuf,
    binary: PathBuf,
    settings: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    wrapper: Vec<OsString>,
    config: Option<PathBuf>,
    program: Option<Program>,
    client: reqwest::Client,
}

/// The 201 of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: i64,
    pub run: String,
}

impl Gateway {
    /// A gateway with an empty data directory; nothing is started.
    pub fn new(code: &str, dir: &Path, log: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let settings = [
            ("sync.interval", "500ms"),
            ("sync.probe_interval", "200ms"),
            ("sync.backoff_base", "20ms"),
            ("sync.backoff_max", "200ms"),
            ("sync.request_timeout", "20s"),
        ];
        Ok(Self {
            code: code.to_owned(),
            dir: dir.to_owned(),
            port: free_port()?,
            log: log.to_owned(),
            binary: binary("lumbung-gateway")?,
            settings: settings.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            environment: BTreeMap::new(),
            wrapper: Vec::new(),
            config: None,
            program: None,
            client: http::client()?,
        })
    }

    /// Changes a configuration key for the next start.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass numbers, texts and paths as they are")]
    pub fn set(&mut self, key: &str, value: impl ToString) -> &mut Self {
        self.settings.insert(key.to_owned(), value.to_string());
        self
    }

    /// Sets an environment variable for the next start.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass numbers, texts and paths as they are")]
    pub fn env(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Writes a configuration file for the next start; what is set one by one still wins.
    pub fn config_file(&mut self, text: &str) -> Result<&mut Self> {
        let path = self.dir.join("gateway.toml");
        std::fs::write(&path, text)?;
        self.config = Some(path);
        Ok(self)
    }

    /// Another build of the gateway.
    pub fn with_binary(&mut self, path: PathBuf) -> &mut Self {
        self.binary = path;
        self
    }

    /// Runs the next start under another program, as `strace -D …`. It must put the gateway itself
    /// in its own place (exec), so that signals reach the gateway.
    pub fn under(&mut self, wrapper: Vec<OsString>) -> &mut Self {
        self.wrapper = wrapper;
        self
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.wrapper.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        clean_environment(&mut command);
        command
            .env("LUMBUNG_GATEWAY__DATA_DIR", &self.dir)
            .env("LUMBUNG_GATEWAY__HTTP__LISTEN", self.address())
            .env("RUST_LOG", "info")
            .env("RUST_BACKTRACE", "1");
        for (key, value) in &self.settings {
            command.env(variable("LUMBUNG_GATEWAY", key), value);
        }
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.envs(&self.environment).args(arguments);
        command
    }

    /// Runs the command line to its end: `status`, `quarantine list`, …
    pub async fn cli(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || run(&mut command)).await?
    }

    /// Redeems a claim with the real command.
    pub async fn enrol(&self, cloud: &str, claim: &str) -> Result<()> {
        self.cli(&["enrol", "--cloud", cloud, "--claim", claim])
            .await?
            .ok()
            .context("lumbung-gateway enrol")?;
        Ok(())
    }

    /// Starts it and waits until it takes scans.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// Starts it and returns at once.
    pub fn spawn(&mut self) -> Result<()> {
        let name = format!("gateway {}", self.code);
        self.program = Some(Program::start(&name, &mut self.command(&["run"]), &self.log)?);
        Ok(())
    }

    /// Waits until it answers; a gateway that ended is an error at once.
    pub async fn ready(&mut self) -> Result<()> {
        let url = self.url("/livez");
        let client = self.client.clone();
        for _ in 0..2_000 {
            if let Some(status) = self.ended()? {
                return Err(anyhow!("gateway {} ended at start: {status}", self.code));
            }
            if client.get(&url).send().await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(anyhow!("gateway {} does not answer", self.code))
    }

    /// SIGTERM and a clean end.
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

    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    pub fn pid(&self) -> Option<u32> {
        self.program.as_ref().map(Program::pid)
    }

    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.program {
            Some(program) => program.ended(),
            None => Ok(None),
        }
    }

    /// Waits for it to end by itself.
    pub async fn wait_for_its_end(&mut self) -> Result<ExitStatus> {
        let mut program = self.program.take().context("the gateway is not running")?;
        tokio::task::spawn_blocking(move || program.wait(crate::wait::PATIENCE)).await?
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub async fn get(&self, path: &str) -> Result<Reply> {
        http::send(self.client.get(self.url(path))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        let request = self
            .client
            .post(self.url(path))
            .header("content-type", "application/json")
            .body(body.to_string());
        http::send(request).await
    }

    /// Posts a scan as the field manual does.
    pub async fn log_scan(&self, body: &Value) -> Result<Reply> {
        self.post("/api/log_scan", body).await
    }

    /// A scan that must be taken.
    pub async fn scan(&self, tag: &str, status: &str) -> Result<Stored> {
        let reply = self.log_scan(&json!({ "nfc_tag_id": tag, "status_scan": status })).await?;
        stored(&reply.expect(201)?)
    }

    /// `count` scans `PREFIX-1` … one after the other, tags returned.
    pub async fn scan_many(&self, prefix: &str, count: usize) -> Result<Vec<String>> {
        let tags: Vec<String> = (1..=count).map(|n| format!("{prefix}-{n}")).collect();
        for tag in &tags {
            self.scan(tag, "makanan_keluar").await?;
        }
        Ok(tags)
    }

    pub async fn status(&self) -> Result<Value> {
        self.get("/api/status").await?.expect(200)
    }

    /// Waits until the sync state is the given one.
    pub async fn until_state(&self, state: &str) -> Result<Value> {
        eventually(&format!("gateway {} is {state}", self.code), || async {
            let status = self.status().await?;
            Ok((sync_state(&status) == state).then_some(status))
        })
        .await
    }

    /// "Send now."
    pub async fn nudge(&self) -> Result<()> {
        self.post("/api/sync", &json!({})).await?;
        Ok(())
    }

    /// Waits until nothing is unsent, by the flag in its database.
    pub async fn drained(&self) -> Result<()> {
        let what = format!("gateway {} has sent everything", self.code);
        eventually(&what, || async { Ok(when(self.unsent()? == 0)) }).await
    }

    pub fn database(&self) -> PathBuf {
        self.dir.join("local_gateway.db")
    }

    /// Looks into the store as the field manual's `sqlite3` does.
    pub fn look(&self) -> Result<Connection> {
        look(&self.database())
    }

    /// Rows whose flag is still 0.
    pub fn unsent(&self) -> Result<i64> {
        let sql = "select count(*) from scan_event where synced_to_main_server = 0";
        Ok(self.look()?.query_row(sql, [], |row| row.get(0))?)
    }

    /// Records of all kinds whose flag is still 0.
    pub fn unsent_of_all(&self) -> Result<i64> {
        let sql = "select (select count(*) from scan_event where synced_to_main_server = 0)
                        + (select count(*) from reading where synced_to_main_server = 0)
                        + (select count(*) from event where synced_to_main_server = 0)";
        Ok(self.look()?.query_row(sql, [], |row| row.get(0))?)
    }

    /// Records set aside on the gateway.
    pub fn parked(&self) -> Result<i64> {
        Ok(self.look()?.query_row("select count(*) from parked", [], |row| row.get(0))?)
    }

    /// Every tag in the store, oldest first.
    pub fn tags(&self) -> Result<Vec<String>> {
        let store = self.look()?;
        let mut statement = store.prepare("select nfc_tag_id from scan_event order by id")?;
        let tags = statement.query_map([], |row| row.get(0))?;
        Ok(tags.collect::<Result<_, _>>()?)
    }

    /// The readings in the store with their series, oldest first.
    pub fn readings(&self) -> Result<Vec<(String, f64)>> {
        let store = self.look()?;
        let mut statement = store.prepare("select series, value from reading order by id")?;
        let readings = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(readings.collect::<Result<_, _>>()?)
    }

    /// The events of a kind in the store, their bodies, oldest first.
    pub fn events(&self, kind: &str) -> Result<Vec<Value>> {
        let store = self.look()?;
        let mut statement = store.prepare("select body from event where kind = ?1 order by id")?;
        let bodies = statement.query_map([kind], |row| row.get::<_, String>(0))?;
        bodies.map(|body| Ok(serde_json::from_str(&body?)?)).collect()
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// Opens a gateway's database without writing to it.
pub fn look(path: &Path) -> Result<Connection> {
    let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("opening {}", path.display()))?;
    store.busy_timeout(Duration::from_secs(5))?;
    Ok(store)
}

/// The id and run of a stored scan.
pub fn stored(body: &Value) -> Result<Stored> {
    Ok(Stored {
        id: body["id"].as_i64().context("the answer has no id")?,
        run: body["run"].as_str().context("the answer has no run")?.to_owned(),
    })
}

/// `sync.state`, or the same under its flat name.
fn sync_state(status: &Value) -> &str {
    status["sync"]["state"]
        .as_str()
        .or_else(|| status["sync"].as_str())
        .or_else(|| status["sync_state"].as_str())
        .or_else(|| status["state"].as_str())
        .unwrap_or_default()
}
