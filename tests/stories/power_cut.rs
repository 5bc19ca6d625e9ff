//! Power cuts, short: the good gateway loses nothing, one that does not wait for the card is caught.

use anyhow::Result;
use lumbung_tests::crash_images::{self, Report};
use std::time::Duration;

fn run(images: usize, sync_off: bool) -> Result<(Report, String)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut said = Vec::new();
    let report = runtime.block_on(crash_images::run(images, 7, sync_off, &mut said));
    runtime.shutdown_timeout(Duration::from_secs(5));
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok((report?, said))
}

#[test]
fn no_acknowledged_scan_is_lost_by_a_power_cut_at_any_moment() -> Result<()> {
    let (report, said) = run(200, false)?;
    assert!(report.passed(), "{report}\n{said}");
    Ok(())
}

#[test]
fn a_gateway_that_does_not_wait_for_the_card_is_caught() -> Result<()> {
    let (report, said) = run(100, true)?;
    assert!(report.acked_lost > 0, "{report}\n{said}");
    Ok(())
}
