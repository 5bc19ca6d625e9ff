//! The answer as it leaves: its id, its shape, its headers.

use super::cors;
use super::headers::Dress;
use super::limits;
use super::request_id::RequestId;
use crate::error::{Error, language_of};
use crate::state::State;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::{ConnectionType, Method};
use actix_web::middleware::Next;
use actix_web::web;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// What programs ask day and night. That it went well is logged for debugging only: ten thousand gateways would
/// fill the log with it, and each batch that brings records has a line of its own.
const BY_THEMSELVES: [&str; 5] = ["/api/sync_gateway_data", "/api/health", "/livez", "/readyz", "/metrics"];

/// Around every request: every line that is logged meanwhile says whose it is, by an id, the route's pattern and
/// the kind of caller, never by what they sent.
pub(crate) async fn answer(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let id = RequestId::give(&request);
    let span = tracing::info_span!(
        "request",
        request_id = id.as_str(),
        method = method(request.method()),
        route = request.match_pattern().unwrap_or_else(|| "unknown".into()),
        principal = tracing::field::Empty,
    );
    shaped(request, next, id).instrument(span).await
}

/// Errors in one shape and the caller's language, safe headers, a log line, a count.
async fn shaped(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
    id: RequestId,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = Instant::now();
    let language = language_of(request.request());
    let dress = Dress::of(&request);
    let state = request.app_data::<web::Data<State>>();
    let reader = state.and_then(|state| cors::reader(&request, &state.config.http));
    let (metrics, leaving) = state.map(|state| (Arc::clone(&state.metrics), state.leaving.clone())).unzip();
    let route = request.match_pattern().unwrap_or_else(|| "unknown".into());
    let asked = method(request.method());
    // Handlers' errors are responses already by now. What takes this long is a body that never ends: a
    // stream's handler returns at once, and statements have their own limit.
    let Ok(answered) = tokio::time::timeout(patience(&request), next.call(request)).await else {
        tracing::info!(target: "access", status = 408, "took too long");
        if let Some(metrics) = metrics {
            metrics.answered(route, asked, 408, started.elapsed());
        }
        let mut late = Error::Timeout.answer(id.as_str(), language);
        dress.put_on(late.headers_mut(), &id);
        if let Some(reader) = reader {
            cors::let_read(late.headers_mut(), reader);
        }
        return Err(InternalError::from_response(Error::Timeout, late).into());
    };
    let mut response = answered?.map_into_boxed_body();
    let described = response.response().error().map(|error| match error.as_error::<Error>() {
        Some(error) => {
            log(error);
            error.answer(id.as_str(), language)
        }
        None => Error::refused(error).answer(id.as_str(), language),
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
    dress.put_on(response.headers_mut(), &id);
    if leaving.is_some_and(|leaving| leaving.is_cancelled()) {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    let (status, took) = (response.status().as_u16(), started.elapsed());
    let bytes = match response.response().body().size() {
        BodySize::Sized(bytes) => Some(bytes),
        BodySize::None => Some(0),
        BodySize::Stream => None,
    };
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if status < 400 && BY_THEMSELVES.contains(&route.as_str()) {
        tracing::debug!(target: "access", status, ms, bytes, "answered");
    } else {
        tracing::info!(target: "access", status, ms, bytes, "answered");
    }
    if let Some(metrics) = metrics {
        metrics.answered(route, asked, status, took);
    }
    Ok(response)
}

/// A body has its time to arrive; large ones, and what is thought about for long, have it twice.
fn patience(request: &ServiceRequest) -> Duration {
    let state = request.app_data::<web::Data<State>>();
    let body = state.map_or(Duration::from_secs(60), |state| state.config.http.body_timeout);
    if limits::is_quick(request) { body } else { 2 * body }
}

/// A method as a label; what clients invent is one label.
fn method(method: &Method) -> &'static str {
    [Method::GET, Method::POST, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::PATCH]
        .iter()
        .zip(["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
        .find_map(|(known, label)| (known == method).then_some(label))
        .unwrap_or("other")
}

fn log(error: &Error) {
    match error {
        Error::Unexpected(cause) => tracing::error!("unexpected: {cause:#}"),
        Error::Busy { reason, .. } => tracing::warn!("busy: {reason}"),
        // Its text may repeat what was sent, a password among it.
        other => tracing::debug!(code = other.code(), "refused"),
    }
}
