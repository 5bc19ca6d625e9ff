//! `make durability`: proves that nothing acknowledged is lost, doubled or invented, and that the proof works.

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use lumbung_tests::crash_images;
use lumbung_tests::durability::{self, Mutant, Plan};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Drives the real gateway and cloud under load, kills them and their PostgreSQL at random, cuts the
/// line, loses answers, turns the gateways' clocks; then compares a ledger kept outside with what the cloud holds.
///
/// The last line is `acked=N lost=N duplicated=N phantom=N cycles=N seed=N`; the exit code is 0 only
/// when something was acknowledged and nothing was lost, doubled or invented.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  durability --cycles 300 --seed 7\n  durability --cycles 30 --mutant flag_early   (must fail)\n  durability power-cut --images 2000 --seed 7"
)]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    kills: Kills,
}

#[derive(Subcommand)]
enum What {
    /// Rebuilds what the card would hold after power cuts at random moments, and opens each image.
    PowerCut(PowerCut),
}

#[derive(Args)]
struct Kills {
    /// How many misfortunes.
    #[arg(long, default_value_t = 300)]
    cycles: u32,
    /// The same seed draws the same misfortunes.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Begin no new cycle after this long: 90s, 10m, 2h.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Gateways under load.
    #[arg(long, default_value_t = 4)]
    gateways: usize,
    /// Every write to the gateways' databases takes 4 ms, as on a worn card (through strace).
    #[arg(long)]
    slow_card: bool,
    /// Run a known-bad build; the run must then report failure.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Where to keep the ledger and the logs when the run fails.
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Args)]
struct PowerCut {
    /// How many power cuts.
    #[arg(long, default_value_t = 2000)]
    images: usize,
    /// The same seed cuts the power at the same moments of the same run.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Run a known-bad gateway; the run must then report failure.
    #[arg(long)]
    mutant: Option<crash_images::Mutant>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| "a number and s, m or h: 90s")?;
    match unit {
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        _ => Err("the unit is s, m or h".to_owned()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli { what: None, kills } => kill_cycles(kills).await,
        Cli { what: Some(What::PowerCut(cut)), .. } => power_cuts(&cut).await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "the run could not be made: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn kill_cycles(kills: Kills) -> Result<bool> {
    let plan = Plan {
        cycles: kills.cycles,
        longest: kills.duration,
        seed: kills.seed,
        gateways: kills.gateways.max(1),
        mutant: kills.mutant,
        slow_card: kills.slow_card,
        keep: kills.keep,
    };
    let mut out = std::io::stdout();
    writeln!(
        out,
        "seed {} · {} cycles · {} gateways · {:?}",
        plan.seed, plan.cycles, plan.gateways, plan.mutant
    )?;
    let report = durability::run(&plan, &mut out).await?;
    writeln!(out, "{report}")?;
    Ok(report.passed())
}

async fn power_cuts(cut: &PowerCut) -> Result<bool> {
    let mut out = std::io::stdout();
    let report = crash_images::run(cut.images, cut.seed, cut.mutant, &mut out).await?;
    writeln!(out, "{report}")?;
    Ok(report.passed())
}
