//! `GET`, `PUT /api/action`: what a tap at this checkpoint means.

use super::Api;
use super::log_scan::json_body;
use super::problem::Problem;
use crate::capture::{Action, ActionError};
use crate::words::{Code, FieldProblem};
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};
use std::sync::Arc;

/// `{"status_scan": …}`; 404 on a gateway without a reader.
pub(super) async fn show(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    match &api.action {
        Some(action) => HttpResponse::Ok().json(json!({ "status_scan": action.current() })),
        None => Problem::of(Code::NoReader).answer(&request),
    }
}

/// Taps carry `status_scan` from now on, also after a restart.
pub(super) async fn choose(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    match take(&request, payload, &api).await {
        Ok(status) => HttpResponse::Ok().json(json!({ "success": true, "status_scan": status })),
        Err(problem) => problem.answer(&request),
    }
}

async fn take(request: &HttpRequest, payload: Payload, api: &Api) -> Result<String, Problem> {
    let action = api.action.as_ref().ok_or_else(|| Problem::of(Code::NoReader))?;
    let body = json_body(request, payload).await?;
    let status = parse(&body)?;
    let (chosen, wanted) = (Arc::clone(action), status.clone());
    let done = web::block(move || Action::choose(&chosen, &wanted)).await;
    match done {
        Ok(Ok(())) => {
            tracing::info!(%status, "taps mean something else from now on");
            Ok(status)
        }
        Ok(Err(ActionError::Field(error))) => {
            Err(Problem::fields(vec![("status_scan", FieldProblem::Limit(error))]))
        }
        Ok(Err(error @ ActionError::File { .. })) => {
            tracing::error!(%error, "the action could not be kept");
            Err(Problem::of(Code::ActionFailed))
        }
        Err(_) => Err(Problem::of(Code::ActionFailed)),
    }
}

fn parse(body: &[u8]) -> Result<String, Problem> {
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(body) else {
        return Err(Problem::of(Code::BadJson));
    };
    match fields.remove("status_scan") {
        Some(Value::String(status)) => Ok(status),
        Some(_) => Err(Problem::fields(vec![("status_scan", FieldProblem::NotText)])),
        None => Err(Problem::fields(vec![("status_scan", FieldProblem::Missing)])),
    }
}
