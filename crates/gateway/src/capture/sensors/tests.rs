//! Sensors whose every answer is foretold, over a real store.

use super::*;
use crate::clock::Clock;
use crate::config::{Config, Turns};
use crate::hardware::LoggedSignal;
use crate::hardware::sensors::{Answer, Sample, Sensor, SensorError};
use crate::outbox::tests::{open, scan, settings, settled};
use crate::outbox::{DATABASE, Ended, Outbox};
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// The plan of one simulated sensor `s`, with further keys.
pub(super) fn plan(keys: &str) -> SensorPlan {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    let text = format!("[[sensor]]\nname = \"s\"\nkind = \"simulated\"\nevery = \"60s\"\n{keys}\n");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), None).unwrap().sensor_plans().unwrap().remove(0)
}

/// What the sensor says at present; `None`: its bus is stuck.
#[derive(Clone, Default)]
struct Mouth(Arc<(Mutex<Option<Answer>>, Condvar)>);

impl Mouth {
    fn says(&self, answer: Option<Answer>) {
        *self.0.0.lock().unwrap() = answer;
        self.0.1.notify_all();
    }

    fn opener(&self) -> Opener {
        let mouth = self.clone();
        Box::new(move || Ok(Box::new(mouth.clone())))
    }
}

impl Sensor for Mouth {
    fn read(&mut self) -> Answer {
        let (answer, changed) = &*self.0;
        let answer = changed.wait_while(answer.lock().unwrap(), |answer| answer.is_none()).unwrap();
        answer.clone().unwrap()
    }
}

fn fine() -> Option<Answer> {
    let sample = |quantity, unit, value| Sample { quantity, unit, value, doubtful: false };
    Some(Ok(vec![sample("temperature", "Cel", 4.5), sample("humidity", "%RH", 70.0)]))
}

struct Stand {
    dir: tempfile::TempDir,
    outbox: Outbox,
    ended: Ended,
    mouth: Mouth,
    board: Arc<SensorBoard>,
    capture: Capture,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), String>>,
}

impl Stand {
    fn new(said: Option<Answer>, max_bytes: u64) -> Self {
        Self::of("", said, max_bytes)
    }

    fn of(keys: &str, said: Option<Answer>, max_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path());
        settings.max_bytes = max_bytes;
        let (outbox, ended) = open(&settings);
        let capture = Capture {
            outbox: outbox.clone(),
            clock: Arc::new(Clock::default()),
            doorbell: Arc::default(),
            signal: Arc::new(LoggedSignal),
            metrics: Arc::default(),
        };
        let mut plan = plan(keys);
        plan.turns = Turns::Every(Duration::from_millis(5));
        let mouth = Mouth::default();
        mouth.says(said);
        let mut sensors = SensorLoop::over(vec![(plan, mouth.opener())], capture.clone()).unwrap();
        sensors.first_retry = Duration::from_millis(1);
        let (board, stop) = (sensors.board(), CancellationToken::new());
        let running = tokio::spawn(sensors.run(stop.clone()));
        Self { dir, outbox, ended, mouth, board, capture, stop, running }
    }

    /// Stores scans until there is no room; how many.
    async fn fill(&self) -> i64 {
        let mut big = scan("BIG");
        big.content.note = Some("n".repeat(500));
        let mut scans = 0;
        while self.outbox.store(big.clone()).await.is_ok() {
            scans += 1;
        }
        scans
    }

    fn readings(&self) -> i64 {
        ask(self.dir.path(), "select count(*) from reading").unwrap_or_default()
    }

    /// What the cloud will hear of the sensor, in order.
    fn told(&self) -> String {
        let sql = "select group_concat(kind || ' ' || (body ->> 'reason'), ', ' order by id) from event";
        ask(self.dir.path(), sql).unwrap_or_default()
    }

    fn state(&self) -> SensorState {
        self.board.views()[0].state
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        self.outbox.close().await;
        self.ended.wait().await.unwrap();
    }
}

fn ask<T: rusqlite::types::FromSql>(dir: &Path, sql: &str) -> Option<T> {
    let conn = rusqlite::Connection::open(dir.join(DATABASE)).unwrap();
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_sensors_values_are_stored_turn_after_turn_and_shown() {
    let stand = Stand::new(fine(), 0);
    eventually("several turns are stored", || stand.readings() >= 6).await;
    let sql = "select series || ' ' || value || ' ' || unit || ' ' || quality from reading where id = 2";
    assert_eq!(ask::<String>(stand.dir.path(), sql).unwrap(), "s/humidity 70.0 %RH 0");
    assert_eq!(stand.told(), "sensor_up started");
    let view = &stand.board.views()[0];
    assert_eq!((view.state, view.error, view.values.len()), (SensorState::Ok, None, 2));
    let read = stand.board.read("s").await.unwrap().unwrap();
    assert_eq!((read.values[0].series.as_str(), read.values[0].value), ("s/temperature", 4.5));
    assert!(stand.board.read("t").await.is_none());
    stand.end().await;
}

#[tokio::test]
async fn a_sensor_that_dies_is_told_once_and_so_is_its_return() {
    let stand = Stand::new(fine(), 0);
    eventually("it was read", || stand.readings() > 0).await;
    stand.mouth.says(Some(Err(SensorError::Absent)));
    eventually("it is down", || stand.told().ends_with("sensor_down absent")).await;
    assert_eq!(stand.state(), SensorState::Down);
    let errors = stand.capture.metrics.text(&snapshot());
    assert!(errors.contains("lumbung_gateway_sensor_up{sensor=\"s\"} 0"), "{errors}");
    let before = stand.readings();
    stand.mouth.says(fine());
    eventually("it is read again", || stand.readings() > before + 4).await;
    assert_eq!(stand.told(), "sensor_up started, sensor_down absent, sensor_up answers_again");
    assert_eq!(stand.state(), SensorState::Ok);
    stand.end().await;
}

#[tokio::test]
async fn a_sensor_that_is_not_there_at_the_start_is_told() {
    let stand = Stand::new(Some(Err(SensorError::Checksum)), 0);
    eventually("it is down", || stand.told() == "sensor_down checksum").await;
    assert_eq!(stand.board.views()[0].error, Some("checksum"));
    stand.end().await;
}

#[tokio::test]
async fn two_failures_in_a_row_are_not_a_death() {
    let stand = Stand::new(Some(Err(SensorError::Late)), 0);
    // The third attempt comes two pauses later; by then it answers.
    eventually("it fails", || stand.state() == SensorState::Failing).await;
    stand.mouth.says(fine());
    eventually("it is read", || stand.readings() > 0).await;
    assert!(!stand.told().contains("sensor_down"), "{}", stand.told());
    stand.end().await;
}

#[tokio::test]
async fn values_that_a_full_store_refused_are_told_as_missed_when_there_is_room() {
    let stand = Stand::new(None, 400_000);
    let scans = stand.fill().await;
    stand.mouth.says(fine());
    eventually("it is said", || stand.board.views()[0].unstored).await;
    assert_eq!((stand.readings(), stand.state()), (0, SensorState::Ok));
    let refused = || stand.capture.metrics.text(&snapshot()).contains("outcome=\"storage_full\"} 5");
    eventually("it was refused several times", refused).await;
    // What the store refuses is not held against the sensor.
    stand.mouth.says(Some(Err(SensorError::Late)));
    eventually("it is down", || stand.state() == SensorState::Down).await;
    let text = stand.capture.metrics.text(&snapshot());
    let failed = text.lines().find_map(|line| line.strip_suffix(" 1").filter(|l| l.contains("\"late\"")));
    assert_eq!(failed, None, "one failure is not a death");
    stand.mouth.says(fine());
    stand.outbox.settle(settled(1, scans)).await.unwrap();
    stand.outbox.maintain(None).await.unwrap();
    eventually("readings are stored again", || stand.readings() > 2).await;
    eventually("it is told", || stand.told().contains("readings_missed storage_full")).await;
    assert!(!stand.board.views()[0].unstored);
    stand.end().await;
}

#[tokio::test]
async fn what_found_no_room_is_told_when_there_is_some() {
    let stand = Stand::of("report_change = { temperature = 50, humidity = 50 }", None, 400_000);
    let scans = stand.fill().await;
    stand.mouth.says(fine());
    eventually("the first value is refused", || stand.board.views()[0].unstored).await;
    stand.outbox.settle(settled(1, scans)).await.unwrap();
    stand.outbox.maintain(None).await.unwrap();
    eventually("it is stored although it has not changed", || stand.readings() == 2).await;
    stand.end().await;

    let stand = Stand::new(None, 400_000);
    let scans = stand.fill().await;
    stand.mouth.says(Some(Err(SensorError::Absent)));
    eventually("it is down", || stand.state() == SensorState::Down).await;
    assert_eq!(stand.told(), "");
    stand.outbox.settle(settled(1, scans)).await.unwrap();
    stand.outbox.maintain(None).await.unwrap();
    eventually("its death is told", || stand.told() == "sensor_down absent").await;
    stand.end().await;
}

#[tokio::test]
async fn a_sensor_whose_bus_is_stuck_does_not_hold_up_the_end() {
    let stand = Stand::new(None, 0);
    let mouth = stand.mouth.clone();
    tokio::task::yield_now().await;
    stand.end().await;
    mouth.says(fine());
}

#[tokio::test]
async fn a_bus_whose_thread_panicked_ends_the_loop() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, _ended) = open(&settings(dir.path()));
    let capture = Capture {
        outbox,
        clock: Arc::default(),
        doorbell: Arc::default(),
        signal: Arc::new(LoggedSignal),
        metrics: Arc::default(),
    };
    let opener: Opener = Box::new(|| panic!("as a test wants it"));
    let sensors = SensorLoop::over(vec![(plan(""), opener)], capture).unwrap();
    assert!(sensors.run(CancellationToken::new()).await.is_err());
}

pub(in crate::capture) fn snapshot() -> crate::metrics::Snapshot {
    crate::metrics::Snapshot {
        unsent: Vec::new(),
        oldest_seconds: 0.0,
        parked: 0,
        quarantined: 0,
        clock: lumbung_shared::time::ClockState::Held,
        disk_free: None,
        disk_full: false,
    }
}
