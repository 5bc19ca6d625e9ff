//! The answer as it leaves: its id, its shape, its headers.

use super::headers::Dress;
use super::limits;
use super::request_id::RequestId;
use crate::error::{Error, Language};
use crate::state::State;
use actix_web::HttpRequest;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::web;
use std::time::{Duration, Instant};

/// Around every request: an id, errors in one shape and the caller's language, safe headers, a log line
/// for what went wrong, a count.
pub(crate) async fn answer(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = Instant::now();
    let id = RequestId::give(&request);
    let language = Language::of(request.request());
    let dress = Dress::of(&request);
    // Handlers' errors are responses already by now. What takes this long is a body that never ends: a
    // stream's handler returns at once, and statements have their own limit.
    let Ok(answered) = tokio::time::timeout(patience(&request), next.call(request)).await else {
        let mut late = Error::Timeout.answer(id.as_str(), language);
        dress.put_on(late.headers_mut(), &id);
        return Err(InternalError::from_response(Error::Timeout, late).into());
    };
    let mut response = answered?.map_into_boxed_body();
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
    dress.put_on(response.headers_mut(), &id);
    if let Some(metrics) = http.app_data::<web::Data<State>>().map(|state| &state.metrics) {
        let route = http.match_pattern().unwrap_or_else(|| "unknown".into());
        metrics.answered(route, method(http.method()), response.status().as_u16(), started.elapsed());
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

fn log(error: &Error, request: &HttpRequest) {
    let id = RequestId::of(request);
    let id = id.as_ref().map_or("", RequestId::as_str);
    let path = request.match_pattern().unwrap_or_else(|| "unknown".into());
    match error {
        Error::Unexpected(cause) => tracing::error!(request_id = id, path, "unexpected: {cause:#}"),
        Error::Busy { reason, .. } => tracing::warn!(request_id = id, path, "busy: {reason}"),
        other => tracing::debug!(request_id = id, path, "refused: {other}"),
    }
}
