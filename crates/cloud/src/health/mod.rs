//! Is it alive: `/livez`, `/readyz`, `/api/health`, `/api/health/detailed`, `/metrics`.

mod figures;

use crate::error::{Error, Result};
use crate::identity::MetricsReader;
use crate::metrics::{Figures, usage};
use crate::state::State;
use actix_web::{HttpResponse, get, web};
use chrono::Utc;
use lumbung_shared::time::rfc3339;
use serde::Serialize;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// How long a database may take to be called connected.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(livez).service(readyz).service(health).service(detailed).service(metrics);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(livez, readyz, health, detailed, metrics))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct Health {
    #[schema(example = "healthy")]
    status: &'static str,
    #[schema(example = "connected")]
    database: &'static str,
    #[schema(example = "not_used")]
    redis: &'static str,
    #[schema(example = "not_configured")]
    ollama: &'static str,
    #[schema(example = "2026-11-21T02:30:00.000Z")]
    timestamp: String,
}

#[derive(Serialize, ToSchema)]
struct Detailed {
    #[schema(example = "healthy")]
    status: &'static str,
    #[schema(example = "2026-11-21T02:30:00.000Z")]
    timestamp: String,
    system: System,
    #[schema(example = "1ms")]
    database_response_time: Option<String>,
    /// Missing while the database does not answer.
    records: Option<Records>,
    #[schema(example = "false")]
    chatbot_availability: &'static str,
    #[schema(example = "false")]
    waste_detection_available: &'static str,
}

#[derive(Serialize, ToSchema)]
struct System {
    #[schema(example = "0.1.0")]
    version: &'static str,
    #[schema(example = 86400)]
    uptime_seconds: u64,
    #[schema(example = 73400320)]
    memory_bytes: u64,
    /// Files and connections that the program has open, and how many it may.
    #[schema(example = 41)]
    open_files: u64,
    #[schema(example = 524288)]
    most_files: u64,
    #[schema(example = "connected")]
    database: &'static str,
    /// Connections of the people's pool that are open, and of them idle.
    connections: u32,
    idle_connections: usize,
}

#[derive(Serialize, ToSchema)]
struct Records {
    #[schema(example = 1073741824)]
    database_bytes: i64,
    /// Where data_dir lies.
    disk_free_bytes: u64,
    disk_bytes: u64,
    /// Gateways that said something within a quarter of an hour, and those that did not.
    gateways_heard: i64,
    gateways_silent: i64,
    /// Entries of the quarantine that wait.
    quarantined: i64,
    #[schema(example = "2026-11-20T19:04:11.000Z")]
    latest_backup_at: Option<String>,
}

/// The program runs. Anyone may ask.
#[utoipa::path(tag = "operations", path = "/livez", responses((status = 200, body = String)))]
#[get("/livez")]
async fn livez() -> &'static str {
    "ok"
}

/// The program can serve, and is not about to stop. Anyone may ask.
#[utoipa::path(tag = "operations", path = "/readyz", responses((status = 200, body = String),
    (status = 503, body = crate::error::ErrorBody)))]
#[get("/readyz")]
async fn readyz(state: web::Data<State>) -> Result<&'static str> {
    if state.leaving.is_cancelled() {
        return Err(Error::Busy { retry_after: 2, reason: "the cloud is stopping".into() });
    }
    match ask_database(&state).await {
        Some(_) => Ok("ready"),
        None => Err(Error::Busy { retry_after: 2, reason: "the database does not answer".into() }),
    }
}

/// How the parts are doing. Anyone may ask. 503 while the database does not answer.
#[utoipa::path(tag = "operations", path = "/api/health", responses((status = 200, body = Health),
    (status = 503, body = Health)))]
#[get("/api/health")]
async fn health(state: web::Data<State>) -> HttpResponse {
    let up = ask_database(&state).await.is_some();
    let body = Health {
        status: if up { "healthy" } else { "unhealthy" },
        database: connected(up),
        redis: "not_used",
        ollama: "not_configured",
        timestamp: rfc3339(Utc::now().timestamp_millis()),
    };
    if up { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

/// The same with figures. For who reads everything, and keys with the scope `metrics`.
#[utoipa::path(tag = "operations", path = "/api/health/detailed", security(("access_key" = []), ("session" = [])),
    responses((status = 200, body = Detailed), (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = crate::error::ErrorBody)))]
#[get("/api/health/detailed")]
async fn detailed(_: MetricsReader, state: web::Data<State>) -> HttpResponse {
    let took = ask_database(&state).await;
    let seen = look(&state).await;
    let usage = usage();
    let records = seen.map(|seen| Records {
        database_bytes: seen.database_bytes,
        disk_free_bytes: seen.disk_free_bytes,
        disk_bytes: seen.disk_bytes,
        gateways_heard: seen.gateways_heard,
        gateways_silent: seen.gateways_silent,
        quarantined: seen.quarantined,
        latest_backup_at: seen.latest_backup.map(|at| rfc3339(at.timestamp_millis())),
    });
    HttpResponse::Ok().json(Detailed {
        status: if took.is_some() { "healthy" } else { "unhealthy" },
        timestamp: rfc3339(Utc::now().timestamp_millis()),
        system: System {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: state.metrics.uptime().as_secs(),
            memory_bytes: usage.memory_bytes,
            open_files: usage.open_files,
            most_files: usage.most_files,
            database: connected(took.is_some()),
            connections: state.people.size(),
            idle_connections: state.people.num_idle(),
        },
        database_response_time: took.map(|took| format!("{}ms", took.as_millis())),
        records,
        // Neither is part of this program yet.
        chatbot_availability: "false",
        waste_detection_available: "false",
    })
}

/// The figures, unless the database takes too long.
async fn look(state: &State) -> Option<Figures> {
    match tokio::time::timeout(PATIENCE, figures::look(state)).await {
        Ok(Ok(seen)) => Some(seen),
        Ok(Err(error)) => {
            tracing::warn!("the figures could not be had: {error}");
            None
        }
        Err(_) => None,
    }
}

/// Prometheus metrics. For who reads everything, and keys with the scope `metrics`.
#[utoipa::path(tag = "operations", path = "/metrics", security(("access_key" = []), ("session" = [])),
    responses((status = 200, content_type = "application/openmetrics-text", body = String),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = crate::error::ErrorBody)))]
#[get("/metrics")]
async fn metrics(_: MetricsReader, state: web::Data<State>) -> Result<HttpResponse> {
    // Also keeps `database_up` true for a cloud that nobody else asks.
    let seen = match ask_database(&state).await {
        Some(_) => look(&state).await,
        None => None,
    };
    state.metrics.saw(&figures::pools(&state), seen.as_ref());
    let text = state.metrics.encode().map_err(|error| Error::Unexpected(error.into()))?;
    Ok(HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(text))
}

/// How long the database took to answer; `None` when it did not.
async fn ask_database(state: &State) -> Option<Duration> {
    let started = Instant::now();
    let answer = sqlx::query_scalar!(r#"select 1 as "one!""#).fetch_one(&state.people);
    let up = matches!(tokio::time::timeout(PATIENCE, answer).await, Ok(Ok(1)));
    state.metrics.database_up.set(i64::from(up));
    up.then(|| started.elapsed())
}

fn connected(up: bool) -> &'static str {
    if up { "connected" } else { "disconnected" }
}
