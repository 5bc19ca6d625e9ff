//! The store as its callers see it; what salvage does is in `salvage/tests.rs`.

mod damage;
mod full;
mod retention;
mod telemetry;

use super::*;
use crate::clock::Clock;
use lumbung_shared::reading::{Quality, ReadingContent, SeriesName, Unit};
use lumbung_shared::tag::TagId;
use lumbung_shared::time::ClockState;
use rusqlite::params;
use uuid::Uuid;

pub(crate) fn settings(dir: &std::path::Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        max_bytes: 0,
        reserve_bytes: 0,
        site: Some("DAPUR-1".to_owned()),
        boot: "boot-1".to_owned(),
        version: "0.1.0".to_owned(),
    }
}

pub(crate) fn scan(tag: &str) -> NewScan {
    NewScan {
        content: ScanContent {
            tag: TagId::parse(tag).unwrap(),
            status: "makanan_keluar".to_owned(),
            at_ms: None,
            note: None,
            officer: None,
            quantity: None,
            client_ref: None,
        },
        source: Source::Phone,
        moment: Clock::default().now(),
    }
}

pub(crate) fn reading(series: &str, value: f64) -> NewReading {
    let content = ReadingContent {
        series: SeriesName::parse(series).unwrap(),
        unit: Unit::parse("Cel").unwrap(),
        value,
        quality: Quality::Good,
        at_ms: None,
    };
    NewReading { content, moment: Clock::default().now() }
}

pub(crate) fn open(settings: &Settings) -> (Outbox, Ended) {
    Outbox::open(settings, Clock::default().now()).unwrap()
}

pub(crate) async fn close(outbox: Outbox, ended: Ended) {
    outbox.close().await;
    drop(outbox);
    ended.wait().await.unwrap();
}

const ALL: Limits = Limits { records: 10_000, bytes: usize::MAX, runs: 2_000 };

async fn pending_seqs(outbox: &Outbox) -> Vec<i64> {
    let pending = outbox.pending(ALL).await.unwrap();
    pending.runs.iter().flat_map(|run| run.scans.iter().map(|scan| scan.seq)).collect()
}

pub(crate) fn settled(first: i64, through: i64) -> Settlement {
    Settlement { ranges: vec![SeqRange { stream: Stream::Scan, first, through }], ..Settlement::default() }
}

fn parked(seq: i64, version: &str) -> ParkedRecord {
    ParkedRecord {
        stream: "scan".into(),
        seq,
        reason: "refused".into(),
        detail: "400".into(),
        version: version.into(),
        parked_at: rfc3339(0),
    }
}

fn peek<T: rusqlite::types::FromSql>(dir: &std::path::Path, sql: &str) -> T {
    let conn = read::connect(&dir.join(DATABASE)).unwrap();
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn scans_stored_together_get_numbers_of_their_own_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (outbox, ended) = open(&settings);
    let waiting: Vec<_> = (0..200)
        .map(|i| {
            let outbox = outbox.clone();
            tokio::spawn(async move { outbox.store(scan(&format!("TAG-{i}"))).await.unwrap().seq })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in waiting {
        seqs.push(task.await.unwrap());
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).collect::<Vec<i64>>());
    assert_eq!(outbox.gauges().unsent(Stream::Scan), 200);
    let first_run = outbox.run().epoch;
    close(outbox, ended).await;

    let (outbox, ended) = open(&settings);
    assert_eq!(outbox.gauges().unsent(Stream::Scan), 200);
    assert_eq!(outbox.run().previous, Some(first_run));
    assert_eq!(outbox.store(scan("NEXT")).await.unwrap().seq, 201);
    let pending = outbox.pending(ALL).await.unwrap();
    assert_eq!(pending.runs.len(), 2);
    assert_eq!((pending.runs[0].epoch, pending.runs[0].scans.len()), (first_run, 200));
    assert_eq!(pending.runs[1].start.as_ref().unwrap().previous, Some(first_run));
    assert_eq!(pending.runs[1].start.as_ref().unwrap().site.as_deref(), Some("DAPUR-1"));
    close(outbox, ended).await;
    assert_eq!(peek::<String>(dir.path(), "pragma quick_check"), "ok");
}

#[tokio::test]
async fn a_second_gateway_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (outbox, ended) = open(&settings);
    let second = Outbox::open(&settings, Clock::default().now());
    assert!(matches!(second, Err(OpenError::InUse(_))));
    close(outbox, ended).await;
    let (outbox, ended) = open(&settings);
    close(outbox, ended).await;
}

#[tokio::test]
async fn the_same_client_ref_is_the_same_scan_even_within_one_group() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    let mut told = scan("04:a2:2b:1c");
    told.content.client_ref = Some(Uuid::from_u128(1));
    told.content.quantity = Some(24.5);
    // Many at once: whichever lands first, all name one scan.
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (outbox, told) = (outbox.clone(), told.clone());
            tokio::spawn(async move { outbox.store(told).await.unwrap() })
        })
        .collect();
    let mut fresh = 0;
    for task in tasks {
        let kept = task.await.unwrap();
        assert_eq!(kept.seq, 1);
        fresh += i32::from(kept.fresh);
    }
    assert_eq!(fresh, 1);

    let mut normalised = told.clone();
    normalised.content.tag = TagId::parse("04A22B1C").unwrap();
    assert!(!outbox.store(normalised).await.unwrap().fresh);
    let mut other = told.clone();
    other.content.quantity = Some(25.0);
    assert_eq!(outbox.store(other).await, Err(OutboxError::Conflict { seq: 1 }));
    // No number was used up by any of that.
    assert_eq!(outbox.store(scan("NEXT")).await.unwrap().seq, 2);
    outbox.settle(settled(1, 1)).await.unwrap();
    assert_eq!(outbox.store(told).await.unwrap().state, RecordState::Sent);
    assert_eq!(outbox.gauges().unsent(Stream::Scan), 1);
    close(outbox, ended).await;
}

#[tokio::test]
async fn settled_scans_are_flagged_and_no_longer_pending() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    for i in 0..5 {
        outbox.store(scan(&format!("T{i}"))).await.unwrap();
    }
    let mut settlement = settled(1, 3);
    settlement.quarantined = vec![(Stream::Scan, 2, "bad_field".into())];
    settlement.runs = vec![outbox.run().epoch];
    assert_eq!(outbox.settle(settlement.clone()).await.unwrap(), 3);
    assert_eq!(outbox.settle(settlement).await.unwrap(), 0);
    assert_eq!(pending_seqs(&outbox).await, [4, 5]);
    assert!(outbox.pending(ALL).await.unwrap().runs[0].start.is_none());
    assert_eq!(outbox.gauges().quarantined(), 1);
    assert_eq!(outbox.quarantined(10).await.unwrap()[0].reason, "bad_field");
    assert_eq!(peek::<i64>(dir.path(), "select through from cursor where stream = 'scan'"), 3);
    let flags: String = peek(
        dir.path(),
        "select group_concat(synced_to_main_server, '') from (select * from scan_event order by id)",
    );
    assert_eq!(flags, "11100");
    let recent = outbox.recent(3).await.unwrap();
    assert_eq!(recent.iter().map(|row| row.id).collect::<Vec<_>>(), [5, 4, 3]);
    assert_eq!(outbox.recent(5).await.unwrap()[3].state, RecordState::Quarantined);
    close(outbox, ended).await;
}

#[tokio::test]
async fn what_was_sent_goes_again_with_its_runs_and_only_from_where_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (outbox, ended) = open(&settings);
    let now = Clock::default().now().wall_ms;
    // The clock was right for the first two, and behind for the third, which came later all the same.
    for (hours, state) in
        [(9, ClockState::Synced), (5, ClockState::Synced), (99, ClockState::Unset), (1, ClockState::Synced)]
    {
        let mut scan = scan("T");
        scan.moment.wall_ms = now - hours * 3_600_000;
        scan.moment.state = state;
        outbox.store(scan).await.unwrap();
    }
    outbox.store(scan("not sent yet")).await.unwrap();
    let mut settlement = settled(1, 4);
    settlement.quarantined = vec![(Stream::Scan, 1, "x".into()), (Stream::Scan, 4, "x".into())];
    settlement.runs = vec![outbox.run().epoch];
    outbox.settle(settlement).await.unwrap();
    assert_eq!(outbox.send_again(Some(now - 4 * 3_600_000)).await.unwrap(), 2);
    assert_eq!(pending_seqs(&outbox).await, [3, 4, 5]);
    assert!(outbox.pending(ALL).await.unwrap().runs[0].start.is_some(), "the cloud knows nothing of the run");
    assert_eq!((outbox.gauges().unsent(Stream::Scan), outbox.gauges().quarantined()), (3, 1));
    assert_eq!(outbox.send_again(None).await.unwrap(), 2);
    assert_eq!(outbox.send_again(None).await.unwrap(), 0);
    assert_eq!(pending_seqs(&outbox).await, [1, 2, 3, 4, 5]);
    assert_eq!((outbox.gauges().unsent(Stream::Scan), outbox.gauges().quarantined()), (5, 0));
    close(outbox, ended).await;

    // However many they are; and the counts are what a start finds.
    let (outbox, ended) = open(&settings);
    assert_eq!(outbox.gauges().unsent(Stream::Scan), 5);
    outbox.store_readings((0..12_000).map(|_| reading("a", 1.0)).collect(), None).await.unwrap();
    let all = SeqRange { stream: Stream::Reading, first: 1, through: 12_000 };
    outbox.settle(Settlement { ranges: vec![all], ..Settlement::default() }).await.unwrap();
    assert_eq!(outbox.send_again(None).await.unwrap(), 12_000);
    assert_eq!(outbox.gauges().unsent(Stream::Reading), 12_000);
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_hole_in_the_verdicts_holds_the_cursor_but_nothing_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    for i in 0..6 {
        outbox.store(scan(&format!("T{i}"))).await.unwrap();
    }
    outbox.settle(settled(2, 4)).await.unwrap();
    assert_eq!(pending_seqs(&outbox).await, [1, 5, 6]);
    assert_eq!(peek::<i64>(dir.path(), "select through from cursor where stream = 'scan'"), 0);
    outbox.settle(settled(1, 1)).await.unwrap();
    assert_eq!(peek::<i64>(dir.path(), "select through from cursor where stream = 'scan'"), 4);
    close(outbox, ended).await;
}

#[tokio::test]
async fn parked_scans_stay_unsent_and_come_back_by_hand_or_with_an_update() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    let (outbox, ended) = open(&settings);
    for i in 0..4 {
        outbox.store(scan(&format!("T{i}"))).await.unwrap();
    }
    outbox.park(vec![parked(1, "0.1.0"), parked(3, "0.1.0"), parked(99, "0.1.0")]).await.unwrap();
    outbox.settle(settled(2, 2)).await.unwrap();
    outbox.settle(settled(4, 4)).await.unwrap();
    assert_eq!(pending_seqs(&outbox).await, [0i64; 0]);
    assert_eq!((outbox.gauges().parked(), outbox.gauges().unsent(Stream::Scan)), (2, 0));
    assert_eq!(outbox.recent(2).await.unwrap()[1].state, RecordState::Parked);
    assert_eq!(outbox.release(Some((Stream::Scan, 3))).await.unwrap(), 1);
    assert_eq!(outbox.release(Some((Stream::Scan, 3))).await.unwrap(), 0);
    assert_eq!(pending_seqs(&outbox).await, [3]);
    close(outbox, ended).await;

    let (outbox, ended) = open(&settings);
    assert_eq!(outbox.gauges().parked(), 1, "the same version would only park it again");
    close(outbox, ended).await;
    settings.version = "0.2.0".into();
    let (outbox, ended) = open(&settings);
    assert_eq!(outbox.gauges().parked(), 0);
    assert_eq!(pending_seqs(&outbox).await, [1, 3]);
    assert_eq!(outbox.gauges().unsent(Stream::Scan), 2);
    close(outbox, ended).await;
}

#[tokio::test]
async fn batches_keep_to_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    for i in 0..30 {
        let mut scan = scan(&format!("T{i}"));
        scan.content.note = Some("x".repeat(400));
        outbox.store(scan).await.unwrap();
    }
    let few = outbox.pending(Limits { records: 7, ..ALL }).await.unwrap();
    assert_eq!((few.records, few.more), (7, true));
    let small = outbox.pending(Limits { bytes: 5_000, ..ALL }).await.unwrap();
    assert!((5..8).contains(&small.records) && small.more, "{}", small.records);
    let all = outbox.pending(ALL).await.unwrap();
    assert_eq!((all.records, all.more), (30, false));
    assert!(all.oldest_at.is_some());
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_thousand_restarts_still_drain_in_a_few_batches() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    outbox.store(scan("FIRST")).await.unwrap();
    close(outbox, ended).await;
    let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
    for i in 0..50 {
        conn.execute(
            "insert into run (epoch, boot, started_at, mono_ms, clock_state, version)
             values (?1, 'b', '', 0, 0, '')",
            params![format!("{:016x}", 1_000 + i)],
        )
        .unwrap();
    }
    drop(conn);
    let (outbox, ended) = open(&settings(dir.path()));
    outbox.store(scan("LAST")).await.unwrap();
    let limits = Limits { runs: 20, ..ALL };
    let mut seqs = Vec::new();
    for _ in 0..3 {
        let pending = outbox.pending(limits).await.unwrap();
        assert!(pending.runs.len() <= 20);
        let mut settlement = settled(0, -1);
        for run in &pending.runs {
            settlement.runs.push(run.epoch);
            for scan in &run.scans {
                seqs.push(scan.seq);
                settlement.ranges.push(settled(scan.seq, scan.seq).ranges[0]);
            }
        }
        outbox.settle(settlement).await.unwrap();
    }
    assert_eq!(seqs, [1, 2]);
    close(outbox, ended).await;
}

#[test]
fn the_writer_syncs_every_commit() {
    let dir = tempfile::tempdir().unwrap();
    let conn = schema::connect(&dir.path().join(DATABASE)).unwrap();
    let asked =
        |name: &str| conn.query_row(&format!("pragma {name}"), [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(asked("synchronous"), 2, "FULL");
    assert_eq!(asked("foreign_keys"), 1);
    assert_eq!(asked("wal_autocheckpoint"), 0);
}

#[tokio::test]
async fn a_lone_scan_writes_two_pages_and_the_wal_stays_small() {
    const FRAME: u64 = 4096 + 24;
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    outbox.store(scan("FIRST")).await.unwrap();
    let wal = || std::fs::metadata(dir.path().join("local_gateway.db-wal")).unwrap().len();
    let before = wal();
    outbox.store(scan("ALONE")).await.unwrap();
    assert_eq!((wal() - before) / FRAME, 2, "its table's leaf and the sequence");
    for _ in 0..1_500 {
        outbox.store(scan("04A22B1C5D6E80")).await.unwrap();
    }
    assert!(wal() < 6 << 20, "{} bytes of WAL", wal());
    assert!(std::fs::metadata(dir.path().join(DATABASE)).unwrap().len() > 50_000, "nothing was checkpointed");
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_newer_or_foreign_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("create table scan_event (id integer); insert into scan_event values (7)").unwrap();
    let open = || Outbox::open(&settings(dir.path()), Clock::default().now());
    assert!(matches!(open(), Err(OpenError::NotOurs { .. })));
    conn.execute_batch("pragma user_version = 99").unwrap();
    assert!(matches!(open(), Err(OpenError::UnknownVersion { found: 99, .. })));
    let rows: i64 = conn.query_row("select id from scan_event", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 7);
    let set_aside = std::fs::read_dir(dir.path())
        .unwrap()
        .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("corrupt-"));
    assert!(!set_aside);
}

#[tokio::test]
async fn a_restored_backup_begins_a_run_that_names_the_same_predecessor() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (outbox, ended) = open(&settings);
    outbox.store(scan("A")).await.unwrap();
    let backed_up = outbox.run().epoch;
    close(outbox, ended).await;
    let (path, backup) = (dir.path().join(DATABASE), dir.path().join("backup"));
    std::fs::copy(&path, &backup).unwrap();
    let (outbox, ended) = open(&settings);
    let original = (outbox.run().clone(), outbox.store(scan("B")).await.unwrap());
    close(outbox, ended).await;

    std::fs::copy(&backup, &path).unwrap();
    let (outbox, ended) = open(&settings);
    let restored = (outbox.run().clone(), outbox.store(scan("C")).await.unwrap());
    assert_eq!(original.0.previous, Some(backed_up));
    assert_eq!(restored.0.previous, Some(backed_up), "a fork the cloud can see");
    assert_ne!(original.0.epoch, restored.0.epoch);
    assert_eq!(original.1.seq, restored.1.seq, "the same number, told apart by the run");
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_corrupt_page_met_while_running_ends_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    outbox.store(scan("A")).await.unwrap();
    outbox.break_down().await;
    assert!(matches!(ended.wait().await, Err(Trouble::Corrupt(_))));
    assert_eq!(outbox.store(scan("B")).await, Err(OutboxError::Closed));
    drop(outbox);
    assert!(dir.path().join("check-needed").exists());
    let (outbox, ended) = open(&settings(dir.path()));
    assert!(!dir.path().join("check-needed").exists());
    assert_eq!(pending_seqs(&outbox).await, [1]);
    close(outbox, ended).await;
}
