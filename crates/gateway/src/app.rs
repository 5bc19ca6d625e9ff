//! The whole program put together: `build` opens and binds, `run` runs until it is told to stop.
//!
//! Its parts run under one token. When any of them ends, even by a panic, the rest is stopped in order:
//! first nobody may bring scans any more, then nothing is sent any more, and the store closes last.

use crate::board::Board;
use crate::capture::mqtt::{MapError, MqttHealth, MqttLoop, MqttMaps};
use crate::capture::sensors::SensorLoop;
use crate::capture::{Action, Capture, ClockLoop, ReaderLoop};
use crate::clock::{Clock, ClockFile, boot_id};
use crate::config::{Config, ConfigError, ReaderKind, TagIdentity};
use crate::hardware::pn532::{Link, Naming, Pn532Reader, Settings as Pn532Settings};
use crate::hardware::{
    Lights, LoggedSignal, PinError, Pins, ReaderHealth, Signal, SimulatedReader, TagReader, output,
    reset_line,
};
use crate::housekeeping::Housekeeping;
use crate::http::{self, Api, Gate, PhoneDoor};
use crate::identity::IdentityFile;
use crate::metrics::Metrics;
use crate::outbox::{Ended, OpenError, Outbox, Settings, last_moment};
use crate::phones::{CertificateError, Phones};
use crate::sync::{ClientError, Receipts, SyncHandle, SyncWorker, http_client};
use crate::watchdog::{self, Watchdog};
use actix_web::dev::Server;
use actix_web::web::Data;
use lumbung_shared::tag::TagId;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest that the PN532 may look for tags at once; without one it says so after about 0.1 s.
const POLL_DEADLINE: Duration = Duration::from_millis(500);

/// Why the program could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("http.listen: {address} cannot be listened on: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("lan.listen: {address} cannot be listened on: {error}")]
    ListenLan { address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("reader.{kind}.{error}")]
    Reader { kind: &'static str, error: lumbung_shared::FieldError },
    #[error(transparent)]
    Sensor(#[from] ConfigError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Mqtt(#[from] MapError),
    #[error("mqtt: the session with the broker cannot be remembered: {0}")]
    MqttSession(std::io::Error),
    #[error("a thread could not be started: {0}")]
    Thread(String),
}

/// A part ended that should have gone on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} has ended: {reason}")]
pub struct Broken {
    pub part: &'static str,
    pub reason: String,
}

/// A gateway that is ready to run.
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    workers: usize,
    api: Data<Api>,
    phone_door: Option<PhoneDoor>,
    worker: SyncWorker,
    reader: Option<ReaderLoop>,
    mqtt: Option<MqttLoop>,
    sensors: SensorLoop,
    clock: ClockLoop,
    watchdog: Watchdog,
    housekeeping: Housekeeping,
    outbox: Outbox,
    ended: Ended,
}

/// Opens the store, begins a run and binds the address. Nothing is served yet.
pub async fn build(config: Config) -> Result<Gateway, BuildError> {
    let device = device(&config)?;
    let signal = signal(&config)?;
    let maps = MqttMaps::parse(&config.mqtt.map)?;
    let sensors = config.sensor_plans()?;
    let unbound = |error| BuildError::Listen { address: config.http.listen, error };
    // Before the store: a port that is taken must not begin a run.
    let listener = TcpListener::bind(config.http.listen).map_err(unbound)?;
    let address = listener.local_addr().map_err(unbound)?;
    let lan = config
        .lan
        .listen
        .map(|address| TcpListener::bind(address).map_err(|error| BuildError::ListenLan { address, error }));
    let lan = lan.transpose()?;
    let identity = IdentityFile::in_dir(&config.data_dir);
    let dir = config.data_dir.clone();
    let clock = tokio::task::spawn_blocking(move || Arc::new(clock_of(&dir)))
        .await
        .map_err(|error| BuildError::Thread(error.to_string()))?;
    let client = http_client(&config.cloud.ca_file, config.sync.request_timeout, Arc::clone(&clock))?;
    let settings = store_settings(&config, &identity);
    let now = clock.now();
    let (outbox, ended) = tokio::task::spawn_blocking(move || Outbox::open(&settings, now))
        .await
        .map_err(|error| BuildError::Thread(error.to_string()))??;

    let (sync, metrics) = (Arc::new(SyncHandle::default()), Arc::new(Metrics::default()));
    let health = Arc::new(ReaderHealth::default());
    let capture = Capture {
        outbox: outbox.clone(),
        clock: Arc::clone(&clock),
        doorbell: sync.doorbell(),
        signal,
        metrics: Arc::clone(&metrics),
    };
    let (action, reader) = match device {
        Some(Device { kind, status, reader }) => {
            // Until it has answered once.
            health.down();
            let action = Action::in_dir(&config.data_dir, &status);
            let action = Arc::new(action.map_err(|error| BuildError::Reader { kind, error })?);
            let reader = ReaderLoop {
                reader,
                kind,
                health: Arc::clone(&health),
                action: Arc::clone(&action),
                give_up_after: config.reader.give_up_after,
                capture: capture.clone(),
            };
            (Some(action), Some(reader))
        }
        None => (None, None),
    };
    let broker = Arc::new(MqttHealth::new(Arc::clone(&metrics)));
    let mqtt = if config.mqtt.broker.is_empty() {
        None
    } else {
        let (dir, health) = (config.data_dir.clone(), Arc::clone(&broker));
        let mqtt = MqttLoop::new(config.mqtt, maps, dir, health, capture.clone());
        Some(mqtt.map_err(BuildError::MqttSession)?)
    };
    let board = Arc::new(Board::new(&config.data_dir, boot_id()));
    let watchdog = Watchdog::over(outbox.clone(), reader.is_some().then(|| Arc::clone(&health)));
    let sensors =
        SensorLoop::new(sensors, capture.clone()).map_err(|error| BuildError::Thread(error.to_string()))?;
    let clock_loop = ClockLoop::over(capture.clone(), ClockFile::in_dir(&config.data_dir, &boot_id()));
    let receipts = Receipts::in_dir(&config.data_dir, outbox.clone(), Arc::clone(&clock));
    let worker = SyncWorker {
        outbox: outbox.clone(),
        clock: Arc::clone(&clock),
        handle: Arc::clone(&sync),
        metrics: Arc::clone(&metrics),
        reader: Arc::clone(&health),
        board: Arc::clone(&board),
        identity,
        client,
        config: config.sync,
        cloud_url: config.cloud.url,
    };
    let dir = config.data_dir;
    let opened = tokio::task::spawn_blocking(move || {
        let door = lan.map(|listener| PhoneDoor::new(listener, &dir)).transpose()?;
        Ok::<_, CertificateError>((Phones::in_dir(&dir), door))
    });
    let (phones, phone_door) = opened.await.map_err(|error| BuildError::Thread(error.to_string()))??;
    let phones = Arc::new(phones);
    let housekeeping = Housekeeping {
        board: Arc::clone(&board),
        capture: capture.clone(),
        outbox: outbox.clone(),
        clock: Arc::clone(&clock),
        phones: Arc::clone(&phones),
        keep_synced: config.storage.keep_synced,
    };
    let api = Data::new(Api {
        phones,
        gate: Arc::new(Gate::default()),
        lan: phone_door.as_ref().map(PhoneDoor::lan),
        capture,
        outbox: outbox.clone(),
        clock,
        sync,
        receipts,
        metrics,
        board,
        reader: health,
        mqtt: broker,
        action,
        series_prefix: config.http.series_prefix,
        sensors: sensors.board(),
        listen: address,
        field_manual: config.lan.field_manual,
    });
    Ok(Gateway {
        listener,
        address,
        phone_door,
        workers: config.http.workers,
        api,
        worker,
        reader,
        mqtt,
        sensors,
        clock: clock_loop,
        watchdog,
        housekeeping,
        outbox,
        ended,
    })
}

/// The clock of a gateway that has been before: it goes on from the last that is known in its directory. Blocks.
pub(crate) fn clock_of(dir: &Path) -> Clock {
    Clock::knowing(&ClockFile::in_dir(dir, &boot_id()).recall(last_moment(dir).as_ref()))
}

/// How this gateway's store is opened.
pub fn store_settings(config: &Config, identity: &IdentityFile) -> Settings {
    Settings {
        dir: config.data_dir.clone(),
        max_bytes: config.storage.max_bytes,
        reserve_bytes: config.storage.reserve_bytes,
        site: site(identity),
        boot: boot_id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Where the gateway believes it stands. Scans are stored whether that can be read or not.
fn site(identity: &IdentityFile) -> Option<String> {
    match identity.read() {
        Ok(identity) => identity.enrolled.map(|enrolment| enrolment.site.code),
        Err(error) => {
            tracing::error!(%error, "the identity cannot be read; scans are stored and wait");
            None
        }
    }
}

/// A tag reader as it is configured.
struct Device {
    kind: &'static str,
    status: String,
    reader: Box<dyn TagReader>,
}

fn device(config: &Config) -> Result<Option<Device>, BuildError> {
    match config.reader.kind {
        ReaderKind::None => Ok(None),
        ReaderKind::Simulated => {
            let simulated = &config.reader.simulated;
            let tags = simulated.tags.iter().map(|tag| TagId::parse(tag)).collect::<Result<_, _>>();
            let tags = tags.map_err(|error| BuildError::Reader { kind: "simulated", error })?;
            let reader = Box::new(SimulatedReader::new(tags, simulated.interval));
            Ok(Some(Device { kind: "simulated", status: simulated.status.clone(), reader }))
        }
        ReaderKind::Pn532 => {
            let pn532 = &config.reader.pn532;
            let address = pn532.link.clone();
            let reset = pn532.reset_pin.map(|pin| reset_line("reader.pn532.reset_pin", pin)).transpose()?;
            let settings = Pn532Settings {
                naming: match config.reader.identity {
                    TagIdentity::Uid => Naming::Uid,
                    TagIdentity::NdefOrUid => Naming::NdefOrUid,
                },
                debounce: config.reader.debounce,
                poll_interval: pn532.poll_interval,
                poll_deadline: POLL_DEADLINE,
                probe_interval: pn532.probe_interval,
            };
            let reader = Box::new(Pn532Reader::new(settings, move || Link::open(&address), reset));
            Ok(Some(Device { kind: "pn532", status: pn532.status.clone(), reader }))
        }
    }
}

fn signal(config: &Config) -> Result<Arc<dyn Signal>, BuildError> {
    let wired = &config.signal;
    let pin = |setting, pin: Option<u8>| pin.map(|pin| output(setting, pin, wired.active_low)).transpose();
    let pins = Pins {
        green: pin("signal.green_pin", wired.green_pin)?,
        red: pin("signal.red_pin", wired.red_pin)?,
        buzzer: pin("signal.buzzer_pin", wired.buzzer_pin)?,
    };
    if pins.green.is_none() && pins.red.is_none() && pins.buzzer.is_none() {
        return Ok(Arc::new(LoggedSignal));
    }
    Ok(Arc::new(Lights::start(pins).map_err(|error| BuildError::Thread(error.to_string()))?))
}

impl Gateway {
    /// The address that is bound; its port is the real one when the configuration said 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until `stop`. An error when a part ended by itself; everything is stopped by then.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Broken> {
        let Self {
            listener,
            address,
            phone_door,
            workers,
            api,
            worker,
            reader,
            mqtt,
            sensors,
            clock,
            watchdog,
            housekeeping,
            outbox,
            ended,
        } = self;
        let plain = http::serve(Data::clone(&api), listener, workers);
        let mut server = Part::start("the local API", |stop| serve(plain, stop));
        let tls = phone_door.map(|door| door.serve(api));
        let mut lan = Part::start("the API for phones", |stop| serve_phones(tls, stop));
        let mut taps = Part::start("the tag reader", |stop| listen(reader, stop));
        let mut mqtt = Part::start("the MQTT client", |stop| subscribe(mqtt, stop));
        let mut sensors = Part::start("the sensors", |stop| sensors.run(stop));
        let mut clock = Part::start("the clock", |stop| clock.run(stop));
        let mut sync = Part::start("the sync", |stop| send(worker, stop));
        let mut keeper = Part::start("the housekeeping", |stop| keep(housekeeping, stop));
        let mut store = Part::start("the store", |_| closed(ended));
        let mut watchdog = Part::start("the watchdog", |stop| watchdog.run(stop));
        tracing::info!(%address, "Gateway siap menerima scan");

        let broken = tokio::select! {
            () = stop.cancelled() => None,
            broken = server.ended() => Some(broken),
            broken = lan.ended() => Some(broken),
            broken = taps.ended() => Some(broken),
            broken = mqtt.ended() => Some(broken),
            broken = sensors.ended() => Some(broken),
            broken = clock.ended() => Some(broken),
            broken = sync.ended() => Some(broken),
            broken = keeper.ended() => Some(broken),
            broken = store.ended() => Some(broken),
            broken = watchdog.ended() => Some(broken),
        };
        match &broken {
            Some(broken) => tracing::error!(%broken, "stopping everything"),
            None => tracing::info!("stopping"),
        }
        watchdog::stopping();
        let bringing = [&mut lan, &mut server, &mut taps, &mut mqtt, &mut sensors];
        for part in [&mut watchdog].into_iter().chain(bringing) {
            part.stop().await;
        }
        for part in [&mut sync, &mut clock, &mut keeper] {
            part.stop().await;
        }
        outbox.close().await;
        drop(outbox);
        // A store that failed is the reason, whichever part noticed it first.
        let end = store.stop().await;
        match end.or(broken) {
            Some(broken) => Err(broken),
            None => Ok(()),
        }
    }
}

/// A task with a stop of its own.
struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), String>>>,
}

impl Part {
    fn start<F>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(run(stop.clone())));
        Self { name, stop, task }
    }

    /// Resolves when the task has ended; may be dropped and called again.
    async fn ended(&mut self) -> Broken {
        match self.outcome().await {
            Some(broken) => broken,
            None => self.broken("it was not told to".to_owned()),
        }
    }

    /// Tells the task to stop and waits for it; says what went wrong, if anything did.
    async fn stop(&mut self) -> Option<Broken> {
        self.stop.cancel();
        self.outcome().await
    }

    async fn outcome(&mut self) -> Option<Broken> {
        let task = self.task.as_mut()?;
        let result = task.await;
        self.task = None;
        match result {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some(self.broken(reason)),
            Err(error) => Some(self.broken(format!("it panicked: {error}"))),
        }
    }

    fn broken(&self, reason: String) -> Broken {
        Broken { part: self.name, reason }
    }
}

async fn serve(server: std::io::Result<Server>, stop: CancellationToken) -> Result<(), String> {
    let server = server.map_err(|error| error.to_string())?;
    let handle = server.handle();
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return result.map_err(|error| error.to_string()),
        () = stop.cancelled() => {}
    }
    let ((), result) = tokio::join!(handle.stop(true), server);
    result.map_err(|error| error.to_string())
}

async fn subscribe(mqtt: Option<MqttLoop>, stop: CancellationToken) -> Result<(), String> {
    match mqtt {
        Some(mqtt) => mqtt.run(stop).await,
        None => stop.cancelled().await,
    }
    Ok(())
}

async fn serve_phones(
    server: Option<std::io::Result<Server>>,
    stop: CancellationToken,
) -> Result<(), String> {
    match server {
        Some(server) => serve(server, stop).await,
        None => {
            stop.cancelled().await;
            Ok(())
        }
    }
}

async fn listen(reader: Option<ReaderLoop>, stop: CancellationToken) -> Result<(), String> {
    match reader {
        Some(reader) => reader.run(stop).await.map_err(str::to_owned),
        None => {
            stop.cancelled().await;
            Ok(())
        }
    }
}

async fn send(worker: SyncWorker, stop: CancellationToken) -> Result<(), String> {
    worker.run(stop).await.map_err(|error| error.to_string())
}

async fn keep(housekeeping: Housekeeping, stop: CancellationToken) -> Result<(), String> {
    housekeeping.run(stop).await.map_err(|error| error.to_string())
}

async fn closed(ended: Ended) -> Result<(), String> {
    ended.wait().await.map_err(|trouble| trouble.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn gateway(dir: &std::path::Path) -> Gateway {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = Config::load(None, Some(dir.to_owned())).unwrap();
        config.http.listen.set_port(0);
        config.storage.reserve_bytes = 0;
        build(config).await.unwrap()
    }

    #[tokio::test]
    async fn a_gateway_stops_when_it_is_told_and_can_start_again() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let gateway = gateway(dir.path()).await;
            let stop = CancellationToken::new();
            stop.cancel();
            gateway.run(stop).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_gateway_whose_identity_cannot_be_read_starts_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(IdentityFile::in_dir(dir.path()).path(), "{").unwrap();
        let gateway = gateway(dir.path()).await;
        let stop = CancellationToken::new();
        stop.cancel();
        gateway.run(stop).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_fails_takes_the_whole_program_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let gateway = gateway(dir.path()).await;
        gateway.outbox.break_down().await;
        let broken = gateway.run(CancellationToken::new()).await.unwrap_err();
        assert_eq!(broken.part, "the store");
    }

    #[tokio::test]
    async fn a_part_that_panics_is_noticed_and_named() {
        let mut part = Part::start("the part", |_| async { panic!("as a test wants it") });
        let broken = part.ended().await;
        assert_eq!(broken.part, "the part");
        assert!(broken.reason.contains("panicked"), "{broken}");
        assert_eq!(part.stop().await, None, "it is over");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_said_before_a_run_begins() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::load(None, Some(dir.path().to_owned())).unwrap();
        config.http.listen = taken.local_addr().unwrap();
        let Err(error) = build(config).await else { panic!("it was bound twice") };
        assert!(matches!(error, BuildError::Listen { .. }), "{error}");
        assert!(!dir.path().join(crate::outbox::DATABASE).exists());
    }
}
