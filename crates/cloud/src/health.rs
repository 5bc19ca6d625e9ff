//! Is it alive: `/livez`, `/readyz`, `/api/health`, `/api/health/detailed`, `/metrics`.

use crate::error::{Error, Result};
use crate::identity::MetricsReader;
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
    system: System,
    #[schema(example = "1ms")]
    database_response_time: Option<String>,
    #[schema(example = "false")]
    chatbot_availability: &'static str,
    #[schema(example = "false")]
    waste_detection_available: &'static str,
}

#[derive(Serialize, ToSchema)]
struct System {
    version: &'static str,
    database: &'static str,
    /// Connections of the people's pool that are open, and of them idle.
    connections: u32,
    idle_connections: usize,
}

/// The program runs. Anyone may ask.
#[utoipa::path(tag = "operations", path = "/livez", responses((status = 200, body = String)))]
#[get("/livez")]
async fn livez() -> &'static str {
    "ok"
}

/// The program can serve. Anyone may ask.
#[utoipa::path(tag = "operations", path = "/readyz", responses((status = 200, body = String),
    (status = 503, body = crate::error::ErrorBody)))]
#[get("/readyz")]
async fn readyz(state: web::Data<State>) -> Result<&'static str> {
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
    HttpResponse::Ok().json(Detailed {
        system: System {
            version: env!("CARGO_PKG_VERSION"),
            database: connected(took.is_some()),
            connections: state.people.size(),
            idle_connections: state.people.num_idle(),
        },
        database_response_time: took.map(|took| format!("{}ms", took.as_millis())),
        // Neither is part of this program yet.
        chatbot_availability: "false",
        waste_detection_available: "false",
    })
}

/// Prometheus metrics. For who reads everything, and keys with the scope `metrics`.
#[utoipa::path(tag = "operations", path = "/metrics", security(("access_key" = []), ("session" = [])),
    responses((status = 200, content_type = "text/plain", body = String),
        (status = 401, body = crate::error::ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = crate::error::ErrorBody)))]
#[get("/metrics")]
async fn metrics(_: MetricsReader, state: web::Data<State>) -> Result<HttpResponse> {
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
