//! From the emulated chip through the reader's loop into the store.

use crate::driver::address;
use crate::emulator::{Card, Fault, SerialPn532, Shared};
use lumbung_gateway::capture::{Action, Capture, ReaderLoop};
use lumbung_gateway::clock::Clock;
use lumbung_gateway::hardware::pn532::{Link, Naming, Pn532Reader, Settings as ReaderSettings};
use lumbung_gateway::hardware::{Light, ReaderHealth, Rung, Seen, Signal, TagReader};
use lumbung_gateway::metrics::{Metrics, Snapshot};
use lumbung_gateway::outbox::{DATABASE, Outbox, Settings};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

fn reader(serial: &SerialPn532, naming: Naming) -> Pn532Reader {
    reader_with_reset(serial, naming, None)
}

fn reader_with_reset(
    serial: &SerialPn532,
    naming: Naming,
    reset: Option<Box<dyn FnMut() + Send>>,
) -> Pn532Reader {
    let settings = ReaderSettings {
        naming,
        debounce: Duration::from_secs(3),
        poll_interval: Duration::ZERO,
        poll_deadline: Duration::from_millis(100),
        probe_interval: Duration::from_secs(5),
    };
    let address = address(serial);
    Pn532Reader::new(settings, move || Link::open(&address), reset)
}

fn tag(seen: Option<Seen>) -> String {
    match seen {
        Some(Seen::Tag(tag)) => tag.into_string(),
        other => panic!("{other:?}"),
    }
}

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn a_tag_is_named_by_what_is_written_on_it_when_that_is_wanted() {
    let serial = SerialPn532::start();
    let mut card = Card::ntag215([4, 1, 2, 3, 4, 5, 6]);
    let area = b"\x03\x0D\xD1\x01\x09T\x02idLOT-07\xFE";
    card.memory[16..16 + area.len()].copy_from_slice(area);
    let blank = Card::ntag215([4, 9, 9, 9, 9, 9, 9]);
    serial.world.lock().unwrap().cards = vec![card, blank];
    let mut by_text = reader(&serial, Naming::NdefOrUid);
    assert_eq!(tag(by_text.next(LONG).unwrap()), "LOT-07");
    assert_eq!(tag(by_text.next(LONG).unwrap()), "04090909090909");
    assert_eq!(by_text.next(SHORT).unwrap(), None);
    drop(by_text);
    let mut by_uid = reader(&serial, Naming::Uid);
    assert_eq!(tag(by_uid.next(LONG).unwrap()), "04010203040506");
}

#[test]
fn a_phones_random_number_is_no_tag_and_is_told_once() {
    let serial = SerialPn532::start();
    let mut reader = reader(&serial, Naming::Uid);
    let hold = |n: u8| serial.world.lock().unwrap().cards = vec![Card::plain(&[0x08, n, n, n])];
    hold(1);
    assert_eq!(reader.next(LONG).unwrap(), Some(Seen::Unreadable));
    for n in 2..10 {
        hold(n);
        assert_eq!(reader.next(Duration::ZERO).unwrap(), None);
    }
}

#[test]
fn a_dead_reader_is_an_error_and_each_repair_is_stronger_until_it_lives_again() {
    let serial = SerialPn532::start();
    let mut reader = reader(&serial, Naming::Uid);
    assert_eq!(reader.next(SHORT).unwrap(), None);
    serial.world.lock().unwrap().dead = true;
    reader.next(LONG).unwrap_err();
    assert_eq!(reader.repair(1), Rung::Soft);
    reader.next(LONG).unwrap_err();
    assert_eq!(reader.repair(3), Rung::Reopen);
    reader.next(LONG).unwrap_err();
    {
        let mut world = serial.world.lock().unwrap();
        world.dead = false;
        world.cards = vec![Card::plain(&[1, 2, 3, 4])];
    }
    reader.repair(4);
    assert_eq!(tag(reader.next(LONG).unwrap()), "01020304");
}

#[test]
fn a_reset_pin_that_is_wired_is_pulsed_where_soft_resets_do_not_help() {
    let serial = SerialPn532::start();
    let world = Arc::clone(&serial.world);
    let pulse = move || {
        let mut world = world.lock().unwrap();
        world.dead = false;
        world.cards = vec![Card::plain(&[1, 2, 3, 4])];
    };
    let mut reader = reader_with_reset(&serial, Naming::Uid, Some(Box::new(pulse)));
    assert_eq!(reader.next(SHORT).unwrap(), None);
    serial.world.lock().unwrap().dead = true;
    reader.next(LONG).unwrap_err();
    for attempt in [1, 2] {
        assert_eq!(reader.repair(attempt), Rung::Soft);
        reader.next(LONG).unwrap_err();
    }
    assert_eq!(reader.repair(3), Rung::ResetPin);
    assert_eq!(tag(reader.next(LONG).unwrap()), "01020304");
}

/// Shows lights to whoever waits for them.
#[derive(Default)]
struct Lamp {
    lights: Mutex<Vec<Light>>,
    changed: Condvar,
}

impl Signal for Lamp {
    fn show(&self, light: Light) {
        self.lights.lock().unwrap().push(light);
        self.changed.notify_all();
    }
}

impl Lamp {
    fn count(&self, light: Light) -> usize {
        self.lights.lock().unwrap().iter().filter(|seen| **seen == light).count()
    }

    /// Waits until `light` was shown `times` times.
    fn until(&self, light: Light, times: usize, most: Duration) {
        let enough = |lights: &mut Vec<Light>| lights.iter().filter(|seen| **seen == light).count() < times;
        let (lights, waited) =
            self.changed.wait_timeout_while(self.lights.lock().unwrap(), most, enough).unwrap();
        assert!(!waited.timed_out(), "{light:?} was not shown {times} times: {} lights", lights.len());
    }
}

struct Stand {
    lamp: Arc<Lamp>,
    health: Arc<ReaderHealth>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), &'static str>>,
    outbox: Outbox,
    ended: lumbung_gateway::outbox::Ended,
}

fn stand(dir: &Path, serial: &SerialPn532, give_up_after: u32) -> Stand {
    let clock = Arc::new(Clock::default());
    let settings = Settings {
        dir: dir.to_owned(),
        max_bytes: 0,
        reserve_bytes: 0,
        site: None,
        boot: "b".into(),
        version: "0".into(),
    };
    let (outbox, ended) = Outbox::open(&settings, clock.now()).unwrap();
    let (lamp, health, metrics) =
        (Arc::<Lamp>::default(), Arc::<ReaderHealth>::default(), Arc::<Metrics>::default());
    let capture = Capture {
        outbox: outbox.clone(),
        clock,
        doorbell: Arc::default(),
        signal: Arc::clone(&lamp) as Arc<dyn Signal>,
        metrics: Arc::clone(&metrics),
    };
    let taps = ReaderLoop {
        reader: Box::new(reader(serial, Naming::Uid)),
        kind: "pn532",
        health: Arc::clone(&health),
        action: Arc::new(Action::in_dir(dir, "makanan_keluar").unwrap()),
        give_up_after,
        capture,
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(taps.run(stop.clone()));
    Stand { lamp, health, metrics, stop, running, outbox, ended }
}

impl Stand {
    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        self.outbox.close().await;
        self.ended.wait().await.unwrap();
    }
}

fn hold(world: &Shared, uid: u32) {
    let [a, b, c, d] = uid.to_be_bytes();
    world.lock().unwrap().cards = vec![Card::ntag215([4, 0, 0, a, b, c, d])];
}

/// As officers do it: a tag is held until the light is green, and some leave it there a little longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_taps_with_faults_between_them_lose_and_double_none() {
    const TAPS: u32 = 10_000;
    // In memory where there is such a place: this is about taps, not about the disk.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let serial = SerialPn532::start();
    let stand = stand(dir.path(), &serial, 0);
    let (lamp, world) = (Arc::clone(&stand.lamp), Arc::clone(&serial.world));
    let held = tokio::task::spawn_blocking(move || {
        let mut random = fastrand::Rng::with_seed(20_261_121);
        for tap in 0..TAPS {
            if random.u32(..100) == 0 {
                let fault = [
                    Fault::Garbage,
                    Fault::Nack,
                    Fault::WrongChecksum,
                    Fault::Half,
                    Fault::Late(Duration::from_millis(120)),
                ][random.usize(..5)];
                world.lock().unwrap().faults.push_back(fault);
            }
            hold(&world, tap);
            lamp.until(Light::Green, tap as usize + 1, Duration::from_secs(30));
            if random.u32(..3) == 0 {
                world.lock().unwrap().cards.clear();
            }
        }
    });
    held.await.unwrap();
    assert_eq!(stand.lamp.count(Light::Red), 0);
    stand.end().await;
    let store = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    let mut query = store.prepare("select nfc_tag_id from scan_event order by id").unwrap();
    let stored: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let tapped: Vec<String> = (0..TAPS).map(|tap| format!("040000{tap:08X}")).collect();
    assert_eq!(stored.len(), tapped.len());
    assert_eq!(stored, tapped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_answering_is_down_within_15_seconds_and_reads_again_within_15() {
    let dir = tempfile::tempdir().unwrap();
    let serial = SerialPn532::start();
    let stand = stand(dir.path(), &serial, 0);
    hold(&serial.world, 1);
    let (lamp, world) = (Arc::clone(&stand.lamp), Arc::clone(&serial.world));
    let limit = Duration::from_secs(15);
    let played = tokio::task::spawn_blocking(move || {
        lamp.until(Light::Green, 1, limit);
        world.lock().unwrap().faults.push_back(Fault::Half);
        let begun = Instant::now();
        world.lock().unwrap().dead = true;
        lamp.until(Light::Trouble, 1, limit);
        let down = begun.elapsed();
        let begun = Instant::now();
        world.lock().unwrap().dead = false;
        lamp.until(Light::Working, 1, limit);
        hold(&world, 2);
        lamp.until(Light::Green, 2, limit);
        println!("down after {down:?}, reading again after {:?}", begun.elapsed());
    });
    played.await.unwrap();
    assert_eq!(stand.health.as_str(), "ok");
    assert!(stand.metrics.text(&snapshot()).contains("lumbung_gateway_reader_up{kind=\"pn532\"} 1"));
    stand.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_cannot_be_repaired_ends_the_loop() {
    let dir = tempfile::tempdir().unwrap();
    let serial = SerialPn532::start();
    serial.world.lock().unwrap().dead = true;
    let stand = stand(dir.path(), &serial, 2);
    let outcome = stand.running.await.unwrap();
    assert_eq!(outcome, Err("the tag reader's thread has ended"));
    assert_eq!(stand.health.as_str(), "down");
    let metrics = stand.metrics.text(&snapshot());
    assert!(metrics.contains("lumbung_gateway_reader_resets_total{how=\"reopen\"} 2"), "{metrics}");
    assert!(metrics.contains("lumbung_gateway_reader_up{kind=\"pn532\"} 0"), "{metrics}");
}

fn snapshot() -> Snapshot {
    Snapshot {
        unsent: Vec::new(),
        oldest_seconds: 0.0,
        parked: 0,
        quarantined: 0,
        clock: Clock::default().now().state,
        disk_free: None,
        disk_full: false,
    }
}
