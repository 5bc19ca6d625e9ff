//! A browser is woken: a local push service takes what the cloud sends, and the browser's key opens it.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lumbung_cloud::notify::{self, Kind, Language, Message, Recipient};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::peer::Peer;
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use reqwest::Method;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use sqlx::PgPool;
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint;
use web_push_native::{Auth, decrypt};

/// The browser's side of RFC 8291's own example (appendix A).
const PRIVATE: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
const EXAMPLE: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

fn opened(sealed: &[u8]) -> Result<String> {
    let key = SecretKey::from_slice(&URL_SAFE_NO_PAD.decode(PRIVATE)?)?;
    let auth: [u8; 16] = URL_SAFE_NO_PAD.decode(AUTH)?.try_into().ok().context("auth")?;
    let open =
        decrypt(sealed.to_vec(), &key, &Auth::from(auth)).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(String::from_utf8(open)?)
}

fn browser(endpoint: &str) -> Result<Value> {
    let public = SecretKey::from_slice(&URL_SAFE_NO_PAD.decode(PRIVATE)?)?.public_key();
    let p256dh = URL_SAFE_NO_PAD.encode(public.to_encoded_point(false).as_bytes());
    Ok(json!({ "endpoint": endpoint, "keys": { "p256dh": p256dh, "auth": AUTH }, "expirationTime": null }))
}

async fn ask(cloud: &Cloud, token: &str, method: Method, path: &str, body: Option<Value>) -> Result<Reply> {
    let mut request = http::client()?.request(method, cloud.url(path)).bearer_auth(token);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    http::send(request).await
}

async fn register(cloud: &Cloud, name: &str) -> Result<(i64, String)> {
    let body =
        json!({ "email": format!("{name}@example.com"), "username": name, "password": "sepeda merah tua" });
    let answer = ask(cloud, "", Method::POST, "/api/auth/register", Some(body)).await?.expect(201)?;
    let token = answer["token"].as_str().context("token")?.to_owned();
    Ok((answer["user_id"].as_i64().context("user_id")?, token))
}

async fn like(database: &PgPool, user_id: i64, post: i64) -> Result<()> {
    let mut tx = database.begin().await?;
    let message = Message {
        to: Recipient { user_id: Some(user_id), email: None, language: Language::Indonesian },
        kind: Kind::PostLiked,
        values: json!({ "name": "Siti", "post": "Kebun atap" }),
        related: Some(("post", post)),
        group: Some(post.to_string()),
    };
    notify::send(&mut tx, &message).await?;
    tx.commit().await?;
    Ok(())
}

const PATH: &str = "/api/notifications/push-subscriptions";

#[test]
fn a_browser_is_woken_by_a_message_that_only_it_can_read() -> Result<()> {
    story(async |stand| {
        assert_eq!(opened(&URL_SAFE_NO_PAD.decode(EXAMPLE)?)?, "When I grow up, I want to be a watermelon");
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let service = Peer::start()?;
        let (budi, token) = register(&cloud, "budi").await?;
        let endpoint = format!("{}/wake/budi", service.base);
        let subscribe = async || ask(&cloud, &token, Method::POST, PATH, Some(browser(&endpoint)?)).await;
        let first = subscribe().await?.expect(201)?;
        assert_eq!(subscribe().await?.expect(201)?["id"], first["id"], "one browser is two");
        like(&database, budi, 42).await?;
        let asked =
            eventually("the push service is asked", || async { Ok(service.asked().into_iter().next()) })
                .await?;
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/wake/budi"));
        assert_eq!(asked.headers["content-encoding"], "aes128gcm");
        let told: Value = serde_json::from_str(&opened(&asked.body)?)?;
        assert_eq!(told["title"], "Siti menyukai Kebun atap");
        assert_eq!((&told["type"], &told["related_id"]), (&json!("post_liked"), &json!(42)));
        // The service sees who we are: the key that the browser subscribed with signed for this very service.
        let list = ask(&cloud, &token, Method::GET, PATH, None).await?.expect(200)?;
        let known = list["public_key"].as_str().context("public_key")?;
        let shown = asked.headers["authorization"].strip_prefix("vapid t=").context("no vapid")?;
        let (jwt, key) = shown.split_once(", k=").context("no key")?;
        assert_eq!(key, known);
        let (said, signature) = jwt.rsplit_once('.').context("no signature")?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, URL_SAFE_NO_PAD.decode(key)?)
            .verify(said.as_bytes(), &URL_SAFE_NO_PAD.decode(signature)?)
            .map_err(|_| anyhow::anyhow!("the signature is not good"))?;
        let claims = said.split_once('.').context("no claims")?.1;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        assert_eq!(claims["aud"], service.base);
        // Another start, and another replica, sign with the same key.
        let replica = stand.replica_of(&cloud).await?;
        let list = ask(&replica, &token, Method::GET, PATH, None).await?.expect(200)?;
        assert_eq!(list["public_key"], known);
        Ok(())
    })
}

#[test]
fn a_browser_that_is_gone_is_forgotten_and_one_that_is_busy_is_not() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let service = Peer::start()?;
        let (budi, token) = register(&cloud, "budi").await?;
        let (siti, other) = register(&cloud, "siti").await?;
        let endpoint = format!("{}/wake/budi", service.base);
        ask(&cloud, &token, Method::POST, PATH, Some(browser(&endpoint)?)).await?.expect(201)?;
        let left = async || -> Result<usize> {
            let list = ask(&cloud, &token, Method::GET, PATH, None).await?.expect(200)?;
            Ok(list["subscriptions"].as_array().context("subscriptions")?.len())
        };
        service.answers(503);
        like(&database, budi, 1).await?;
        eventually("it is put off", || async {
            let queued: i64 =
                sqlx::query_scalar("select count(*) from delivery where state = 'queued' and attempts = 1")
                    .fetch_one(&database)
                    .await?;
            Ok(when(queued == 1))
        })
        .await?;
        assert_eq!(left().await?, 1);
        service.answers(410);
        sqlx::query("update delivery set next_try_at = now()").execute(&database).await?;
        eventually("it is forgotten", || async { Ok(when(left().await? == 0)) }).await?;
        // On a shared browser, whoever signed in last is woken.
        service.answers(201);
        ask(&cloud, &token, Method::POST, PATH, Some(browser(&endpoint)?)).await?.expect(201)?;
        let id = ask(&cloud, &other, Method::POST, PATH, Some(browser(&endpoint)?)).await?.expect(201)?["id"]
            .clone();
        assert_eq!(left().await?, 0);
        let before = service.asked().len();
        like(&database, budi, 2).await?;
        like(&database, siti, 3).await?;
        eventually("one is woken", || async { Ok(when(service.asked().len() > before)) }).await?;
        let told: Value = serde_json::from_str(&opened(&service.asked()[before].body)?)?;
        assert_eq!(told["related_id"], 3);
        let end = |token: String| {
            let (cloud, path) = (&cloud, format!("{PATH}/{id}"));
            async move { ask(cloud, &token, Method::DELETE, &path, None).await }
        };
        assert_eq!(end(token.clone()).await?.status, 404, "somebody else's");
        assert_eq!(end(other.clone()).await?.status, 200);
        assert_eq!(end(other).await?.status, 404);
        Ok(())
    })
}

#[test]
fn nobody_makes_the_cloud_ask_its_own_network() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("development.open_loopback", false);
        cloud.start().await?;
        let database = cloud.database().await?;
        let inside = Peer::start()?;
        let (budi, token) = register(&cloud, "budi").await?;
        let port = inside.base.rsplit(':').next().context("port")?.to_owned();
        for address in [
            inside.base.clone(),
            format!("https://localhost:{port}/"),
            "https://169.254.169.254/latest/meta-data".to_owned(),
            "https://[::ffff:10.0.0.1]/".to_owned(),
            "ftp://push.example.com/".to_owned(),
            format!("https://push.example.com/{}", "x".repeat(2100)),
        ] {
            let reply = ask(&cloud, &token, Method::POST, PATH, Some(browser(&address)?)).await?;
            assert_eq!((reply.status, reply.error_code().as_str()), (400, "VALIDATION_ERROR"), "{address}");
        }
        let good = browser("https://push.example.com/x")?;
        for (field, value) in [
            ("p256dh", json!("AAAA")),
            ("p256dh", json!(URL_SAFE_NO_PAD.encode([4; 65]))),
            ("auth", json!("")),
        ] {
            let mut wrong = good.clone();
            wrong["keys"][field] = value;
            assert_eq!(ask(&cloud, &token, Method::POST, PATH, Some(wrong)).await?.status, 400, "{field}");
        }
        assert_eq!(ask(&cloud, "x", Method::POST, PATH, Some(good)).await?.status, 401);
        // Nor by a row that came another way.
        sqlx::query(
            "insert into push_subscription (user_id, endpoint, p256dh, auth) values ($1, $2, $3, $4)",
        )
        .bind(budi)
        .bind(&inside.base)
        .bind(URL_SAFE_NO_PAD.decode(browser("")?["keys"]["p256dh"].as_str().context("p256dh")?)?)
        .bind(URL_SAFE_NO_PAD.decode(AUTH)?)
        .execute(&database)
        .await?;
        like(&database, budi, 1).await?;
        eventually("it is given up", || async {
            let dead: i64 = sqlx::query_scalar("select count(*) from delivery where state = 'dead'")
                .fetch_one(&database)
                .await?;
            Ok(when(dead == 1))
        })
        .await?;
        assert!(inside.asked().is_empty(), "{:?}", inside.asked());
        Ok(())
    })
}

#[test]
fn a_push_service_that_never_answers_keeps_no_mail_and_no_other_browser_waiting() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        // It takes every connection and says nothing.
        let tarpit = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", tarpit.local_addr()?);
        let held = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = tarpit.accept().await {
                held.push(stream);
            }
        });
        // So many that each of them having what is theirs would fill the lane, and that one after the other they take
        // minutes, each as long as the cloud waits.
        for name in ["budi", "siti", "joko", "rina", "agus", "wati", "dewi", "hadi", "tono"] {
            let (user_id, token) = register(&cloud, name).await?;
            for at in 0..10 {
                let browser = browser(&format!("{base}/{name}/{at}"))?;
                ask(&cloud, &token, Method::POST, PATH, Some(browser)).await?.expect(201)?;
            }
            like(&database, user_id, 1).await?;
        }
        let pushes = async |state: &str| -> Result<i64> {
            let sql = "select count(*) from delivery where channel = 'push' and state = $1";
            Ok(sqlx::query_scalar(sql).bind(state).fetch_one(&database).await?)
        };
        eventually("the tarpit is asked", || async { Ok(when(pushes("sending").await? > 0)) }).await?;
        let forgotten = json!({ "email": "budi@example.com" });
        ask(&cloud, "", Method::POST, "/api/auth/forgot-password", Some(forgotten)).await?.expect(200)?;
        eventually("the mail is sent", || async {
            let sql = "select count(*) from delivery where kind = 'reset_password' and state = 'sent'";
            Ok(when(sqlx::query_scalar::<_, i64>(sql).fetch_one(&database).await? == 1))
        })
        .await?;
        let (neighbour, token) = register(&cloud, "tetangga").await?;
        let service = Peer::start()?;
        let theirs = browser(&format!("{}/tetangga", service.base))?;
        ask(&cloud, &token, Method::POST, PATH, Some(theirs)).await?.expect(201)?;
        // More of them than one person has at once: who is done makes room.
        for post in 1..=3 {
            like(&database, neighbour, post).await?;
        }
        eventually("another's browser is woken", || async { Ok(when(service.asked().len() == 3)) }).await?;
        // Nobody has more under way than is theirs, and not all of the lane is one host's.
        let most: i64 = sqlx::query_scalar(
            "select coalesce(max(many), 0) from (
                 select count(*) as many from delivery where channel = 'push' and state = 'sending' group by user_id) as each",
        )
        .fetch_one(&database)
        .await?;
        assert!(most <= 2, "{most} for one person");
        assert!(pushes("sending").await? <= 8, "one host has the whole lane");
        assert!(pushes("queued").await? > 0, "there was nothing to wait behind");
        held.abort();
        Ok(())
    })
}
