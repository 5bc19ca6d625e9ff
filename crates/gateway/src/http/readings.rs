//! `POST /api/readings`: anything on the network that measures may say so, in SenML or in our own form.
//!
//! All of a post is kept or nothing: whoever is refused can mend it and send it whole again.

use super::Api;
use super::log_scan::{JSON, body};
use super::problem::Problem;
use super::senml;
use crate::capture::Refused;
use crate::clock::Moment;
use crate::outbox::{KeptReadings, Once, OnceName, OutboxError};
use crate::words::{Code, FieldProblem};
use actix_web::http::header::HeaderName;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use lumbung_shared::FieldError;
use lumbung_shared::reading::{Quality, ReadingContent, SeriesName, Unit};
use lumbung_shared::time::parse_rfc3339;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const SENML: &str = "application/senml+json";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key; kept with a word of ours before it.
const KEY_BYTES: usize = 100;
const BODY_BYTES: usize = 256 << 10;
const MOST_READINGS: usize = 1_000;

/// What is wrong with one record of a post.
pub(super) type Wrong = (&'static str, FieldProblem);

/// 201 for new readings, 200 for those that the same key brought before.
pub(super) async fn post(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    match take(&request, payload, &api).await {
        Ok(kept) => {
            let answer = json!({
                "success": true, "run": kept.run, "first": kept.first, "count": kept.count,
            });
            if kept.fresh { HttpResponse::Created().json(answer) } else { HttpResponse::Ok().json(answer) }
        }
        Err(problem) => problem.answer(&request),
    }
}

async fn take(request: &HttpRequest, payload: Payload, api: &Api) -> Result<KeptReadings, Problem> {
    let key = key(request)?;
    let (kind, body) = body(request, payload, &[JSON, SENML], BODY_BYTES).await?;
    let readings = read(kind, &body, &api.clock.now(), &api.series_prefix)?;
    let once = key.map(|key| {
        let mut hash = Sha256::new();
        hash.update(kind);
        hash.update([0]);
        hash.update(&body);
        Once { name: OnceName::Key(format!("post {key}")), digest: hash.finalize().into() }
    });
    api.capture.take_readings(readings, once).await.map_err(refusal)
}

fn read(kind: &str, body: &[u8], now: &Moment, prefix: &str) -> Result<Vec<ReadingContent>, Problem> {
    let json = serde_json::from_slice(body).map_err(|_| Problem::of(Code::BadJson))?;
    if kind == SENML {
        return records(json, |entries| senml::read(entries, now, prefix));
    }
    let Value::Object(mut fields) = json else { return Err(Problem::of(Code::BadJson)) };
    let Some(readings) = fields.remove("readings") else {
        return Err(Problem::fields(vec![("readings", FieldProblem::Missing)]));
    };
    let one = |entry: &Map<String, Value>| simple(entry, prefix);
    records(readings, |entries| entries.iter().map(|entry| one(entry).map(Some)).collect())
}

fn key(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let Some(key) = request.headers().get(&IDEMPOTENCY_KEY) else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=KEY_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => {
            let problem = FieldProblem::Limit(FieldError::new(
                "Idempotency-Key",
                format!("harus 1 sampai {KEY_BYTES} karakter ASCII"),
                format!("must be 1 to {KEY_BYTES} printable ASCII characters"),
            ));
            Err(Problem::fields(vec![("Idempotency-Key", problem)]))
        }
    }
}

/// Reads an array of objects; what is wrong is named by place and field, all of it at once.
fn records(
    json: Value,
    read: impl FnOnce(&[Map<String, Value>]) -> Vec<Result<Option<ReadingContent>, Wrong>>,
) -> Result<Vec<ReadingContent>, Problem> {
    let Value::Array(entries) = json else { return Err(Problem::of(Code::BadJson)) };
    if entries.is_empty() || entries.len() > MOST_READINGS {
        let problem = FieldError::not_between("readings", 1, MOST_READINGS);
        return Err(Problem::fields(vec![("readings", FieldProblem::Limit(problem))]));
    }
    let objects: Result<Vec<_>, usize> = entries
        .into_iter()
        .enumerate()
        .map(|(at, entry)| if let Value::Object(entry) = entry { Ok(entry) } else { Err(at) })
        .collect();
    let objects =
        objects.map_err(|at| Problem::records(vec![(format!("[{at}]"), FieldProblem::NotObject)]))?;
    let (mut readings, mut wrong) = (Vec::new(), Vec::new());
    for (at, outcome) in read(&objects).into_iter().enumerate() {
        match outcome {
            Ok(reading) => readings.extend(reading),
            Err((field, problem)) => wrong.push((format!("[{at}].{field}"), problem)),
        }
    }
    if !wrong.is_empty() {
        return Err(Problem::records(wrong));
    }
    if readings.is_empty() {
        // Base values alone.
        return Err(Problem::fields(vec![("readings", FieldProblem::Missing)]));
    }
    Ok(readings)
}

fn simple(entry: &Map<String, Value>, prefix: &str) -> Result<ReadingContent, Wrong> {
    let text = |field: &'static str| match entry.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err((field, FieldProblem::NotText)),
    };
    let given = |field| text(field)?.ok_or((field, FieldProblem::Missing));
    let value = match entry.get("value") {
        Some(Value::Number(number)) => number.as_f64().ok_or(("value", FieldProblem::NotNumber))?,
        None | Some(Value::Null) => return Err(("value", FieldProblem::Missing)),
        Some(_) => return Err(("value", FieldProblem::NotNumber)),
    };
    let at_ms = match text("timestamp")? {
        Some(text) => Some(parse_rfc3339(text).ok_or(("timestamp", FieldProblem::NotTime))?),
        None => None,
    };
    reading("series", &format!("{prefix}{}", given("series")?), "unit", given("unit")?, value, at_ms)
}

/// Puts a reading together; `name` and `unit` are what the form calls these fields.
pub(super) fn reading(
    name: &'static str,
    series: &str,
    unit: &'static str,
    unit_text: &str,
    value: f64,
    at_ms: Option<i64>,
) -> Result<ReadingContent, Wrong> {
    let limit = |field| move |error| (field, FieldProblem::Limit(error));
    let content = ReadingContent {
        series: SeriesName::parse(series).map_err(limit(name))?,
        unit: Unit::parse(unit_text).map_err(limit(unit))?,
        value,
        quality: Quality::Good,
        at_ms,
    };
    content.check().map_err(|error| ("value", FieldProblem::Limit(error)))?;
    Ok(content)
}

fn refusal(refused: Refused) -> Problem {
    match refused {
        Refused::Field(error) => Problem::fields(vec![(error.field, FieldProblem::Limit(error))]),
        Refused::Store(OutboxError::KeyReused) => Problem::of(Code::KeyReused),
        Refused::Store(OutboxError::Full) => Problem::of(Code::ReadingsFull),
        Refused::Store(_) => Problem::of(Code::ReadingsFailed),
    }
}

/// A post, in either form, is readings within their limits, under their prefix and no more than it has room for, or it
/// is refused.
#[cfg(any(test, fuzzing))]
pub fn must_hold(body: &[u8]) {
    use lumbung_shared::time::ClockState;
    for state in [ClockState::Unset, ClockState::Synced] {
        let now = Moment { mono_ms: 0, wall_ms: 1_795_228_200_000, state };
        for kind in [JSON, SENML] {
            let readings = read(kind, body, &now, "lan/").unwrap_or_default();
            assert!(readings.len() <= MOST_READINGS);
            for reading in readings {
                assert_eq!(reading.check(), Ok(()), "{reading:?}");
                assert!(reading.series.as_str().starts_with("lan/"), "{reading:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_one(entry: &Value) -> Result<ReadingContent, &'static str> {
        simple(entry.as_object().unwrap(), "lan/").map_err(|(field, _)| field)
    }

    #[test]
    fn our_own_form_names_series_unit_and_value_and_may_state_its_time() {
        let entry = json!({ "series": "k-1/t", "unit": "Cel", "value": 4.5, "timestamp": "2026-11-21T09:30:00+07:00" });
        let content = read_one(&entry).unwrap();
        assert_eq!(
            (content.series.as_str(), content.unit.as_str(), content.value),
            ("lan/k-1/t", "Cel", 4.5)
        );
        assert_eq!(content.at_ms, parse_rfc3339("2026-11-21T02:30:00Z"));
        assert_eq!(read_one(&json!({ "series": "k", "unit": "1", "value": 0 })).unwrap().at_ms, None);
    }

    #[test]
    fn a_field_that_cannot_be_taken_is_named() {
        for (entry, field) in [
            (json!({ "unit": "1", "value": 1 }), "series"),
            (json!({ "series": "a b", "unit": "1", "value": 1 }), "series"),
            (json!({ "series": "a", "unit": "", "value": 1 }), "unit"),
            (json!({ "series": "a", "unit": "1", "value": "1" }), "value"),
            (json!({ "series": "a", "unit": "1" }), "value"),
            (
                json!({ "series": "a", "unit": "1", "value": 1, "timestamp": "2026-11-21T09:30:00" }),
                "timestamp",
            ),
        ] {
            assert_eq!(read_one(&entry).unwrap_err(), field);
        }
    }

    /// A number, and now and then what is none.
    const NUMBER: &str = "-?[0-9]{1,3}(\\.[0-9]{1,3})?(e-?[0-9]{1,3})?|null|\"4\"|true";

    proptest! {
        #[test]
        fn whatever_is_posted_is_readings_or_a_problem(
            names in prop::collection::vec("(n|u|v|bn|bu|bv|bt|t|vb|bver|vs|series|unit|value|timestamp)", 0..6),
            texts in prop::collection::vec("[-a-zA-Z0-9:./_% ]{0,9}", 6),
            numbers in prop::collection::vec(NUMBER, 6),
            own: bool,
            noise in prop::option::of(prop::collection::vec(any::<u8>(), 0..60)),
        ) {
            let fields = names.iter().zip(texts).zip(numbers).map(|((name, text), number)| match name.as_str() {
                "n" | "u" | "bn" | "bu" | "vs" | "series" | "unit" | "timestamp" => format!("{name:?}:{text:?}"),
                _ => format!("{name:?}:{number}"),
            });
            let record = fields.collect::<Vec<_>>().join(",");
            let post = if own { format!("{{\"readings\":[{{{record}}}]}}") } else { format!("[{{{record}}}]") };
            must_hold(&noise.unwrap_or(post.into_bytes()));
        }
    }
}
