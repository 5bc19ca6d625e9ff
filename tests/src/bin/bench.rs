//! `make bench`: each measure of the design beside its baseline.

use anyhow::Result;
use clap::{Parser, Subcommand};
use lumbung_tests::bench::{self, Measure};
use std::io::Write;
use std::process::ExitCode;

/// Measures the real gateway and cloud beside baselines taken in the same run on the same disk.
///
/// Prints `name value baseline ratio goal ok|short` a line. The exit code is 0 when it ran, whatever it
/// found; with --strict only when every goal was met. Use a release build.
#[derive(Parser)]
#[command(version, after_help = "Examples:\n  make bench\n  target/release/bench --only ack --only rate")]
struct Cli {
    /// Take only this measure; may be repeated.
    #[arg(long)]
    only: Vec<Measure>,
    /// Fail when a goal is missed.
    #[arg(long)]
    strict: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The HTTP server without a store, as a baseline. `bench` starts it by itself.
    #[command(hide = true)]
    NullServer {
        #[arg(long)]
        port: u16,
    },
    /// People's requests without anything around them, as a baseline. `bench` starts it by itself.
    #[command(hide = true)]
    BareServer {
        #[arg(long)]
        port: u16,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "the measures could not be taken: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<bool> {
    if let Some(Part::NullServer { port }) = cli.part {
        // actix runs its own workers; this is what the gateway's main does too.
        actix_web::rt::System::new().block_on(bench::null_server(port))?;
        return Ok(true);
    }
    if let Some(Part::BareServer { port }) = cli.part {
        let url = std::env::var("DATABASE_URL")?;
        actix_web::rt::System::new().block_on(bench::bare_server(port, &url))?;
        return Ok(true);
    }
    let mut out = std::io::stdout();
    if cfg!(debug_assertions) {
        writeln!(out, "# a debug build: the numbers mean little")?;
    }
    let measures = if cli.only.is_empty() { Measure::ALL.to_vec() } else { cli.only };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let good = runtime.block_on(bench::run(&measures, &mut out))?;
    Ok(good || !cli.strict)
}
