//! The cloud's contract, endpoint by endpoint: who may call it, what it refuses and how, and that its document says
//! so. An endpoint without a row here fails; so does a documented refusal that nothing provokes.

mod callers;

use anyhow::{Context, Result};
use callers::{Ask, CALLERS, Caller, For, Keys, closed_cloud, with_json};
use lumbung_shared::enrol::SigningKey;
use lumbung_shared::signing::Signer;
use lumbung_tests::http;
use lumbung_tests::story::story;
use lumbung_tests::wire::new_key;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// One endpoint: its name in the document, an example of it, and what that is answered when the caller may.
struct Row {
    method: Method,
    path: &'static str,
    example: &'static str,
    whose: For,
    body: Option<Value>,
    answer: u16,
    /// Requests by somebody who may, that are refused: path and query, body, status, code.
    refused: Vec<(&'static str, Option<Value>, u16, &'static str)>,
}

fn read(path: &'static str, whose: For) -> Row {
    Row { method: Method::GET, path, example: path, whose, body: None, answer: 200, refused: Vec::new() }
}

fn post(path: &'static str, whose: For, body: Value) -> Row {
    Row { method: Method::POST, body: Some(body), ..read(path, whose) }
}

impl Row {
    fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    fn answered(mut self, status: u16) -> Self {
        self.answer = status;
        self
    }

    fn refuses(mut self, target: &'static str, status: u16, code: &'static str) -> Self {
        self.refused.push((target, None, status, code));
        self
    }

    fn refuses_body(mut self, body: Value, status: u16, code: &'static str) -> Self {
        self.refused.push((self.path, Some(body), status, code));
        self
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The status that a caller gets for the example.
    fn expected(&self, caller: Caller) -> u16 {
        match (self.whose, caller) {
            (For::Anyone, _) | (For::Readers, Caller::Reader) | (For::Gateways, Caller::Gateway) => {
                self.answer
            }
            (For::Gateways, Caller::RevokedGateway) | (For::Readers, Caller::Person) => 403,
            _ => 401,
        }
    }
}

/// Accounts and sessions change with every call, so their callers and refusals are told in `people`.
const OF_PEOPLE: [&str; 12] = [
    "POST /api/auth/verify-email/resend",
    "POST /api/auth/register",
    "POST /api/auth/login",
    "POST /api/auth/logout",
    "POST /api/auth/change-password",
    "GET /api/auth/sessions",
    "DELETE /api/auth/sessions/{id}",
    "GET /api/users/me",
    "PUT /api/users/me",
    "POST /api/users/me/picture",
    "DELETE /api/users/me/picture",
    "GET /api/users/me/files",
];

/// Messages are each person's own: their callers and refusals are told in `messages`, `inbox` and `push`.
const OF_MESSAGES: [&str; 9] = [
    "GET /api/notifications/push-subscriptions",
    "POST /api/notifications/push-subscriptions",
    "DELETE /api/notifications/push-subscriptions/{id}",
    "GET /dev/outbox",
    "GET /api/notifications",
    "POST /api/notifications/{id}/read",
    "POST /api/notifications/read-all",
    "GET /api/notifications/preferences",
    "PUT /api/notifications/preferences",
];

fn rows(keys: &Keys) -> Result<Vec<Row>> {
    let invalid = "VALIDATION_ERROR";
    let unreadable = "UNREADABLE_REQUEST";
    let signing = SigningKey::new(&Signer::from_seed(&[7; 32])?, &keys.gateway.key);
    let other = json!({ "claim": keys.used_claim, "key": new_key() });
    Ok(vec![
        read("/", For::Anyone),
        read("/openapi.json", For::Anyone),
        read("/files/{name}", For::Anyone)
            .example("/files/00000000000000000000000000000000.jpg")
            .answered(404),
        read("/livez", For::Anyone),
        read("/readyz", For::Anyone),
        read("/metrics", For::Readers),
        read("/api/health", For::Anyone),
        read("/api/health/detailed", For::Readers),
        read("/api/live", For::Readers),
        read("/api/dashboard/summary", For::Readers).refuses("/api/dashboard/summary?limit=-1", 400, invalid),
        read("/api/scans", For::Readers)
            .refuses("/api/scans?limit=0", 400, invalid)
            .refuses("/api/scans?limit=banyak", 400, unreadable)
            .refuses("/api/scans?from=kemarin", 400, invalid)
            .refuses("/api/scans?cursor=x", 400, invalid),
        read("/api/tags/{id}", For::Readers)
            .example("/api/tags/ADA-1")
            .refuses("/api/tags/TIDAK-ADA", 404, "NOT_FOUND")
            .refuses("/api/tags/%00", 400, invalid),
        read("/api/telemetry/series", For::Readers).refuses("/api/telemetry/series?limit=-1", 400, invalid),
        read("/api/telemetry/readings", For::Readers)
            .example("/api/telemetry/readings?series_id=1")
            .answered(404)
            .refuses("/api/telemetry/readings?series_id=1&limit=0", 400, invalid),
        read("/api/gateways/{gateway_id}/events", For::Readers)
            .example("/api/gateways/GW-1/events")
            .refuses("/api/gateways/GW-TIDAK-ADA/events", 404, "NOT_FOUND")
            .refuses("/api/gateways/GW-1/events?limit=0", 400, invalid),
        read("/verify-email", For::Anyone),
        read("/reset-password", For::Anyone),
        post("/api/auth/verify-email", For::Anyone, json!({ "token": "TIDAK-ADA" })).answered(404),
        post("/api/auth/forgot-password", For::Anyone, json!({ "email": "nobody@example.com" }))
            .refuses_body(json!({ "email": "nobody" }), 400, invalid),
        post(
            "/api/auth/reset-password",
            For::Anyone,
            json!({ "token": "TIDAK-ADA", "new_password": "perahu biru muda" }),
        )
        .answered(404),
        post("/api/auth/refresh", For::Anyone, json!({ "refresh_token": "lbr_lama" })).answered(401),
        post("/api/gateways/enrol", For::Anyone, json!({ "claim": "TIDAK-ADA", "key": new_key() }))
            .answered(404)
            .refuses_body(json!({ "claim": "TIDAK-ADA", "key": "pendek" }), 400, invalid)
            .refuses_body(other, 409, "CLAIM_USED"),
        post("/api/gateways/rotate", For::Gateways, json!({ "new_key": new_key() }))
            .refuses_body(json!({ "new_key": "pendek" }), 400, invalid)
            .refuses_body(json!({ "new_key": keys.neighbour.key }), 409, "KEY_IN_USE"),
        post("/api/gateways/signing_key", For::Gateways, json!(signing))
            .refuses_body(json!(SigningKey::new(&Signer::from_seed(&[8; 32])?, "lain")), 400, invalid)
            .refuses_body(
                json!(SigningKey::new(&keys.neighbour_signs, &keys.gateway.key)),
                409,
                "KEY_IN_USE",
            ),
        post("/api/sync_gateway_data", For::Gateways, json!([])).refuses_body(
            json!("bukan kiriman"),
            400,
            unreadable,
        ),
    ])
}

#[test]
fn every_endpoint_lets_in_whom_it_names_and_answers_everyone_else_alike() -> Result<()> {
    story(async |stand| {
        let (cloud, keys) = closed_cloud(stand).await?;
        let client = http::client()?;
        let ask = Ask { client: &client, cloud: &cloud, keys: &keys };
        let rows = rows(&keys)?;
        let document = cloud.get("/openapi.json").await?.expect(200)?;
        let elsewhere = OF_PEOPLE.iter().chain(&OF_MESSAGES).map(|name| (*name).to_owned());
        let named: BTreeSet<String> = rows.iter().map(Row::name).chain(elsewhere).collect();
        assert_eq!(named, documented(&document), "rows here, and endpoints in the document");
        assert_eq!(named, in_the_code()?, "rows here, and endpoints in the code");
        let mut wrong = Vec::new();
        for row in &rows {
            let name = row.name();
            let operation = &document["paths"][row.path][row.method.as_str().to_lowercase()];
            let guards: Vec<&String> = operation["security"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_object)
                .flat_map(serde_json::Map::keys)
                .collect();
            let expected: &[&str] = match row.whose {
                For::Anyone => &[],
                For::Readers => &["access_key", "session"],
                For::Gateways => &["gateway_key"],
            };
            if guards != expected {
                wrong.push(format!("{name}: its document says {guards:?}"));
            }
            let mut seen = BTreeSet::new();
            for caller in CALLERS {
                let what = format!("{name} by {caller:?}");
                let mut request = ask.request(&row.method, row.example, caller);
                if let Some(body) = &row.body {
                    request = with_json(request, body);
                }
                let (status, code, _) = ask.answer(&what, request).await?;
                if status != row.expected(caller) {
                    wrong.push(format!("{what}: {status} {code}"));
                }
                seen.insert(status);
            }
            for (target, body, status, code) in &row.refused {
                let what = format!("{} {target} {body:?}", row.method);
                let mut request = ask.request(&row.method, target, Ask::allowed(row.whose));
                if let Some(body) = body {
                    request = with_json(request, body);
                }
                let (got, why, _) = ask.answer(&what, request).await?;
                if (got, why.as_str()) != (*status, *code) {
                    wrong.push(format!("{what}: {got} {why}"));
                }
                seen.insert(got);
            }
            if row.body.is_some() {
                seen.extend(unusable_bodies(&ask, row, &mut wrong).await?);
            }
            // What only a slow client, a storm or a lost database sees has stories of its own.
            let elsewhere = BTreeSet::from([408, 429, 503]);
            let refusals: BTreeSet<u16> = operation["responses"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(status, _)| status.parse().ok())
                .filter(|status| *status >= 400)
                .collect();
            seen.retain(|status| *status >= 400);
            let documented: BTreeSet<u16> = refusals.difference(&elsewhere).copied().collect();
            if seen != documented {
                wrong.push(format!("{name}: refused with {seen:?}, documented {documented:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

/// Bodies that no endpoint takes, sent by somebody who may call it; the statuses they got.
async fn unusable_bodies(ask: &Ask<'_>, row: &Row, wrong: &mut Vec<String>) -> Result<BTreeSet<u16>> {
    let json = "application/json";
    let huge = format!("\"{}\"", "x".repeat(5_000_000));
    let bodies: [(Option<&str>, &[u8], u16, &str); 6] = [
        (Some(json), b"{", 400, "UNREADABLE_REQUEST"),
        (Some(json), b"", 400, "UNREADABLE_REQUEST"),
        (Some(json), b"null", 400, "UNREADABLE_REQUEST"),
        (Some(json), b"{\"a\": \"\xff\"}", 400, "UNREADABLE_REQUEST"),
        (Some(json), huge.as_bytes(), 413, "TOO_LARGE"),
        (Some("text/plain"), b"{}", 415, "UNSUPPORTED_MEDIA_TYPE"),
    ];
    let mut seen = BTreeSet::new();
    for (kind, body, status, code) in bodies {
        let what = format!("{} with {kind:?} {:.20}", row.name(), String::from_utf8_lossy(body));
        let mut request = ask.request(&row.method, row.example, Ask::allowed(row.whose)).body(body.to_vec());
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let (got, why, _) = ask.answer(&what, request).await?;
        if (got, why.as_str()) != (status, code) {
            wrong.push(format!("{what}: {got} {why}"));
        }
        seen.insert(got);
    }
    Ok(seen)
}

#[test]
fn a_path_that_is_not_there_and_a_method_that_is_not_meant_are_told_apart() -> Result<()> {
    story(async |stand| {
        let (cloud, keys) = closed_cloud(stand).await?;
        let client = http::client()?;
        let ask = Ask { client: &client, cloud: &cloud, keys: &keys };
        for target in ["/tidak/ada", "/api", "/api/scans/", "/api/tags/", "//", "/%00"] {
            let (status, code, _) =
                ask.answer(target, ask.request(&Method::GET, target, Caller::Nobody)).await?;
            assert_eq!((status, code.as_str()), (404, "NOT_FOUND"), "{target}");
        }
        for row in rows(&keys)? {
            let allowed = if row.method == Method::GET {
                "GET, HEAD, OPTIONS".to_owned()
            } else {
                format!("{}, OPTIONS", row.method)
            };
            let request = ask.request(&Method::OPTIONS, row.example, Caller::Nobody);
            let (status, _, allow) = ask.answer(row.example, request).await?;
            assert_eq!((status, allow.as_deref()), (204, Some(allowed.as_str())), "OPTIONS {}", row.example);
            for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                if method == row.method {
                    continue;
                }
                let what = format!("{method} {}", row.example);
                let request = ask.request(&method, row.example, Caller::Nobody);
                let (status, code, allow) = ask.answer(&what, request).await?;
                assert_eq!((status, code.as_str()), (405, "METHOD_NOT_ALLOWED"), "{what}");
                assert_eq!(allow.as_deref(), Some(allowed.as_str()), "{what}");
            }
        }
        Ok(())
    })
}

#[test]
fn no_value_of_a_path_or_a_query_makes_the_cloud_stumble() -> Result<()> {
    story(async |stand| {
        let (cloud, keys) = closed_cloud(stand).await?;
        let client = http::client()?;
        let ask = Ask { client: &client, cloud: &cloud, keys: &keys };
        let document = cloud.get("/openapi.json").await?.expect(200)?;
        let long = "9".repeat(6_000);
        let hostile = [
            "",
            "%00",
            "%FF",
            "%ff%fe",
            "-1",
            "99999999999999999999",
            "NaN",
            "'%22;--",
            "%F0%9F%8C%BE",
            "a%00b",
            "2026-02-30T00:00:00Z",
            "%2Fapi%2Fscans",
            "9999-12-31T23:59:59%2B14:00",
            "0001-01-01T00:00:00Z",
            &long,
        ];
        for row in rows(&keys)?.iter().filter(|row| row.method == Method::GET && row.path != "/api/live") {
            let parameters =
                document["paths"][row.path]["get"]["parameters"].as_array().cloned().unwrap_or_default();
            for parameter in parameters {
                let name = parameter["name"].as_str().context("a parameter without a name")?;
                for value in hostile {
                    let target = match parameter["in"].as_str() {
                        Some("path") => row.path.replace(&format!("{{{name}}}"), value),
                        _ => format!("{}?{name}={value}", row.example),
                    };
                    let request = ask.request(&Method::GET, &target, Caller::Reader);
                    let (status, code, _) = ask.answer(&target, request).await?;
                    assert!(status < 500, "{target}: {status} {code}");
                }
            }
        }
        Ok(())
    })
}

fn documented(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            item.as_object()
                .into_iter()
                .flat_map(serde_json::Map::keys)
                .map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect()
}

/// Every `#[get("…")]` and its like in the cloud's sources.
fn in_the_code() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/cloud/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read(&path)?;
            for line in String::from_utf8_lossy(&text).lines() {
                let Some((method, rest)) = line.strip_prefix("#[").and_then(|rest| rest.split_once("(\""))
                else {
                    continue;
                };
                if let (Some((at, _)), "get" | "post" | "put" | "patch" | "delete") =
                    (rest.split_once('"'), method)
                {
                    found.insert(format!("{} {at}", method.to_uppercase()));
                }
            }
        }
    }
    Ok(found)
}
