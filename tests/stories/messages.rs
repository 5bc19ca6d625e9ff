//! Messages: rows first, then sent by a real mail server that is slow, says no, or dies; never twice but where it
//! cannot be known.

use anyhow::{Context, Result};
use lumbung_cloud::notify::{self, Kind, Language, Message, Recipient};
use lumbung_tests::http;
use lumbung_tests::programs::{Cloud, MailServer};
use lumbung_tests::stand::Stand;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::BTreeSet;
use tokio::net::TcpStream;

/// A link that opens an account, for an address.
fn reset(address: &str) -> Message {
    Message {
        to: Recipient { user_id: None, email: Some(address.to_owned()), language: Language::Indonesian },
        kind: Kind::ResetPassword,
        values: json!({ "link": format!("https://lumbung.example/reset?k={address}"), "code": "314159" }),
        related: None,
        group: None,
    }
}

/// News for which nobody waits.
fn changed(address: &str) -> Message {
    Message { kind: Kind::PasswordChanged, values: json!({ "at": "09:00" }), ..reset(address) }
}

async fn tell(database: &PgPool, message: &Message) -> Result<()> {
    let mut tx = database.begin().await?;
    notify::send(&mut tx, message).await?;
    tx.commit().await?;
    Ok(())
}

/// A cloud that sends by a real mail server.
async fn with_mail(stand: &Stand) -> Result<(Cloud, MailServer, PgPool)> {
    let server = MailServer::start(stand.path(), &stand.log("mail")).await?;
    let mut cloud = stand.cloud_not_started().await?;
    server.carries_for(&mut cloud);
    cloud.start().await?;
    let database = cloud.database().await?;
    Ok((cloud, server, database))
}

async fn state_of(database: &PgPool, address: &str) -> Result<(String, i32, Option<String>)> {
    Ok(sqlx::query_as("select state, attempts, last_error from delivery where address = $1")
        .bind(address)
        .fetch_one(database)
        .await?)
}

async fn becomes(database: &PgPool, address: &str, state: &str, attempts: i32) -> Result<Option<String>> {
    eventually(&format!("{address} is {state} after {attempts} tries"), || async {
        let (now, tries, error) = state_of(database, address).await?;
        anyhow::ensure!((now.as_str(), tries) == (state, attempts), "{now} after {tries}: {error:?}");
        Ok(Some(error))
    })
    .await
}

/// The wait after a try is over.
async fn later(database: &PgPool) -> Result<()> {
    sqlx::query("update delivery set next_try_at = now() where state = 'queued'").execute(database).await?;
    Ok(())
}

/// The lease of whoever died has run out.
async fn lease_is_over(database: &PgPool) -> Result<()> {
    sqlx::query("update delivery set leased_until = now() where state = 'sending'").execute(database).await?;
    Ok(())
}

#[test]
fn a_mail_goes_by_tls_and_password_in_both_forms_and_leaves_nothing_behind() -> Result<()> {
    story(async |stand| {
        let (cloud, server, database) = with_mail(stand).await?;
        // What was rolled back is never told.
        let mut tx = database.begin().await?;
        notify::send(&mut tx, &reset("batal@example.com")).await?;
        tx.rollback().await?;
        tell(&database, &reset("budi@example.com")).await?;
        becomes(&database, "budi@example.com", "sent", 1).await?;
        let taken = server.taken()?;
        let [mail] = &taken[..] else { anyhow::bail!("not one mail: {taken:?}") };
        assert!(mail.tls && mail.user == "lumbung", "{mail:?}");
        assert_eq!(
            (mail.to.as_str(), mail.from.as_str()),
            ("budi@example.com", "Lumbung <lumbung@desa.example>")
        );
        assert_eq!(mail.subject, "Kata sandi baru untuk akun Anda");
        let link = "https://lumbung.example/reset?k=budi@example.com";
        assert!(mail.text.contains(link) && mail.text.contains("314159"), "{}", mail.text);
        let html = mail.html.replace("&#x2f;", "/");
        assert!(html.contains(&format!("<a href=\"{link}\">")), "{html}");
        assert!(mail.message_id.ends_with("@desa.example>"), "{}", mail.message_id);
        let left: i64 =
            sqlx::query_scalar("select count(*) from delivery where content is not null or html is not null")
                .fetch_one(&database)
                .await?;
        assert_eq!(left, 0, "a link that opens an account stayed");
        let log = std::fs::read_to_string(stand.log("cloud"))?;
        assert!(!log.contains("budi@example.com") && !log.contains("314159"), "{log}");
        let metrics = cloud.get("/metrics").await?.text;
        assert!(
            metrics.contains(r#"lumbung_cloud_deliveries_total{channel="email",outcome="sent"} 1"#),
            "{metrics}"
        );
        Ok(())
    })
}

#[test]
fn a_mail_that_is_put_off_is_tried_again_and_one_that_is_refused_is_given_up() -> Result<()> {
    story(async |stand| {
        let (_cloud, server, database) = with_mail(stand).await?;
        tell(&database, &reset("tunda@example.com")).await?;
        tell(&database, &reset("tolak@example.com")).await?;
        let why = becomes(&database, "tolak@example.com", "dead", 1).await?.context("no reason")?;
        assert!(why.contains("unknown here") && !why.contains("tolak@"), "{why}");
        let why = becomes(&database, "tunda@example.com", "queued", 1).await?.context("no reason")?;
        assert!(why.contains("4.2.1"), "{why}");
        let wait: f64 = sqlx::query_scalar(
            "select extract(epoch from next_try_at - created_at)::float8 from delivery where state = 'queued'",
        )
        .fetch_one(&database)
        .await?;
        assert!(wait >= 60.0, "{wait}");
        assert!(server.taken()?.is_empty());
        later(&database).await?;
        becomes(&database, "tunda@example.com", "sent", 2).await?;
        assert_eq!(server.taken()?.len(), 1);
        let kept = "select count(*) from delivery where content is not null";
        let kept: i64 = sqlx::query_scalar(kept).fetch_one(&database).await?;
        assert_eq!(kept, 0, "a link lies there that was sent, or given up");
        Ok(())
    })
}

#[test]
fn a_mail_server_that_dies_loses_no_mail_and_a_second_copy_has_the_firsts_id() -> Result<()> {
    story(async |stand| {
        let (_cloud, mut server, database) = with_mail(stand).await?;
        // Dead before it took the mail, and then not there at all.
        tell(&database, &reset("putus@example.com")).await?;
        becomes(&database, "putus@example.com", "queued", 1).await?;
        assert!(server.ended()?.is_some());
        later(&database).await?;
        becomes(&database, "putus@example.com", "queued", 2).await?;
        server.again().await?;
        later(&database).await?;
        becomes(&database, "putus@example.com", "sent", 3).await?;
        assert_eq!(server.taken()?.len(), 1);
        // Dead after it took the mail and before it said so: the one case in which a mail comes twice.
        tell(&database, &reset("mati@example.com")).await?;
        becomes(&database, "mati@example.com", "queued", 1).await?;
        server.again().await?;
        later(&database).await?;
        becomes(&database, "mati@example.com", "sent", 2).await?;
        let ids: Vec<String> = server
            .taken()?
            .into_iter()
            .filter(|mail| mail.to.starts_with("mati"))
            .map(|mail| mail.message_id)
            .collect();
        assert_eq!(ids.len(), 2);
        assert_eq!(ids[0], ids[1], "a mailbox cannot tell the second copy");
        Ok(())
    })
}

#[test]
fn a_cloud_that_dies_while_it_sends_leaves_the_mail_to_whoever_comes_after_the_lease() -> Result<()> {
    story(async |stand| {
        let (mut cloud, server, database) = with_mail(stand).await?;
        tell(&database, &reset("lambat@example.com")).await?;
        eventually("the server took it", || async { Ok(when(server.taken()?.len() == 1)) }).await?;
        cloud.kill();
        cloud.start().await?;
        // Nobody touches what may still be on its way.
        tell(&database, &reset("budi@example.com")).await?;
        becomes(&database, "budi@example.com", "sent", 1).await?;
        assert_eq!(state_of(&database, "lambat@example.com").await?.0, "sending");
        lease_is_over(&database).await?;
        becomes(&database, "lambat@example.com", "sent", 2).await?;
        let ids: BTreeSet<String> = server
            .taken()?
            .into_iter()
            .filter(|mail| mail.to.starts_with("lambat"))
            .map(|mail| mail.message_id)
            .collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        Ok(())
    })
}

#[test]
fn a_cloud_that_is_asked_to_stop_hears_how_the_mail_ended_that_it_is_sending() -> Result<()> {
    story(async |stand| {
        let (mut cloud, server, database) = with_mail(stand).await?;
        tell(&database, &reset("ditahan@example.com")).await?;
        eventually("the server took it", || async { Ok(when(server.taken()?.len() == 1)) }).await?;
        cloud.signal(Signal::SIGTERM);
        eventually("the port is closed", || async {
            Ok(when(TcpStream::connect(cloud.address()).await.is_err()))
        })
        .await?;
        server.may_answer()?;
        cloud.stop().await?;
        // Or it would be sent again when its lease has run out.
        let (state, attempts, error) = state_of(&database, "ditahan@example.com").await?;
        assert_eq!((state.as_str(), attempts), ("sent", 1), "{error:?}");
        Ok(())
    })
}

#[test]
fn a_link_for_which_somebody_waits_goes_past_all_the_news() -> Result<()> {
    story(async |stand| {
        let (_cloud, server, database) = with_mail(stand).await?;
        // So many that they would take minutes, each as long as the cloud waits for the mail server.
        for number in 0..40 {
            tell(&database, &changed(&format!("ditahan-{number}@example.com"))).await?;
        }
        eventually("as many as go at once are under way", || async { Ok(when(server.taken()?.len() >= 8)) })
            .await?;
        tell(&database, &reset("budi@example.com")).await?;
        becomes(&database, "budi@example.com", "sent", 1).await?;
        server.may_answer()
    })
}

#[test]
fn two_replicas_send_every_mail_once() -> Result<()> {
    story(async |stand| {
        let (mut cloud, server, database) = with_mail(stand).await?;
        cloud.stop().await?;
        let mut addresses = BTreeSet::new();
        for number in 0..120 {
            let address = format!("orang-{number}@example.com");
            tell(&database, &reset(&address)).await?;
            addresses.insert(address);
        }
        let mut replica = Cloud::new(lumbung_tests::programs::settings(
            "replica",
            stand.path(),
            cloud.settings.database_url.clone(),
        ))?;
        server.carries_for(&mut replica);
        cloud.spawn()?;
        replica.spawn()?;
        cloud.ready().await?;
        replica.ready().await?;
        eventually("all are sent", || async {
            let left: i64 = sqlx::query_scalar("select count(*) from delivery where state <> 'sent'")
                .fetch_one(&database)
                .await?;
            anyhow::ensure!(left == 0, "{left} are not");
            Ok(Some(()))
        })
        .await?;
        let taken: Vec<String> = server.taken()?.into_iter().map(|mail| mail.to).collect();
        assert_eq!(taken.len(), addresses.len(), "some were sent twice");
        assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), addresses);
        Ok(())
    })
}

#[test]
fn without_a_mail_server_mails_are_shown_to_whoever_develops_and_to_admins() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        tell(&database, &reset("budi@example.com")).await?;
        becomes(&database, "budi@example.com", "sent", 1).await?;
        let page = cloud.get("/dev/outbox").await?;
        assert_eq!(page.status, 200, "{}", page.text);
        assert!(
            page.text.contains("<a href=\"https://lumbung.example/reset?k=budi@example.com\">"),
            "{}",
            page.text
        );
        cloud.stop().await?;
        cloud.set("development.open_loopback", false);
        cloud.start().await?;
        assert_eq!(cloud.get("/dev/outbox").await?.error_code(), "NOT_FOUND");
        let ask = async |key: &str| {
            http::send(http::client()?.get(cloud.url("/dev/outbox")).bearer_auth(key)).await
        };
        let made: Value = serde_json::from_str(&cloud.must(&["key", "add", "pembaca", "--json"]).await?)?;
        assert_eq!(ask(made["key"].as_str().context("key")?).await?.status, 404, "an access key shows links");
        let token = async |email: &str, role: &str| -> Result<String> {
            let added = cloud.must(&["user", "add", "--email", email, "--role", role, "--json"]).await?;
            let added: Value = serde_json::from_str(&added)?;
            let body = json!({ "email": email, "password": added["password"] });
            let request = http::client()?
                .post(cloud.url("/api/auth/login"))
                .header("content-type", "application/json")
                .body(body.to_string());
            let answer = http::send(request).await?.expect(200)?;
            Ok(answer["token"].as_str().context("token")?.to_owned())
        };
        assert_eq!(ask(&token("siti@example.com", "user").await?).await?.status, 404);
        assert_eq!(ask(&token("admin@example.com", "admin").await?).await?.status, 200);
        Ok(())
    })
}

#[test]
fn what_was_given_up_is_seen_and_tried_again_by_admins_alone() -> Result<()> {
    story(async |stand| {
        let (cloud, server, database) = with_mail(stand).await?;
        tell(&database, &reset("tolak@example.com")).await?;
        becomes(&database, "tolak@example.com", "dead", 1).await?;
        tell(&database, &changed("tolak-2@example.com")).await?;
        becomes(&database, "tolak-2@example.com", "dead", 1).await?;
        let added =
            cloud.must(&["user", "add", "--email", "admin@example.com", "--role", "admin", "--json"]).await?;
        let added: Value = serde_json::from_str(&added)?;
        let post = async |path: &str, token: &str, body: Value| {
            let request = http::client()?.post(cloud.url(path)).bearer_auth(token);
            http::send(request.header("content-type", "application/json").body(body.to_string())).await
        };
        let credentials = json!({ "email": "admin@example.com", "password": added["password"] });
        let answer = post("/api/auth/login", "", credentials).await?.expect(200)?;
        let admin = answer["token"].as_str().context("token")?.to_owned();
        let person =
            json!({ "email": "budi@example.com", "username": "budi", "password": "sepeda merah tua" });
        let answer = post("/api/auth/register", "", person).await?.expect(201)?;
        let budi = answer["token"].as_str().context("token")?.to_owned();
        let list = async |query: &str, token: &str| {
            let url = cloud.url(&format!("/api/admin/deliveries{query}"));
            http::send(http::client()?.get(url).bearer_auth(token)).await
        };
        let dead = list("?state=dead", &admin).await?;
        assert!(!dead.text.contains("tolak"), "an address is shown: {}", dead.text);
        let dead = dead.expect(200)?["deliveries"].clone();
        let kinds: Vec<&str> =
            dead.as_array().into_iter().flatten().filter_map(|one| one["type"].as_str()).collect();
        assert_eq!(kinds, ["password_changed", "reset_password"]);
        let retry = |one: usize| format!("/api/admin/deliveries/{}/retry", dead[one]["id"]);
        for (reply, status, code) in [
            (list("", &budi).await?, 403, "ADMIN_ONLY"),
            (list("", "x").await?, 401, "UNAUTHENTICATED"),
            (list("?state=hilang", &admin).await?, 400, "VALIDATION_ERROR"),
            (list("?limit=51", &admin).await?, 400, "VALIDATION_ERROR"),
            (post(&retry(0), &budi, json!({})).await?, 403, "ADMIN_ONLY"),
            (post(&retry(0), "x", json!({})).await?, 401, "UNAUTHENTICATED"),
            // A link that opens an account was not kept, so there is nothing to send.
            (post(&retry(1), &admin, json!({})).await?, 409, "DELIVERY_NOT_DEAD"),
            (post("/api/admin/deliveries/999999/retry", &admin, json!({})).await?, 404, "NOT_FOUND"),
        ] {
            assert_eq!((reply.status, reply.error_code().as_str()), (status, code));
        }
        // The mailbox exists by now.
        sqlx::query("update delivery set address = 'kotak-baru@example.com' where kind = 'password_changed'")
            .execute(&database)
            .await?;
        assert_eq!(post(&retry(0), &admin, json!({})).await?.status, 200);
        becomes_of_kind(&database, "password_changed", "sent").await?;
        assert_eq!(server.taken()?.iter().filter(|mail| mail.to == "kotak-baru@example.com").count(), 1);
        assert_eq!(post(&retry(0), &admin, json!({})).await?.status, 409, "it was sent");
        let listed = cloud.must(&["message", "list"]).await?;
        assert!(listed.contains("reset_password") && !listed.contains("tolak"), "{listed}");
        assert_eq!(cloud.cli(&["message", "retry", "999999"]).await?.code(), 3);
        let told: i64 = sqlx::query_scalar("select count(*) from audit_entry where object_kind = 'delivery'")
            .fetch_one(&database)
            .await?;
        assert_eq!(told, 1);
        Ok(())
    })
}

async fn becomes_of_kind(database: &PgPool, kind: &str, state: &str) -> Result<()> {
    eventually(&format!("{kind} is {state}"), || async {
        let now: String = sqlx::query_scalar("select state from delivery where kind = $1")
            .bind(kind)
            .fetch_one(database)
            .await?;
        Ok(when(now == state))
    })
    .await
}
