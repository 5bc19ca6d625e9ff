//! `GET /api/live`: scans as they arrive, as server-sent events.
//!
//! Whoever stores scans says so with NOTIFY in the same transaction, so every replica hears of every scan
//! and only of committed ones. The word names ranges of records; the scans are read where someone listens.

use super::record::Name;
use super::scans::{ScanView, in_ranges};
use crate::error::{Error, Result};
use crate::guards::{self, Principal};
use crate::identity::{SiteReader, Sites};
use crate::metrics::Metrics;
use crate::state::State;
use actix_web::http::header;
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse, get};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{PgConnection, PgPool};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const CHANNEL: &str = "lumbung_scan";
/// PostgreSQL's own limit is 8,000 bytes.
const WORD_BYTES: usize = 7_500;
/// Scans listed of one burst; the rest is counted.
const LISTED: i64 = 200;
/// Events a slow client may fall behind before it misses some (and is told how many).
const BACKLOG: usize = 256;
/// When to try again where too many streams are open, seconds.
const FULL: u64 = 30;
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream ends after this; clients connect again.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// How long a stream believes that its reader may still read. With what is believed of a sign-in it stays under
/// a second.
const BELIEVED: Duration = Duration::from_millis(150);
const RESET: Bytes = Bytes::from_static(b"event: reset\ndata: {}\n\n");

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(live_scans);
}

/// What NOTIFY carries: ranges of new scans, and how many did not fit.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
struct Word {
    ranges: Vec<(i32, i64, i64, i64)>,
    more: i64,
}

/// Tells every replica of new scans when the transaction commits. Names must be sorted.
pub(crate) async fn announce(tx: &mut PgConnection, names: impl Iterator<Item = Name>) -> sqlx::Result<()> {
    let Some(word) = word(names) else { return Ok(()) };
    let text = json!(word).to_string();
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, text).execute(tx).await?;
    Ok(())
}

fn word(names: impl Iterator<Item = Name>) -> Option<Word> {
    let mut word = Word::default();
    for (gateway, epoch, seq) in names {
        // A range takes at most 75 characters.
        let full = word.ranges.len() >= WORD_BYTES / 75;
        match word.ranges.last_mut() {
            Some(last) if (last.0, last.1) == (gateway, epoch) && last.3.checked_add(1) == Some(seq) => {
                last.3 = seq;
            }
            _ if full => word.more += 1,
            _ => word.ranges.push((gateway, epoch, seq, seq)),
        }
    }
    (!word.ranges.is_empty()).then_some(word)
}

/// What arrived together.
struct Burst {
    scans: Vec<ScanView>,
    /// Scans that are not listed.
    more: i64,
    /// As whoever sees every site is told.
    whole: Bytes,
}

impl Burst {
    fn new(scans: Vec<ScanView>, more: i64) -> Self {
        let whole = event(&json!({ "scans": scans, "more": more }));
        Self { scans, more, whole }
    }

    /// For somebody who sees these sites; none when nothing of it is theirs. Whose the scans are that are not
    /// listed nobody knows, so their number is not told to them.
    fn of(&self, sites: &Sites) -> Option<Bytes> {
        if matches!(sites, Sites::All) {
            return Some(self.whole.clone());
        }
        if self.more > 0 {
            return Some(RESET);
        }
        let scans: Vec<&ScanView> = self.scans.iter().filter(|scan| sites.include(scan.site_id)).collect();
        (!scans.is_empty()).then(|| event(&json!({ "scans": scans, "more": 0 })))
    }
}

fn event(data: &serde_json::Value) -> Bytes {
    Bytes::from(format!("event: scans\ndata: {data}\n\n"))
}

#[derive(Clone)]
enum Event {
    Scans(Arc<Burst>),
    Reset,
}

/// Hands what arrives on to every open stream of this replica.
pub struct Live {
    events: broadcast::Sender<Event>,
    stop: CancellationToken,
    /// Streams end with this, so that they go on at another replica while this one still serves.
    leaving: CancellationToken,
    /// Streams at once: of one reader, and in all.
    most: (usize, usize),
    readers: Mutex<Readers>,
}

/// Open streams, by whose they are; whoever sits at the machine in development is one reader.
type Readers = HashMap<Option<Principal>, usize>;

impl Live {
    /// `each` streams of one reader and `all` together are open at once.
    pub fn new(stop: CancellationToken, leaving: CancellationToken, each: usize, all: usize) -> Self {
        let events = broadcast::channel(BACKLOG).0;
        Self { events, stop, leaving, most: (each, all), readers: Mutex::default() }
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one stream more.
    ///
    /// # Errors
    /// [`Error::TooMany`] when this reader has enough of them, [`Error::Busy`] when all together have.
    fn enter(self: Arc<Self>, reader: Option<Principal>) -> Result<Seat> {
        if self.leaving.is_cancelled() {
            return Err(Error::Busy { retry_after: 1, reason: "the cloud is stopping".into() });
        }
        let (each, all) = self.most;
        let mut readers = self.readers();
        if readers.get(&reader).is_some_and(|open| *open >= each) {
            return Err(Error::TooMany { retry_after: FULL });
        }
        if readers.values().sum::<usize>() >= all {
            return Err(Error::Busy { retry_after: FULL, reason: format!("{all} live streams are open") });
        }
        *readers.entry(reader).or_default() += 1;
        drop(readers);
        Ok(Seat { live: self, reader })
    }

    /// Listens until the stop, reconnecting for ever.
    pub async fn run(&self, options: PgConnectOptions, people: PgPool) {
        // A pool of its own: a listener holds its connection for life.
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let mut wait = Duration::from_millis(100);
        loop {
            let outcome = tokio::select! {
                outcome = self.listen(&pool, &people, &mut wait) => outcome,
                () = self.stop.cancelled() => return,
            };
            if let Err(error) = outcome {
                tracing::warn!("live scans pause until the database answers again: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(5)),
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn listen(&self, pool: &PgPool, people: &PgPool, wait: &mut Duration) -> Result<()> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        *wait = Duration::from_millis(100);
        // Whoever reads the stream fetches the list again after a pause.
        self.send(Event::Reset);
        loop {
            let Some(notification) = listener.try_recv().await? else {
                self.send(Event::Reset);
                continue;
            };
            if self.events.receiver_count() == 0 {
                continue;
            }
            let Ok(word) = serde_json::from_str::<Word>(notification.payload()) else {
                continue;
            };
            let told: i64 = word.ranges.iter().map(|range| range.3 - range.2 + 1).sum::<i64>() + word.more;
            let scans = in_ranges(people, &word.ranges, LISTED).await?;
            let more = told - i64::try_from(scans.len()).unwrap_or(told);
            self.send(Event::Scans(Arc::new(Burst::new(scans, more))));
        }
    }

    fn send(&self, event: Event) {
        // Nobody listening is no fault.
        let _ = self.events.send(event);
    }
}

/// A stream's place among its reader's, for as long as it lives.
struct Seat {
    live: Arc<Live>,
    reader: Option<Principal>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut readers = self.live.readers();
        if let Some(open) = readers.get_mut(&self.reader) {
            *open -= 1;
            if *open == 0 {
                readers.remove(&self.reader);
            }
        }
    }
}

/// Counts an open stream for as long as it lives.
struct Client {
    events: broadcast::Receiver<Event>,
    reader: SiteReader,
    asked: Instant,
    stop: CancellationToken,
    ends: Instant,
    metrics: Arc<Metrics>,
    _seat: Seat,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.metrics.live_clients.dec();
    }
}

impl Client {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let event = tokio::select! {
                event = self.events.recv() => Some(event),
                () = tokio::time::sleep(HEARTBEAT) => None,
                () = tokio::time::sleep_until(self.ends) => return None,
                () = self.stop.cancelled() => return None,
            };
            // Revoked, banned or granted nothing any more: the stream ends, and a new one is refused with the
            // reason.
            if self.asked.elapsed() >= BELIEVED {
                let asked = Instant::now();
                self.reader.sites = self.reader.again().await.ok()?;
                self.asked = asked;
            }
            match event {
                None => return Some(Bytes::from_static(b": still here\n\n")),
                Some(Ok(Event::Reset)) => return Some(RESET),
                Some(Ok(Event::Scans(burst))) => {
                    if let Some(theirs) = burst.of(&self.reader.sites) {
                        return Some(theirs);
                    }
                }
                Some(Err(broadcast::error::RecvError::Lagged(missed))) => {
                    tracing::debug!(missed, "a live client reads too slowly");
                    return Some(RESET);
                }
                Some(Err(broadcast::error::RecvError::Closed)) => return None,
            }
        }
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(live_scans))]
pub(crate) struct Docs;

/// Scans as they arrive (`text/event-stream`). For who may read (admin, key with the scope `read`); operators and
/// officers hear of their own sites.
///
/// `event: scans` carries `{"scans":[…],"more":n}`, newest last; `more` counts scans of a burst that are
/// not listed. `event: reset` says that something may have been missed: list again. A comment line comes
/// every 15 seconds. The stream ends after 15 minutes, or when its reader may read no more: connect again.
/// One reader has at most 50 open at once and all together 1,000 (as configured); more are answered 429 or 503.
#[utoipa::path(tag = "distribution", path = "/api/live", security(("access_key" = []), ("session" = [])),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = crate::error::ErrorBody)))]
#[get("/api/live")]
async fn live_scans(
    reader: SiteReader,
    request: HttpRequest,
    state: web::Data<State>,
    live: web::Data<Live>,
) -> Result<HttpResponse> {
    let seat = live.clone().into_inner().enter(guards::accepted(&request))?;
    state.metrics.live_clients.inc();
    let client = Client {
        events: live.events.subscribe(),
        reader,
        asked: Instant::now(),
        stop: live.leaving.clone(),
        ends: Instant::now() + LIFE,
        metrics: Arc::clone(&state.metrics),
        _seat: seat,
    };
    let hello = Bytes::from_static(b": connected\n\n");
    let events = stream::unfold((client, Some(hello)), |(mut client, hello)| async move {
        let event = match hello {
            Some(hello) => hello,
            None => client.next().await?,
        };
        Some((Ok::<_, actix_web::Error>(event), (client, None)))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-cache, no-store"))
        // nginx would otherwise hold events back.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_ranges_and_always_fits() {
        assert_eq!(word(std::iter::empty()), None);
        let names = [(1, 7, 1), (1, 7, 2), (1, 7, 4), (2, 7, 5)];
        assert_eq!(word(names.into_iter()).unwrap().ranges, [(1, 7, 1, 2), (1, 7, 4, 4), (2, 7, 5, 5)]);
        let scattered = (0..10_000).map(|i| (i32::MAX, i64::MIN, i64::MAX - 2 * i));
        let word = word(scattered).unwrap();
        assert_eq!(word.more + i64::try_from(word.ranges.len()).unwrap(), 10_000);
        assert!(json!(word).to_string().len() < 8_000);
    }
}
