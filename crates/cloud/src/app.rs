//! Putting the cloud together: `build` binds and connects, `run` runs until it is told to stop.

use crate::audit;
use crate::config::Config;
use crate::database::{self, Server};
use crate::distribution::live::Live;
use crate::door::Door;
use crate::error::Error;
use crate::files::Files;
use crate::guards::{self, Crowd, Limits};
use crate::identity::People;
use crate::identity::access::Caller;
use crate::ingest::{Ingest, Writers};
use crate::jobs::{self, Timetable};
use crate::metrics::Metrics;
use crate::notify::deliver::Sender;
use crate::notify::webhooks;
use crate::outside::Outside;
use crate::state::State;
use crate::tls::{self, Tls};
use crate::watchdog;
use crate::{
    admin, dashboard, distribution, files, health, identity, inbox, ingest, openapi, privacy, telemetry,
};
use actix_web::dev::ServerHandle;
use actix_web::http::Method;
use actix_web::http::header;
use actix_web::middleware;
use actix_web::{App, HttpServer, web};
use anyhow::{Context, bail};
use sqlx::postgres::PgConnectOptions;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A cloud that is bound, connected and migrated, not yet serving.
pub struct Cloud {
    server: actix_web::dev::Server,
    redirect: Option<actix_web::dev::Server>,
    tls: Option<Tls>,
    address: SocketAddr,
    database: Server,
    state: State,
    writers: Writers,
    outside: Arc<Outside>,
    live: Arc<Live>,
    door: Door,
    listen: PgConnectOptions,
    timetable: Arc<Timetable>,
    ending: CancellationToken,
}

/// Connects to the database (starting the embedded one when none is given), migrates it and binds.
///
/// # Errors
/// What cannot be had, and what to do about it.
pub async fn build(config: Config) -> anyhow::Result<Cloud> {
    // Before the database is started: a taken port or a mistyped time should cost nothing.
    let timetable = web::Data::new(Timetable::read(&config.jobs)?);
    let metrics = Arc::new(Metrics::new());
    let tls = Tls::open(&config.http.tls, &metrics)?;
    let listener = bound(config.http.listen, "LUMBUNG_CLOUD__HTTP__LISTEN")?;
    let plain = config.http.tls.redirect_from;
    let plain = plain.map(|at| bound(at, "LUMBUNG_CLOUD__HTTP__TLS__REDIRECT_FROM")).transpose()?;
    let address = listener.local_addr()?;
    if let Some(doubt) = database::unverified(&config.database)? {
        tracing::warn!("the database is not verified: {doubt}; {}", database::check::VERIFY);
    }
    if let Some(unused) = database::unused(&config)? {
        tracing::warn!("{unused}; {}", database::check::MOVE_AWAY);
    }
    let database = Server::start(&config).await?;
    match serve(config, metrics, listener, tls.as_ref(), &database, timetable.clone()).await {
        Ok(parts) => {
            let (server, door, state, writers, outside, live, ending) = parts;
            let (listen, timetable) = (database.connect_options(), timetable.into_inner());
            let redirect = plain.map(|plain| tls::redirect(plain, state.clone())).transpose()?;
            Ok(Cloud {
                server,
                redirect,
                tls,
                address,
                database,
                state,
                writers,
                outside,
                live,
                door,
                listen,
                timetable,
                ending,
            })
        }
        Err(error) => {
            database.stop().await?;
            Err(error)
        }
    }
}

fn bound(at: SocketAddr, variable: &str) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(at).with_context(|| {
        format!("cannot listen on {at}: is another program there? Choose another with {variable}")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

type Parts = (actix_web::dev::Server, Door, State, Writers, Arc<Outside>, Arc<Live>, CancellationToken);

async fn serve(
    config: Config,
    metrics: Arc<Metrics>,
    listener: std::net::TcpListener,
    tls: Option<&Tls>,
    database: &Server,
    timetable: web::Data<Timetable>,
) -> anyhow::Result<Parts> {
    let address = listener.local_addr()?;
    let gateways = database.gateway_pool(&config.database);
    database::migrate(&gateways).await?;
    let ending = CancellationToken::new();
    let state = State {
        people: database.people_pool(&config.database),
        gateways: gateways.clone(),
        metrics: Arc::clone(&metrics),
        config: Arc::new(config),
        leaving: CancellationToken::new(),
        unfinished: TaskTracker::new(),
    };
    webhooks::seal(&state.people, &state.config.receipts.seal_key).await?;
    let outside = web::Data::new(Outside::open(&state.config, &state.people).await?);
    let shared_outside = outside.clone().into_inner();
    let (ingest, writers) = Ingest::new(gateways, metrics, state.config.ingest.clone());
    let live = web::Data::new(Live::new(
        ending.clone(),
        state.leaving.clone(),
        state.config.limits.live_streams_each,
        state.config.limits.live_streams,
    ));
    let shared_live = live.clone().into_inner();
    let board = web::Data::new(admin::Board::default());
    // What the writers leave over, and not all of that.
    let lookups = (state.config.database.ingest_connections as usize - state.config.ingest.writers).min(2);
    let limits = web::Data::new(Limits::new(&state.config.limits, lookups));
    let crowd = web::Data::new(Crowd::default());
    let excess = web::Data::new(identity::Excess::default());
    let people = web::Data::new(People::open(&state).await?);
    let files = web::Data::new(Files::open(&state)?);
    let (data, ingest) = (web::Data::new(state.clone()), web::Data::new(ingest));
    let workers = match state.config.http.workers {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        given => given,
    };
    let unfinished = state.unfinished.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .app_data(ingest.clone())
            .app_data(limits.clone())
            .app_data(crowd.clone())
            .app_data(excess.clone())
            .app_data(people.clone())
            .app_data(files.clone())
            .app_data(live.clone())
            .app_data(outside.clone())
            .app_data(timetable.clone())
            .app_data(board.clone())
            .app_data(json_config())
            .app_data(
                web::QueryConfig::default()
                    .error_handler(|e, _| Error::unread_parameters("query", &e).into()),
            )
            .app_data(
                web::PathConfig::default().error_handler(|e, _| Error::unread_parameters("path", &e).into()),
            )
            // The last one stands outermost.
            .wrap(middleware::from_fn(guards::once::<Caller>))
            .wrap(middleware::from_fn(guards::limit))
            .wrap(middleware::from_fn(identity::tell_refused))
            .wrap(middleware::from_fn(guards::crowd))
            .wrap(middleware::from_fn(guards::host))
            .wrap(middleware::Condition::new(
                !data.config.http.cors_origins.is_empty(),
                guards::cors(&data.config.http),
            ))
            .wrap(middleware::from_fn(guards::head))
            .wrap(middleware::from_fn(guards::answer))
            .configure(files::routes)
            .configure(identity::routes)
            .configure(inbox::routes)
            .configure(ingest::routes)
            .configure(distribution::routes)
            .configure(telemetry::routes)
            .configure(dashboard::routes)
            .configure(health::routes)
            .configure(privacy::routes)
            .configure(admin::routes)
            .configure(jobs::routes)
            .configure(openapi::routes)
            .default_service(web::to(nowhere))
    })
    .on_connect(move |_, connection| Door::count(&unfinished, connection))
    .workers(workers)
    .client_request_timeout(state.config.http.head_timeout)
    .shutdown_timeout(state.config.http.shutdown_timeout.as_secs())
    .disable_signals();
    let door = Door::of(&listener, &state.unfinished)?;
    let (server, scheme) = match tls {
        Some(tls) => (server.listen_rustls_0_23(listener, tls.server()?), "https"),
        None => (server.listen(listener), "http"),
    };
    let server = server.context("cannot serve")?.run();
    tracing::info!("listening on {scheme}://{address}");
    Ok((server, door, state, writers, shared_outside, shared_live, ending))
}

impl Cloud {
    /// Where it listens; the port when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, or until a part ends by itself. Then, in order: live streams end and `/readyz` says 503
    /// while requests are still served for a moment, no new requests, open ones end, every batch that was let in is stored, connections close, PostgreSQL stops.
    ///
    /// # Errors
    /// A part that ended by itself, or a database that did not stop.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { server, redirect, tls, database, state, writers, .. } = self;
        let Self { outside, live, door, listen, timetable, ending, .. } = self;
        let handle: ServerHandle = server.handle();
        let redirect_handle = redirect.as_ref().map(actix_web::dev::Server::handle);
        let writers_stop = CancellationToken::new();
        let mut serving = tokio::spawn(server);
        let mut writing = tokio::spawn(writers.run(writers_stop.clone()));
        tokio::spawn(watchdog::run(database.connect_options(), ending.clone()));
        let people = state.people.clone();
        let mut listening = tokio::spawn(async move { live.run(listen, people).await });
        let sender = Sender {
            pool: state.people.clone(),
            outside,
            metrics: Arc::clone(&state.metrics),
            seal_key: state.config.receipts.seal_key.as_str().into(),
        };
        let sender_stop = ending.clone();
        let mut sending = tokio::spawn(async move { sender.run(&sender_stop).await });
        let mut sealing = tokio::spawn(audit::run(state.gateways.clone(), ending.clone()));
        let mut working = tokio::spawn(jobs::run(state.clone(), timetable, ending.clone()));
        let mut following = tokio::spawn(tls::run(tls, ending.clone()));
        let mut redirecting = tokio::spawn(async move {
            match redirect {
                Some(redirect) => redirect.await,
                None => std::future::pending().await,
            }
        });
        let fault = tokio::select! {
            () = stop.cancelled() => None,
            ended = &mut serving => Some(format!("the HTTP server ended by itself: {ended:?}")),
            ended = &mut writing => Some(format!("the writers ended by themselves: {ended:?}")),
            ended = &mut listening => Some(format!("the live listener ended by itself: {ended:?}")),
            ended = &mut sending => Some(format!("the sender of messages ended by itself: {ended:?}")),
            ended = &mut sealing => Some(format!("the sealer of the audit log ended by itself: {ended:?}")),
            ended = &mut working => Some(format!("the jobs ended by themselves: {ended:?}")),
            ended = &mut following => Some(format!("the certificate is not followed any more: {ended:?}")),
            ended = &mut redirecting => Some(format!("the redirecting server ended by itself: {ended:?}")),
            ended = supervise(&database, &ending) => Some(format!("PostgreSQL could not be kept alive: {ended:#}")),
        };
        tracing::info!("stopping");
        watchdog::stopping();
        // A proxy goes on sending until it notices; those requests are served, and their connections closed.
        state.leaving.cancel();
        if fault.is_none() {
            tokio::time::sleep(state.config.http.drain).await;
        }
        ending.cancel();
        if let Some(redirect) = redirect_handle {
            redirect.stop(true).await;
        }
        redirecting.abort();
        let everybody_left = door.shut(&handle, state.config.http.shutdown_timeout).await;
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
        if !sealing.is_finished() {
            let _ = sealing.await;
        }
        if !working.is_finished() {
            let _ = working.await;
        }
        // After those, for what they send or store may go over a connection that a worker opened.
        handle.stop(everybody_left).await;
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
            J::OverflowKnownLength { limit, .. } | J::Overflow { limit } => Error::too_large(limit),
            J::ContentType => Error::wanted_type("application/json"),
            J::Deserialize(wrong) => Error::unread_json(&wrong),
            J::Payload(error) => Error::refused(&error.into()),
            other => Error::refused(&other.into()),
        };
        error.into()
    })
}

/// Unknown paths, and known ones asked with a method that is not theirs; OPTIONS asks which are.
async fn nowhere(request: actix_web::HttpRequest) -> Result<actix_web::HttpResponse, Error> {
    let document = request.app_data::<web::Data<utoipa::openapi::OpenApi>>();
    let mut methods = document.map(|document| openapi::methods(document, request.path())).unwrap_or_default();
    if methods.is_empty() {
        return Err(Error::NotFound("NOT_FOUND"));
    }
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.push("OPTIONS");
    let allow = methods.join(", ");
    if request.method() == Method::OPTIONS {
        return Ok(actix_web::HttpResponse::NoContent().insert_header((header::ALLOW, allow)).finish());
    }
    Err(Error::MethodNotAllowed { allow })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_endpoint_with_a_rate_of_its_own_is_there() {
        let document = openapi::document();
        for (method, path) in guards::named() {
            assert!(openapi::methods(&document, path).contains(&method), "{method} {path}");
        }
    }

    /// What takes no `Idempotency-Key`, and why a repeat does no harm there.
    const TAKE_NO_KEYS: &[(&str, &str)] = &[
        ("/api/admin/deliveries/{id}/retry", "a second one is refused while it waits"),
        ("/api/admin/jobs/{name}/run", "a round of a job does no harm, and two at once are refused"),
        ("/api/admin/privacy-requests/{id}/answer", "a second answer is refused"),
        ("/api/admin/unban-user", "a second one is refused"),
        ("/api/auth/change-email", "a link is good once"),
        ("/api/auth/change-password", "the password before is not right any more"),
        ("/api/auth/forgot-password", "another mail, and not too many"),
        (
            "/api/auth/google",
            "each of Google's opens one account, and from then on it signs in, as login does",
        ),
        ("/api/auth/login", "another session, which ends by itself"),
        ("/api/auth/login/totp", "a challenge is good once, and signing in makes another"),
        ("/api/auth/logout", "a session ends once"),
        ("/api/auth/refresh", "the token of before is answered for 20 seconds more"),
        ("/api/auth/reset-password", "a link is good once"),
        ("/api/auth/totp/confirm", "a second one is refused; whoever lost its codes turns it off and on"),
        ("/api/auth/totp/enrol", "another secret in place of the one before, until one is confirmed"),
        ("/api/auth/totp/off", "a second one is refused"),
        ("/api/auth/verify-email", "a link is good once"),
        ("/api/auth/verify-email/resend", "another mail, and not too many"),
        ("/api/gateways/enrol", "the claim and the gateway's own key name it: the same again is the same"),
        ("/api/gateways/rotate", "the gateway's own new key names it"),
        ("/api/gateways/signing_key", "the gateway's own new key names it"),
        ("/api/notifications/phone/verify", "a code is good once"),
        ("/api/notifications/read-all", "read is read"),
        ("/api/notifications/{id}/read", "read is read"),
        ("/api/sync_gateway_data", "records have names of their own, and each is kept once"),
        ("/api/users/me/consents", "agreed is agreed"),
        ("/api/users/me/email", "another mail, and not too many"),
        ("/api/users/me/export", "the same copy while it is being made, then another in its place"),
        ("/api/users/me/picture", "the same picture in place of itself"),
    ];

    #[test]
    fn every_post_takes_an_idempotency_key_or_says_why_a_repeat_does_no_harm() {
        let document = openapi::document();
        let posts = document.paths.paths.iter().filter(|(_, item)| item.post.is_some());
        let posts: BTreeSet<&str> = posts.map(|(path, _)| path.as_str()).collect();
        let takes_keys = guards::TAKES_KEYS.iter().map(|(path, _)| *path);
        let mut decided = BTreeSet::new();
        for path in takes_keys.chain(TAKE_NO_KEYS.iter().map(|(path, _)| *path)) {
            assert!(decided.insert(path), "{path} is named twice");
        }
        assert_eq!(posts, decided, "left: every POST; right: what is in one of the lists");
    }
}
