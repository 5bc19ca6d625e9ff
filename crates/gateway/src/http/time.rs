//! `POST /api/time`: a phone tells a gateway that knows no better what time it is.

use super::Api;
use super::log_scan::json_body;
use super::problem::Problem;
use crate::clock::Unbelieved;
use crate::words::{Code, FieldProblem};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use lumbung_shared::time::{parse_rfc3339, rfc3339};
use serde::Deserialize;
use serde_json::{Value, json};

/// No phone's clock and no way through a browser is better than this, whatever it says.
const LEAST_UNCERTAINTY_MS: u32 = 2_000;

/// The body; fields that are not here are ignored.
#[derive(Debug, Deserialize)]
struct Told {
    /// RFC 3339 with an offset.
    timestamp: Option<String>,
    uncertainty_ms: Option<u32>,
}

/// 200 whether the phone's time was needed or not; the answer says what the gateway goes by.
pub(super) async fn post(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    match take(&request, payload, &api).await {
        Ok(clock) => HttpResponse::Ok().json(json!({ "success": true, "clock": clock })),
        Err(problem) => problem.answer(&request),
    }
}

async fn take(request: &HttpRequest, payload: Payload, api: &Api) -> Result<Value, Problem> {
    let body = json_body(request, payload).await?;
    let told: Told = serde_json::from_slice(&body).map_err(|_| Problem::of(Code::BadJson))?;
    let wrong = |problem| Problem::fields(vec![("timestamp", problem)]);
    let timestamp = told.timestamp.ok_or_else(|| wrong(FieldProblem::Missing))?;
    let wall_ms = parse_rfc3339(&timestamp).ok_or_else(|| wrong(FieldProblem::NotTime))?;
    let uncertainty_ms = told.uncertainty_ms.unwrap_or_default().max(LEAST_UNCERTAINTY_MS);
    api.clock.hear_phone(wall_ms, i64::from(uncertainty_ms)).map_err(|error| {
        Problem::of(match error {
            Unbelieved::TooEarly => Code::TimeTooEarly,
            Unbelieved::TooLate => Code::TimeTooLate,
        })
    })?;
    Ok(shown(api))
}

/// The clock as the API shows it.
pub(super) fn shown(api: &Api) -> Value {
    let clock = api.clock.view();
    json!({
        "state": clock.now.state,
        "now": rfc3339(clock.now.wall_ms),
        "mono_ms": clock.now.mono_ms,
        "source": clock.source,
        "uncertainty_ms": clock.uncertainty_ms,
        "floor": rfc3339(clock.floor_ms),
    })
}
