//! The cloud's contract, endpoint by endpoint: who may call it, what it refuses and how, and that its document says
//! so. An endpoint without a row here fails; so does a documented refusal that nothing provokes, and an undocumented
//! one that is met.
//!
//! # Adding an endpoint
//!
//! A row goes into `rows/<domain>.rs` (a new domain: a file, and its two lines in `rows/mod.rs`):
//!
//! ```ignore
//! post("/api/posts/{id}/comments", For::People, json!({ "text": "Bagus {n}" }))
//!     .example("/api/posts/{post}/comments")     // path and query of a good call; without it the path itself
//!     .answered(201)                             // what those who may call get; 200 when not said
//!     .but(Caller::Admin, 403)                   // one kind of caller is not answered like the rest
//!     .fresh()                                   // the call changes the caller's account: each has its own
//!     .given(|stage, account| async move {       // makes what a call needs; fills {post}
//!         Ok(json!({ "post": 7 }))
//!     }.boxed_local())
//!     .refuses_body(json!({ "text": "" }), 400, INVALID)
//!     .refuses("/api/posts/0/comments", 404, "NOT_FOUND")      // by somebody who may call, without a body
//!     .refuses_of(Caller::Banned, …)                           // by somebody else
//!     .told_in(409, "posts::two_at_once")                      // provoked by a story of its own
//! ```
//!
//! Places in paths and bodies: `{me}`, `{session}`, `{email}`, `{username}` of the caller (of a standing user for
//! callers without an account), `{n}` a number never used before, and whatever `given` answers. A JSON text that is
//! nothing but a place becomes the value itself. Each row is tried by every caller in `CALLERS`; whom it serves is its
//! [`row::For`], which also says what security the document must name. 408, 429 and 503 have stories elsewhere.
//! Bodies that nobody can read, too large ones and wrong content types are tried on every row with a JSON body; rows
//! whose endpoint takes an `Idempotency-Key` are sent again with one.

mod answers;
mod callers;
mod row;
mod rows;

use answers::answer;
use anyhow::{Context, Result};
use callers::{CALLERS, Caller, Stage};
use lumbung_tests::http;
use lumbung_tests::story::story;
use reqwest::Method;
use row::{Body, Row};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use uuid::Uuid;

#[test]
fn every_endpoint_lets_in_whom_it_names_and_answers_everyone_else_alike() -> Result<()> {
    story(async |stand| {
        let stage = Stage::set(stand).await?;
        let rows = rows::all(&stage)?;
        let document = stage.cloud.get("/openapi.json").await?.expect(200)?;
        let named: BTreeSet<String> = rows.iter().map(Row::name).collect();
        assert_eq!(named.len(), rows.len(), "an endpoint has two rows");
        assert_eq!(named, documented(&document), "rows here, and endpoints in the document");
        assert_eq!(named, in_the_code()?, "rows here, and endpoints in the code");
        let mut wrong = Vec::new();
        for row in &rows {
            let operation = &document["paths"][row.path][row.method.as_str().to_lowercase()];
            check_row(&stage, row, operation, &mut wrong).await?;
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

async fn check_row(stage: &Stage, row: &Row, operation: &Value, wrong: &mut Vec<String>) -> Result<()> {
    let name = row.name();
    let guards: Vec<&String> = operation["security"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .flat_map(serde_json::Map::keys)
        .collect();
    if guards != row.whose.security() {
        wrong.push(format!("{name}: its document says {guards:?}"));
    }
    let mut seen = BTreeSet::new();
    for caller in CALLERS {
        let what = format!("{name} by {caller:?}");
        let (status, code, _) = answer(&what, row.usual(stage, caller).await?).await?;
        if status != row.expected(caller) {
            wrong.push(format!("{what}: {status} {code}, not {}", row.expected(caller)));
        }
        seen.insert(status);
    }
    for refusal in &row.refused {
        let what = format!("{} {} {:?} by {:?}", row.method, refusal.target, refusal.body, refusal.by);
        let request = row.call(stage, refusal.by, refusal.target, refusal.body.as_ref()).await?;
        let (status, code, _) = answer(&what, request).await?;
        if (status, code.as_str()) != (refusal.status, refusal.code) {
            wrong.push(format!("{what}: {status} {code}, not {} {}", refusal.status, refusal.code));
        }
        seen.insert(status);
    }
    if let Some(Body::Json(_)) = row.body {
        seen.extend(unusable_bodies(stage, row, wrong).await?);
    }
    let mut parameters = operation["parameters"].as_array().into_iter().flatten();
    let takes_keys = parameters.any(|parameter| parameter["name"] == "Idempotency-Key");
    // What is made for nobody is told in a story of its own.
    if takes_keys && row.expected(row.whose.allowed()) < 300 {
        seen.insert(said_again(stage, row, wrong).await?);
    }
    let statuses = operation["responses"].as_object().into_iter().flatten();
    let documented: BTreeSet<u16> =
        statuses.filter_map(|(status, _)| status.parse().ok()).filter(|status| *status >= 400).collect();
    for (status, story) in &row.elsewhere {
        if !is_told(story) {
            wrong.push(format!("{name}: {status} is told in {story:?}, and there is no such story"));
        }
        if !documented.contains(status) || seen.contains(status) {
            wrong.push(format!("{name}: {status} need not be told in {story:?}"));
        }
    }
    // What only a slow client, a storm or a lost database sees has stories of its own.
    let elsewhere: BTreeSet<u16> =
        [408, 429, 503].into_iter().chain(row.elsewhere.iter().map(|(status, _)| *status)).collect();
    seen.retain(|status| *status >= 400);
    let here: BTreeSet<u16> = documented.difference(&elsewhere).copied().collect();
    if seen != here {
        wrong.push(format!("{name}: refused with {seen:?}, documented {here:?}"));
    }
    Ok(())
}

/// The same request twice is done once, and with another body refused; the status of that.
async fn said_again(stage: &Stage, row: &Row, wrong: &mut Vec<String>) -> Result<u16> {
    let what = format!("{} with an Idempotency-Key", row.name());
    let request = row.usual(stage, row.whose.allowed()).await?;
    let request = request.header("idempotency-key", Uuid::new_v4().to_string());
    let again = || request.try_clone().context("a body that cannot be sent twice");
    let (first, second) = (http::send(again()?).await?, http::send(again()?).await?);
    if (second.status, &second.text) != (first.status, &first.text)
        || [first.header("idempotency-replayed"), second.header("idempotency-replayed")]
            != [None, Some("true")]
    {
        wrong.push(format!("{what}: {first:?}, then {second:?}"));
    }
    let (status, code, _) = answer(&what, again()?.body("[]")).await?;
    if code != "IDEMPOTENCY_KEY_REUSED" {
        wrong.push(format!("{what} and another body: {status} {code}"));
    }
    Ok(status)
}

/// Whether there is a story `module::function`.
fn is_told(story: &str) -> bool {
    let Some((module, function)) = story.split_once("::") else { return false };
    let stories = Path::new(env!("CARGO_MANIFEST_DIR")).join("stories");
    let files = [stories.join(format!("{module}.rs")), stories.join(module).join("mod.rs")];
    let text: String = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    text.contains(&format!("#[test]\nfn {function}() "))
}

/// Bodies that no endpoint takes, sent by somebody who may call it; the statuses they got.
async fn unusable_bodies(stage: &Stage, row: &Row, wrong: &mut Vec<String>) -> Result<BTreeSet<u16>> {
    let json = Some("application/json");
    let huge = format!("\"{}\"", "x".repeat(5_000_000)).into_bytes();
    let bodies: [(Body, u16, &str); 6] = [
        (Body::Bytes(json, b"{".into()), 400, "UNREADABLE_REQUEST"),
        (Body::Bytes(json, b"".into()), 400, "UNREADABLE_REQUEST"),
        (Body::Bytes(json, b"null".into()), 400, "UNREADABLE_REQUEST"),
        (Body::Bytes(json, b"\xff".into()), 400, "UNREADABLE_REQUEST"),
        (Body::Bytes(json, huge), 413, "TOO_LARGE"),
        (Body::Bytes(Some("text/plain"), b"{}".into()), 415, "UNSUPPORTED_MEDIA_TYPE"),
    ];
    let mut seen = BTreeSet::new();
    // Gateways' first form of a batch is an array.
    let listed = (row.path != "/api/sync_gateway_data")
        .then(|| (Body::Bytes(json, b"[null,null]".into()), 400, "UNREADABLE_REQUEST"));
    for (body, status, code) in bodies.into_iter().chain(listed) {
        let what = format!("{} with a body for {status}: {:.60}", row.name(), format!("{body:?}"));
        let request = row.call(stage, row.whose.allowed(), row.example, Some(&body)).await?;
        let (got, why, _) = answer(&what, request).await?;
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
        let stage = Stage::set(stand).await?;
        let nobody = stage.standing(Caller::Nobody)?;
        let ask = async |what: &str, method: &Method, target: &str| {
            answer(what, stage.request(method, target, Caller::Nobody, nobody)).await
        };
        for target in ["/tidak/ada", "/api", "/api/scans/", "/api/tags/", "//", "/%00"] {
            let (status, code, _) = ask(target, &Method::GET, target).await?;
            assert_eq!((status, code.as_str()), (404, "NOT_FOUND"), "{target}");
        }
        let document = stage.cloud.get("/openapi.json").await?.expect(200)?;
        let every = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        for (path, item) in document["paths"].as_object().context("paths")? {
            let meant: Vec<&Method> =
                every.iter().filter(|m| item.get(m.as_str().to_lowercase()).is_some()).collect();
            let target = path.replace(['{', '}'], "");
            let mut allowed: Vec<&str> = meant.iter().map(|method| method.as_str()).collect();
            if meant.contains(&&Method::GET) {
                allowed.push("HEAD");
            }
            allowed.push("OPTIONS");
            let (status, _, allow) = ask(&target, &Method::OPTIONS, &target).await?;
            assert_eq!(
                (status, in_order(allow.as_deref())),
                (204, in_order(Some(&allowed.join(", ")))),
                "{target}"
            );
            for method in every.iter().filter(|method| !meant.contains(method)) {
                let what = format!("{method} {target}");
                let (status, code, allow) = ask(&what, method, &target).await?;
                assert_eq!((status, code.as_str()), (405, "METHOD_NOT_ALLOWED"), "{what}");
                assert_eq!(in_order(allow.as_deref()), in_order(Some(&allowed.join(", "))), "{what}");
            }
        }
        Ok(())
    })
}

/// The methods that an Allow header lists; their order says nothing.
fn in_order(allow: Option<&str>) -> BTreeSet<String> {
    allow.into_iter().flat_map(|allow| allow.split(", ")).map(str::to_owned).collect()
}

#[test]
fn no_value_of_a_path_or_a_query_makes_the_cloud_stumble() -> Result<()> {
    story(async |stand| {
        let stage = Stage::set(stand).await?;
        let document = stage.cloud.get("/openapi.json").await?.expect(200)?;
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
        for row in rows::all(&stage)?.iter().filter(|row| row.path != "/api/live") {
            let operation = &document["paths"][row.path][row.method.as_str().to_lowercase()];
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().context("a parameter without a name")?;
                for value in hostile {
                    let target = match parameter["in"].as_str() {
                        Some("path") => with_segment(row.path, name, value),
                        Some("query") => format!("{}?{name}={value}", row.example),
                        _ => continue,
                    };
                    let caller = row.whose.allowed();
                    let request = row.call(&stage, caller, &target, row.body.as_ref()).await?;
                    let (status, code, _) = answer(&target, request).await?;
                    assert!(status < 500, "{} {target}: {status} {code}", row.method);
                }
            }
        }
        Ok(())
    })
}

/// A path with one of its places filled; the others stand at 1.
fn with_segment(path: &str, name: &str, value: &str) -> String {
    let filled = path.split('/').map(|part| match part.strip_prefix('{') {
        Some(place) if place.trim_end_matches('}') == name => value,
        Some(_) => "1",
        None => part,
    });
    filled.collect::<Vec<_>>().join("/")
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
