//! What every answer must be, whoever asked for whatever: its headers, and the one shape of errors in both languages.

use anyhow::{Context, Result};
use chrono::DateTime;
use reqwest::StatusCode;
use serde_json::{Value, json};

/// A status, for errors their code, and which methods a 405 would rather have.
pub(super) type Answer = (u16, String, Option<String>);

/// Codes whose details are not words but what a program goes on with.
const TELLS_DATA: [&str; 2] = ["ACCOUNT_INACTIVE", "TOTP_REQUIRED"];

/// Asks; a refusal is asked for again in English and must say the same in other words.
pub(super) async fn answer(what: &str, request: reqwest::RequestBuilder) -> Result<Answer> {
    let english = request.try_clone().context("a body that cannot be sent twice")?;
    let english = english.header("accept-language", "en").header("x-request-id", "cerita-1");
    let (status, said, allow) = once(what, request).await?;
    if status >= 400 {
        let (again, translated, _) = once(what, english).await?;
        assert_eq!((again, &said.code), (status, &translated.code), "{what}: another answer in English");
        let fields = |said: &Said| said.details.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>();
        assert_eq!(fields(&said), fields(&translated), "{what}: other details in English");
        let mut pairs = vec![(&said.message, &translated.message)];
        if !TELLS_DATA.contains(&said.code.as_str()) {
            pairs.extend(
                said.details.iter().zip(&translated.details).map(|(ours, theirs)| (&ours.1, &theirs.1)),
            );
        }
        for (ours, theirs) in pairs {
            assert!(!ours.is_empty() && ours != theirs, "{what}: {}: not translated: {ours}", said.code);
        }
    }
    Ok((status, said.code, allow))
}

/// Times are UTC and no finer than they are kept: the same one never looks like two.
fn check_times(what: &str, body: &Value) {
    match body {
        Value::Array(items) => items.iter().for_each(|item| check_times(what, item)),
        Value::Object(fields) => fields.values().for_each(|value| check_times(what, value)),
        Value::String(text) if DateTime::parse_from_rfc3339(text).is_ok() => {
            let fraction =
                text.strip_suffix('Z').map(|time| time.split_once('.').map_or("", |(_, rest)| rest));
            assert!(fraction.is_some_and(|digits| digits.len() <= 6), "{what}: {text}");
        }
        _ => {}
    }
}

/// What an error says; of a success, nothing.
#[derive(Default)]
struct Said {
    code: String,
    message: String,
    details: Vec<(String, String)>,
}

async fn once(what: &str, request: reqwest::RequestBuilder) -> Result<(u16, Said, Option<String>)> {
    let asked_as = request.try_clone().context("cannot be sent twice")?.build()?;
    let response = request.send().await.with_context(|| what.to_owned())?;
    let status = response.status();
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (id, kind, allow) = (header("x-request-id"), header("content-type"), header("allow"));
    let id = id.with_context(|| format!("{what}: no request id"))?;
    if let Some(mine) = asked_as.headers().get("x-request-id") {
        assert_eq!(mine, id.as_str(), "{what}: another request id than the caller's");
    }
    assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"), "{what}");
    assert!(header("cache-control").is_some(), "{what}: may be kept by anyone");
    assert_eq!(status == StatusCode::UNAUTHORIZED, header("www-authenticate").is_some(), "{what}: {status}");
    let later = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
    assert_eq!(later, header("retry-after").is_some(), "{what}: {status}");
    if status.as_u16() < 400 {
        // A stream has no end to wait for.
        if kind.as_deref() == Some("application/json") {
            check_times(what, &serde_json::from_str(&response.text().await?)?);
        }
        return Ok((status.as_u16(), Said::default(), allow));
    }
    let text = response.text().await?;
    let body: Value = serde_json::from_str(&text).with_context(|| format!("{what}: {status} {text}"))?;
    assert_eq!(kind.as_deref(), Some("application/json"), "{what}");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(3), "{what}: {text}");
    assert_eq!((&body["success"], &body["request_id"]), (&json!(false), &json!(id)), "{what}: {text}");
    let word = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
    let details = body["error"]["details"].as_array().with_context(|| format!("{what}: {text}"))?;
    let details = details.iter().map(|detail| (word(detail, "field"), word(detail, "message"))).collect();
    let said = Said { code: word(&body["error"], "code"), message: word(&body["error"], "message"), details };
    assert!(!said.code.is_empty() && !said.message.is_empty(), "{what}: {text}");
    Ok((status.as_u16(), said, allow))
}
