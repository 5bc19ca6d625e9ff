//! Looking at the gateway, and the few things a person may tell it.

use super::Api;
use super::log_scan::json_body;
use super::problem::Problem;
use crate::outbox::{OutboxError, Stream};
use crate::words::{Code, FieldProblem};
use actix_web::web::{Data, Payload, Query};
use actix_web::{HttpRequest, HttpResponse};
use lumbung_shared::time::{parse_rfc3339, rfc3339};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const MOST_SCANS: usize = 500;
const MOST_QUARANTINED: usize = 1_000;

fn answered(request: &HttpRequest, result: Result<Value, OutboxError>) -> HttpResponse {
    match result {
        Ok(value) => HttpResponse::Ok().json(value),
        Err(_) => Problem::of(Code::StorageFailed).answer(request),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
}

/// `GET /api/scans?limit=50`: unsent first, then newest; at most 500.
pub(super) async fn scans(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let Ok(page) = Query::<Page>::from_query(request.query_string()) else {
        return Problem::fields(vec![("limit", FieldProblem::NotNumber)]).answer(&request);
    };
    let limit = page.limit.unwrap_or(50).min(MOST_SCANS);
    let scans = api.outbox.recent(limit).await;
    answered(&request, scans.map(|scans| json!({ "scans": scans })))
}

/// `GET /api/status`
pub(super) async fn status(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    answered(&request, look(&api).await)
}

async fn look(api: &Api) -> Result<Value, OutboxError> {
    let (view, gauges, run) = (api.sync.view(), api.outbox.gauges(), api.outbox.run());
    let unsent: BTreeMap<_, _> = Stream::ALL.map(|s| (s.name(), gauges.unsent(s))).into();
    let oldest = api.outbox.oldest_unsent_at().await?;
    Ok(json!({
        "gateway_id": view.gateway_id,
        "site": view.site,
        "cloud": view.cloud,
        "sync": {
            "state": view.state,
            "last_sent_at": view.last_sent_at,
            "last_answer": view.last_answer,
            "next_attempt_at": view.next_attempt_at,
            "alarms": view.alarms,
        },
        "unsent": unsent,
        "oldest_unsent_at": oldest,
        "parked": gauges.parked(),
        "quarantined": gauges.quarantined(),
        "last_sent_at": view.last_sent_at,
        "last_answer": view.last_answer,
        "clock": super::time::shown(api),
        "run": { "epoch": run.epoch, "previous": run.previous, "started_at": run.started_at },
        "salvaged": api.outbox.salvaged(),
        "disk": { "free_bytes": api.outbox.disk_free(), "full": gauges.is_full() },
        "board": api.board.latest(),
        "reader": api.reader.as_str(),
        "mqtt": api.mqtt.view(),
        "sensors": api.sensors.views(),
        "action": api.action.as_ref().map(|action| action.current()),
        "version": VERSION,
    }))
}

/// `GET /api/health`: for people and simple monitors. An unreachable cloud is not ill health.
pub(super) async fn health(api: Data<Api>) -> HttpResponse {
    let (gauges, view, now) = (api.outbox.gauges(), api.sync.view(), api.clock.now());
    let full = gauges.is_full();
    let body = json!({
        "status": if full { "unhealthy" } else { "healthy" },
        "storage": if full { "full" } else { "ok" },
        "sync": view.state,
        "reader": api.reader.as_str(),
        "clock": now.state,
        "timestamp": rfc3339(now.wall_ms),
        "version": VERSION,
    });
    if full { HttpResponse::ServiceUnavailable().json(body) } else { HttpResponse::Ok().json(body) }
}

/// `GET /livez`: the program answers.
pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("ok\n")
}

/// `GET /readyz`: scans are taken. The cloud has no part in that.
pub(super) async fn ready(api: Data<Api>) -> HttpResponse {
    if api.outbox.gauges().is_full() {
        HttpResponse::ServiceUnavailable().content_type("text/plain").body("storage_full\n")
    } else {
        HttpResponse::Ok().content_type("text/plain").body("ok\n")
    }
}

/// `GET /metrics`: Prometheus.
pub(super) async fn metrics(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let Ok(oldest) = api.outbox.oldest_unsent_at().await else {
        return Problem::of(Code::StorageFailed).answer(&request);
    };
    let (gauges, now) = (api.outbox.gauges(), api.clock.now());
    let age_ms =
        oldest.and_then(|at| parse_rfc3339(&at)).map_or(0, |at| now.wall_ms.saturating_sub(at).max(0));
    let snapshot = crate::metrics::Snapshot {
        unsent: Stream::ALL.map(|stream| (stream.name(), gauges.unsent(stream))).into(),
        oldest_seconds: age_ms as f64 / 1_000.0,
        parked: gauges.parked(),
        quarantined: gauges.quarantined(),
        clock: now.state,
        disk_free: api.outbox.disk_free(),
        disk_full: gauges.is_full(),
    };
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(api.metrics.text(&snapshot))
}

/// `GET /api/quarantine`: `parked` are set aside here, `quarantined` are kept unread by the cloud.
pub(super) async fn quarantine(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let found = async {
        let parked = api.outbox.parked(MOST_QUARANTINED).await?;
        let quarantined = api.outbox.quarantined(MOST_QUARANTINED).await?;
        Ok(json!({ "parked": parked, "quarantined": quarantined }))
    };
    answered(&request, found.await)
}

#[derive(Debug, Deserialize)]
struct Retry {
    stream: Option<String>,
    seq: Option<i64>,
}

/// `POST /api/quarantine/retry`: `{"stream","seq"}` for one parked record, `{}` for all.
pub(super) async fn retry(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let body = match json_body(&request, payload).await {
        Ok(body) => body,
        Err(problem) => return problem.answer(&request),
    };
    let Ok(retry) = serde_json::from_slice::<Retry>(&body) else {
        return Problem::of(Code::BadJson).answer(&request);
    };
    let which = match (retry.stream.as_deref(), retry.seq) {
        (None, None) => None,
        (stream, Some(seq)) => match Stream::from_name(stream.unwrap_or(Stream::Scan.name())) {
            Some(stream) => Some((stream, seq)),
            None => {
                return Problem::fields(vec![("stream", FieldProblem::UnknownStream)]).answer(&request);
            }
        },
        (Some(_), None) => return Problem::fields(vec![("seq", FieldProblem::Missing)]).answer(&request),
    };
    match api.outbox.release(which).await {
        Ok(released) => {
            if released > 0 {
                api.sync.send_now();
            }
            HttpResponse::Ok().json(json!({ "success": true, "released": released }))
        }
        Err(OutboxError::Full) => Problem::of(Code::StorageFull).answer(&request),
        Err(_) => Problem::of(Code::StorageFailed).answer(&request),
    }
}

#[derive(Debug, Deserialize)]
struct Resend {
    since: Option<String>,
}

/// `POST /api/resend`: what was sent goes again; `{"since"}` for what was stored since then, `{}` for everything.
pub(super) async fn resend(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let body = match json_body(&request, payload).await {
        Ok(body) => body,
        Err(problem) => return problem.answer(&request),
    };
    let Ok(Resend { since }) = serde_json::from_slice(&body) else {
        return Problem::of(Code::BadJson).answer(&request);
    };
    let since_ms = since.as_deref().map(parse_rfc3339);
    if since_ms == Some(None) {
        return Problem::fields(vec![("since", FieldProblem::NotTime)]).answer(&request);
    }
    match api.outbox.send_again(since_ms.flatten()).await {
        Ok(resent) => {
            tracing::warn!(resent, since, "records that were sent are sent again, as was asked for");
            api.sync.send_now();
            HttpResponse::Ok().json(json!({ "success": true, "resent": resent }))
        }
        Err(OutboxError::Full) => Problem::of(Code::StorageFull).answer(&request),
        Err(_) => Problem::of(Code::StorageFailed).answer(&request),
    }
}

/// `POST /api/sync`: send now. Answers at once; the status tells how it went.
pub(super) async fn send_now(api: Data<Api>) -> HttpResponse {
    api.sync.send_now();
    HttpResponse::Accepted().json(json!({ "success": true, "state": api.sync.view().state }))
}
