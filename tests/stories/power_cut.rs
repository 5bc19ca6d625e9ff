//! Power cuts, short: the good gateway loses nothing, one that does not wait for the card is caught.

use anyhow::Result;
use lumbung_tests::crash_images::{self, Mutant, Report};
use std::time::Duration;

fn run(images: usize, mutant: Option<Mutant>) -> Result<(Report, String)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut said = Vec::new();
    let report = runtime.block_on(crash_images::run(images, 7, mutant, &mut said));
    runtime.shutdown_timeout(Duration::from_secs(5));
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok((report?, said))
}

#[test]
fn no_acknowledged_scan_is_lost_by_a_power_cut_at_any_moment() -> Result<()> {
    let (report, said) = run(200, None)?;
    assert!(report.passed(), "{report}\n{said}");
    Ok(())
}

#[test]
fn a_gateway_that_does_not_wait_for_the_card_is_caught() -> Result<()> {
    let (report, said) = run(100, Some(Mutant::SyncOff))?;
    assert!(report.acked_lost > 0, "{report}\n{said}");
    Ok(())
}

#[test]
fn a_gateway_that_answers_before_the_commit_is_caught_by_a_power_cut() -> Result<()> {
    let (report, said) = run(200, Some(Mutant::EarlyAck))?;
    assert!(report.acked_lost > 0, "{report}\n{said}");
    Ok(())
}
