//! What the log tells an operator, and what it keeps to itself.

use anyhow::{Context, Result, ensure};
use lumbung_tests::http;
use lumbung_tests::programs::{Program, append};
use lumbung_tests::story::story;
use lumbung_tests::wait::eventually;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;

const PASSWORD: &str = "sepeda merah tua";

#[test]
fn every_line_of_a_json_log_parses_names_its_request_and_holds_no_secret() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        // More than anybody would log.
        cloud.set("log.format", "json").set("log.filter", "debug");
        cloud.start().await?;
        let client = http::client()?;
        let post = |path: &str, id: &str, body: Value| {
            let request = client.post(cloud.url(path)).header("x-request-id", id);
            http::send(request.header("content-type", "application/json").body(body.to_string()))
        };
        let person = json!({"email": "budi@example.com", "password": PASSWORD, "username": "budi",
            "full_name": "Budi Santoso"});
        post("/api/auth/register", "buka-akun", person).await?.expect(201)?;
        let login = json!({"email": "budi@example.com", "password": PASSWORD});
        let body = post("/api/auth/login", "masuk-1", login).await?.expect(200)?;
        let token = body["token"].as_str().context("token")?.to_owned();
        let wrong = json!({"email": "budi@example.com", "password": "kunci palsu"});
        assert_eq!(post("/api/auth/login", "masuk-2", wrong).await?.status, 401);
        let me =
            client.get(cloud.url("/api/users/me")).header("x-request-id", "siapa-aku").bearer_auth(&token);
        http::send(me).await?.expect(200)?;
        // Secrets where none belong.
        cloud.get("/api/rahasia-di-jalan?token=rahasia-di-tanya").await?;
        for (email, password) in [
            (json!(["budi@example.com"]), json!("kunci palsu")),
            (json!("budi@example.com"), json!(8_675_309)),
            (json!("budi@example.com"), json!(["kunci palsu"])),
            (json!("budi@example.com"), json!({ "kunci palsu": 1 })),
        ] {
            post("/api/auth/login", "rusak", json!({ "email": email, "password": password })).await?;
        }
        for text in ["{\"password\": \"kunci palsu", "\"kunci palsu\"", "{\"kunci palsu\": 1}"] {
            let request =
                client.post(cloud.url("/api/auth/login")).header("content-type", "application/json");
            assert_eq!(http::send(request.body(text)).await?.status, 400);
        }
        cloud.stop().await?;

        let log = std::fs::read_to_string(&cloud.settings.log)?;
        let lines: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
            .collect::<Result<_>>()?;
        let access = |id: &str| {
            let mut of =
                lines.iter().filter(|line| line["target"] == "access" && line["span"]["request_id"] == id);
            of.next().with_context(|| format!("no access line of {id}"))
        };
        for (id, method, route, status) in [
            ("buka-akun", "POST", "/api/auth/register", 201),
            ("masuk-1", "POST", "/api/auth/login", 200),
            ("masuk-2", "POST", "/api/auth/login", 401),
            ("siapa-aku", "GET", "/api/users/me", 200),
        ] {
            let line = access(id)?;
            let span = &line["span"];
            assert_eq!((&span["method"], &span["route"]), (&json!(method), &json!(route)), "{line}");
            assert_eq!((&line["status"], &line["level"]), (&json!(status), &json!("INFO")), "{line}");
            ensure!(line["ms"].is_u64() && line["bytes"].is_u64(), "{line}");
        }
        assert_eq!(access("siapa-aku")?["span"]["principal"], "person");
        let unknown = lines.iter().any(|line| line["span"]["route"] == "unknown" && line["status"] == 404);
        assert!(unknown, "what is nowhere is answered and not logged");
        assert!(log.contains("\"level\":\"DEBUG\""), "this is no log at debug");
        for secret in [
            PASSWORD,
            "kunci palsu",
            "8675309",
            token.as_str(),
            "example.com",
            "Budi Santoso",
            "rahasia-di",
            "$argon2",
        ] {
            assert!(!log.contains(secret), "the log holds {secret}");
        }
        Ok(())
    })
}

#[test]
fn the_journal_is_told_how_grave_each_line_is() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud_not_started().await?;
        let journal = append(&cloud.settings.log)?.metadata()?;
        let mut command = cloud.command(&["serve"])?;
        command.env("JOURNAL_STREAM", format!("{}:{}", journal.dev(), journal.ino()));
        let mut program = Program::start("cloud", &mut command, &cloud.settings.log)?;
        let log = cloud.settings.log.clone();
        eventually("it says where it listens", || async {
            let text = std::fs::read_to_string(&log)?;
            Ok(text
                .lines()
                .any(|line| line.starts_with("<6>") && line.contains("listening on"))
                .then_some(()))
        })
        .await?;
        tokio::task::spawn_blocking(move || program.stop()).await?
    })
}
