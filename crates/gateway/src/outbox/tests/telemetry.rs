//! Readings and events in the store.

use super::*;
use rusqlite::Connection;

fn once(key: &str, digest: u8) -> Option<Once> {
    Some(Once { name: OnceName::Key(key.to_owned()), digest: [digest; 32] })
}

fn place(place: u16, digest: u8, again: bool) -> Option<Once> {
    Some(Once { name: OnceName::Place { place, again }, digest: [digest; 32] })
}

fn event(kind: &str) -> NewEvent {
    NewEvent { kind: kind.to_owned(), body: "{}".to_owned(), moment: Clock::default().now() }
}

#[tokio::test]
async fn readings_are_kept_with_numbers_of_their_own_and_can_be_read_in_the_shell() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (outbox, ended) = open(&settings);
    let mut odd = reading("kulkas-1/temperature", 99.5);
    odd.content.quality = Quality::Implausible;
    odd.content.at_ms = Some(0);
    let kept = outbox.store_readings(vec![reading("a", 4.25), odd], None).await.unwrap();
    assert_eq!((kept.first, kept.count, kept.fresh), (1, 2, true));
    assert_eq!(outbox.store_event(event("sensor_down")).await, Ok(1));
    assert_eq!(outbox.store(scan("A")).await.unwrap().seq, 1);
    assert_eq!(outbox.store_readings(vec![reading("a", 1.0)], None).await.unwrap().first, 3);
    assert_eq!(outbox.store_readings(Vec::new(), None).await.unwrap().count, 0);
    assert_eq!(Stream::ALL.map(|stream| outbox.gauges().unsent(stream)), [1, 3, 1]);
    close(outbox, ended).await;
    let sql = "select series || ' ' || value || ' ' || unit || ' ' || quality || ' ' || timestamp
               from reading where id = 2 and synced_to_main_server = 0";
    assert_eq!(peek::<String>(dir.path(), sql), "kulkas-1/temperature 99.5 Cel 1 1970-01-01T00:00:00.000Z");
    let (outbox, ended) = open(&settings);
    assert_eq!(Stream::ALL.map(|stream| outbox.gauges().unsent(stream)), [1, 3, 1]);
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_message_brought_again_is_kept_once_and_a_new_one_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (outbox, ended) = open(&settings);
    let keep = async |outbox: &Outbox, once| {
        let kept = outbox.store_readings(vec![reading("a", 1.0)], once).await.unwrap();
        (kept.first, kept.fresh)
    };
    assert_eq!(keep(&outbox, place(7, 1, true)).await, (1, true), "it never arrived before");
    assert_eq!(keep(&outbox, place(7, 1, true)).await, (1, false));
    assert_eq!(keep(&outbox, place(7, 1, false)).await, (2, true), "the same value is measured anew");
    assert_eq!(keep(&outbox, place(8, 1, true)).await, (3, true), "another message");
    close(outbox, ended).await;
    let (outbox, ended) = open(&settings);
    assert_eq!(keep(&outbox, place(7, 1, true)).await, (2, false), "also after a restart");
    assert_eq!(keep(&outbox, place(7, 2, true)).await, (4, true));
    assert_eq!(keep(&outbox, place(7, 1, true)).await, (5, true), "the place was taken by another");
    assert_eq!(keep(&outbox, once("k", 1)).await, (6, true));
    outbox.maintain(None).await.unwrap();
    close(outbox, ended).await;
    assert_eq!(peek::<i64>(dir.path(), "select count(*) from once where once_id < 0"), 2);
    assert_eq!(peek::<i64>(dir.path(), "select max(once_id) from once"), 1);
}

#[tokio::test]
async fn a_message_of_the_round_before_does_not_pass_for_one_that_never_arrived() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    let fresh = async |once| outbox.store_readings(vec![reading("a", 1.0)], once).await.unwrap().fresh;
    for first in [0, 256, 32_768, 65_280] {
        for number in [first, first + 7, first + 255] {
            assert!(fresh(place(number, 1, false)).await);
        }
        // Half a round later, the last ones are still known.
        assert!(fresh(place(first ^ 32_768, 2, false)).await);
        assert!(!fresh(place(first ^ 32_768, 2, true)).await, "{first}");
        for number in [first, first + 7, first + 255] {
            assert!(fresh(place(number, 1, true)).await, "{number}: the same value, a round later");
        }
    }
    close(outbox, ended).await;
}

#[tokio::test]
async fn the_same_key_keeps_the_same_readings_once() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (outbox, ended) = open(&settings);
    let readings = || vec![reading("a", 1.0), reading("b", 2.0)];
    let first = outbox.store_readings(readings(), once("k", 1)).await.unwrap();
    close(outbox, ended).await;
    let (outbox, ended) = open(&settings);
    let again = outbox.store_readings(readings(), once("k", 1)).await.unwrap();
    assert_eq!(again, KeptReadings { fresh: false, ..first }, "with the run that kept them");
    assert_eq!(outbox.store_readings(readings(), once("k", 2)).await, Err(OutboxError::KeyReused));
    let both = tokio::join!(
        outbox.store_readings(readings(), once("l", 1)),
        outbox.store_readings(readings(), once("l", 1))
    );
    assert_eq!([both.0.unwrap().first, both.1.unwrap().first], [3, 3]);
    assert_eq!(outbox.gauges().unsent(Stream::Reading), 4);
    close(outbox, ended).await;
    let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
    conn.execute_batch(
        "with recursive n(i) as (select 3 union all select i + 1 from n where i < 10050)
         insert into once select i, 'key ' || i, x'00', 1, 1, 1 from n",
    )
    .unwrap();
    drop(conn);
    let (outbox, ended) = open(&settings);
    outbox.maintain(None).await.unwrap();
    assert_eq!(peek::<i64>(dir.path(), "select count(*) from once"), 10_000);
    assert_eq!(peek::<i64>(dir.path(), "select min(once_id) from once"), 51, "the newest are kept");
    close(outbox, ended).await;
}

#[tokio::test]
async fn readings_and_events_are_refused_while_there_is_still_room_for_scans() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.max_bytes = 400_000;
    let (outbox, ended) = open(&settings);
    let many = || (0..20).map(|i| reading("kulkas-1/temperature", f64::from(i))).collect::<Vec<_>>();
    let mut stored = 0;
    while outbox.store_readings(many(), None).await.is_ok() {
        stored += 20;
        assert!(stored < 100_000, "the limit is not kept");
    }
    assert!(stored > 0);
    assert_eq!(outbox.store_readings(many(), None).await, Err(OutboxError::Full));
    assert_eq!(outbox.gauges().unsent(Stream::Reading), stored);
    assert!(!outbox.gauges().is_full(), "scans are taken");
    for i in 0..100 {
        outbox.store(scan(&format!("T{i}"))).await.unwrap();
    }
    assert_eq!(outbox.store_event(event("sensor_down")).await, Err(OutboxError::Full));
    assert!(!outbox.gauges().is_full());
    close(outbox, ended).await;
}

/// A store of the first version with a scan, two readings and an event.
fn first_version(dir: &std::path::Path) {
    let conn = Connection::open(dir.join(DATABASE)).unwrap();
    conn.execute_batch(schema::FIRST).unwrap();
    conn.execute_batch(
        "pragma user_version = 1;
         insert into run (epoch, boot, started_at, mono_ms, clock_state, version)
         values ('00000000000000aa', 'b', '2026-11-21T00:00:00.000Z', 1, 2, '0.1.0');
         insert into scan_event (run_id, nfc_tag_id, status_scan, timestamp, mono_ms, wall_ms, clock_state, source)
         values (1, 'A', 's', '2026-11-21T00:00:00.000Z', 1, 1, 2, 0);
         insert into reading (run_id, series, value, timestamp, mono_ms, wall_ms, clock_state)
         values (1, 'a', 1.5, '2026-11-21T00:00:00.000Z', 1, 1, 2), (1, 'b', 2.5, '2026-11-21T00:00:00.000Z', 1, 1, 2);
         insert into event (run_id, kind, body, timestamp, mono_ms, wall_ms, clock_state)
         values (1, 'k', '{}', '2026-11-21T00:00:00.000Z', 1, 1, 2);",
    )
    .unwrap();
}

const READINGS: &str = "select group_concat(id || series || value || unit || quality, ' ') from reading";

#[tokio::test]
async fn a_store_of_the_first_version_is_brought_up_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    first_version(dir.path());
    let (outbox, ended) = open(&settings(dir.path()));
    assert_eq!(outbox.salvaged(), None);
    assert_eq!(Stream::ALL.map(|stream| outbox.gauges().unsent(stream)), [1, 2, 1]);
    assert_eq!(outbox.store_readings(vec![reading("c", 3.5)], once("k", 1)).await.unwrap().first, 3);
    close(outbox, ended).await;
    assert_eq!(peek::<String>(dir.path(), READINGS), "1a1.510 2b2.510 3c3.5Cel0");
}

#[tokio::test]
async fn a_damaged_store_of_either_version_gives_its_readings_back() {
    for (version, destroyed_header) in [(1, false), (1, true), (2, false), (2, true)] {
        let dir = tempfile::tempdir().unwrap();
        first_version(dir.path());
        if version == 2 {
            let (outbox, ended) = open(&settings(dir.path()));
            outbox.store_readings(vec![reading("c", 3.5)], once("k", 1)).await.unwrap();
            close(outbox, ended).await;
        }
        let path = dir.path().join(DATABASE);
        if destroyed_header {
            use std::os::unix::fs::FileExt;
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[0xAA; 4096], 0).unwrap();
        } else {
            let conn = Connection::open(&path).unwrap();
            conn.execute_batch("pragma foreign_keys = off; update run set epoch = 'x' where run_id = 1")
                .unwrap();
        }
        let (outbox, ended) = open(&settings(dir.path()));
        assert!(outbox.salvaged().is_some(), "{version} {destroyed_header}");
        close(outbox, ended).await;
        let expected = if version == 1 { "1a1.510 2b2.510" } else { "1a1.510 2b2.510 3c3.5Cel0" };
        assert_eq!(peek::<String>(dir.path(), READINGS), expected, "{version} {destroyed_header}");
    }
}

#[tokio::test]
async fn scans_fill_a_batch_first_then_events_then_readings() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let names = |pending: &Pending| -> Vec<(usize, Stream, i64)> {
        let runs = pending.runs.iter().enumerate();
        runs.flat_map(|(at, run)| run.seqs().map(move |(stream, seq)| (at, stream, seq))).collect()
    };
    let (outbox, ended) = open(&settings);
    outbox.store_readings(vec![reading("a", 1.0), reading("a", 2.0)], None).await.unwrap();
    outbox.store_event(event("sensor_down")).await.unwrap();
    close(outbox, ended).await;
    let (outbox, ended) = open(&settings);
    outbox.store(scan("A")).await.unwrap();
    outbox.store_readings(vec![reading("a", 3.0)], None).await.unwrap();
    let (scan, event) = ((1, Stream::Scan, 1), (0, Stream::Event, 1));
    let reading = |run, seq| (run, Stream::Reading, seq);
    for (records, expected) in [
        (1, vec![scan]),
        (2, vec![event, scan]),
        (3, vec![event, reading(0, 1), scan]),
        (5, vec![event, reading(0, 1), reading(0, 2), scan, reading(1, 3)]),
    ] {
        let pending = outbox.pending(Limits { records, ..ALL }).await.unwrap();
        assert_eq!((names(&pending), pending.records), (expected, records));
        assert_eq!(pending.more, records < 5);
    }
    // What is settled or set aside no longer travels.
    let range = |stream, seq| SeqRange { stream, first: seq, through: seq };
    let ranges = vec![range(Stream::Event, 1), range(Stream::Reading, 1)];
    assert_eq!(outbox.settle(Settlement { ranges, ..Settlement::default() }).await.unwrap(), 2);
    let poison = ParkedRecord { stream: "reading".into(), ..parked(2, "0.1.0") };
    outbox.park(vec![poison]).await.unwrap();
    assert_eq!(Stream::ALL.map(|stream| outbox.gauges().unsent(stream)), [1, 1, 0]);
    let pending = outbox.pending(ALL).await.unwrap();
    assert_eq!(names(&pending), [(1, Stream::Scan, 1), (1, Stream::Reading, 3)]);
    assert_eq!(outbox.release(Some((Stream::Reading, 2))).await.unwrap(), 1);
    assert_eq!(outbox.pending(ALL).await.unwrap().records, 3);
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_reading_that_the_disk_changed_is_named_and_the_others_travel() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    outbox.store_readings(vec![reading("a", 1.0), reading("a", 2.0)], None).await.unwrap();
    outbox.store_event(event("sensor_down")).await.unwrap();
    let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
    conn.execute_batch("update reading set series = 'a b' where id = 1; update event set body = '['")
        .unwrap();
    let pending = outbox.pending(ALL).await.unwrap();
    assert_eq!(pending.records, 1);
    let named: Vec<_> = pending.unreadable.iter().map(|(stream, seq, _)| (*stream, *seq)).collect();
    assert_eq!(named, [(Stream::Event, 1), (Stream::Reading, 1)]);
    close(outbox, ended).await;
}
