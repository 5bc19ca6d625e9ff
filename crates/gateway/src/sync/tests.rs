//! The loop against a small cloud that answers as it is told.

use super::*;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::identity::{Enrolment, Identity, IdentityFile, Key, Site};
use crate::outbox::tests::{reading, scan, settings};
use crate::outbox::{Ended, Outbox, RecordState, Stream};
use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use lumbung_shared::wire::{
    Answer, Batch, Held, READING_STREAM, RunAnswer, SCAN_STREAM, StreamAnswer, read_readings, read_scans,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What one batch held, and when and with which key it came.
#[derive(Debug, Clone)]
struct Seen {
    tags: Vec<String>,
    readings: Vec<f64>,
    starts: usize,
    key: String,
    at: Instant,
    unsent: u64,
}

enum Reply {
    Accept,
    Status(u16),
    /// Not the cloud's own answer.
    Stranger(u16),
    Later(u16, u64),
    Text(&'static str),
}

type Script = Box<dyn FnMut(&Seen) -> Reply + Send>;

/// A cloud that remembers every batch and answers by script.
struct Cloud {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<std::io::Result<()>>,
}

struct Behind {
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<Script>>,
}

impl Cloud {
    fn start(script: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0", script)
    }

    fn start_at(address: &str, script: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        let seen = Arc::new(Mutex::default());
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let behind = Data::new(Behind { seen: Arc::clone(&seen), script: Arc::clone(&script) });
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::clone(&behind))
                .app_data(web::PayloadConfig::new(8 << 20))
                .default_service(web::to(answer))
        })
        .workers(1)
        .disable_signals()
        .bind(address)
        .unwrap();
        Self {
            address: format!("http://{}", server.addrs()[0]),
            seen,
            script,
            server: tokio::spawn(server.run()),
        }
    }

    fn now_answers(&self, script: impl FnMut(&Seen) -> Reply + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(request: HttpRequest, body: Bytes, behind: Data<Behind>) -> HttpResponse {
    if request.path() == "/api/gateways/signing_key" {
        // As a cloud answers that is too old for it.
        return HttpResponse::NotFound().finish();
    }
    assert_eq!(request.path(), "/api/sync_gateway_data");
    assert_eq!(request.headers().get("content-encoding").unwrap(), "zstd");
    let json = zstd::bulk::decompress(&body, 8 << 20).unwrap();
    let batch: Batch = serde_json::from_slice(&json).unwrap();
    let mut tags = Vec::new();
    let mut values = Vec::new();
    let mut runs = Vec::new();
    for run in &batch.runs {
        let mut streams = BTreeMap::new();
        for segment in run.streams.get(SCAN_STREAM).into_iter().flatten() {
            let mut last = 0;
            for scan in read_scans(segment, &batch.statuses).unwrap() {
                let scan = scan.unwrap();
                last = scan.seq;
                tags.push(scan.content.tag.into_string());
            }
            let verdicts =
                StreamAnswer { acked_through: last, exceptions: Vec::new(), held: Held::default() };
            streams.insert(SCAN_STREAM.to_owned(), verdicts);
        }
        for segment in run.streams.get(READING_STREAM).into_iter().flatten() {
            let read: Vec<_> = read_readings(segment).unwrap().into_iter().map(Result::unwrap).collect();
            let acked_through = read.last().unwrap().seq;
            values.extend(read.into_iter().map(|reading| reading.content.value));
            let verdicts = StreamAnswer { acked_through, exceptions: Vec::new(), held: Held::default() };
            streams.insert(READING_STREAM.to_owned(), verdicts);
        }
        runs.push(RunAnswer { epoch: run.epoch, streams });
    }
    let seen = Seen {
        tags,
        readings: values,
        starts: batch.runs.iter().filter(|run| run.start.is_some()).count(),
        key: request.headers().get("authorization").unwrap().to_str().unwrap().to_owned(),
        at: Instant::now(),
        unsent: batch.health.as_ref().unwrap().unsent[SCAN_STREAM],
    };
    let reply = (behind.script.lock().unwrap())(&seen);
    behind.seen.lock().unwrap().push(seen);
    let status = |code| HttpResponse::build(StatusCode::from_u16(code).unwrap());
    match reply {
        Reply::Accept => HttpResponse::Ok().json(Answer {
            protocol: 1,
            server_time: "2026-11-21T00:00:00Z".into(),
            gateway_id: "GW-1".into(),
            runs,
            retry_after: None,
            alarms: Vec::new(),
        }),
        Reply::Status(code) => status(code).body(r#"{"error":{"code":"refused","message":""}}"#),
        Reply::Stranger(code) => status(code).body("<html>Bad Request</html>"),
        Reply::Later(code, seconds) => status(code).insert_header(("retry-after", seconds)).body("{}"),
        Reply::Text(text) => HttpResponse::Ok().body(text),
    }
}

/// A gateway's store and sync, without the rest.
struct Gateway {
    outbox: Outbox,
    handle: Arc<SyncHandle>,
    identity: IdentityFile,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _ended: Ended,
    dir: tempfile::TempDir,
}

fn identity(cloud_url: &str, key: Key) -> Identity {
    Identity {
        enrolled: Some(Enrolment {
            gateway_id: "GW-1".into(),
            site: Site { code: "DAPUR-1".into(), name: "Dapur".into(), time_zone: "Asia/Jakarta".into() },
            cloud_url: cloud_url.into(),
            key,
            enrolled_at: "2026-11-21T00:00:00Z".into(),
        }),
        pending: None,
    }
}

fn quick(dir: &Path) -> config::Sync {
    let mut sync = Config::load(None, Some(dir.to_owned())).unwrap().sync;
    // Nothing in these tests happens because an hour has passed.
    sync.interval = Duration::from_secs(3_600);
    sync.probe_interval = Duration::from_millis(20);
    sync.backoff_base = Duration::from_millis(5);
    sync.backoff_max = Duration::from_millis(20);
    sync.request_timeout = Duration::from_secs(5);
    sync
}

impl Gateway {
    /// Stores `tags` and starts to send them to `url`.
    async fn start(url: &str, tags: &[&str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Clock::default());
        let (outbox, ended) = Outbox::open(&settings(dir.path()), clock.now()).unwrap();
        for tag in tags {
            outbox.store(scan(tag)).await.unwrap();
        }
        let file = IdentityFile::in_dir(dir.path());
        file.write(&identity(url, Key::draw().unwrap())).unwrap();
        let handle = Arc::new(SyncHandle::default());
        let config = quick(dir.path());
        let worker = SyncWorker {
            outbox: outbox.clone(),
            clock: Arc::clone(&clock),
            handle: Arc::clone(&handle),
            metrics: Arc::default(),
            reader: Arc::default(),
            board: Arc::default(),
            identity: file.clone(),
            client: http_client("", config.request_timeout, Arc::clone(&clock)).unwrap(),
            config,
            cloud_url: String::new(),
        };
        let stop = CancellationToken::new();
        let running = worker.run(stop.clone());
        Self {
            outbox,
            handle,
            identity: file,
            stop,
            task: tokio::spawn(async move { running.await.unwrap() }),
            _ended: ended,
            dir,
        }
    }

    async fn scan(&self, tag: &str) {
        self.outbox.store(scan(tag)).await.unwrap();
        self.handle.doorbell().notify_one();
    }

    fn unsent(&self) -> u64 {
        self.outbox.gauges().unsent(Stream::Scan)
    }

    async fn drained(&self) {
        eventually("everything is sent", || self.unsent() == 0).await;
    }

    /// What the flag says in the database, by tag.
    async fn flags(&self) -> BTreeMap<String, RecordState> {
        let rows = self.outbox.recent(10_000).await.unwrap();
        rows.into_iter().map(|row| (row.nfc_tag_id, row.state)).collect()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.outbox.close().await;
    }
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

fn arrived(cloud: &Cloud) -> Vec<String> {
    cloud.seen().into_iter().flat_map(|seen| seen.tags).collect()
}

#[tokio::test]
async fn a_new_scan_is_sent_at_once_and_flagged() {
    let cloud = Cloud::start(|_| Reply::Accept);
    let gateway = Gateway::start(&cloud.address, &[]).await;
    eventually("the run is announced", || cloud.seen().iter().any(|seen| seen.starts == 1)).await;
    gateway.scan("A").await;
    gateway.drained().await;
    assert_eq!(gateway.flags().await["A"], RecordState::Sent);
    let seen = cloud.seen();
    assert_eq!(seen.last().unwrap().tags, ["A"]);
    assert_eq!((seen.last().unwrap().starts, seen.last().unwrap().unsent), (0, 1));
    eventually("the view is calm", || gateway.handle.view().state == SyncState::Idle).await;
    assert!(gateway.handle.view().last_sent_at.is_some());
    gateway.stop().await;
}

#[tokio::test]
async fn a_backlog_drains_back_to_back_in_growing_batches() {
    let cloud = Cloud::start(|_| Reply::Accept);
    let tags: Vec<String> = (0..3_000).map(|i| format!("T{i}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let gateway = Gateway::start(&cloud.address, &tags).await;
    gateway.drained().await;
    let sizes: Vec<usize> = cloud.seen().iter().map(|seen| seen.tags.len()).collect();
    assert_eq!(sizes, [500, 1_000, 1_500]);
    assert_eq!(arrived(&cloud), tags, "oldest first");
    gateway.stop().await;
}

#[tokio::test]
async fn an_unreachable_cloud_is_tried_again_until_it_is_there() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::start(&format!("http://{address}"), &["A", "B"]).await;
    eventually("it backs off", || gateway.handle.view().state == SyncState::BackingOff).await;
    assert!(gateway.handle.view().last_answer.unwrap().status.is_none());
    let cloud = Cloud::start_at(&address.to_string(), |_| Reply::Accept);
    gateway.drained().await;
    assert_eq!(arrived(&cloud), ["A", "B"]);
    gateway.stop().await;
}

#[tokio::test]
async fn failures_of_the_cloud_cost_nothing() {
    for status in [408, 500, 502, 503, 404, 302] {
        let mut left = 3;
        let cloud = Cloud::start(move |_| match left {
            0 => Reply::Accept,
            _ => {
                left -= 1;
                Reply::Status(status)
            }
        });
        let gateway = Gateway::start(&cloud.address, &["A"]).await;
        gateway.drained().await;
        assert_eq!(cloud.seen().len(), 4, "{status}");
        assert_eq!(gateway.outbox.gauges().parked(), 0);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn retry_after_is_kept_even_when_scans_arrive() {
    let mut first = true;
    let cloud = Cloud::start(move |_| match std::mem::take(&mut first) {
        true => Reply::Later(429, 1),
        false => Reply::Accept,
    });
    let gateway = Gateway::start(&cloud.address, &["A"]).await;
    eventually("the first answer came", || gateway.handle.view().state == SyncState::BackingOff).await;
    gateway.scan("B").await;
    gateway.handle.send_now();
    gateway.drained().await;
    let seen = cloud.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1), "{:?}", seen[1].at - seen[0].at);
    gateway.stop().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_or_settles_nothing_is_a_failure() {
    for text in [
        "<html>welcome to the hotel</html>",
        r#"{"protocol":1,"server_time":"","gateway_id":"GW-1","runs":[]}"#,
    ] {
        let mut left = 3;
        let cloud = Cloud::start(move |_| match left {
            0 => Reply::Accept,
            _ => {
                left -= 1;
                Reply::Text(text)
            }
        });
        let gateway = Gateway::start(&cloud.address, &["A"]).await;
        eventually("it is seen as a failure", || gateway.handle.view().state == SyncState::BackingOff).await;
        gateway.drained().await;
        assert_eq!(cloud.seen().len(), 4);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_batch_too_large_is_halved_until_it_fits() {
    let cloud = Cloud::start(|seen| match seen.tags.len() > 100 {
        true => Reply::Status(413),
        false => Reply::Accept,
    });
    let tags: Vec<String> = (0..400).map(|i| format!("T{i}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let gateway = Gateway::start(&cloud.address, &tags).await;
    gateway.drained().await;
    assert_eq!(gateway.outbox.gauges().parked(), 0);
    let sizes: Vec<usize> = cloud.seen().iter().map(|seen| seen.tags.len()).collect();
    assert_eq!(sizes, [400, 200, 100, 100, 100, 100]);
    gateway.stop().await;
}

#[tokio::test]
async fn the_one_record_that_spoils_a_batch_is_parked_and_can_be_sent_later() {
    for status in [400, 422, 413] {
        let cloud = Cloud::start(move |seen| match seen.tags.iter().any(|tag| tag == "RACUN") {
            true => Reply::Status(status),
            false => Reply::Accept,
        });
        let gateway = Gateway::start(&cloud.address, &["A", "B", "RACUN", "C", "D"]).await;
        eventually("it is parked", || gateway.outbox.gauges().parked() == 1).await;
        gateway.drained().await;
        let flags = gateway.flags().await;
        assert_eq!(flags["RACUN"], RecordState::Parked);
        assert!(flags.iter().all(|(tag, state)| tag == "RACUN" || *state == RecordState::Sent));
        let parked = gateway.outbox.parked(10).await.unwrap();
        assert_eq!(parked[0].nfc_tag_id.as_deref(), Some("RACUN"));

        cloud.now_answers(|_| Reply::Accept);
        assert_eq!(gateway.outbox.release(None).await.unwrap(), 1);
        gateway.handle.send_now();
        gateway.drained().await;
        assert_eq!(gateway.flags().await["RACUN"], RecordState::Sent);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_refusal_by_something_on_the_way_parks_nothing() {
    for status in [400, 422] {
        let cloud = Cloud::start(move |seen| match seen.tags.is_empty() {
            false => Reply::Stranger(status),
            true => Reply::Accept,
        });
        let gateway = Gateway::start(&cloud.address, &["A"]).await;
        eventually("it was tried often", || cloud.seen().len() > 4).await;
        assert_eq!((gateway.outbox.gauges().parked(), gateway.unsent()), (0, 1));
        cloud.now_answers(|_| Reply::Accept);
        gateway.drained().await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn another_cloud_is_told_how_the_runs_of_unsent_scans_began() {
    let old = Cloud::start(|_| Reply::Accept);
    let gateway = Gateway::start(&old.address, &["A"]).await;
    gateway.drained().await;
    let new = Cloud::start(|_| Reply::Accept);
    gateway.identity.write(&identity(&new.address, Key::draw().unwrap())).unwrap();
    gateway.scan("B").await;
    eventually("the new cloud has it", || arrived(&new) == ["B"] || arrived(&old).len() > 1).await;
    gateway.drained().await;
    gateway.handle.send_now();
    eventually("the new cloud was told", || new.seen().iter().any(|seen| seen.starts == 1)).await;
    gateway.stop().await;
}

#[tokio::test]
async fn an_identity_that_cannot_be_read_does_not_make_the_loop_spin() {
    let cloud = Cloud::start(|_| Reply::Accept);
    let gateway = Gateway::start(&cloud.address, &["A"]).await;
    gateway.drained().await;
    std::fs::write(gateway.identity.path(), "{").unwrap();
    gateway.scan("B").await;
    gateway.drained().await;
    let before = cloud.seen().len();
    for round in 1..=3 {
        gateway.handle.send_now();
        eventually("it asks when told to", || cloud.seen().len() >= before + round).await;
    }
    assert!(cloud.seen().len() <= before + 4, "{} requests", cloud.seen().len());
    gateway.stop().await;
}

#[tokio::test]
async fn a_cloud_that_refuses_every_envelope_makes_nothing_parked() {
    let cloud = Cloud::start(|_| Reply::Status(400));
    let gateway = Gateway::start(&cloud.address, &["A", "B", "C"]).await;
    eventually("it has asked with an empty batch more than once", || {
        cloud.seen().iter().filter(|seen| seen.tags.is_empty()).count() > 2
    })
    .await;
    assert_eq!((gateway.outbox.gauges().parked(), gateway.unsent()), (0, 3));
    cloud.now_answers(|_| Reply::Accept);
    gateway.drained().await;
    assert_eq!(gateway.flags().await.len(), 3);
    gateway.stop().await;
}

#[tokio::test]
async fn a_refused_key_keeps_everything_and_sends_only_questions_until_there_is_another() {
    for (status, state) in [(401, SyncState::Unauthorised), (403, SyncState::Revoked)] {
        let fresh = Key::draw().unwrap();
        let welcome = format!("Bearer {}", fresh.reveal());
        let cloud = Cloud::start(move |seen| match seen.key == welcome {
            true => Reply::Accept,
            false => Reply::Status(status),
        });
        let gateway = Gateway::start(&cloud.address, &["A", "B"]).await;
        eventually("it is shown", || gateway.handle.view().state == state).await;
        gateway.scan("C").await;
        eventually("it has asked again", || cloud.seen().len() > 4).await;
        assert_eq!(gateway.unsent(), 3);
        assert!(cloud.seen()[1..].iter().all(|seen| seen.tags.is_empty()), "records went out again");
        gateway.identity.write(&identity(&cloud.address, fresh)).unwrap();
        gateway.drained().await;
        assert_eq!(gateway.flags().await.len(), 3);
        assert!(gateway.dir.path().exists());
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_gateway_without_identity_waits_for_one() {
    let cloud = Cloud::start(|_| Reply::Accept);
    let gateway = Gateway::start(&cloud.address, &[]).await;
    gateway.identity.write(&Identity::default()).unwrap();
    gateway.handle.send_now();
    eventually("it says so", || gateway.handle.view().state == SyncState::NotEnrolled).await;
    gateway.scan("A").await;
    gateway.identity.write(&identity(&cloud.address, Key::draw().unwrap())).unwrap();
    gateway.drained().await;
    gateway.stop().await;
}

#[tokio::test]
async fn readings_travel_behind_the_scans_and_the_one_that_spoils_a_batch_is_parked() {
    let cloud = Cloud::start(|seen| match seen.readings.contains(&666.0) {
        true => Reply::Status(422),
        false => Reply::Accept,
    });
    let gateway = Gateway::start("http://127.0.0.1:9", &["A", "B"]).await;
    let mut values: Vec<f64> = (0..300).map(f64::from).collect();
    values[200] = 666.0;
    let readings = values.iter().map(|value| reading("kulkas-1/temperature", *value));
    gateway.outbox.store_readings(readings.collect(), None).await.unwrap();
    gateway.identity.write(&identity(&cloud.address, Key::draw().unwrap())).unwrap();
    gateway.drained().await;
    eventually("it is parked", || gateway.outbox.gauges().parked() == 1).await;
    eventually("the others are sent", || gateway.outbox.gauges().unsent(Stream::Reading) == 0).await;
    let parked = gateway.outbox.parked(10).await.unwrap();
    assert_eq!((parked[0].record.stream.as_str(), parked[0].record.seq), ("reading", 201));
    let accepted: Vec<f64> = cloud
        .seen()
        .iter()
        .filter(|seen| !seen.readings.contains(&666.0))
        .flat_map(|s| s.readings.clone())
        .collect();
    values.remove(200);
    assert_eq!(accepted, values, "each once, oldest first");
    assert_eq!(cloud.seen()[0].tags, ["A", "B"]);
    // After an update, or by hand, it gets another chance.
    cloud.now_answers(|_| Reply::Accept);
    assert_eq!(gateway.outbox.release(None).await.unwrap(), 1);
    gateway.handle.send_now();
    eventually("it is sent", || gateway.outbox.gauges().unsent(Stream::Reading) == 0).await;
    gateway.stop().await;
}
