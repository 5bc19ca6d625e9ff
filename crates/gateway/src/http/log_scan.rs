//! `POST /api/log_scan`: a phone, or the field manual's curl, brings a scan.

use super::Api;
use super::guard::Caller;
use super::problem::Problem;
use crate::capture::Refused;
use crate::outbox::{Kept, OutboxError, RecordState};
use crate::words::{Code, FieldProblem};
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use lumbung_shared::scan::{ScanContent, Source};
use lumbung_shared::tag::TagId;
use lumbung_shared::time::{parse_rfc3339, rfc3339};
use lumbung_shared::wire::Epoch;
use lumbung_shared::{STATUS_MAX_CHARS, check_text};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::time::Duration;

pub(super) const JSON: &str = "application/json";
/// Largest body.
const BODY_BYTES: usize = 16 << 10;
/// A body that trickles in slower than this only holds a connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The body; fields that are not here are ignored.
#[derive(Debug, Deserialize)]
struct Posted<'a> {
    #[serde(borrow)]
    nfc_tag_id: Option<Cow<'a, str>>,
    status_scan: Option<String>,
    /// RFC 3339 with an offset.
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    note: Option<String>,
    officer: Option<String>,
    quantity: Option<f64>,
    /// A UUID.
    #[serde(borrow)]
    client_ref: Option<Cow<'a, str>>,
}

/// 201 for a new scan, 200 for one that the same `client_ref` brought before.
#[derive(Debug, Serialize)]
struct Stored<'a> {
    success: bool,
    id: i64,
    run: Epoch,
    state: RecordState,
    nfc_tag_id: &'a str,
    status_scan: &'a str,
    timestamp: String,
    synced_to_main_server: bool,
}

pub(super) async fn log_scan(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    match take(&request, payload, &api).await {
        Ok(response) => response,
        Err(problem) => problem.answer(&request),
    }
}

async fn take(request: &HttpRequest, payload: Payload, api: &Api) -> Result<HttpResponse, Problem> {
    let body = json_body(request, payload).await?;
    let mut content = parse(&body)?;
    let source = match Caller::of(request) {
        Caller::Loopback => Source::Phone,
        Caller::Phone(phone) => {
            sign(&mut content, phone.officer)?;
            Source::Phone
        }
        Caller::Stranger => Source::FieldManual,
    };
    let (tag, status) = (content.tag.clone(), content.status.clone());
    let kept = api.capture.take(content, source).await.map_err(refusal)?;
    Ok(answer(&kept, tag.as_str(), &status))
}

/// A phone that was paired for an officer scans for nobody else.
fn sign(content: &mut ScanContent, officer: Option<String>) -> Result<(), Problem> {
    match (&content.officer, officer) {
        (Some(named), Some(bound)) if *named != bound => Err(Problem::of(Code::OfficerDiffers)),
        (_, Some(bound)) => {
            content.officer = Some(bound);
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

fn answer(kept: &Kept, tag: &str, status: &str) -> HttpResponse {
    let stored = Stored {
        success: true,
        id: kept.seq,
        run: kept.run,
        state: kept.state,
        nfc_tag_id: tag,
        status_scan: status,
        timestamp: rfc3339(kept.timestamp_ms),
        synced_to_main_server: matches!(kept.state, RecordState::Sent | RecordState::Quarantined),
    };
    if kept.fresh { HttpResponse::Created().json(stored) } else { HttpResponse::Ok().json(stored) }
}

fn refusal(refused: Refused) -> Problem {
    match refused {
        Refused::Field(error) => Problem::fields(vec![(error.field, FieldProblem::Limit(error))]),
        Refused::Store(OutboxError::Conflict { .. } | OutboxError::KeyReused) => {
            Problem::of(Code::ClientRefConflict)
        }
        Refused::Store(OutboxError::Full) => Problem::of(Code::StorageFull),
        Refused::Store(OutboxError::Busy | OutboxError::Failed | OutboxError::Closed) => {
            Problem::of(Code::StorageFailed)
        }
    }
}

/// The body of a JSON request, within its limits.
pub(super) async fn json_body(request: &HttpRequest, payload: Payload) -> Result<Bytes, Problem> {
    Ok(body(request, payload, &[JSON], BODY_BYTES).await?.1)
}

/// A body of one of these types, and which.
pub(super) async fn body(
    request: &HttpRequest,
    payload: Payload,
    types: &[&'static str],
    most: usize,
) -> Result<(&'static str, Bytes), Problem> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = types.iter().find(|known| essence.eq_ignore_ascii_case(known));
    let kind = kind.ok_or_else(|| Problem::of(Code::UnsupportedType))?;
    match tokio::time::timeout(BODY_TIMEOUT, payload.to_bytes_limited(most)).await {
        Ok(Ok(Ok(body))) => Ok((kind, body)),
        Ok(Ok(Err(_))) => Err(Problem::of(Code::BadJson)),
        Ok(Err(_)) => Err(Problem::of(Code::TooLarge)),
        Err(_) => Err(Problem::of(Code::RequestTimeout)),
    }
}

fn parse(body: &[u8]) -> Result<ScanContent, Problem> {
    let posted: Posted<'_> = serde_json::from_slice(body).map_err(|_| explain(body))?;
    let mut details = Vec::new();
    let mut wrong = |field, problem| details.push((field, problem));
    let tag = match posted.nfc_tag_id.as_deref().map(TagId::parse) {
        Some(Ok(tag)) => Some(tag),
        Some(Err(error)) => {
            wrong("nfc_tag_id", FieldProblem::Limit(error));
            None
        }
        None => {
            wrong("nfc_tag_id", FieldProblem::Missing);
            None
        }
    };
    let status = posted.status_scan.unwrap_or_else(|| {
        wrong("status_scan", FieldProblem::Missing);
        String::new()
    });
    let at_ms = posted.timestamp.as_deref().and_then(|text| {
        let at = parse_rfc3339(text);
        if at.is_none() {
            wrong("timestamp", FieldProblem::NotTime);
        }
        at
    });
    let client_ref = posted.client_ref.as_deref().and_then(|text| {
        let key = text.parse().ok();
        if key.is_none() {
            wrong("client_ref", FieldProblem::NotUuid);
        }
        key
    });
    match tag {
        Some(tag) if details.is_empty() => Ok(ScanContent {
            tag,
            status,
            at_ms,
            note: posted.note,
            officer: posted.officer,
            quantity: posted.quantity,
            client_ref,
        }),
        _ => {
            // Everything that is wrong in one answer.
            if !status.is_empty()
                && let Err(error) = check_text("status_scan", &status, STATUS_MAX_CHARS)
            {
                details.push(("status_scan", FieldProblem::Limit(error)));
            }
            Err(Problem::fields(details))
        }
    }
}

/// Looks again at a body that did not fit, to name the field.
fn explain(body: &[u8]) -> Problem {
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(body) else {
        return Problem::of(Code::BadJson);
    };
    let mut details = Vec::new();
    for field in ["nfc_tag_id", "status_scan", "timestamp", "note", "officer", "client_ref"] {
        if fields.get(field).is_some_and(|value| !value.is_string() && !value.is_null()) {
            details.push((field, FieldProblem::NotText));
        }
    }
    if fields.get("quantity").is_some_and(|value| !value.is_number() && !value.is_null()) {
        details.push(("quantity", FieldProblem::NotNumber));
    }
    if details.is_empty() {
        // Such as one field twice.
        return Problem::of(Code::BadJson);
    }
    Problem::fields(details)
}

/// A body is a scan or a problem that names what is wrong.
#[cfg(any(test, fuzzing))]
pub fn must_hold(body: &[u8]) {
    if let Ok(content) = parse(body) {
        let tag = content.tag.as_str();
        assert_eq!(TagId::parse(tag).as_ref(), Ok(&content.tag), "a tag that is sent on is the same tag");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_body_becomes_a_scan_and_unknown_fields_are_ignored() {
        let content = parse(
            br#"{"nfc_tag_id":"04:a2:2b:1c","status_scan":"makanan_keluar","timestamp":"2026-11-21T09:30:00+07:00",
                "note":"n","officer":"P-07","quantity":24,"client_ref":"3F2B8C1E-6D0A-4C58-9A54-0D6D3C5F7E21",
                "battery":7}"#,
        )
        .unwrap();
        assert_eq!(content.tag.as_str(), "04A22B1C");
        assert_eq!(content.at_ms, parse_rfc3339("2026-11-21T02:30:00Z"));
        assert_eq!(content.quantity, Some(24.0));
        assert!(content.client_ref.is_some());
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let problem = format!("{:?}", parse(br#"{"timestamp":"2026-11-21T09:30:00"}"#).unwrap_err());
        for field in ["nfc_tag_id", "status_scan", "timestamp"] {
            assert!(problem.contains(field), "{problem}");
        }
        let problem =
            format!("{:?}", parse(br#"{"nfc_tag_id":7,"status_scan":"x","quantity":"y"}"#).unwrap_err());
        assert!(problem.contains("nfc_tag_id") && problem.contains("quantity"), "{problem}");
        assert!(format!("{:?}", parse(b"[]").unwrap_err()).contains("BadJson"));
    }

    proptest! {
        #[test]
        fn whatever_a_phone_posts_is_a_scan_or_a_problem(
            body in r#"\{"nfc_tag_id":("\PC{0,40}"|null|7),"status_scan":("\PC{0,70}"|\[\])(,"(timestamp|client_ref|note)":"[-0-9a-fTZ:.+ ]{0,40}")?(,"quantity":[-0-9.e]{0,8})?\}|\PC{0,60}"#,
        ) {
            must_hold(body.as_bytes());
        }
    }
}
