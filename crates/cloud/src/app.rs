//! Putting the cloud together: `build` binds and connects, `run` runs until it is told to stop.

use crate::config::Config;
use crate::database::{self, Server};
use crate::distribution::live::Live;
use crate::error::{Error, Language};
use crate::files::Files;
use crate::guards::{self, Limits, RequestId};
use crate::identity::People;
use crate::ingest::{Ingest, Writers};
use crate::metrics::Metrics;
use crate::notify::deliver;
use crate::outside::Outside;
use crate::state::State;
use crate::watchdog;
use crate::{dashboard, distribution, files, health, identity, inbox, ingest, openapi, telemetry};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::{self, Next};
use actix_web::{App, HttpServer, web};
use anyhow::{Context, bail};
use sqlx::postgres::PgConnectOptions;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A cloud that is bound, connected and migrated, not yet serving.
pub struct Cloud {
    server: actix_web::dev::Server,
    address: SocketAddr,
    database: Server,
    state: State,
    writers: Writers,
    outside: Outside,
    live: Arc<Live>,
    listen: PgConnectOptions,
    ending: CancellationToken,
}

/// Connects to the database (starting the embedded one when none is given), migrates it and binds.
///
/// # Errors
/// What cannot be had, and what to do about it.
pub async fn build(config: Config) -> anyhow::Result<Cloud> {
    // Before the database is started: a taken port should cost nothing.
    let listener = std::net::TcpListener::bind(config.http.listen).with_context(|| {
        format!(
            "cannot listen on {}: is another program there? Choose another with LUMBUNG_CLOUD__HTTP__LISTEN",
            config.http.listen
        )
    })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let database = Server::start(&config).await?;
    match serve(config, listener, address, &database).await {
        Ok(parts) => {
            let (server, state, writers, outside, live, ending) = parts;
            let listen = database.connect_options();
            Ok(Cloud { server, address, database, state, writers, outside, live, listen, ending })
        }
        Err(error) => {
            database.stop().await?;
            Err(error)
        }
    }
}

type Parts = (actix_web::dev::Server, State, Writers, Outside, Arc<Live>, CancellationToken);

async fn serve(
    config: Config,
    listener: std::net::TcpListener,
    address: SocketAddr,
    database: &Server,
) -> anyhow::Result<Parts> {
    let gateways = database.gateway_pool(&config.database);
    database::migrate(&gateways).await?;
    let metrics = Arc::new(Metrics::new());
    let ending = CancellationToken::new();
    let state = State {
        people: database.people_pool(&config.database),
        gateways: gateways.clone(),
        metrics: Arc::clone(&metrics),
        config: Arc::new(config),
    };
    let outside = Outside::open(&state.config, &state.people)?;
    let (ingest, writers) = Ingest::new(gateways, metrics, state.config.ingest.clone());
    let live = web::Data::new(Live::new(ending.clone()));
    let shared_live = live.clone().into_inner();
    let limits = web::Data::new(Limits::new(&state.config.limits));
    let people = web::Data::new(People::open(&state).await?);
    let files = web::Data::new(Files::open(&state)?);
    let (data, ingest) = (web::Data::new(state.clone()), web::Data::new(ingest));
    let workers = match state.config.http.workers {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        given => given,
    };
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .app_data(ingest.clone())
            .app_data(limits.clone())
            .app_data(people.clone())
            .app_data(files.clone())
            .app_data(live.clone())
            .app_data(json_config())
            .app_data(
                web::QueryConfig::default().error_handler(|e, _| Error::Unreadable(e.to_string()).into()),
            )
            .app_data(
                web::PathConfig::default().error_handler(|e, _| Error::Unreadable(e.to_string()).into()),
            )
            // The last one stands outermost.
            .wrap(middleware::from_fn(guards::limit))
            .wrap(middleware::from_fn(answer))
            .configure(files::routes)
            .configure(identity::routes)
            .configure(inbox::routes)
            .configure(ingest::routes)
            .configure(distribution::routes)
            .configure(telemetry::routes)
            .configure(dashboard::routes)
            .configure(health::routes)
            .configure(openapi::routes)
            .default_service(web::to(nowhere))
    })
    .workers(workers)
    .client_request_timeout(state.config.http.head_timeout)
    .shutdown_timeout(state.config.http.shutdown_timeout.as_secs())
    .disable_signals()
    .listen(listener)
    .context("cannot serve")?
    .run();
    tracing::info!("listening on http://{address}");
    Ok((server, state, writers, outside, shared_live, ending))
}

impl Cloud {
    /// Where it listens; the port when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, or until a part ends by itself. Then, in order: no new requests, open ones and
    /// live streams end, every batch that was let in is stored, connections close, PostgreSQL stops.
    ///
    /// # Errors
    /// A part that ended by itself, or a database that did not stop.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { server, database, state, writers, outside, live, listen, ending, .. } = self;
        let handle: ServerHandle = server.handle();
        let writers_stop = CancellationToken::new();
        let mut serving = tokio::spawn(server);
        let mut writing = tokio::spawn(writers.run(writers_stop.clone()));
        tokio::spawn(watchdog::run(database.connect_options(), ending.clone()));
        let people = state.people.clone();
        let mut listening = tokio::spawn(async move { live.run(listen, people).await });
        let (sender, sender_stop) = (state.clone(), ending.clone());
        let mut sending = tokio::spawn(async move {
            deliver::run(&sender.people, &outside, &sender.metrics, &sender_stop).await;
        });
        let fault = tokio::select! {
            () = stop.cancelled() => None,
            ended = &mut serving => Some(format!("the HTTP server ended by itself: {ended:?}")),
            ended = &mut writing => Some(format!("the writers ended by themselves: {ended:?}")),
            ended = &mut listening => Some(format!("the live listener ended by itself: {ended:?}")),
            ended = &mut sending => Some(format!("the sender of messages ended by itself: {ended:?}")),
            ended = supervise(&database, &ending) => Some(format!("PostgreSQL could not be kept alive: {ended:#}")),
        };
        tracing::info!("stopping");
        watchdog::stopping();
        ending.cancel();
        handle.stop(true).await;
        writers_stop.cancel();
        if !writing.is_finished() {
            let _ = writing.await;
        }
        if !listening.is_finished() {
            let _ = listening.await;
        }
        if !sending.is_finished() {
            let _ = sending.await;
        }
        state.people.close().await;
        state.gateways.close().await;
        database.stop().await?;
        match fault {
            None => Ok(()),
            Some(fault) => bail!(fault),
        }
    }
}

/// Keeps the embedded PostgreSQL alive; resolves only when that failed.
async fn supervise(database: &Server, ending: &CancellationToken) -> anyhow::Error {
    if let Some(embedded) = &database.embedded
        && let Err(error) = embedded.supervise(ending.clone()).await
    {
        return error.into();
    }
    std::future::pending().await
}

fn json_config() -> web::JsonConfig {
    web::JsonConfig::default().limit(64 * 1024).error_handler(|error, _| {
        use actix_web::error::JsonPayloadError as J;
        let error = match error {
            J::OverflowKnownLength { limit, .. } | J::Overflow { limit } => {
                Error::TooLarge(format!("at most {limit} bytes"))
            }
            J::ContentType => Error::Unsupported("send Content-Type: application/json".into()),
            other => Error::Unreadable(other.to_string()),
        };
        error.into()
    })
}

/// Unknown paths, and known ones asked with the wrong method.
async fn nowhere(request: actix_web::HttpRequest) -> Result<actix_web::HttpResponse, Error> {
    let document = request.app_data::<web::Data<utoipa::openapi::OpenApi>>();
    let methods = document.map(|document| openapi::methods(document, request.path())).unwrap_or_default();
    if methods.is_empty() {
        Err(Error::NotFound("NOT_FOUND"))
    } else {
        Err(Error::MethodNotAllowed { allow: methods.join(", ") })
    }
}

/// Around every request: an id, errors in one shape and the caller's language, safe headers, a log line
/// for what went wrong, a count.
async fn answer(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = Instant::now();
    let id = RequestId::give(&request);
    let language = Language::of(request.request());
    let patience = request
        .app_data::<web::Data<State>>()
        .map_or(Duration::from_secs(60), |state| 2 * state.config.http.body_timeout);
    // Handlers' errors are responses already by now. What takes this long is a body that never ends: a
    // stream's handler returns at once, and statements have their own limit.
    let mut response = tokio::time::timeout(patience, next.call(request))
        .await
        .map_err(|_| Error::Timeout)??
        .map_into_boxed_body();
    let http = response.request().clone();
    let described = response.response().error().map(|error| match error.as_error::<Error>() {
        Some(error) => {
            log(error, &http);
            error.answer(id.as_str(), language)
        }
        None => {
            let error = Error::Unreadable(error.to_string());
            error.answer(id.as_str(), language)
        }
    });
    if let Some(mut described) = described {
        // What was added on the way out stays.
        let added = response.headers().iter().filter(|(name, _)| !described.headers().contains_key(*name));
        let added: Vec<_> = added.map(|(name, value)| (name.clone(), value.clone())).collect();
        for (name, value) in added {
            described.headers_mut().append(name, value);
        }
        response = response.into_response(described);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(guards::REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Some(metrics) = http.app_data::<web::Data<State>>().map(|state| &state.metrics) {
        let route = http.match_pattern().unwrap_or_else(|| "unknown".into());
        metrics.answered(route, method(http.method()), response.status().as_u16(), started.elapsed());
    }
    Ok(response)
}

/// A method as a label; what clients invent is one label.
fn method(method: &Method) -> &'static str {
    [Method::GET, Method::POST, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::PATCH]
        .iter()
        .zip(["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
        .find_map(|(known, label)| (known == method).then_some(label))
        .unwrap_or("other")
}

fn log(error: &Error, request: &actix_web::HttpRequest) {
    let id = RequestId::of(request);
    let id = id.as_ref().map_or("", RequestId::as_str);
    let path = request.match_pattern().unwrap_or_else(|| "unknown".into());
    match error {
        Error::Unexpected(cause) => tracing::error!(request_id = id, path, "unexpected: {cause:#}"),
        Error::Busy { reason, .. } => tracing::warn!(request_id = id, path, "busy: {reason}"),
        other => tracing::debug!(request_id = id, path, "refused: {other}"),
    }
}
