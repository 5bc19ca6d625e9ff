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

#[test]
fn a_webhooks_secret_is_sealed_and_nothing_is_signed_or_lost_without_the_key() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud().await?;
        let program = Peer::start()?;
        let token = admin(&cloud).await?;
        let (budi, _) = register(&cloud, "budi").await?;
        let wish = webhook(&format!("{}/lumbung", program.base), "account.banned");
        let made = ask(&cloud, &token, Method::POST, PATH, wish).await?.expect(201)?;
        let first = made["secret"].as_str().context("secret")?.to_owned();
        let rotate = async |cloud: &Cloud| -> Result<String> {
            let path = format!("{PATH}/{}/rotate", made["id"]);
            let rotated = ask(cloud, &token, Method::POST, &path, Value::Null).await?.expect(200)?;
            Ok(rotated["secret"].as_str().context("secret")?.to_owned())
        };
        let ban = async |cloud: &Cloud| -> Result<()> {
            for verb in ["ban", "unban"] {
                let body = json!({ "user_id": budi, "reason": "Menipu" });
                let body = if verb == "ban" { body } else { json!({ "user_id": budi }) };
                let path = format!("/api/admin/{verb}-user");
                ask(cloud, &token, Method::POST, &path, body).await?.expect(200)?;
            }
            Ok(())
        };
        let told = async |times: usize| -> Result<Asked> {
            let what = format!("it is told {times} times");
            eventually(&what, || async { Ok(when(program.asked().len() == times)) }).await?;
            program.asked().pop().context("none")
        };
        let doctor = async |cloud: &Cloud| -> Result<Value> {
            let found: Value = serde_json::from_str(&cloud.cli(&["doctor", "--json"]).await?.stdout)?;
            let line = found["checks"].as_array().into_iter().flatten().find(|c| c["check"] == "webhooks");
            line.cloned().context("no webhooks")
        };
        // What the database's owner reads.
        let row = async |cloud: &Cloud| -> Result<(Vec<u8>, bool)> {
            let (held, clear): (Vec<Option<Vec<u8>>>, bool) = sqlx::query_as(
                "select array[secret, sealed_secret, old_secret, sealed_old_secret],
                     num_nonnulls(secret, old_secret) > 0 from webhook order by webhook_id limit 1",
            )
            .fetch_one(&cloud.database().await?)
            .await?;
            Ok((held.into_iter().flatten().flatten().collect(), clear))
        };
        let holds = |row: &[u8], secret: &str| -> Result<bool> {
            let secret = STANDARD.decode(secret.strip_prefix("whsec_").context("no whsec_")?)?;
            Ok(row.windows(secret.len()).any(|part| part == secret))
        };
        assert!(holds(&row(&cloud).await?.0, &first)?, "without a key it lies there in clear");
        assert_eq!(doctor(&cloud).await?["state"], "warn");

        // The key is set: what lay in clear is sealed, a new secret is never in clear, and both still sign.
        let key = "what the secrets of webhooks are sealed with";
        cloud.stop().await?;
        cloud.set("receipts.seal_key", key).start().await?;
        let (held, clear) = row(&cloud).await?;
        assert!(!clear && !held.is_empty() && !holds(&held, &first)?, "it can be read");
        assert_eq!(doctor(&cloud).await?["state"], "ok");
        ban(&cloud).await?;
        verify(&told(1).await?, &first)?;
        let second = rotate(&cloud).await?;
        let (held, clear) = row(&cloud).await?;
        assert!(!clear && !holds(&held, &first)? && !holds(&held, &second)?, "it can be read");
        cloud.stop().await?;
        cloud.start().await?;
        ban(&cloud).await?;
        let asked = told(2).await?;
        assert!(verify(&asked, &first).is_ok() && verify(&asked, &second).is_ok());

        // Without it, or with another, it waits and says why; nothing is signed with something else, or sealed with it.
        let waits = async |database: &sqlx::PgPool, state: &str| {
            eventually(&format!("one is {state} for want of the key"), || async {
                let found: i64 = sqlx::query_scalar(
                    "select count(*) from delivery where state = $1 and last_error like '%receipts.seal_key%'",
                )
                .bind(state)
                .fetch_one(database)
                .await?;
                Ok(when(found == 1))
            })
            .await
        };
        cloud.stop().await?;
        cloud.set("receipts.seal_key", "").start().await?;
        ban(&cloud).await?;
        let database = cloud.database().await?;
        waits(&database, "queued").await?;
        sqlx::query(
            "insert into webhook (url, secret, kinds)
             values ('https://operator.example.com/', decode(repeat('61', 32), 'hex'), '{account.unbanned}')",
        )
        .execute(&database)
        .await?;
        let another = "another key than that they were sealed with";
        cloud.stop().await?;
        cloud.set("receipts.seal_key", another).start().await?;
        let found = doctor(&cloud).await?;
        assert_eq!(found["state"], "fail", "{found}");
        assert!(found["advice"].to_string().contains("receipts.seal_key"), "{found}");
        let database = cloud.database().await?;
        let clear = async |database: &sqlx::PgPool| -> Result<i64> {
            let query = "select count(*) from webhook where secret is not null";
            Ok(sqlx::query_scalar(query).fetch_one(database).await?)
        };
        assert_eq!(clear(&database).await?, 1, "it was sealed with a key that is not the others'");
        sqlx::query("update delivery set attempts = 11, next_try_at = now() where state = 'queued'")
            .execute(&database)
            .await?;
        waits(&database, "dead").await?;
        let dead = cloud.must(&["message", "list"]).await?;
        let dead: Value = serde_json::from_str(dead.lines().next().context("none is dead")?)?;
        assert!(dead["last_error"].to_string().contains("receipts.seal_key"), "{dead}");
        assert_eq!(program.asked().len(), 2);

        // It is back: what lies in clear is sealed, what was given up is sent.
        cloud.stop().await?;
        cloud.set("receipts.seal_key", key).start().await?;
        assert_eq!(
            (clear(&cloud.database().await?).await?, &doctor(&cloud).await?["state"]),
            (0, &json!("ok"))
        );
        cloud.must(&["message", "retry", &dead["id"].to_string()]).await?;
        verify(&told(3).await?, &second)?;

        // It is lost for good: another secret helps, and signs alone.
        cloud.stop().await?;
        cloud.set("receipts.seal_key", another).start().await?;
        let third = rotate(&cloud).await?;
        ban(&cloud).await?;
        let asked = told(4).await?;
        assert!(verify(&asked, &third).is_ok() && verify(&asked, &second).is_err());
        let logs = stand.logs();
        assert!(
            logs.contains("webhooks wait") && !logs.contains(key),
            "a log holds the key, or says nothing"
        );
        for secret in [first, second, third] {
            assert!(!logs.contains(&secret[6..]), "a log holds a secret");
        }
        Ok(())
    })
}
