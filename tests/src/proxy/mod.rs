//! The network between gateway and cloud, with every fault a real one has.
//!
//! Each request is read whole, a rule decides its fate, and what happened is counted. Rules know
//! nothing of the programs: they see the request and its number.

mod carry;
mod message;

pub use message::Message;

use anyhow::Result;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// What becomes of one request.
#[derive(Debug, Clone, Default)]
pub enum Fate {
    #[default]
    Pass,
    /// The proxy answers itself; the cloud never hears of it.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// The cloud commits and answers; the answer is lost.
    LoseAnswer,
    /// The request is lost before the cloud sees it.
    LoseRequest,
    /// Half of the body reaches the cloud, then both ends see a reset.
    ResetMidBody,
    /// The cloud gets it twice; the second answer goes back.
    Twice,
    /// Both ways take this long.
    Slow(Duration),
    /// Both ways travel in slices of so many bytes.
    Sliced(usize),
    /// Half of the body reaches the cloud, then the gate decides when the rest follows.
    HalfThenWait(Gate),
    /// The cloud's answer waits at the gate.
    AnswerWaits(Gate),
}

impl Fate {
    /// A refusal as a proxy or cloud in trouble gives it.
    pub fn refuse(status: u16) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: format!(
                r#"{{"success":false,"error":{{"code":"http_{status}","message":"","details":[]}}}}"#
            ),
        }
    }

    /// A refusal that says when to come back.
    pub fn refuse_for(status: u16, seconds: u64) -> Self {
        match Self::refuse(status) {
            Self::Answer { status, body, .. } => {
                Self::Answer { status, headers: vec![("Retry-After".to_owned(), seconds.to_string())], body }
            }
            other => other,
        }
    }
}

/// A place where a message waits until the story lets it go on.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    inner: Arc<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    arrived: Notify,
    opened: Notify,
}

impl Gate {
    /// Waits until a message stands at the gate.
    pub async fn reached(&self) {
        self.inner.arrived.notified().await;
    }

    /// Lets it go on.
    pub fn open(&self) {
        self.inner.opened.notify_one();
    }

    async fn pass(&self) {
        self.inner.arrived.notify_one();
        self.inner.opened.notified().await;
    }
}

/// How the line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Up,
    /// Nobody listens: connection refused, and open connections are reset.
    Refused,
    /// Packets vanish: connections open and nothing ever comes back.
    Silent,
}

/// One request as the rules see it.
#[derive(Debug, Clone)]
pub struct Request {
    /// 1 for the first request through this proxy.
    pub number: u64,
    pub message: Message,
}

impl Request {
    pub fn is_sync(&self) -> bool {
        self.message.first_line().starts_with("POST /api/sync_gateway_data")
    }

    /// The body as JSON text, whatever its encoding.
    pub fn text(&self) -> String {
        let body = self.message.body();
        let bytes = match self.message.header("content-encoding").as_deref() {
            Some("zstd") => zstd::decode_all(body).unwrap_or_default(),
            Some("gzip") => {
                let mut out = Vec::new();
                let _ = std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut out);
                out
            }
            _ => body.to_vec(),
        };
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many records a batch in our own form carries.
    pub fn records(&self) -> u64 {
        serde_json::from_str::<lumbung_shared::wire::Batch>(&self.text()).map_or(0, |batch| {
            let segments = batch.runs.iter().flat_map(|run| run.streams.values().flatten());
            segments.map(|segment| segment.n).sum()
        })
    }
}

type Rule = Box<dyn FnMut(&Request) -> Fate + Send>;

/// A proxy in front of one cloud.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
}

struct Shared {
    port: u16,
    upstream: Mutex<String>,
    line: watch::Sender<Line>,
    rule: Mutex<Rule>,
    next: Mutex<VecDeque<Fate>>,
    numbers: AtomicU64,
    syncs: AtomicU64,
    records: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    statuses: Mutex<Vec<u16>>,
}

impl Proxy {
    /// Starts a proxy in front of `upstream` ("127.0.0.1:8000").
    pub fn start(upstream: &str) -> Result<Self> {
        let port = crate::programs::free_port()?;
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (line, _) = watch::channel(Line::Up);
        let shared = Arc::new(Shared {
            port,
            upstream: Mutex::new(upstream.to_owned()),
            line,
            rule: Mutex::new(Box::new(|_| Fate::Pass)),
            next: Mutex::new(VecDeque::new()),
            numbers: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            records: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            statuses: Mutex::new(Vec::new()),
        });
        tokio::spawn(carry::listen(Arc::clone(&shared), listener));
        Ok(Self { shared })
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.shared.port)
    }

    /// Changes the line; anything but `Up` also cuts what is open.
    pub fn line(&self, line: Line) {
        self.shared.line.send_replace(line);
    }

    /// Points it at another replica.
    pub fn point_at(&self, upstream: &str) {
        *lock(&self.shared.upstream) = upstream.to_owned();
    }

    /// Decides the fate of every sync request from now on; others pass.
    pub fn rule(&self, mut rule: impl FnMut(&Request) -> Fate + Send + 'static) {
        self.rule_for_all(move |request| if request.is_sync() { rule(request) } else { Fate::Pass });
    }

    /// Decides the fate of every request from now on.
    pub fn rule_for_all(&self, rule: impl FnMut(&Request) -> Fate + Send + 'static) {
        *lock(&self.shared.rule) = Box::new(rule);
    }

    /// Decides the fate of just the next batches that carry records, before the rule is asked.
    pub fn next(&self, fates: impl IntoIterator<Item = Fate>) {
        lock(&self.shared.next).extend(fates);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        lock(&self.shared.next).clear();
        self.mend();
    }

    /// [`Self::heal`], but what was decided for the next batches still waits for them.
    pub fn mend(&self) {
        self.rule(|_| Fate::Pass);
        self.line(Line::Up);
    }

    /// Sync requests seen so far.
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::SeqCst)
    }

    /// Records in the sync requests seen so far, each time they were sent.
    pub fn records(&self) -> u64 {
        self.shared.records.load(Ordering::SeqCst)
    }

    /// Bytes of requests and of answers, heads included.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.bytes_up.load(Ordering::SeqCst), self.shared.bytes_down.load(Ordering::SeqCst))
    }

    /// The status of every answer that went back.
    pub fn statuses(&self) -> Vec<u16> {
        lock(&self.shared.statuses).clone()
    }
}

impl Shared {
    fn fate(&self, message: &Message) -> Fate {
        let request =
            Request { number: self.numbers.fetch_add(1, Ordering::SeqCst) + 1, message: message.clone() };
        self.bytes_up.fetch_add(message.bytes.len() as u64, Ordering::SeqCst);
        if request.is_sync() {
            let records = request.records();
            self.syncs.fetch_add(1, Ordering::SeqCst);
            self.records.fetch_add(records, Ordering::SeqCst);
            if records > 0
                && let Some(fate) = lock(&self.next).pop_front()
            {
                return fate;
            }
        }
        (lock(&self.rule))(&request)
    }

    fn answered(&self, bytes: &[u8]) {
        self.bytes_down.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        let line = bytes.split(|&b| b == b'\r').next().unwrap_or_default();
        let status: Option<u16> =
            String::from_utf8_lossy(line).split(' ').nth(1).and_then(|status| status.parse().ok());
        lock(&self.statuses).extend(status);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
