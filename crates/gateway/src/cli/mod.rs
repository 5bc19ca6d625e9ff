//! The command line. What it shows of a running gateway it asks that gateway for.

mod carry;
mod enrol;
mod errors;
mod phone;
mod quarantine;
mod resend;
mod run;
mod sensor;
mod status;
mod tag;

use crate::config::{Config, ConfigError, LogFormat};
use clap::{Parser, Subcommand};
use lumbung_shared::language::Language;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "Examples:
  lumbung-gateway enrol 'lumbung://enrol?cloud=https://mbg.example.id&claim=ABCD-EFGH'
  lumbung-gateway run
  lumbung-gateway --config /etc/lumbung/gateway.toml status --json
  curl -X POST http://127.0.0.1:5000/api/log_scan -H 'Content-Type: application/json' \\
       -d '{\"nfc_tag_id\": \"NFC_TAG_ALPHA\", \"status_scan\": \"makanan_keluar\"}'

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 nothing to do.";

/// Stores every scan before it says ok, and sends it when there is a network.
#[derive(Debug, Parser)]
#[command(name = "lumbung-gateway", version, after_help = EXAMPLES)]
struct Arguments {
    /// Configuration file; its keys are listed, with their defaults, by `lumbung-gateway config`.
    #[arg(long, global = true, value_name = "FILE", env = "LUMBUNG_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// Where the database and the identity live; beats the configuration.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Language of what is printed; otherwise LANG decides.
    #[arg(long, global = true, value_parser = ["id", "en"])]
    lang: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C.
    Run,
    /// Become known to a cloud, with the link or the claim that its operator made.
    ///
    /// If the answer is lost, the same command again goes on where this one stopped.
    #[command(after_help = "Examples:
  lumbung-gateway enrol 'lumbung://enrol?cloud=https://mbg.example.id&claim=ABCD-EFGH'
  lumbung-gateway enrol --cloud http://127.0.0.1:8000 --claim ABCD-EFGH")]
    Enrol {
        /// The text of the QR code: lumbung://enrol?cloud=ADDRESS&claim=CODE
        #[arg(value_name = "URI", conflicts_with_all = ["cloud", "claim"])]
        uri: Option<String>,
        /// The cloud's address.
        #[arg(long, value_name = "URL", requires = "claim")]
        cloud: Option<String>,
        /// The operator's single-use claim.
        #[arg(long, value_name = "CODE", requires = "cloud")]
        claim: Option<String>,
    },
    /// Exchange this gateway's key for a new one. A running gateway takes it up by itself.
    Rotate,
    /// How the gateway is: unsent scans, the cloud, the clock, the disk.
    Status {
        /// As JSON, as `GET /api/status` gives it.
        #[arg(long)]
        json: bool,
    },
    /// Write everything unsent into a signed and sealed file, to be carried to the cloud. Marks nothing as sent.
    ///
    /// Also while the gateway runs, and of an old card: --data-dir with a copy of its data directory.
    #[command(after_help = "Examples:
  lumbung-gateway export --out /media/usb/GW-1.lumbung
  lumbung-gateway --data-dir /var/tmp/old-card export --out /media/usb/GW-1-old.lumbung

At the cloud:
  lumbung-cloud import bundle /media/usb/GW-1.lumbung --receipt /media/usb/GW-1.receipt")]
    Export {
        /// The file to write; it must not be there yet.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// What was written, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Mark as sent what the cloud's signed receipt says it holds.
    #[command(after_help = "Example:
  lumbung-gateway settle /media/usb/GW-1.receipt")]
    Settle {
        #[arg(value_name = "RECEIPT")]
        receipt: PathBuf,
    },
    /// Send again what was sent already, to a cloud that was restored from a backup and lost it.
    ///
    /// Everything that is still on the card (`storage.keep_synced`), or what was stored since a time. What the cloud
    /// holds it knows again, so too much does no harm. A record may have waited here long before it was sent: --since is
    /// the time of the backup less the longest that this gateway was offline before it. The gateway must run.
    #[command(after_help = "Examples:
  lumbung-gateway resend
  lumbung-gateway resend --since 2026-11-20T18:00:00+07:00

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing was sent yet.")]
    Resend {
        /// RFC 3339 with its UTC offset.
        #[arg(long, value_name = "TIME", value_parser = resend::time)]
        since: Option<i64>,
    },
    /// Scans that were set aside because the cloud cannot take them.
    Quarantine {
        #[command(subcommand)]
        action: QuarantineAction,
    },
    /// Officers' phones: who may talk to this gateway over the local network.
    Phone {
        #[command(subcommand)]
        action: PhoneAction,
    },
    /// Read or write a tag with this gateway's own reader, while the gateway does not run.
    Tag {
        #[command(subcommand)]
        action: TagAction,
    },
    /// The configured sensors: how they are, and what they say now.
    Sensor {
        #[command(subcommand)]
        action: SensorAction,
    },
    /// Print the default configuration, every key with its meaning.
    Config,
}

#[derive(Debug, Subcommand)]
enum QuarantineAction {
    /// List them.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Send them again: those named, or all.
    #[command(after_help = "Example:
  lumbung-gateway quarantine retry scan:417")]
    Retry {
        #[arg(value_name = "STREAM:SEQ")]
        records: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum PhoneAction {
    /// Show a QR code and six digits that make one phone known, within ten minutes.
    #[command(after_help = "Example:
  lumbung-gateway phone pair --officer P-07 --name 'HP Sari'")]
    Pair {
        /// The officer whose phone it is: stands on all its scans.
        #[arg(long, value_name = "CODE")]
        officer: Option<String>,
        /// What the phone is called here; otherwise it says so itself.
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// The phone may pair and revoke others.
        #[arg(long)]
        may_pair: bool,
        #[arg(long)]
        json: bool,
    },
    /// List the paired phones.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Take a phone's right to talk to this gateway, at once.
    #[command(after_help = "Example:
  lumbung-gateway phone revoke 3fa9c1d2")]
    Revoke { id: String },
}

#[derive(Debug, Subcommand)]
enum TagAction {
    /// Show the UID of the tag that is held to the reader, and what is written on it.
    Read {
        /// Seconds to wait for a tag.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        wait: u64,
    },
    /// Write a lot or container id to a blank tag.
    #[command(after_help = "Example:
  lumbung-gateway tag write KONTAINER-0042")]
    Write {
        /// 1 to 128 characters.
        text: String,
        /// Also when something is written on the tag already.
        #[arg(long)]
        replace: bool,
        /// Seconds to wait for a tag.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        wait: u64,
    },
}

#[derive(Debug, Subcommand)]
enum SensorAction {
    /// Every configured sensor with its series and, while the gateway runs, its state and last values.
    #[command(after_help = "Examples:
  lumbung-gateway sensor list
  lumbung-gateway sensor list --json

Exit codes: 0 listed, 2 the configuration is wrong, 3 no sensor is configured.")]
    List {
        #[arg(long)]
        json: bool,
    },
    /// Read sensors once and show what they say; nothing is stored.
    ///
    /// A running gateway is asked to read them, for it has their buses.
    #[command(after_help = "Examples:
  lumbung-gateway sensor read
  lumbung-gateway sensor read kulkas-1 tanah-2

Exit codes: 0 all were read, 1 one of them failed, 2 there is no such sensor or the configuration is wrong,
3 no sensor is configured.")]
    Read {
        /// Their names; all of them when none is given.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        #[arg(long)]
        json: bool,
    },
}

/// How a command ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    NothingToDo(String),
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Usage(String),
    /// Exit code 1.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// What every command needs.
struct Context {
    config: Config,
    lang: Language,
}

impl Context {
    /// One of two texts, by the reader's language.
    fn say<'a>(&self, id: &'a str, en: &'a str) -> &'a str {
        self.lang.pick(id, en)
    }
}

/// Runs the program's command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let lang = arguments.lang.clone().or_else(|| std::env::var("LANG").ok()).unwrap_or_default();
    let lang = Language::of_locale(&lang);
    match dispatch(arguments, lang) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::NothingToDo(text)) => {
            complain(&text);
            ExitCode::from(3)
        }
        Err(failure) => {
            complain(&match &failure {
                Failure::Failed(error) => errors::in_words(error, lang),
                other => other.to_string(),
            });
            ExitCode::from(match failure {
                Failure::Config(_) | Failure::Usage(_) => 2,
                Failure::Failed(_) => 1,
            })
        }
    }
}

fn dispatch(arguments: Arguments, lang: Language) -> Result<Outcome, Failure> {
    if matches!(arguments.command, Command::Config) {
        print(crate::config::DEFAULT)?;
        return Ok(Outcome::Done);
    }
    let config = Config::load(arguments.config.as_deref(), arguments.data_dir)?;
    start_logging(&config);
    let context = Context { config, lang };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The API has threads of its own; this one sends and keeps house.
        .worker_threads(1)
        .max_blocking_threads(4)
        .thread_name("gateway")
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?;
    runtime.block_on(async {
        match arguments.command {
            Command::Run => run::run(context.config).await,
            Command::Enrol { uri, cloud, claim } => enrol::enrol(&context, uri, cloud.zip(claim)).await,
            Command::Rotate => enrol::rotate(&context).await,
            Command::Export { out, json } => carry::export(&context, &out, json).await,
            Command::Settle { receipt } => carry::settle(&context, &receipt).await,
            Command::Status { json } => status::status(&context, json).await,
            Command::Resend { since } => resend::resend(&context, since).await,
            Command::Quarantine { action } => match action {
                QuarantineAction::List { json } => quarantine::list(&context, json).await,
                QuarantineAction::Retry { records } => quarantine::retry(&context, &records).await,
            },
            Command::Phone { action } => match action {
                PhoneAction::Pair { officer, name, may_pair, json } => {
                    phone::pair(&context, phone::Pairing { officer, name, may_pair }, json).await
                }
                PhoneAction::List { json } => phone::list(&context, json).await,
                PhoneAction::Revoke { id } => phone::revoke(&context, &id).await,
            },
            Command::Tag { action } => tag::tag(&context, action).await,
            Command::Sensor { action } => sensor::sensor(&context, action).await,
            Command::Config => Ok(Outcome::Done),
        }
    })
}

fn start_logging(config: &Config) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&config.log.level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match config.log.format {
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
        LogFormat::Text => logs.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
    };
    if let Err(error) = started {
        complain(&format!("logging cannot be started: {error}"));
    }
}

/// Prints what a command is for. A closed pipe is an error like any other.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    Ok(out.flush()?)
}

fn complain(text: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "lumbung-gateway: {text}");
}
