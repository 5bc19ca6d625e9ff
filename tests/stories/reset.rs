//! Links in mails: an address is confirmed, a forgotten password replaced, and nothing told to anybody else.

use crate::people::{PASSWORD, ask, login, me, post, refused, register, registration, token_of};
use anyhow::{Context, Result};
use lumbung_tests::http::Reply;
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::eventually;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;
use std::net::SocketAddr;

const NEW: &str = "perahu biru muda";

/// The codes in the mails of a kind to an address, oldest first, once there are so many.
pub(crate) async fn codes(
    cloud: &Cloud,
    database: &PgPool,
    address: &str,
    kind: &str,
    many: usize,
) -> Result<Vec<String>> {
    let path = kind.replace('_', "-");
    let link = format!("{}/{path}#", cloud.base());
    eventually("the mails are written", || async {
        // Without a mail server, what would have been sent is kept.
        let mails: Vec<String> = sqlx::query_scalar(
            "select content from kept_message where address = $1 order by kept_message_id",
        )
        .bind(address)
        .fetch_all(database)
        .await?;
        let codes = mails.iter().filter_map(|mail| {
            let (_, rest) = mail.split_once(&link)?;
            rest.split_whitespace().next().map(str::to_owned)
        });
        let codes: Vec<String> = codes.collect();
        Ok((codes.len() == many).then_some(codes))
    })
    .await
}

async fn verify(cloud: &Cloud, code: &str) -> Result<Reply> {
    post(cloud, "/api/auth/verify-email", json!({"token": code})).await
}

pub(crate) async fn forgot(cloud: &Cloud, email: &str) -> Result<Reply> {
    post(cloud, "/api/auth/forgot-password", json!({"email": email})).await
}

pub(crate) async fn reset(cloud: &Cloud, code: &str, new: &str) -> Result<Reply> {
    post(cloud, "/api/auth/reset-password", json!({"token": code, "new_password": new})).await
}

/// Whether anybody has a connection to the cloud, or gets one.
fn connected(cloud: &Cloud) -> Result<bool> {
    const ESTABLISHED_OR_LISTENING: [&str; 2] = ["01", "0A"];
    let address: SocketAddr = cloud.address().parse()?;
    let port = format!(":{:04X}", address.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp")?;
    Ok(sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state) = (fields.next(), fields.next(), fields.next());
        local.is_some_and(|local| local.ends_with(&port))
            && state.is_some_and(|state| ESTABLISHED_OR_LISTENING.contains(&state))
    }))
}

#[test]
fn a_mail_that_was_promised_is_written_before_the_program_ends() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("http.shutdown_timeout", "60s");
        cloud.start().await?;
        let database = cloud.database().await?;
        register(&cloud, "budi").await?;
        let mut held = cloud.database().await?.begin().await?;
        sqlx::query("select from app_user for update").execute(&mut *held).await?;
        forgot(&cloud, "budi@example.com").await?.expect(200)?;
        cloud.signal(Signal::SIGTERM);
        eventually("nobody is connected any more", || async { Ok((!connected(&cloud)?).then_some(())) })
            .await?;
        held.rollback().await?;
        cloud.stop().await?;
        let written = "select count(*) from mail_token where purpose = 'reset_password'";
        assert_eq!(sqlx::query_scalar::<_, i64>(written).fetch_one(&database).await?, 1);
        Ok(())
    })
}

#[test]
fn an_address_is_confirmed_by_what_was_sent_there_and_only_once() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let (_, token) = register(&cloud, "budi").await?;
        let resend = async || {
            ask(&cloud, Method::POST, "/api/auth/verify-email/resend", Some(&token), json!({})).await
        };
        for _ in 0..2 {
            resend().await?.expect(200)?;
        }
        let reply = resend().await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (429, "TOO_MANY_REQUESTS"));
        let codes = codes(&cloud, &database, "budi@example.com", "verify_email", 3).await?;
        assert_eq!(verify(&cloud, "0").await?.error_code(), "LINK_UNKNOWN");
        // Of another purpose it is nothing.
        assert_eq!(reset(&cloud, &codes[0], NEW).await?.error_code(), "LINK_UNKNOWN");
        sqlx::query("update mail_token set expires_at = now()").execute(&database).await?;
        assert_eq!(verify(&cloud, &codes[0]).await?.status, 404, "it is good for ever");
        sqlx::query("update mail_token set expires_at = now() + interval '48 hours'")
            .execute(&database)
            .await?;
        let user = me(&cloud, &token).await?.expect(200)?["user_data"].clone();
        assert_eq!(user["is_verified"], false);
        // As people type it.
        verify(&cloud, &codes[0].to_lowercase().replace('-', " ")).await?.expect(200)?;
        let user = me(&cloud, &token).await?.expect(200)?["user_data"].clone();
        assert_eq!(user["is_verified"], true);
        for code in &codes {
            assert_eq!(verify(&cloud, code).await?.error_code(), "LINK_UNKNOWN", "it was good twice");
        }
        assert_eq!(resend().await?.error_code(), "ALREADY_VERIFIED");
        // What was sent to an address that the account no longer has says nothing of the new one.
        let (_, siti) = register(&cloud, "siti").await?;
        let code = self::codes(&cloud, &database, "siti@example.com", "verify_email", 1).await?.remove(0);
        sqlx::query("update app_user set email = 'other@example.com' where username = 'siti'")
            .execute(&database)
            .await?;
        assert_eq!(verify(&cloud, &code).await?.status, 404);
        assert_eq!(me(&cloud, &siti).await?.expect(200)?["user_data"]["is_verified"], false);
        Ok(())
    })
}

#[test]
fn a_forgotten_password_is_replaced_by_whoever_reads_the_mail_even_while_the_account_waits() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let database = cloud.database().await?;
        let mut body = registration("budi");
        body["refresh"] = json!(true);
        let opened = post(&cloud, "/api/auth/register", body).await?.expect(201)?;
        let other = token_of(&login(&cloud, "budi@example.com", PASSWORD).await?.expect(200)?)?;
        for turn in 0..5 {
            login(&cloud, "budi@example.com", &format!("kata sandi salah {turn}")).await?;
        }
        sqlx::query("update sign_in_failure set free_at = now() + interval '1 hour'")
            .execute(&database)
            .await?;
        assert_eq!(login(&replica, "budi@example.com", PASSWORD).await?.status, 429);
        // Known or not is answered alike, and only the known one gets mail.
        let known = forgot(&replica, "BUDI@example.com").await?.expect(200)?;
        assert_eq!(known, forgot(&cloud, "nobody@example.com").await?.expect(200)?);
        let code = codes_at(&cloud, &replica, &database, 1).await?.remove(0);
        // A password that is refused leaves the link as it is; then one of many at once takes it.
        for bad in ["pendek", "password123", "budi@example.com"] {
            let body = reset(&cloud, &code, bad).await?.expect(400)?;
            assert_eq!(body["error"]["details"][0]["field"], "new_password");
        }
        let many = (0..4).map(|at| reset(if at % 2 == 0 { &cloud } else { &replica }, &code, NEW));
        let mut statuses: Vec<u16> =
            futures_util::future::try_join_all(many).await?.iter().map(|reply| reply.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404, 404, 404]);
        for token in [&token_of(&opened)?, &other] {
            refused(&cloud, token).await?;
            refused(&replica, token).await?;
        }
        let body = json!({"refresh_token": opened["refresh_token"]});
        assert_eq!(post(&cloud, "/api/auth/refresh", body).await?.status, 401);
        let body = login(&cloud, "budi@example.com", NEW).await?.expect(200)?;
        assert_eq!(body["user_data"]["is_verified"], true, "who reads the mail has the address");
        assert_eq!(login(&cloud, "budi@example.com", PASSWORD).await?.status, 401);
        // Three mails an hour, and the older ones stay good; half an hour each.
        for _ in 0..3 {
            forgot(&cloud, "budi@example.com").await?.expect(200)?;
        }
        // The last of them to be asked for is the last to be written, if at all.
        register(&cloud, "ayu").await?;
        forgot(&cloud, "ayu@example.com").await?.expect(200)?;
        codes(&cloud, &database, "ayu@example.com", "reset_password", 1).await?;
        let both = codes(&cloud, &database, "budi@example.com", "reset_password", 2).await?;
        sqlx::query("update mail_token set expires_at = now()").execute(&database).await?;
        assert_eq!(reset(&cloud, &both[1], NEW).await?.error_code(), "LINK_UNKNOWN");
        // Whoever may not sign in gets no mail either.
        sqlx::query("delete from mail_token").execute(&database).await?;
        cloud.must(&["user", "ban", "budi@example.com"]).await?;
        forgot(&cloud, "budi@example.com").await?.expect(200)?;
        register(&cloud, "siti").await?;
        forgot(&cloud, "siti@example.com").await?.expect(200)?;
        codes(&cloud, &database, "siti@example.com", "reset_password", 1).await?;
        let open: i64 = sqlx::query_scalar(
            "select count(*) from mail_token join app_user using (user_id) where username = 'budi'",
        )
        .fetch_one(&database)
        .await?;
        assert_eq!(open, 0, "a banned account got mail");
        let logs = stand.logs();
        for secret in both.iter().chain([&code]) {
            assert!(!logs.contains(secret.as_str()), "a log has what opens an account");
        }
        assert!(!logs.contains("example.com"), "a log holds an e-mail address");
        let entries: Vec<String> =
            sqlx::query_scalar("select distinct action from audit_entry").fetch_all(&database).await?;
        for action in ["user_created", "authn_login_success", "authn_login_fail", "authn_password_reset"] {
            assert!(entries.iter().any(|entry| entry == action), "no entry of {action}: {entries:?}");
        }
        Ok(())
    })
}

/// The codes of budi's mails, whose links lead to where they were asked for.
async fn codes_at(cloud: &Cloud, replica: &Cloud, database: &PgPool, many: usize) -> Result<Vec<String>> {
    let found = codes(replica, database, "budi@example.com", "reset_password", many).await?;
    let page = cloud.get("/reset-password").await?;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").context("no policy")?;
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    Ok(found)
}
