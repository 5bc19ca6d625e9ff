//! The kill harness, short: the good programs pass it and every known-bad one fails it.

use anyhow::Result;
use lumbung_tests::durability::{self, Mutant, Plan, Report};
use std::time::Duration;

fn run(cycles: u32, seed: u64, mutant: Option<Mutant>) -> Result<(Report, String)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let plan = Plan {
        cycles,
        longest: Some(Duration::from_secs(60)),
        seed,
        gateways: 3,
        mutant,
        slow_card: false,
        keep: None,
    };
    let mut said = Vec::new();
    let report = runtime.block_on(durability::run(&plan, &mut said));
    runtime.shutdown_timeout(Duration::from_secs(5));
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok((report?, said))
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_invented_under_kill_9() -> Result<()> {
    let (report, said) = run(25, 7, None)?;
    assert!(report.findings.acked > 100, "{report}\n{said}");
    assert!(report.passed(), "{report}\n{said}");
    Ok(())
}

/// A harness that does not see a known-bad build proves nothing about a good one.
fn is_caught(mutant: Mutant) -> Result<()> {
    // A rare fault may hide in one short run; never in three.
    let mut all = String::new();
    for seed in 1..=3 {
        let (report, said) = run(20, seed, Some(mutant))?;
        if !report.findings.clean() {
            return Ok(());
        }
        all = format!("{all}{report}\n{said}\n");
    }
    anyhow::bail!("{mutant:?} passed the harness:\n{all}")
}

#[test]
fn an_answer_before_the_commit_is_caught() -> Result<()> {
    is_caught(Mutant::EarlyAck)
}

#[test]
fn a_flag_set_before_the_verdict_is_caught() -> Result<()> {
    is_caught(Mutant::FlagEarly)
}

#[test]
fn records_dropped_on_401_are_caught() -> Result<()> {
    is_caught(Mutant::DropOn401)
}

#[test]
fn a_table_without_its_unique_key_is_caught() -> Result<()> {
    is_caught(Mutant::NoUnique)
}
