//! What an operator can set: the embedded default, then a file, then the environment.

mod sensors;

pub use sensors::{SensorPlan, SeriesPlan, Turns};

use crate::hardware::pn532::LinkAddress;
use config::{Environment, File, FileFormat};
use lumbung_shared::tag::TagId;
use lumbung_shared::{STATUS_MAX_CHARS, check_text};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The default configuration, every key commented.
pub const DEFAULT: &str = include_str!("../gateway.toml");

const PREFIX: &str = "LUMBUNG_GATEWAY";
/// The field manual's name for the cloud's address.
const CLOUD_URL_ALIAS: &str = "MAIN_SERVER_API_URL";
const SYNC_PATH: &str = "/api/sync_gateway_data";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    pub http: Http,
    pub cloud: Cloud,
    pub sync: Sync,
    pub storage: Storage,
    pub reader: Reader,
    pub signal: Signal,
    pub mqtt: Mqtt,
    #[serde(default)]
    pub sensor: Vec<sensors::Sensor>,
    pub lan: Lan,
    pub log: Log,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub listen: SocketAddr,
    pub workers: usize,
    /// Stands before the name of every series that is posted.
    pub series_prefix: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cloud {
    /// Empty: the address learnt at enrolment.
    pub url: String,
    /// Empty: only the built-in authorities.
    pub ca_file: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sync {
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub backoff_base: Duration,
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    pub batch_max: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub max_bytes: u64,
    pub reserve_bytes: u64,
    #[serde(with = "humantime_serde")]
    pub keep_synced: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reader {
    pub kind: ReaderKind,
    #[serde(with = "humantime_serde")]
    pub debounce: Duration,
    pub identity: TagIdentity,
    /// 0: never.
    pub give_up_after: u32,
    pub simulated: SimulatedReader,
    pub pn532: Pn532,
}

/// What names a tag in a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagIdentity {
    Uid,
    NdefOrUid,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pn532 {
    pub link: LinkAddress,
    pub status: String,
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    /// BCM number of the pin that is wired to RSTPD_N.
    pub reset_pin: Option<u8>,
}

/// Readings from a broker on the local network.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// `host:port`; empty: none.
    pub broker: String,
    /// Empty: one is drawn and remembered.
    pub client_id: String,
    /// Empty: nobody is asked for.
    pub username: String,
    pub password_file: PathBuf,
    pub window: u16,
    #[serde(with = "humantime_serde")]
    pub down_after: Duration,
    #[serde(default)]
    pub map: Vec<MqttMap>,
}

impl Mqtt {
    /// Host and port of the broker.
    pub fn address(&self) -> Option<(&str, u16)> {
        let (host, port) = self.broker.rsplit_once(':')?;
        Some((host, port.parse().ok()?)).filter(|(host, port)| !host.is_empty() && *port > 0)
    }
}

/// What messages to some topics carry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttMap {
    /// A topic filter; `{name}` is a level that `series` may use.
    pub topic: String,
    /// JSON pointer to the device's own time.
    pub time: Option<String>,
    pub fields: Vec<MqttField>,
}

/// One reading in a payload.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttField {
    /// JSON pointer; empty: the whole payload.
    #[serde(default)]
    pub pointer: String,
    pub series: String,
    pub unit: String,
    #[serde(default = "one")]
    pub scale: f64,
    #[serde(default)]
    pub offset: f64,
    pub plausible: Option<[f64; 2]>,
}

fn one() -> f64 {
    1.0
}

/// BCM numbers of the pins that are wired.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    pub green_pin: Option<u8>,
    pub red_pin: Option<u8>,
    pub buzzer_pin: Option<u8>,
    pub active_low: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReaderKind {
    None,
    Simulated,
    Pn532,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedReader {
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    pub status: String,
    pub tags: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lan {
    /// Where paired phones are served over TLS; `None` (written as ""): nowhere.
    #[serde(deserialize_with = "address_or_none")]
    pub listen: Option<SocketAddr>,
    pub field_manual: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// A configuration that cannot be used; says which key and why.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration cannot be read: {0}")]
    Unreadable(#[from] config::ConfigError),
    #[error("{key}: {problem}")]
    Unusable { key: String, problem: String },
}

impl ConfigError {
    fn unusable(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unusable { key: key.into(), problem: problem.into() }
    }
}

impl Config {
    /// The configuration of this process: defaults, `file`, environment; `data_dir` beats them all.
    pub fn load(file: Option<&Path>, data_dir: Option<PathBuf>) -> Result<Self, ConfigError> {
        Self::layered(file, data_dir, std::env::vars().collect())
    }

    fn layered(
        file: Option<&Path>,
        data_dir: Option<PathBuf>,
        environment: std::collections::HashMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let mut layers = config::Config::builder().add_source(File::from_str(DEFAULT, FileFormat::Toml));
        if let Some(file) = file {
            layers = layers.add_source(File::from(file).format(FileFormat::Toml));
        }
        if let Some(dir) = environment.get("CREDENTIALS_DIRECTORY") {
            layers = layers.add_source(credentials(Path::new(dir))?);
        }
        if let Some(url) = environment.get(CLOUD_URL_ALIAS) {
            let alias = config::Config::builder().set_default("cloud.url", url.as_str())?;
            layers = layers.add_source(alias.build()?);
        }
        let layers = layers.add_source(
            Environment::with_prefix(PREFIX)
                .prefix_separator("__")
                .separator("__")
                .try_parsing(true)
                .list_separator(",")
                .with_list_parse_key("reader.simulated.tags")
                .source(Some(environment)),
        );
        let mut config: Self = layers.build()?.try_deserialize()?;
        if let Some(data_dir) = data_dir {
            config.data_dir = data_dir;
        }
        config.cloud.url = trimmed_cloud_url(&config.cloud.url);
        config.check()?;
        Ok(config)
    }

    fn check_mqtt(&self) -> Result<(), ConfigError> {
        let mqtt = &self.mqtt;
        if mqtt.broker.is_empty() {
            return Ok(());
        }
        if mqtt.address().is_none() {
            return Err(ConfigError::unusable("mqtt.broker", "must be host:port, such as 127.0.0.1:1883"));
        }
        if mqtt.map.is_empty() {
            return Err(ConfigError::unusable("mqtt.map", "must say what the broker's messages are"));
        }
        if !(1..=200).contains(&mqtt.window) {
            return Err(ConfigError::unusable("mqtt.window", "must be between 1 and 200"));
        }
        if mqtt.down_after.is_zero() {
            return Err(ConfigError::unusable("mqtt.down_after", "must be longer than nothing"));
        }
        if mqtt.username.is_empty() != mqtt.password_file.as_os_str().is_empty() {
            return Err(ConfigError::unusable(
                "mqtt.password_file",
                "mqtt.username and the file with its password belong together",
            ));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !self.cloud.url.is_empty() && !is_web_address(&self.cloud.url) {
            return Err(ConfigError::unusable(
                "cloud.url",
                "must begin with http:// or https://, such as https://mbg.example.id",
            ));
        }
        if !self.http.listen.ip().is_loopback() && !self.lan.field_manual {
            return Err(ConfigError::unusable(
                "http.listen",
                format!(
                    "{} can be reached from other machines and nobody there is asked who they are. \
                     Use 127.0.0.1, or set lan.field_manual = true to let the whole network post scans \
                     (they will be marked)",
                    self.http.listen
                ),
            ));
        }
        if self.http.workers == 0 || self.http.workers > 64 {
            return Err(ConfigError::unusable("http.workers", "must be between 1 and 64"));
        }
        let most = usize::try_from(lumbung_shared::wire::MAX_BATCH_RECORDS).unwrap_or(usize::MAX);
        if self.sync.batch_max == 0 || self.sync.batch_max > most {
            return Err(ConfigError::unusable("sync.batch_max", format!("must be between 1 and {most}")));
        }
        for (key, value) in [
            ("sync.interval", self.sync.interval),
            ("sync.probe_interval", self.sync.probe_interval),
            ("sync.backoff_base", self.sync.backoff_base),
            ("sync.backoff_max", self.sync.backoff_max),
            ("sync.request_timeout", self.sync.request_timeout),
        ] {
            if value.is_zero() {
                return Err(ConfigError::unusable(key, "must be longer than nothing"));
            }
        }
        for (key, value, most) in [
            // A tap that is forgotten after an hour is a tap that was lost.
            ("reader.debounce", self.reader.debounce, Duration::from_secs(60)),
            ("reader.pn532.poll_interval", self.reader.pn532.poll_interval, Duration::from_secs(2)),
            // A reader that is down is seen within 15 s.
            ("reader.pn532.probe_interval", self.reader.pn532.probe_interval, Duration::from_secs(10)),
        ] {
            if value > most {
                return Err(ConfigError::unusable(key, format!("must be at most {} s", most.as_secs())));
            }
        }
        let prefix = &self.http.series_prefix;
        // With a name of one letter behind it, it must be a name.
        if let Err(error) = lumbung_shared::reading::SeriesName::parse(&format!("{prefix}a")) {
            return Err(ConfigError::unusable("http.series_prefix", error.words.to_string()));
        }
        self.check_mqtt()?;
        for (key, status) in [
            ("reader.pn532.status", &self.reader.pn532.status),
            ("reader.simulated.status", &self.reader.simulated.status),
        ] {
            check_text(key, status, STATUS_MAX_CHARS)
                .map_err(|error| ConfigError::unusable(key, error.words.to_string()))?;
        }
        for tag in &self.reader.simulated.tags {
            TagId::parse(tag).map_err(|error| {
                ConfigError::unusable("reader.simulated.tags", format!("\"{tag}\" {}", error.words))
            })?;
        }
        if self.reader.kind == ReaderKind::Simulated {
            let simulated = &self.reader.simulated;
            if simulated.interval.is_zero() {
                return Err(ConfigError::unusable(
                    "reader.simulated.interval",
                    "must be longer than nothing",
                ));
            }
            if simulated.tags.is_empty() {
                return Err(ConfigError::unusable("reader.simulated.tags", "must name at least one tag"));
            }
        }
        self.sensor_plans().map(|_| ())
    }

    /// What the configured sensors come to.
    pub fn sensor_plans(&self) -> Result<Vec<SensorPlan>, ConfigError> {
        sensors::plans(&self.sensor)
    }
}

/// What systemd was given to keep: a file for each key, named like it (`LoadCredential=cloud.url:/path`).
fn credentials(dir: &Path) -> Result<config::Config, ConfigError> {
    let unreadable =
        |error: std::io::Error| ConfigError::unusable("CREDENTIALS_DIRECTORY", error.to_string());
    let mut keys = config::Config::builder();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let value = std::fs::read_to_string(entry.path()).map_err(unreadable)?;
        keys = keys.set_default(entry.file_name().to_string_lossy(), value.trim_end())?;
    }
    Ok(keys.build()?)
}

fn address_or_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    let problem = |_| serde::de::Error::custom("must be an address with a port, such as 0.0.0.0:5443");
    text.parse().map(Some).map_err(problem)
}

/// Whether a text is an HTTP address that requests can be sent to.
pub(crate) fn is_web_address(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // An address in brackets has colons of its own.
    let (host, port) = match authority.rfind(']') {
        Some(end) => authority.split_at(end + 1),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_one =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let host_is_one = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || ['.', '-', '_'].contains(&c)),
    };
    host_is_one && port_is_one && !text.contains(char::is_whitespace)
}

/// The cloud's base address: old instructions give the whole path of the sync endpoint.
pub(crate) fn trimmed_cloud_url(url: &str) -> String {
    let url = url.trim().trim_end_matches('/');
    let url = url.strip_suffix(SYNC_PATH).unwrap_or(url);
    url.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn with(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment: HashMap<String, String> =
            variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::layered(None, None, environment)
    }

    #[test]
    fn the_embedded_default_is_complete_and_usable() {
        let config = with(&[]).unwrap();
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:5000");
        assert_eq!(config.sync.interval, Duration::from_secs(60));
        assert_eq!(config.reader.kind, ReaderKind::None);
        assert_eq!(config.lan.listen, None);
    }

    #[test]
    fn the_address_for_phones_is_empty_or_one_with_a_port() {
        let listen = |value| with(&[("LUMBUNG_GATEWAY__LAN__LISTEN", value)]);
        assert_eq!(listen("").unwrap().lan.listen, None);
        assert_eq!(listen("0.0.0.0:5443").unwrap().lan.listen, Some(([0, 0, 0, 0], 5443).into()));
        assert!(listen("0.0.0.0").unwrap_err().to_string().contains("lan.listen"));
    }

    #[test]
    fn the_installed_example_changes_nothing_and_each_of_its_settings_works() {
        let example = include_str!("../../../deploy/gateway.toml");
        assert!(example.lines().all(|line| line.is_empty() || line.starts_with('#')), "{example}");
        let is_setting = |line: &&str| line.starts_with('[') || line.contains(" = ");
        let settings: Vec<_> =
            example.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting).collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gateway.toml");
        std::fs::write(&file, settings.join("\n")).unwrap();
        let config = Config::layered(Some(&file), None, HashMap::new()).unwrap();
        assert_eq!(config.reader.kind, ReaderKind::Pn532);
        assert_eq!(config.signal.buzzer_pin, Some(22));
    }

    #[test]
    fn the_environment_beats_the_file_and_the_option_beats_both() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("g.toml");
        std::fs::write(&file, "data_dir = \"/a\"\n[sync]\ninterval = \"5s\"\nbatch_max = 7\n").unwrap();
        let environment = HashMap::from([
            ("LUMBUNG_GATEWAY__SYNC__INTERVAL".to_owned(), "250ms".to_owned()),
            ("LUMBUNG_GATEWAY__READER__SIMULATED__TAGS".to_owned(), "A,B".to_owned()),
            ("LUMBUNG_GATEWAY__LAN__FIELD_MANUAL".to_owned(), "true".to_owned()),
        ]);
        let config = Config::layered(Some(&file), Some("/b".into()), environment).unwrap();
        assert_eq!(config.sync.interval, Duration::from_millis(250));
        assert_eq!(config.sync.batch_max, 7);
        assert_eq!(config.reader.simulated.tags, ["A", "B"]);
        assert_eq!(config.data_dir, Path::new("/b"));
        assert!(config.lan.field_manual);
    }

    #[test]
    fn the_field_manuals_address_is_understood() {
        let alias = (CLOUD_URL_ALIAS, "http://10.0.0.2:8000/api/sync_gateway_data");
        assert_eq!(with(&[alias]).unwrap().cloud.url, "http://10.0.0.2:8000");
        let both = [alias, ("LUMBUNG_GATEWAY__CLOUD__URL", "https://b.example/")];
        assert_eq!(with(&both).unwrap().cloud.url, "https://b.example");
    }

    #[test]
    fn a_credential_sets_the_key_it_is_named_after_and_a_misspelt_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = [("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())];
        std::fs::write(dir.path().join("cloud.url"), "https://mbg.example.id\n").unwrap();
        assert_eq!(with(&keeper).unwrap().cloud.url, "https://mbg.example.id");
        std::fs::write(dir.path().join("cloud.uri"), "x").unwrap();
        assert!(with(&keeper).unwrap_err().to_string().contains("uri"));
    }

    #[test]
    fn an_address_that_no_request_can_be_sent_to_is_refused() {
        for good in ["http://c", "https://mbg.example.id", "http://10.0.0.2:8000/a", "http://[::1]:8000"] {
            assert!(is_web_address(good), "{good}");
        }
        for bad in ["ftp://c", "http://", "http://host:notaport", "http://:80", "http://a b", "http://[x]:1"]
        {
            assert!(!is_web_address(bad), "{bad}");
        }
        assert!(!is_web_address("http://host:70000") && !is_web_address("http://host:"));
    }

    #[test]
    fn an_unknown_or_unusable_key_is_named() {
        let problem = |variables| with(variables).unwrap_err().to_string();
        assert!(problem(&[("LUMBUNG_GATEWAY__SYNC__INTERVALL", "1s")]).contains("intervall"));
        assert!(problem(&[("LUMBUNG_GATEWAY__SYNC__INTERVAL", "soon")]).contains("sync.interval"));
        assert!(problem(&[("LUMBUNG_GATEWAY__CLOUD__URL", "ftp://x")]).contains("cloud.url"));
        let link = problem(&[("LUMBUNG_GATEWAY__READER__PN532__LINK", "usb:/dev/x")]);
        assert!(link.contains("reader.pn532.link") && link.contains("spi:/dev/spidev0.0"), "{link}");
        assert!(problem(&[("LUMBUNG_GATEWAY__READER__PN532__STATUS", "")]).contains("reader.pn532.status"));
        let tags = problem(&[("LUMBUNG_GATEWAY__READER__SIMULATED__TAGS", "A,\u{7}")]);
        assert!(tags.contains("reader.simulated.tags"), "{tags}");
        assert!(problem(&[("LUMBUNG_GATEWAY__HTTP__LISTEN", "0.0.0.0:5000")]).contains("field_manual"));
    }
}
