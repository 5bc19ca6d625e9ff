//! Errors as the API answers them: one shape, a stable code, words in the reader's language.

use crate::words::{Code, FieldProblem};
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_LANGUAGE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use lumbung_shared::language::Language;
use serde_json::json;
use std::borrow::Cow;

/// Most faults that one answer names.
const MOST_DETAILS: usize = 20;
/// Seconds after which a refused scan may be tried again.
const TRY_AGAIN_SECONDS: u64 = 5;

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Problem {
    code: Code,
    details: Vec<(Cow<'static, str>, FieldProblem)>,
    again_after: Option<u64>,
}

impl Problem {
    pub(super) fn of(code: Code) -> Self {
        let unavailable = code.status() == StatusCode::SERVICE_UNAVAILABLE.as_u16();
        Self { code, details: Vec::new(), again_after: unavailable.then_some(TRY_AGAIN_SECONDS) }
    }

    pub(super) fn fields(details: Vec<(&'static str, FieldProblem)>) -> Self {
        let details = details.into_iter().map(|(field, problem)| (field.into(), problem)).collect();
        Self { code: Code::BadField, details, again_after: None }
    }

    /// What is wrong in a list of records, by place; the first of it.
    pub(super) fn records(mut details: Vec<(String, FieldProblem)>) -> Self {
        details.truncate(MOST_DETAILS);
        let details = details.into_iter().map(|(field, problem)| (field.into(), problem)).collect();
        Self { code: Code::BadField, details, again_after: None }
    }

    /// Says after how many seconds it is worth asking again.
    pub(super) fn again_after(self, seconds: u64) -> Self {
        Self { again_after: Some(seconds), ..self }
    }

    /// The answer to this request.
    pub(super) fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let header = request.headers().get(ACCEPT_LANGUAGE);
        let lang = header.and_then(|value| value.to_str().ok()).map(Language::of_header).unwrap_or_default();
        let details: Vec<_> = self
            .details
            .iter()
            .map(|(field, problem)| json!({ "field": field, "message": problem.message(lang) }))
            .collect();
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        if let Some(seconds) = self.again_after {
            response.insert_header((RETRY_AFTER, seconds));
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
