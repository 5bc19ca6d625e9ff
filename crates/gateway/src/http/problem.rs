//! Errors as the API answers them: one shape, a stable code, words in the reader's language.

use crate::words::{Code, FieldProblem, Lang};
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_LANGUAGE, RETRY_AFTER};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use serde_json::json;
use std::borrow::Cow;

/// Most faults that one answer names.
const MOST_DETAILS: usize = 20;
/// Seconds after which a refused scan may be tried again.
const TRY_AGAIN_SECONDS: &str = "5";

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Problem {
    code: Code,
    details: Vec<(Cow<'static, str>, FieldProblem)>,
}

impl Problem {
    pub(super) fn of(code: Code) -> Self {
        Self { code, details: Vec::new() }
    }

    pub(super) fn fields(details: Vec<(&'static str, FieldProblem)>) -> Self {
        let details = details.into_iter().map(|(field, problem)| (field.into(), problem)).collect();
        Self { code: Code::BadField, details }
    }

    /// What is wrong in a list of records, by place; the first of it.
    pub(super) fn records(mut details: Vec<(String, FieldProblem)>) -> Self {
        details.truncate(MOST_DETAILS);
        let details = details.into_iter().map(|(field, problem)| (field.into(), problem)).collect();
        Self { code: Code::BadField, details }
    }

    /// The answer to this request.
    pub(super) fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let header = request.headers().get(ACCEPT_LANGUAGE);
        let lang = header.and_then(|value| value.to_str().ok()).map(Lang::of_header).unwrap_or_default();
        let details: Vec<_> = self
            .details
            .iter()
            .map(|(field, problem)| json!({ "field": field, "message": problem.message(lang) }))
            .collect();
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, TRY_AGAIN_SECONDS));
        }
        response.json(json!({
            "success": false,
            "error": {
                "code": self.code.as_str(),
                "message": self.code.message(lang),
                "details": details,
            },
            "request_id": request.extensions().get::<RequestId>().map(|id| id.0.as_str()),
        }))
    }
}

/// The name of one request, in its answer and in the log.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);
