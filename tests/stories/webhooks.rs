//! An operator's own program is told of bans: signed, tried again, and never in our own network.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lumbung_tests::http::{self, Reply};
use lumbung_tests::peer::{Asked, Peer};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};

async fn ask(cloud: &Cloud, token: &str, method: Method, path: &str, body: Value) -> Result<Reply> {
    let mut request = http::client()?.request(method, cloud.url(path)).bearer_auth(token);
    if !body.is_null() {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    http::send(request).await
}

async fn admin(cloud: &Cloud) -> Result<String> {
    let added =
        cloud.must(&["user", "add", "--email", "admin@example.com", "--role", "admin", "--json"]).await?;
    let added: Value = serde_json::from_str(&added)?;
    let body = json!({ "email": "admin@example.com", "password": added["password"] });
    let answer = ask(cloud, "", Method::POST, "/api/auth/login", body).await?.expect(200)?;
    Ok(answer["token"].as_str().context("token")?.to_owned())
}

async fn register(cloud: &Cloud, name: &str) -> Result<(Value, String)> {
    let body =
        json!({ "email": format!("{name}@example.com"), "username": name, "password": "sepeda merah tua" });
    let answer = ask(cloud, "", Method::POST, "/api/auth/register", body).await?.expect(201)?;
    Ok((answer["user_id"].clone(), answer["token"].as_str().context("token")?.to_owned()))
}

const PATH: &str = "/api/webhooks";

fn webhook(url: &str, kind: &str) -> Value {
    json!({ "url": url, "kinds": [kind] })
}

/// What a receiver does before it believes a request.
fn verify(asked: &Asked, secret: &str) -> Result<Value> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").context("no whsec_")?)?;
    let header = |name: &str| asked.headers.get(name).with_context(|| format!("no {name}"));
    let mut said = format!("{}.{}.", header("webhook-id")?, header("webhook-timestamp")?).into_bytes();
    said.extend(&asked.body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let good = header("webhook-signature")?.split(' ').any(|signature| {
        let signature = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
        signature.is_some_and(|signature| hmac::verify(&key, &said, &signature).is_ok())
    });
    anyhow::ensure!(good, "no signature is good");
    Ok(serde_json::from_slice(&asked.body)?)
}

#[test]
fn an_operators_program_is_told_of_a_ban_and_knows_by_the_signature_who_tells() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let program = Peer::start()?;
        let token = admin(&cloud).await?;
        let (budi, _) = register(&cloud, "budi").await?;
        let url = format!("{}/lumbung", program.base);
        let made =
            ask(&cloud, &token, Method::POST, PATH, webhook(&url, "account.banned")).await?.expect(201)?;
        let secret = made["secret"].as_str().context("secret")?.to_owned();
        let list = ask(&cloud, &token, Method::GET, PATH, Value::Null).await?;
        assert!(!list.text.contains("whsec_") && !list.text.contains(&secret[6..]), "{}", list.text);
        assert_eq!(list.expect(200)?["webhooks"][0]["url"], json!(url));
        let ban = async |verb: &str| {
            let body = json!({ "user_id": budi, "reason": "Menipu" });
            let body = if verb == "ban" { body } else { json!({ "user_id": budi }) };
            let path = format!("/api/admin/{verb}-user");
            ask(&cloud, &token, Method::POST, &path, body).await?.expect(200)
        };
        let becomes = async |state: &str, attempts: i32| {
            eventually(&format!("one is {state} after {attempts}"), || async {
                let found: i64 = sqlx::query_scalar(
                    "select count(*) from delivery where channel = 'webhook' and state = $1 and attempts = $2",
                )
                .bind(state)
                .bind(attempts)
                .fetch_one(&database)
                .await?;
                Ok(when(found == 1))
            })
            .await
        };
        // Its mistake is not the end of it: the same message comes again, signed for its own moment.
        program.answers(400);
        ban("ban").await?;
        becomes("queued", 1).await?;
        program.answers(204);
        sqlx::query("update delivery set next_try_at = now() where state = 'queued'")
            .execute(&database)
            .await?;
        becomes("sent", 2).await?;
        let asked = program.asked();
        let [first, second] = &asked[..] else { anyhow::bail!("not two: {asked:?}") };
        assert_eq!((first.method.as_str(), first.path.as_str()), ("POST", "/lumbung"));
        assert_eq!(first.headers["webhook-id"], second.headers["webhook-id"]);
        for asked in [first, second] {
            let told = verify(asked, &secret)?;
            assert_eq!((&told["type"], &told["data"]["user_id"]), (&json!("account.banned"), &budi));
            assert!(!String::from_utf8_lossy(&asked.body).contains("Menipu"), "{told}");
        }
        let forged = Asked { body: b"{}".to_vec(), ..first.clone() };
        assert!(verify(&forged, &secret).is_err());
        // A new secret: for a day the old one is good beside it, then it is not.
        let path = format!("{PATH}/{}/rotate", made["id"]);
        let rotated = ask(&cloud, &token, Method::POST, &path, Value::Null).await?.expect(200)?;
        let new = rotated["secret"].as_str().context("secret")?;
        assert_ne!(new, secret);
        ban("unban").await?;
        ban("ban").await?;
        becomes("sent", 1).await?;
        let asked = program.asked();
        let last = asked.last().context("none")?;
        assert!(verify(last, new).is_ok() && verify(last, &secret).is_ok());
        sqlx::query("update webhook set old_until = now()").execute(&database).await?;
        ban("unban").await?;
        ban("ban").await?;
        eventually("it is told again", || async { Ok(when(program.asked().len() == 4)) }).await?;
        let asked = program.asked();
        let last = asked.last().context("none")?;
        assert!(verify(last, new).is_ok() && verify(last, &secret).is_err());
        // Nobody asked to be told of this; and whoever is gone for good is told nothing more.
        ban("unban").await?;
        program.answers(410);
        ban("ban").await?;
        becomes("dead", 1).await?;
        ban("unban").await?;
        ban("ban").await?;
        let told: i64 = sqlx::query_scalar("select count(*) from delivery where channel = 'webhook'")
            .fetch_one(&database)
            .await?;
        assert_eq!((told, program.asked().len()), (4, 5));
        let list = ask(&cloud, &token, Method::GET, PATH, Value::Null).await?.expect(200)?;
        assert!(list["webhooks"][0]["gone_at"].is_string(), "{list}");
        let path = format!("{PATH}/{}", made["id"]);
        assert_eq!(ask(&cloud, &token, Method::DELETE, &path, Value::Null).await?.status, 200);
        assert_eq!(ask(&cloud, &token, Method::DELETE, &path, Value::Null).await?.status, 404);
        Ok(())
    })
}

#[test]
fn there_are_at_most_twenty_and_none_leads_into_our_own_network() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("development.open_loopback", false);
        cloud.start().await?;
        let token = admin(&cloud).await?;
        let (_, budi) = register(&cloud, "budi").await?;
        let add = async |token: &str, body: Value| ask(&cloud, token, Method::POST, PATH, body).await;
        for url in
            ["http://127.0.0.1:9/", "https://localhost/", "https://10.0.0.1/", "http://operator.example.com/"]
        {
            let reply = add(&token, webhook(url, "account.banned")).await?;
            assert_eq!((reply.status, reply.error_code().as_str()), (400, "VALIDATION_ERROR"), "{url}");
        }
        let good = webhook("https://operator.example.com/", "account.banned");
        let none = json!({ "url": "https://operator.example.com/", "kinds": [] });
        assert_eq!(add(&token, none).await?.error_code(), "VALIDATION_ERROR");
        assert_eq!(add(&budi, good.clone()).await?.error_code(), "ADMIN_ONLY");
        for _ in 0..20 {
            add(&token, good.clone()).await?.expect(201)?;
        }
        let reply = add(&token, good).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (409, "TOO_MANY_WEBHOOKS"));
        Ok(())
    })
}
