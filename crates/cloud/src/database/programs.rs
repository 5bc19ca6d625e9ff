//! PostgreSQL's own programs (pg_dump, pg_restore) against the cloud's database.
//!
//! A password never stands on a command line, where every user of the machine could read it: the programs
//! are told everything in their environment.

use super::Server;
use super::embedded::programs;
use crate::config::Database;
use anyhow::{Context, bail, ensure};
use reqwest::Url;
use sqlx::postgres::PgSslMode;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::Command;

/// Where Debian and its kin keep the authorities that sqlx brings along itself.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub struct Programs {
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Programs {
    /// Those of the server's own major version, else the oldest that are newer.
    ///
    /// # Errors
    /// There are none that can speak to this server.
    pub fn find(server: &Server, settings: &Database, major: u32) -> anyhow::Result<Self> {
        let bin_dir = (!settings.bin_dir.is_empty()).then(|| PathBuf::from(&settings.bin_dir));
        let found = programs(bin_dir.as_deref(), "pg_dump");
        let best = found.into_iter().filter(|(theirs, _)| *theirs >= major).min_by_key(|(theirs, _)| *theirs);
        let (_, folder) = best.with_context(|| {
            format!(
                "pg_dump {major} or newer is not on this machine: apt-get install postgresql-client-{major}, or \
                 set database.bin_dir"
            )
        })?;
        Ok(Self { folder, environment: environment(server, settings)? })
    }

    /// Runs one to its end.
    ///
    /// # Errors
    /// What it said when it failed.
    pub async fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.folder.join(name));
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.with_context(|| format!("{name} could not be started"))?;
        if !output.status.success() {
            bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

fn environment(server: &Server, settings: &Database) -> anyhow::Result<Vec<(&'static str, String)>> {
    let options = server.connect_options();
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    let mode = match options.get_ssl_mode() {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    };
    let mut environment = vec![
        ("PGHOST", host),
        ("PGPORT", options.get_port().to_string()),
        ("PGUSER", options.get_username().to_owned()),
        ("PGDATABASE", options.get_database().unwrap_or(options.get_username()).to_owned()),
        ("PGSSLMODE", mode.to_owned()),
        ("PGAPPNAME", "lumbung-backup".to_owned()),
    ];
    if !settings.url.is_empty() {
        environment.extend(secrets(&settings.url)?);
    }
    let verifies =
        mode.starts_with("verify") && !environment.iter().any(|(name, _)| *name == "PGSSLROOTCERT");
    if verifies && std::path::Path::new(AUTHORITIES).exists() {
        environment.push(("PGSSLROOTCERT", AUTHORITIES.to_owned()));
    }
    Ok(environment)
}

/// What the URL says and the options that were read from it do not tell.
fn secrets(url: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
    let Ok(url) = Url::parse(url) else { bail!("DATABASE_URL (database.url) is no URL") };
    let mut found = Vec::new();
    if let Some(password) = url.password() {
        found.push(("PGPASSWORD", unescaped(password)?));
    }
    for (key, value) in url.query_pairs() {
        let name = match &*key {
            "password" => "PGPASSWORD",
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => "PGSSLROOTCERT",
            "sslcert" | "ssl-cert" => "PGSSLCERT",
            "sslkey" | "ssl-key" => "PGSSLKEY",
            _ => continue,
        };
        found.push((name, value.into_owned()));
    }
    Ok(found)
}

/// A password as it stands in a URL, in clear.
fn unescaped(text: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        (bytes, rest) = match (byte, code) {
            (b'%', Some(code)) => ([bytes, vec![code]].concat(), after.get(2..).unwrap_or_default()),
            _ => ([bytes, vec![byte]].concat(), after),
        };
    }
    ensure!(!bytes.contains(&0), "a password cannot hold a zero byte");
    String::from_utf8(bytes).ok().context("the password of database.url is no UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_keeps_to_itself_goes_into_the_environment() {
        let url =
            "postgresql://u:a%20b%2B%25c+d%C3%A9@db.example/x?sslmode=verify-full&sslrootcert=/etc/ca.pem";
        let found = secrets(url).unwrap();
        assert_eq!(found, [("PGPASSWORD", "a b+%c+dé".into()), ("PGSSLROOTCERT", "/etc/ca.pem".into())]);
        assert_eq!(secrets("postgres://u@h/x?password=p%26q").unwrap(), [("PGPASSWORD", "p&q".to_owned())]);
        assert!(secrets("postgres://u:%00@h/x").is_err());
    }
}
