//! A POST with an `Idempotency-Key` is done once, whichever replica hears it and however often.

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

/// An admin, signed in, and the path where they grant themselves something.
async fn admin(cloud: &Cloud, email: &str) -> Result<(String, String)> {
    let added = cloud.must(&["user", "add", "--email", email, "--role", "admin", "--json"]).await?;
    let added: Value = serde_json::from_str(&added)?;
    let body = json!({ "email": email, "password": added["password"] }).to_string();
    let login = http::client()?.post(cloud.url("/api/auth/login")).header("content-type", "application/json");
    let token = http::send(login.body(body)).await?.expect(200)?["token"].clone();
    let path = format!("/api/admin/users/{}/grants", added["user_id"]);
    Ok((path, token.as_str().context("token")?.to_owned()))
}

async fn grant(cloud: &Cloud, (path, token): &(String, String), key: &str, role: &str) -> Result<Reply> {
    let request = http::client()?
        .post(cloud.url(path))
        .bearer_auth(token)
        .header("content-type", "application/json")
        .header("idempotency-key", key);
    http::send(request.body(json!({ "role": role, "site": "DAPUR-1" }).to_string())).await
}

fn told(reply: &Reply) -> (u16, String) {
    (reply.status, reply.error_code())
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn a_request_that_is_sent_again_gets_its_first_answer_from_any_replica() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let ani = admin(&cloud, "ani@example.com").await?;
        let budi = admin(&cloud, "budi@example.com").await?;
        let first = grant(&cloud, &ani, KEY, "officer").await?;
        assert_eq!((first.status, first.header("idempotency-replayed")), (201, None), "{}", first.text);
        for at in [&cloud, &replica] {
            let again = grant(at, &ani, KEY, "officer").await?;
            assert_eq!((again.status, &again.text), (201, &first.text));
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
            assert_eq!(again.header("content-type"), first.header("content-type"));
            let other = grant(at, &ani, KEY, "operator").await?;
            assert_eq!(told(&other), refusal(422, "IDEMPOTENCY_KEY_REUSED"));
        }
        // Under another key it is another request, as the same key of another person or for another path is.
        assert_eq!(told(&grant(&cloud, &ani, "lain", "officer").await?), refusal(409, "GRANT_EXISTS"));
        let elsewhere = (budi.0.clone(), ani.1.clone());
        assert_eq!(grant(&cloud, &elsewhere, KEY, "operator").await?.status, 201);
        assert_eq!(grant(&cloud, &budi, KEY, "officer").await?.status, 201);
        // What was refused may be tried again with the same key, mended.
        assert_eq!(told(&grant(&cloud, &ani, "ulang", "raja").await?).0, 400);
        assert_eq!(grant(&replica, &ani, "ulang", "operator").await?.status, 201);
        for wrong in ["", "dua kata", &"x".repeat(65)] {
            let reply = grant(&cloud, &ani, wrong, "officer").await?;
            assert_eq!(told(&reply), refusal(400, "VALIDATION_ERROR"), "{wrong:?}");
        }
        // Nobody gets an answer without their credential.
        let stranger = (ani.0.clone(), "lbk_tebakan".to_owned());
        assert_eq!(told(&grant(&cloud, &stranger, KEY, "officer").await?), refusal(401, "UNAUTHENTICATED"));
        // A day later it is a new request; a job clears old answers away.
        let database = cloud.database().await?;
        sqlx::query("update idempotent_request set begun_at = begun_at - interval '24 hours'")
            .execute(&database)
            .await?;
        assert_eq!(told(&grant(&cloud, &ani, KEY, "officer").await?), refusal(409, "GRANT_EXISTS"));
        cloud.must(&["jobs", "run", "answers_purge"]).await?;
        let left: i64 =
            sqlx::query_scalar("select count(*) from idempotent_request").fetch_one(&database).await?;
        assert_eq!(left, 0);
        Ok(())
    })
}

#[test]
fn twenty_at_once_are_done_once() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let ani = admin(&cloud, "ani@example.com").await?;
        let database = cloud.database().await?;
        // The first is held in its work until the others have come.
        let mut held = database.begin().await?;
        sqlx::query("lock table role_grant in exclusive mode").execute(&mut *held).await?;
        let first = grant(&cloud, &ani, KEY, "officer");
        let rest = async {
            taken(&cloud).await?;
            let twins = (0..19).map(|n| {
                let at = if n % 2 == 0 { &cloud } else { &replica };
                grant(at, &ani, KEY, "officer")
            });
            let twins = try_join_all(twins).await?;
            held.rollback().await?;
            anyhow::Ok(twins)
        };
        let (first, twins) = futures_util::try_join!(first, rest)?;
        assert_eq!(first.status, 201, "{}", first.text);
        for twin in twins {
            assert_eq!(told(&twin), refusal(409, "IDEMPOTENCY_IN_FLIGHT"));
            assert_eq!(twin.header("retry-after"), Some("1"));
        }
        let free =
            (0..20).map(|n| grant(if n % 2 == 0 { &cloud } else { &replica }, &ani, "lain", "operator"));
        let free = try_join_all(free).await?;
        let done =
            free.iter().find(|reply| reply.header("idempotency-replayed").is_none() && reply.status == 201);
        let done = done.context("nobody did it")?;
        for reply in &free {
            if reply.status == 201 {
                assert_eq!(reply.text, done.text);
            } else {
                assert_eq!(told(reply), refusal(409, "IDEMPOTENCY_IN_FLIGHT"));
            }
        }
        Ok(())
    })
}

#[test]
fn services_and_people_send_what_they_make_again_and_it_is_made_once() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (_, admin) = admin(&cloud, "ani@example.com").await?;
        let key = async |name: &str, scope: &str| -> Result<String> {
            let made = cloud.must(&["key", "add", name, "--scope", scope, "--json"]).await?;
            let made: Value = serde_json::from_str(&made)?;
            Ok(made["key"].as_str().context("key")?.to_owned())
        };
        let (service, other) = (key("pemda", "places:write").await?, key("dinas", "places:write").await?);
        let reader = key("layar", "read").await?;
        let make = async |token: &str, path: &str, body: Value| {
            let request =
                http::client()?.post(cloud.url(path)).bearer_auth(token).header("idempotency-key", KEY);
            http::send(request.header("content-type", "application/json").body(body.to_string())).await
        };
        let programme = |code: &str| json!({ "code": code, "name": "Program" });
        let site = |code: &str| {
            json!({ "code": code, "programme": "P-SERVIS", "name": "Dapur", "kind": "kitchen",
                "time_zone": "Asia/Jakarta" })
        };
        for (path, token, body, changed) in [
            ("/api/programmes", &service, programme("P-SERVIS"), programme("P-LAIN")),
            ("/api/programmes", &admin, programme("P-ANI"), programme("P-LAIN")),
            ("/api/sites", &service, site("S-SERVIS"), site("S-LAIN")),
            ("/api/sites", &admin, site("S-ANI"), site("S-LAIN")),
        ] {
            let first = make(token, path, body.clone()).await?;
            assert_eq!((first.status, first.header("idempotency-replayed")), (201, None), "{}", first.text);
            let again = make(token, path, body.clone()).await?;
            assert_eq!((again.status, &again.text), (201, &first.text));
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
            let reused = make(token, path, changed).await?;
            assert_eq!(told(&reused), refusal(422, "IDEMPOTENCY_KEY_REUSED"));
            // The same key of another service is another request, and of one that may not, none.
            let taken = make(&other, path, body.clone()).await?;
            assert_eq!(taken.status, 409, "{}", taken.text);
            assert_eq!(told(&make(&reader, path, body).await?), refusal(403, "NOT_GRANTED"));
        }
        let wish = |content: &str| json!({ "kind": "objection", "content": content });
        let path = "/api/users/me/privacy-requests";
        let first = make(&admin, path, wish("Foto saya dinilai mesin.")).await?;
        let again = make(&admin, path, wish("Foto saya dinilai mesin.")).await?;
        assert_eq!((first.status, &again.text), (201, &first.text));
        let reused = make(&admin, path, wish("Lainnya.")).await?;
        assert_eq!(told(&reused), refusal(422, "IDEMPOTENCY_KEY_REUSED"));
        Ok(())
    })
}

/// Somebody's turn is on.
async fn taken(cloud: &Cloud) -> Result<()> {
    let database = cloud.database().await?;
    eventually("the key is taken", || async {
        let turns = "select count(*) from idempotent_request where status is null";
        let turns: i64 = sqlx::query_scalar(turns).fetch_one(&database).await?;
        Ok(when(turns == 1))
    })
    .await
}

/// Sends a request that is held, and breaks the connection when its turn is on.
async fn begun(cloud: &Cloud, (path, token): &(String, String)) -> Result<()> {
    let body = json!({ "role": "officer", "site": "DAPUR-1" }).to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\nidempotency-key: {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        cloud.address(),
        body.len()
    );
    let mut line = TcpStream::connect(cloud.address()).await?;
    line.write_all(request.as_bytes()).await?;
    taken(cloud).await?;
    // Not politely: whoever only says no more might still be listening.
    Ok(line.set_zero_linger()?)
}

#[test]
fn whoever_hangs_up_finds_it_done_when_they_send_it_again() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let ani = admin(&cloud, "ani@example.com").await?;
        let database = cloud.database().await?;
        let mut held = database.begin().await?;
        sqlx::query("lock table role_grant in exclusive mode").execute(&mut *held).await?;
        begun(&cloud, &ani).await?;
        // The cloud has had time to see that nobody is there any more.
        for _ in 0..20 {
            assert_eq!(
                told(&grant(&cloud, &ani, KEY, "officer").await?),
                refusal(409, "IDEMPOTENCY_IN_FLIGHT")
            );
        }
        held.rollback().await?;
        eventually("it is done", || async {
            let again = grant(&cloud, &ani, KEY, "officer").await?;
            Ok(when(again.status == 201 && again.header("idempotency-replayed") == Some("true")))
        })
        .await
    })
}

#[test]
fn a_replica_that_dies_in_the_middle_blocks_its_key_no_longer_than_a_turn() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let ani = admin(&cloud, "ani@example.com").await?;
        let database = cloud.database().await?;
        let mut held = database.begin().await?;
        sqlx::query("lock table role_grant in exclusive mode").execute(&mut *held).await?;
        begun(&cloud, &ani).await?;
        cloud.kill();
        // Its transaction goes with it, once PostgreSQL notices.
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_locks where relation = 'role_grant'::regclass and not granted",
        )
        .execute(&database)
        .await?;
        held.rollback().await?;
        let twin = grant(&replica, &ani, KEY, "officer").await?;
        assert_eq!(told(&twin), refusal(409, "IDEMPOTENCY_IN_FLIGHT"));
        sqlx::query("update idempotent_request set turn_ends_at = now()").execute(&database).await?;
        let other = grant(&replica, &ani, KEY, "operator").await?;
        assert_eq!(told(&other), refusal(422, "IDEMPOTENCY_KEY_REUSED"));
        let again = grant(&replica, &ani, KEY, "officer").await?;
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, None), "{}", again.text);
        assert_eq!(grant(&replica, &ani, KEY, "officer").await?.header("idempotency-replayed"), Some("true"));
        Ok(())
    })
}
