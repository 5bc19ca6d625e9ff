//! The command line. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not found.

mod audit;
mod backup;
mod doctor;
mod files;
mod import;
mod jobs;
mod log;
mod message;
mod records;
mod user;
mod who;

use crate::app;
use crate::config::Config;
use crate::database::{self, Server};
use crate::error::Error;
use clap::{Parser, Subcommand};
use sqlx::PgPool;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Keeps every record of every Lumbung gateway exactly once in PostgreSQL and serves it to people.
#[derive(Parser)]
#[command(name = "lumbung-cloud", version, after_help = EXAMPLES)]
struct Arguments {
    /// A configuration file over the built-in defaults (`lumbung-cloud config` prints those)
    #[arg(long, global = true, env = "LUMBUNG_CLOUD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  lumbung-cloud serve
  lumbung-cloud programme add MBG 'Makan Bergizi Gratis'
  lumbung-cloud site add SD-MENTENG-01 --programme MBG --name 'SDN Menteng 01' --kind school --time-zone Asia/Jakarta
  lumbung-cloud gateway add GW-SD-MENTENG-01 --site SD-MENTENG-01
  lumbung-cloud key add dashboard
  lumbung-cloud user add --email admin@example.com --role admin
  lumbung-cloud quarantine list
  lumbung-cloud doctor

Without DATABASE_URL the cloud runs its own PostgreSQL in data_dir. The other commands join a running
cloud's database, or start it for the moment; only `serve`, `migrate` and `restore` make a new one.

Secrets are files in the folder `credentials` beside the configuration file, each named like its key.";

#[derive(Subcommand)]
enum Command {
    /// Run the cloud until it is told to stop (SIGINT, SIGTERM)
    Serve,
    /// Bring the database's schema up to this program's
    Migrate,
    /// Print the built-in configuration, every key with its meaning
    Config,
    /// Write everything into a new folder below DIR, from one moment, while the cloud runs
    #[command(after_help = backup::EXAMPLES)]
    Backup {
        dir: PathBuf,
        /// Then restore it into a scratch database and compare
        #[arg(long)]
        verify: bool,
        /// Then remove older backups there until so many are left
        #[arg(long, value_name = "COUNT")]
        keep: Option<usize>,
    },
    /// Bring a backup back into an empty database; no cloud may run on it
    #[command(after_help = backup::EXAMPLES)]
    Restore {
        folder: PathBuf,
        /// Throw away everything that is in the database
        #[arg(long, conflicts_with = "verify")]
        replace: bool,
        /// Only see that it would work, in a scratch database
        #[arg(long)]
        verify: bool,
    },
    /// Look at the whole installation and say what to do: ends with 0 when nothing failed (warnings are none), else 1
    Doctor {
        /// One line of JSON instead
        #[arg(long)]
        json: bool,
    },
    /// Programmes
    #[command(subcommand)]
    Programme(who::Programme),
    /// Sites: kitchens, schools, warehouses, farms, offices
    #[command(subcommand)]
    Site(who::Site),
    /// Gateways: claim, list, revoke
    #[command(subcommand)]
    Gateway(who::Gateway),
    /// Access keys for dashboards and other readers
    #[command(subcommand)]
    Key(who::Key),
    /// People's accounts: add, list, ban, sessions
    #[command(subcommand)]
    User(user::User),
    /// What people uploaded
    #[command(subcommand)]
    Files(files::Files),
    /// Records that could not be taken as they came
    #[command(subcommand)]
    Quarantine(records::Quarantine),
    /// Who did what: list, export, verify
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Messages on their way, and those that were given up
    #[command(subcommand)]
    Message(message::Message),
    /// What the cloud does by itself: list, run now
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    /// Bring in what others keep
    #[command(subcommand)]
    Import(import::Import),
}

/// Runs the program as the command line says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let serving = matches!(arguments.command, Command::Serve);
    let config = Config::load(arguments.config.as_deref()).and_then(|config| {
        if serving {
            config.check_secrets()?;
        }
        Ok(config)
    });
    let config = match config {
        Ok(config) => config,
        Err(error) => return fail(2, &error),
    };
    log::start(&config.log, serving);
    // Both TLS users of this program must agree on one provider; a second install is no fault.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error.into()),
    };
    match runtime.block_on(run(arguments.command, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = match error.downcast_ref::<Error>() {
                Some(Error::Fields(_)) => 2,
                Some(Error::NotFound(_)) => 3,
                _ => 1,
            };
            fail(code, &error)
        }
    }
}

async fn run(command: Command, config: Config) -> anyhow::Result<()> {
    match command {
        Command::Serve => serve(config).await,
        Command::Config => say(crate::config::DEFAULT.trim_end()),
        Command::Doctor { json } => doctor::run(&config, json).await,
        Command::Backup { dir, verify, keep } => backup::backup(&config, &dir, verify, keep).await,
        Command::Restore { folder, replace, verify } => {
            backup::restore(&config, &folder, replace, verify).await
        }
        command => {
            let server = match command {
                Command::Migrate => Server::join_or_make(&config).await?,
                _ => Server::join(&config).await?,
            };
            let pool = server.gateway_pool(&config.database);
            let outcome = on_database(command, &config, &pool).await;
            pool.close().await;
            server.stop().await?;
            outcome
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let signals = stop.clone();
    // From the start, so that a signal while the database starts still stops it in order.
    tokio::spawn(async move {
        if let Err(error) = told_to_stop().await {
            tracing::error!("signals cannot be heard: {error}");
        }
        signals.cancel();
    });
    app::build(config).await?.run(stop).await
}

async fn told_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn on_database(command: Command, config: &Config, pool: &PgPool) -> anyhow::Result<()> {
    database::migrate(pool).await?;
    match command {
        Command::Programme(command) => command.run(pool).await,
        Command::Site(command) => command.run(pool).await,
        Command::Gateway(command) => command.run(config, pool).await,
        Command::Key(command) => command.run(pool).await,
        Command::User(command) => command.run(config, pool).await,
        Command::Files(command) => command.run(config, pool).await,
        Command::Quarantine(command) => command.run(pool).await,
        Command::Audit(command) => command.run(pool).await,
        Command::Message(command) => command.run(pool).await,
        Command::Jobs(command) => command.run(config, pool).await,
        Command::Import(command) => command.run(config, pool).await,
        Command::Migrate => say("the schema is up to date"),
        // They see to the database themselves.
        Command::Serve
        | Command::Config
        | Command::Doctor { .. }
        | Command::Backup { .. }
        | Command::Restore { .. } => Ok(()),
    }
}

/// One line for people, or for the program that called.
fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// A value as one line of JSON.
fn say_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    say(serde_json::to_string(value)?)
}

fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    // Nothing is left to do when even this cannot be written.
    let _ = writeln!(std::io::stderr(), "lumbung-cloud: {error:#}");
    ExitCode::from(code)
}
