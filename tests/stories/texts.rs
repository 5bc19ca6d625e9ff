//! Text messages: a number is shown to be somebody's, and a provider that speaks HTTP is paid for as few as can be.

use crate::people::{self, PASSWORD, register};
use anyhow::{Context, Result, ensure};
use lumbung_tests::http::Reply;
use lumbung_tests::peer::{Asked, Peer};
use lumbung_tests::programs::Cloud;
use lumbung_tests::stand::Stand;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

const PHONE: &str = "/api/notifications/phone";
const VERIFY: &str = "/api/notifications/phone/verify";
const TYPED: &str = "0812-3456-7890";
const NUMBER: &str = "+6281234567890";

async fn ask(cloud: &Cloud, token: &str, method: Method, path: &str, body: Value) -> Result<Reply> {
    people::ask(cloud, method, path, Some(token), body).await
}

async fn give(cloud: &Cloud, token: &str, number: &str) -> Result<Reply> {
    ask(cloud, token, Method::PUT, PHONE, json!({ "phone_number": number })).await
}

/// A cloud with a provider.
async fn with_provider(stand: &Stand) -> Result<(Cloud, Peer, PgPool)> {
    let provider = Peer::start()?;
    let mut cloud = stand.cloud_not_started().await?;
    cloud
        .set("sms.url", format!("{}/send/{{{{ id }}}}", provider.base))
        .set("sms.secret", "rahasia-penyedia");
    cloud.start().await?;
    let database = cloud.database().await?;
    Ok((cloud, provider, database))
}

/// What a telephone got: to whom, and the text.
fn texts(asked: &[Asked]) -> Result<Vec<(String, String)>> {
    let read = |one: &Asked| {
        let body: Value = serde_json::from_slice(&one.body)?;
        let part = |name: &str| body[name].as_str().map(str::to_owned).context("not a text");
        Ok((part("to")?, part("text")?))
    };
    asked.iter().map(read).collect()
}

/// The code in the text that came last, once there are so many.
async fn code(provider: &Peer, texts_so_far: usize) -> Result<String> {
    let asked = eventually("the code comes", || async {
        let asked = provider.asked();
        Ok((asked.len() == texts_so_far).then_some(asked))
    })
    .await?;
    let (_, text) = texts(&asked)?.pop().context("none")?;
    let code: String = text.chars().filter(char::is_ascii_digit).collect();
    ensure!(code.len() == 6, "{text}");
    Ok(code)
}

async fn becomes(database: &PgPool, state: &str, attempts: i32) -> Result<Option<String>> {
    eventually(&format!("the last one is {state} after {attempts}"), || async {
        let (now, tries, error): (String, i32, Option<String>) = sqlx::query_as(
            "select state, attempts, last_error from delivery where channel = 'sms' order by delivery_id desc limit 1",
        )
        .fetch_one(database)
        .await?;
        ensure!((now.as_str(), tries) == (state, attempts), "{now} after {tries}: {error:?}");
        Ok(Some(error))
    })
    .await
}

/// How many are counted; midnight may have come in between.
async fn counted(database: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("select coalesce(sum(sent), 0) from text_day").fetch_one(database).await?)
}

async fn later(database: &PgPool) -> Result<()> {
    sqlx::query("update delivery set next_try_at = now() where state = 'queued'").execute(database).await?;
    Ok(())
}

#[test]
fn a_number_is_shown_to_be_theirs_by_a_code_and_then_gets_what_its_person_wished() -> Result<()> {
    story(async |stand| {
        let (cloud, provider, database) = with_provider(stand).await?;
        let (user_id, token) = register(&cloud, "budi").await?;
        let wish =
            json!({ "preferences": [{ "type": "password_changed", "channel": "sms", "enabled": true }] });
        ask(&cloud, &token, Method::PUT, "/api/notifications/preferences", wish).await?.expect(200)?;
        let changed = async |from: &str, to: &str| {
            let body = json!({ "current_password": from, "new_password": to });
            ask(&cloud, &token, Method::POST, "/api/auth/change-password", body).await?.expect(200)
        };
        let none = ask(&cloud, &token, Method::GET, PHONE, Value::Null).await?.expect(200)?;
        assert_eq!((&none["phone_number"], &none["available"]), (&Value::Null, &json!(true)));

        let given = give(&cloud, &token, TYPED).await?.expect(200)?;
        assert_eq!((&given["phone_number"], &given["verified"]), (&json!(NUMBER), &json!(false)));
        let code = code(&provider, 1).await?;
        let first = provider.asked().remove(0);
        assert_eq!((first.method.as_str(), &first.path[..6]), ("POST", "/send/"));
        assert_eq!(first.headers["authorization"], "Bearer rahasia-penyedia");
        assert_eq!(texts(&[first])?[0].0, NUMBER);
        // Whose it is nobody knows yet.
        changed(PASSWORD, "sepeda biru muda").await?;
        let wrong = if code == "000000" { "000001" } else { "000000" };
        let verify =
            async |code: &str| ask(&cloud, &token, Method::POST, VERIFY, json!({ "code": code })).await;
        let refused = verify(wrong).await?;
        assert_eq!((refused.status, refused.error_code().as_str()), (404, "LINK_UNKNOWN"));
        assert_eq!(verify(&code).await?.expect(200)?["verified"], true);
        assert_eq!(verify(&code).await?.status, 404, "a code is good once");
        assert_eq!(give(&cloud, &token, TYPED).await?.expect(200)?["verified"], true, "no second code");

        changed("sepeda biru muda", "sepeda hijau tua").await?;
        becomes(&database, "sent", 1).await?;
        let got = texts(&provider.asked())?;
        assert_eq!(got.len(), 2, "{got:?}");
        assert_eq!(got[1], (NUMBER.to_owned(), "Lumbung: Kata sandi Anda sudah diganti".to_owned()));

        ask(&cloud, &token, Method::DELETE, PHONE, Value::Null).await?.expect(200)?;
        assert_eq!(ask(&cloud, &token, Method::DELETE, PHONE, Value::Null).await?.status, 404);
        changed("sepeda hijau tua", "sepeda kuning tua").await?;
        let (written, kept): (i64, i64) = sqlx::query_as(
            "select count(*), count(*) filter (where content is not null) from delivery where channel = 'sms'",
        )
        .fetch_one(&database)
        .await?;
        assert_eq!((written, kept, counted(&database).await?), (2, 0, 2));
        let entries: Vec<(String, String)> = sqlx::query_as(
            "select detail ->> 'text_messages', detail::text from audit_entry
             where object_kind = 'user' and object_id = $1 and detail ? 'text_messages' order by audit_id",
        )
        .bind(user_id.to_string())
        .fetch_all(&database)
        .await?;
        let told: Vec<&str> = entries.iter().map(|(what, _)| what.as_str()).collect();
        assert_eq!(told, ["number given", "number verified", "number given up"]);
        let log = std::fs::read_to_string(stand.log("cloud"))? + &format!("{entries:?}");
        for secret in ["81234567890", code.as_str(), "rahasia-penyedia"] {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
        Ok(())
    })
}

#[test]
fn what_a_provider_refuses_is_tried_again_and_what_it_may_have_sent_is_not() -> Result<()> {
    story(async |stand| {
        let (mut cloud, provider, database) = with_provider(stand).await?;
        let (_, token) = register(&cloud, "budi").await?;
        provider.answers(500);
        give(&cloud, &token, TYPED).await?.expect(200)?;
        becomes(&database, "queued", 1).await?;
        assert_eq!(counted(&database).await?, 0, "what did not leave costs nothing");
        provider.answers(200);
        later(&database).await?;
        becomes(&database, "sent", 2).await?;
        let asked = provider.asked();
        assert_eq!((asked.len(), &asked[0].path), (2, &asked[1].path), "the same id");
        // A number that was given up meanwhile gets nothing.
        provider.answers(500);
        give(&cloud, &token, "0812 3456 7891").await?.expect(200)?;
        becomes(&database, "queued", 1).await?;
        ask(&cloud, &token, Method::DELETE, PHONE, Value::Null).await?.expect(200)?;
        later(&database).await?;
        becomes(&database, "dead", 2).await?;
        assert_eq!(provider.asked().len(), 3);
        provider.answers(422);
        give(&cloud, &token, "0812 3456 7892").await?.expect(200)?;
        assert_eq!(becomes(&database, "dead", 1).await?.as_deref(), Some("refused with 422"));

        // A provider that says in the body what it thinks.
        cloud.stop().await?;
        cloud.set("sms.ok_text", "\"status\":0").start().await?;
        provider.answers(200);
        provider.says("{\"status\":7}");
        give(&cloud, &token, "0812 3456 7893").await?.expect(200)?;
        becomes(&database, "queued", 1).await?;
        provider.says("{\"status\":0}");
        later(&database).await?;
        becomes(&database, "sent", 2).await?;

        // One that takes it and hangs up.
        let deaf = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", deaf.local_addr()?);
        let taking = tokio::spawn(async move {
            while let Ok((mut stream, _)) = deaf.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
            }
        });
        cloud.stop().await?;
        cloud.set("sms.url", url).start().await?;
        give(&cloud, &token, "0812 3456 7894").await?.expect(200)?;
        let error = becomes(&database, "dead", 1).await?.unwrap_or_default();
        assert!(error.contains("may have arrived"), "{error}");
        taking.abort();
        Ok(())
    })
}

#[test]
fn nobody_makes_a_strangers_telephone_ring_nor_the_installation_pay_without_end() -> Result<()> {
    story(async |stand| {
        let (mut cloud, provider, database) = with_provider(stand).await?;
        let ((_, budi), (_, siti)) = (register(&cloud, "budi").await?, register(&cloud, "siti").await?);
        for wrong in ["+1900 555 0100", "812", "", "0812345678x"] {
            assert_eq!(give(&cloud, &budi, wrong).await?.status, 400, "{wrong}");
        }
        for n in 1..=3 {
            give(&cloud, &budi, TYPED).await?.expect(200)?;
            code(&provider, n).await?;
        }
        // Each new code ends the one before, and bears five guesses.
        let guess =
            async |code: &str| ask(&cloud, &budi, Method::POST, VERIFY, json!({ "code": code })).await;
        let good = code(&provider, 3).await?;
        for n in 0..5 {
            let wrong = format!("{:06}", (good.parse::<u32>()? + 1 + n) % 1_000_000);
            assert_eq!(guess(&wrong).await?.status, 404);
        }
        assert_eq!(guess(&good).await?.status, 404, "a sixth guess");
        for n in 4..=5 {
            give(&cloud, &siti, TYPED).await?.expect(200)?;
            code(&provider, n).await?;
        }
        for token in [&budi, &siti] {
            assert_eq!(give(&cloud, token, TYPED).await?.status, 429, "five for one number");
        }
        // Another number of hers, but no more than the day allows; what waits goes when there is room.
        cloud.stop().await?;
        cloud.set("sms.daily", 5).start().await?;
        give(&cloud, &siti, "0812 3456 7891").await?.expect(200)?;
        let error = becomes(&database, "queued", 1).await?.unwrap_or_default();
        assert!(error.contains("sms.daily"), "{error}");
        assert_eq!((provider.asked().len(), counted(&database).await?), (5, 5));
        sqlx::query("update text_day set day = day - 1").execute(&database).await?;
        later(&database).await?;
        becomes(&database, "sent", 2).await?;
        // A number that nobody showed to be theirs is forgotten.
        sqlx::query("update phone set code_expires_at = now() - interval '2 days'")
            .execute(&database)
            .await?;
        cloud.must(&["jobs", "run", "messages_purge"]).await?;
        let left = ask(&cloud, &siti, Method::GET, PHONE, Value::Null).await?.expect(200)?;
        assert_eq!(left["phone_number"], Value::Null);
        eventually("nothing waits", || async {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from delivery where channel = 'sms' and ended_at is null",
            )
            .fetch_one(&database)
            .await?;
            Ok(when(waiting == 0))
        })
        .await
    })
}

#[test]
fn where_no_provider_is_named_nobody_is_asked_for_a_number() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (_, token) = register(&cloud, "budi").await?;
        let none = ask(&cloud, &token, Method::GET, PHONE, Value::Null).await?.expect(200)?;
        assert_eq!((&none["phone_number"], &none["available"]), (&Value::Null, &json!(false)));
        assert_eq!(give(&cloud, &token, TYPED).await?.status, 404);
        Ok(())
    })
}
