//! What is removed, in which order, and what never is.

use super::*;
use lumbung_shared::time::ClockState;

const DAY_MS: i64 = 86_400_000;

fn range(stream: Stream, first: i64, through: i64) -> Settlement {
    Settlement { ranges: vec![SeqRange { stream, first, through }], ..Settlement::default() }
}

/// A reading of so many days ago.
fn aged(days: i64, state: ClockState) -> NewReading {
    let mut reading = reading("a", 1.0);
    reading.moment.wall_ms -= days * DAY_MS;
    reading.moment.state = state;
    reading
}

fn ids(dir: &std::path::Path, table: &str) -> String {
    peek::<Option<String>>(dir, &format!("select group_concat(id, ' ') from {table}")).unwrap_or_default()
}

async fn tidy(outbox: &Outbox, before_ms: Option<i64>) {
    let mut bites = 0;
    while outbox.maintain(before_ms).await.unwrap() {
        bites += 1;
        assert!(bites < 1_000, "it never ends");
    }
}

#[tokio::test]
async fn what_the_cloud_holds_goes_after_its_time_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (outbox, ended) = open(&settings);
    use ClockState::{Synced, Unset};
    let readings =
        [(40, Synced), (20_000, Unset), (35, Synced), (31, Synced), (29, Synced), (50, Synced), (1, Synced)];
    outbox.store_readings(readings.map(|(days, state)| aged(days, state)).into(), None).await.unwrap();
    let before_ms = Some(Clock::default().now().wall_ms - 30 * DAY_MS);
    tidy(&outbox, before_ms).await;
    assert_eq!(ids(dir.path(), "reading"), "1 2 3 4 5 6 7", "nothing is sent yet");
    let mut settlement = range(Stream::Reading, 1, 3);
    settlement.ranges.push(SeqRange { stream: Stream::Reading, first: 5, through: 5 });
    settlement.quarantined = vec![(Stream::Reading, 2, "bad_field".into()), (Stream::Reading, 5, "x".into())];
    outbox.settle(settlement).await.unwrap();
    tidy(&outbox, None).await;
    assert_eq!(ids(dir.path(), "reading"), "1 2 3 4 5 6 7", "by a clock that may be wrong nothing is old");
    tidy(&outbox, before_ms).await;
    assert_eq!(ids(dir.path(), "reading"), "4 5 6 7", "4 is not sent, 5 is young");
    assert_eq!(outbox.gauges().quarantined(), 1, "notes go with their records");
    assert_eq!(outbox.gauges().unsent(Stream::Reading), 3);
    outbox.settle(range(Stream::Reading, 4, 7)).await.unwrap();
    tidy(&outbox, before_ms).await;
    assert_eq!(ids(dir.path(), "reading"), "7", "6 is old, and what stands before it was stored before it");
    close(outbox, ended).await;
}

#[tokio::test]
async fn what_was_set_aside_stays_however_old_it_is_and_however_short_the_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.max_bytes = 400_000;
    let (outbox, ended) = open(&settings);
    let many = || (0..50).map(|_| aged(40, ClockState::Synced)).collect::<Vec<_>>();
    let mut stored = 0;
    while let Ok(kept) = outbox.store_readings(many(), None).await {
        stored = kept.first + 49;
    }
    outbox.park(vec![ParkedRecord { stream: "reading".into(), ..parked(2, "0.1.0") }]).await.unwrap();
    let ranges = [(1, 1), (3, stored)].map(|(first, through)| range(Stream::Reading, first, through).ranges);
    let settlement = Settlement { ranges: ranges.concat(), ..Settlement::default() };
    outbox.settle(settlement).await.unwrap();
    tidy(&outbox, None).await;
    let left: i64 = peek(dir.path(), "select count(*) from reading");
    assert!((2..stored).contains(&left), "room is made before it is asked for: {left} of {stored}");
    tidy(&outbox, Some(Clock::default().now().wall_ms)).await;
    assert_eq!(ids(dir.path(), "reading"), "2");
    assert_eq!(outbox.release(None).await.unwrap(), 1);
    assert_eq!(outbox.pending(ALL).await.unwrap().records, 1);
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_clock_that_was_behind_makes_nothing_old_until_a_later_record_proves_it() {
    use ClockState::{Held, Synced, Unset};
    for wrong in [Held, Unset] {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, ended) = open(&settings(dir.path()));
        // Switched on again after 40 days without a network, and used for weeks before there was one.
        let mut readings: Vec<_> = (0..3_000).map(|_| aged(40, wrong)).collect();
        readings.extend([aged(3, Synced), aged(2, Synced)]);
        outbox.store_readings(readings, None).await.unwrap();
        outbox.settle(range(Stream::Reading, 1, 3_002)).await.unwrap();
        let now = Clock::default().now().wall_ms;
        tidy(&outbox, Some(now - 30 * DAY_MS)).await;
        assert_eq!(peek::<i64>(dir.path(), "select count(*) from reading"), 3_002, "{wrong:?}");
        tidy(&outbox, Some(now - 2 * DAY_MS - DAY_MS / 2)).await;
        assert_eq!(ids(dir.path(), "reading"), "3002", "{wrong:?}");
        close(outbox, ended).await;
    }
}

#[tokio::test]
async fn numbers_go_on_in_a_table_that_was_emptied_even_after_its_salvage() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (outbox, ended) = open(&settings);
    outbox.store_readings((0..1_200).map(|_| aged(40, ClockState::Synced)).collect(), None).await.unwrap();
    outbox.store(scan("A")).await.unwrap();
    outbox.settle(range(Stream::Reading, 1, 1_200)).await.unwrap();
    tidy(&outbox, Some(Clock::default().now().wall_ms)).await;
    assert_eq!((ids(dir.path(), "reading"), ids(dir.path(), "scan_event")), (String::new(), "1".into()));
    close(outbox, ended).await;
    // The table of the numbers is lost.
    let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
    conn.execute_batch("delete from sqlite_sequence; pragma foreign_keys = off; update run set epoch = 'x'")
        .unwrap();
    drop(conn);
    let (outbox, ended) = open(&settings);
    assert!(outbox.salvaged().is_some());
    assert_eq!(outbox.store_readings(vec![reading("a", 1.0)], None).await.unwrap().first, 1_201);
    assert_eq!(outbox.gauges().unsent(Stream::Reading), 1);
    assert_eq!(outbox.pending(ALL).await.unwrap().records, 2);
    close(outbox, ended).await;
}

#[tokio::test]
async fn where_room_is_short_sent_readings_go_first_and_unsent_ones_never() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.max_bytes = 1_000_000;
    let (outbox, ended) = open(&settings);
    for i in 0..50 {
        outbox.store(scan(&format!("T{i}"))).await.unwrap();
    }
    outbox.settle(settled(1, 50)).await.unwrap();
    let mut stored = 0;
    // Far more than the budget holds: what is sent makes room for what comes.
    while stored < 20_000 {
        let kept = outbox.store_readings((0..100).map(|_| reading("a", 1.0)).collect(), None).await.unwrap();
        stored = kept.first + 99;
        if stored % 1_000 == 0 {
            outbox.settle(range(Stream::Reading, stored - 999, stored)).await.unwrap();
            tidy(&outbox, None).await;
        }
    }
    assert_eq!(outbox.gauges().unsent(Stream::Reading), 0);
    assert_eq!(peek::<i64>(dir.path(), "select count(*) from scan_event"), 50, "readings go before scans");
    assert!(peek::<i64>(dir.path(), "select count(*) from reading") > 1_000, "no more than must");
    // Nothing is settled any more: readings stop, none is lost, scans go on.
    let mut unsent = 0;
    while let Ok(kept) = outbox.store_readings((0..100).map(|_| reading("b", 1.0)).collect(), None).await {
        unsent += kept.count;
        assert!(unsent < 20_000, "the limit is not kept");
        tidy(&outbox, None).await;
    }
    assert_eq!(peek::<i64>(dir.path(), "select count(*) from reading where series = 'b'") as u64, unsent);
    assert_eq!(outbox.gauges().unsent(Stream::Reading), unsent);
    outbox.store(scan("LAST")).await.unwrap();
    let wal = std::fs::metadata(dir.path().join("local_gateway.db-wal")).unwrap().len();
    assert!(wal < 8 << 20, "{wal}");
    close(outbox, ended).await;
}
