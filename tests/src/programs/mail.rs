//! A real SMTP server with STARTTLS and AUTH; `mail_server.py` says what it does with which address.

use super::{Cloud, Program, free_port};
use crate::tls::Authority;
use crate::wait::eventually;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

const USERNAME: &str = "lumbung";
/// The story is the only one who listens.
const PASSWORD: &str = "rahasia-surat";
/// Debian's own: it is the one that has python3-aiosmtpd.
const PYTHON: &str = "/usr/bin/python3";

/// A mail server with a folder of its own.
#[derive(Debug)]
pub struct MailServer {
    dir: PathBuf,
    authority: PathBuf,
    port: u16,
    log: PathBuf,
    program: Option<Program>,
}

/// A mail that it took.
#[derive(Debug, Clone, Deserialize)]
pub struct Taken {
    pub to: String,
    pub from: String,
    pub subject: String,
    pub message_id: String,
    pub text: String,
    pub html: String,
    pub tls: bool,
    pub user: String,
}

impl MailServer {
    pub async fn start(dir: &Path, log: &Path) -> Result<Self> {
        let dir = dir.join("mail");
        std::fs::create_dir_all(&dir)?;
        let authority = Authority::new(&dir)?;
        let (certificate, key) = authority.issue()?;
        std::fs::write(dir.join("certificate.pem"), certificate)?;
        std::fs::write(dir.join("key.pem"), key)?;
        let mut server =
            Self { dir, authority: authority.file, port: free_port()?, log: log.to_owned(), program: None };
        server.again().await?;
        Ok(server)
    }

    /// Starts it, or starts it again after it died.
    pub async fn again(&mut self) -> Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/programs/mail_server.py");
        ensure!(Path::new(PYTHON).exists(), "{PYTHON} is missing: scripts/setup.sh test");
        let mut command = Command::new(PYTHON);
        command.arg(script).arg(self.port.to_string()).arg(&self.dir).args([USERNAME, PASSWORD]);
        self.program = Some(Program::start("mail server", &mut command, &self.log)?);
        eventually("the mail server listens", || async {
            Ok(TcpStream::connect(("127.0.0.1", self.port)).is_ok().then_some(()))
        })
        .await
        .context("is python3-aiosmtpd installed? scripts/setup.sh test")
    }

    /// Whether it died.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.program.as_mut().map_or(Ok(None), Program::ended)
    }

    /// Lets a cloud send by it, from its next start on.
    pub fn carries_for(&self, cloud: &mut Cloud) {
        cloud
            .set("mail.transport", "smtp")
            .set("mail.host", "localhost")
            .set("mail.port", self.port)
            .set("mail.ca_file", self.authority.display())
            .set("mail.username", USERNAME)
            .set("mail.password", PASSWORD)
            .set("mail.from", "Lumbung <lumbung@desa.example>");
    }

    /// Lets it answer for what it holds back.
    pub fn may_answer(&self) -> Result<()> {
        Ok(std::fs::write(self.dir.join("may-answer"), "")?)
    }

    /// What it took, in order.
    pub fn taken(&self) -> Result<Vec<Taken>> {
        let text = match std::fs::read_to_string(self.dir.join("mails.jsonl")) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        text.lines().map(|line| serde_json::from_str(line).context("a mail's line")).collect()
    }
}
