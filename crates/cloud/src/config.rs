//! Configuration: the embedded default, then a file, then credentials, then the environment.

mod credentials;
mod network;
mod rate;

pub use network::Network;
pub use rate::Rate;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Every key with its default and what it means.
pub const DEFAULT: &str = include_str!("../cloud.toml");

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    pub http: Http,
    pub limits: Limits,
    pub database: Database,
    pub ingest: Ingest,
    pub enrolment: Enrolment,
    pub receipts: Receipts,
    pub people: People,
    pub google: Google,
    pub files: Files,
    pub mail: Mail,
    pub sms: Sms,
    pub audit: Audit,
    /// Name and cron expression.
    pub jobs: BTreeMap<String, String>,
    pub development: Development,
    pub log: Log,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub listen: SocketAddr,
    pub public_url: String,
    #[serde(deserialize_with = "listed")]
    pub trusted_proxies: Vec<Network>,
    #[serde(deserialize_with = "listed")]
    pub allowed_hosts: Vec<String>,
    #[serde(deserialize_with = "listed")]
    pub cors_origins: Vec<String>,
    pub workers: usize,
    #[serde(with = "humantime_serde")]
    pub head_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
    pub tls: Tls,
}

/// The files of a certificate; empty where a proxy in front has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    #[serde(deserialize_with = "perhaps")]
    pub redirect_from: Option<SocketAddr>,
}

impl Tls {
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }
}

/// Nothing where the text is empty.
fn perhaps<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(from)?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.parse().map_err(D::Error::custom)).transpose()
}

/// A list whose empty entries count for nothing: an empty variable is read as one of those.
fn listed<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let entries = Vec::<String>::deserialize(from)?;
    let named = entries.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty());
    named.map(|entry| entry.parse().map_err(D::Error::custom)).collect()
}

/// What one caller may do, per kind of action.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub sign_in: Rate,
    pub register: Rate,
    pub enrol: Rate,
    pub read: Rate,
    pub write: Rate,
    pub upload: Rate,
    pub picture: Rate,
    pub expensive: Rate,
    pub refused: Rate,
    pub live_streams_each: usize,
    pub live_streams: usize,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    pub url: String,
    pub bin_dir: String,
    pub max_connections: u32,
    pub ingest_connections: u32,
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub people_wait: Duration,
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
}

/// The URL may hold a password, so it is never printed.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = if self.url.is_empty() { "(embedded)" } else { "(set)" };
        f.debug_struct("Database").field("url", &url).field("bin_dir", &self.bin_dir).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    pub max_in_flight: usize,
    pub max_body_bytes: usize,
    pub max_decoded_bytes: usize,
    pub group_records: usize,
    pub writers: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    #[serde(with = "humantime_serde")]
    pub claim_valid: Duration,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipts {
    pub seal_key: String,
}

/// The key is never printed.
impl std::fmt::Debug for Receipts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipts").finish_non_exhaustive()
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct People {
    pub token_secret: String,
    pub totp_key: String,
    #[serde(deserialize_with = "listed")]
    pub totp_required_for: Vec<String>,
}

/// The secrets are never printed.
impl std::fmt::Debug for People {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("People").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Google {
    #[serde(deserialize_with = "listed")]
    pub client_ids: Vec<String>,
    pub jwks_url: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    pub transport: MailTransport,
    pub host: String,
    pub port: u16,
    pub security: MailSecurity,
    pub ca_file: String,
    pub username: String,
    pub password: String,
    pub from: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTransport {
    Outbox,
    Smtp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailSecurity {
    StartTls,
    Tls,
    None,
}

/// The password is never printed.
impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mail")
            .field("transport", &self.transport)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("security", &self.security)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sms {
    pub url: String,
    pub method: String,
    /// Name and template.
    pub headers: BTreeMap<String, String>,
    pub body_type: SmsBody,
    pub body: String,
    pub ok_text: String,
    pub secret: String,
    #[serde(deserialize_with = "listed")]
    pub countries: Vec<String>,
    pub daily: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmsBody {
    Json,
    Form,
}

/// The secret is never printed, nor where somebody may have written it instead.
impl std::fmt::Debug for Sms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sms")
            .field("method", &self.method)
            .field("countries", &self.countries)
            .field("daily", &self.daily)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    pub store: Store,
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub quota_bytes: i64,
}

impl Files {
    /// # Errors
    /// What S3 is not spoken without.
    pub fn check_keys(&self) -> anyhow::Result<()> {
        let keys = [&self.bucket, &self.access_key_id, &self.secret_access_key];
        anyhow::ensure!(
            self.store == Store::Local || keys.iter().all(|value| !value.is_empty()),
            "files.store = \"s3\" needs files.bucket, files.access_key_id and files.secret_access_key"
        );
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    Local,
    S3,
}

/// The keys are never printed.
impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files")
            .field("store", &self.store)
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .field("quota_bytes", &self.quota_bytes)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Development {
    pub open_loopback: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Config {
    /// Reads the layers.
    ///
    /// # Errors
    /// Names the file, key or value that cannot be used.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        use config::{Config as Layers, Environment, File, FileFormat};
        let mut layers = Layers::builder().add_source(File::from_str(DEFAULT, FileFormat::Toml));
        if let Some(file) = file {
            layers = layers.add_source(File::from(file).format(FileFormat::Toml));
            if let Some(dir) = credentials::beside(file)? {
                layers = layers.add_source(credentials::read(&dir)?);
            }
        }
        if let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY") {
            layers = layers.add_source(credentials::read(Path::new(&dir))?);
        }
        layers = layers
            .add_source(
                Environment::with_prefix("LUMBUNG_CLOUD")
                    .prefix_separator("__")
                    .separator("__")
                    .try_parsing(true)
                    .list_separator(",")
                    .with_list_parse_key("http.trusted_proxies")
                    .with_list_parse_key("http.allowed_hosts")
                    .with_list_parse_key("http.cors_origins")
                    .with_list_parse_key("google.client_ids")
                    .with_list_parse_key("sms.countries")
                    .with_list_parse_key("people.totp_required_for"),
            )
            .set_override_option(
                "database.url",
                std::env::var("DATABASE_URL").ok().filter(|v| !v.is_empty()),
            )?;
        let config: Self = layers.build()?.try_deserialize()?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.ingest.writers >= 1, "ingest.writers must be at least 1");
        anyhow::ensure!(self.ingest.max_in_flight >= 1, "ingest.max_in_flight must be at least 1");
        // Each writer holds a connection, and authentication needs one beside them.
        anyhow::ensure!(
            self.database.ingest_connections as usize > self.ingest.writers,
            "database.ingest_connections must be larger than ingest.writers"
        );
        anyhow::ensure!(
            self.people.token_secret.is_empty() || self.people.token_secret.len() >= 32,
            "people.token_secret must have at least 32 characters, drawn at random"
        );
        anyhow::ensure!(
            self.people.totp_key.is_empty() || self.people.totp_key.len() >= 32,
            "people.totp_key must have at least 32 characters, drawn at random"
        );
        anyhow::ensure!(
            self.receipts.seal_key.is_empty() || self.receipts.seal_key.len() >= 32,
            "receipts.seal_key must have at least 32 characters, drawn at random"
        );
        let known = ["user", "volunteer", "ambassador", "admin", "operator", "officer"];
        for role in &self.people.totp_required_for {
            anyhow::ensure!(
                known.contains(&role.as_str()),
                "people.totp_required_for: {role:?} is none of {}",
                known.join(", ")
            );
        }
        let Tls { certificate, key, redirect_from } = &self.http.tls;
        anyhow::ensure!(
            certificate.as_os_str().is_empty() == key.as_os_str().is_empty(),
            "http.tls needs both the certificate and its key"
        );
        anyhow::ensure!(
            !self.http.tls.is_on() || !self.http.public_url.starts_with("http://"),
            "http.public_url must begin with https:// where http.tls is set"
        );
        anyhow::ensure!(
            redirect_from.is_none() || (self.http.tls.is_on() && !self.http.public_url.is_empty()),
            "http.tls.redirect_from needs http.tls.certificate and http.public_url, where it sends people on to"
        );
        for origin in &self.http.cors_origins {
            let (scheme, host) = origin.split_once("://").unwrap_or_default();
            anyhow::ensure!(
                ["http", "https"].contains(&scheme) && !host.is_empty() && !host.contains(['/', '*', ' ']),
                "http.cors_origins: {origin:?} is no origin such as https://app.example.id"
            );
        }
        anyhow::ensure!(
            self.audit.keep >= Duration::from_secs(365 * 86_400),
            "audit.keep must be at least 365 days: the database lets nothing younger go"
        );
        anyhow::ensure!(self.database.max_connections >= 2, "database.max_connections must be at least 2");
        Ok(())
    }

    /// Secrets that the cloud cannot serve without. A command that needs none of them runs without them.
    ///
    /// # Errors
    /// The secret that is missing.
    pub fn check_secrets(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.people.totp_required_for.is_empty() || !self.people.totp_key.is_empty(),
            "people.totp_required_for needs people.totp_key"
        );
        self.files.check_keys()
    }

    /// Whether people and gateways reach it by https only.
    pub fn is_https(&self) -> bool {
        self.http.tls.is_on() || self.http.public_url.starts_with("https://")
    }

    /// The address that goes into enrolment codes.
    pub fn public_url(&self) -> String {
        if self.http.public_url.is_empty() {
            let scheme = if self.http.tls.is_on() { "https" } else { "http" };
            format!("{scheme}://{}", self.http.listen)
        } else {
            self.http.public_url.trim_end_matches('/').to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_default_is_complete() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.public_url(), "http://127.0.0.1:8000");
        assert!(!config.development.open_loopback);
    }

    #[test]
    fn only_serving_needs_every_secret() {
        let mut config = Config::load(None).unwrap();
        config.check_secrets().unwrap();
        config.people.totp_required_for = vec!["admin".into()];
        assert!(config.check().is_ok() && config.check_secrets().is_err(), "no key");
        config.people.totp_key = "k".repeat(32);
        config.check_secrets().unwrap();
        config.files.store = Store::S3;
        assert!(config.check().is_ok() && config.check_secrets().is_err(), "no bucket");
    }

    #[test]
    fn a_list_of_nothing_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cloud.toml");
        // As an empty variable is read.
        std::fs::write(&file, "[google]\nclient_ids = [\"\"]\n").unwrap();
        assert!(Config::load(Some(&file)).unwrap().google.client_ids.is_empty());
    }

    #[test]
    fn half_of_tls_is_no_tls() {
        let mut config = Config::load(None).unwrap();
        config.http.tls.certificate = "fullchain.pem".into();
        assert!(config.check().is_err(), "no key");
        config.http.tls.key = "privkey.pem".into();
        config.check().unwrap();
        assert_eq!(config.public_url(), "https://127.0.0.1:8000");
        config.http.tls.redirect_from = Some("127.0.0.1:80".parse().unwrap());
        assert!(config.check().is_err(), "nowhere to send people to");
        config.http.public_url = "http://mbg.example.id".into();
        assert!(config.check().is_err(), "in clear");
        config.http.public_url = "https://mbg.example.id".into();
        config.check().unwrap();
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cloud.toml");
        std::fs::write(&file, "[http]\nlisten_on = \"127.0.0.1:1\"\n").unwrap();
        let error = Config::load(Some(&file)).unwrap_err();
        assert!(format!("{error:#}").contains("listen_on"), "{error:#}");
    }
}
