//! A disk, or a budget, that is used up.

use super::*;
use crate::outbox::disk::Reserve;

/// Stores scans with a long note until one is refused; gives that scan and how many were taken.
async fn fill(outbox: &Outbox) -> (NewScan, i64) {
    let mut big = scan("BIG");
    big.content.note = Some("n".repeat(500));
    let mut stored = 0;
    while outbox.store(big.clone()).await.is_ok() {
        stored += 1;
        assert!(stored < 10_000, "the limit is not kept");
    }
    (big, stored)
}

#[tokio::test]
async fn a_full_store_sheds_sent_scans_first_and_then_refuses_without_losing_any() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.max_bytes = 400_000;
    let (outbox, ended) = open(&settings);
    let (big, stored) = fill(&outbox).await;
    assert!(outbox.gauges().is_full());
    assert_eq!(outbox.store(big.clone()).await, Err(OutboxError::Full));
    assert_eq!(pending_seqs(&outbox).await, (1..=stored).collect::<Vec<_>>());

    // The cloud takes half of them: their room is what the next ones get.
    assert_eq!(outbox.settle(settled(1, stored / 2)).await.unwrap(), (stored / 2) as u64);
    let kept = outbox.store(big.clone()).await.unwrap();
    assert_eq!(kept.seq, stored + 1, "refused scans used up no numbers");
    assert!(!outbox.gauges().is_full());
    assert_eq!(pending_seqs(&outbox).await, (stored / 2 + 1..=stored + 1).collect::<Vec<_>>());
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_full_store_notices_by_itself_that_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.max_bytes = 200_000;
    let (outbox, ended) = open(&settings);
    let (_, stored) = fill(&outbox).await;
    outbox.maintain(None).await.unwrap();
    assert!(outbox.gauges().is_full(), "nothing has changed");
    outbox.settle(settled(1, stored)).await.unwrap();
    outbox.gauges.full.store(true, Relaxed);
    outbox.maintain(None).await.unwrap();
    assert!(!outbox.gauges().is_full());
    close(outbox, ended).await;
}

#[tokio::test]
async fn shedding_takes_the_notes_on_what_it_removes_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.max_bytes = 200_000;
    let (outbox, ended) = open(&settings);
    let (big, stored) = fill(&outbox).await;
    let mut settlement = settled(1, stored);
    settlement.quarantined = vec![(Stream::Scan, 1, "bad_field".into())];
    outbox.settle(settlement).await.unwrap();
    assert_eq!(outbox.gauges().quarantined(), 1);
    while outbox.gauges().quarantined() > 0 {
        outbox.store(big.clone()).await.unwrap();
    }
    assert!(outbox.quarantined(10).await.unwrap().is_empty());
    close(outbox, ended).await;
}

#[tokio::test]
async fn scans_wait_until_the_reserve_is_there_again_and_settling_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.reserve_bytes = 4096;
    let (outbox, ended) = open(&settings);
    outbox.store(scan("FIRST")).await.unwrap();
    // As it is when the disk has no room for the reserve: nothing can be made in its place.
    let reserve = dir.path().join("reserve");
    std::fs::remove_file(&reserve).unwrap();
    std::fs::create_dir(&reserve).unwrap();
    outbox.gauges.full.store(true, Relaxed);
    assert_eq!(outbox.store(scan("MORE")).await, Err(OutboxError::Full));
    assert_eq!(outbox.settle(settled(1, 1)).await.unwrap(), 1);
    assert!(outbox.gauges().is_full(), "settling says nothing about room for scans");
    std::fs::remove_dir(&reserve).unwrap();
    outbox.maintain(None).await.unwrap();
    assert!(!outbox.gauges().is_full() && Reserve::new(dir.path(), 4096).restore());
    outbox.store(scan("MORE")).await.unwrap();
    close(outbox, ended).await;
}
