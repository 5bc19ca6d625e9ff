//! Apps that renew short tokens stay signed in; a copy of what they renew with is found out.

use crate::people::{PASSWORD, ask, me, post, refused, registration, token_of};
use anyhow::{Context, Result};
use lumbung_tests::http::Reply;
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

/// What an app keeps of its sign-in.
#[derive(Debug, Clone)]
struct Pair {
    token: String,
    refresh: String,
}

impl Pair {
    fn of(body: &Value) -> Result<Self> {
        let refresh = body["refresh_token"].as_str().context("refresh_token")?.to_owned();
        assert!(refresh.starts_with("lbr_"), "{refresh}");
        assert!((595..=600).contains(&body["expires_in"].as_i64().context("expires_in")?), "{body}");
        Ok(Self { token: token_of(body)?, refresh })
    }
}

async fn sign_in(cloud: &Cloud, username: &str) -> Result<Pair> {
    let mut body = registration(username);
    body["refresh"] = json!(true);
    Pair::of(&post(cloud, "/api/auth/register", body).await?.expect(201)?)
}

async fn again(cloud: &Cloud, username: &str, password: &str) -> Result<Pair> {
    let body = json!({"email": format!("{username}@example.com"), "password": password, "refresh": true});
    Pair::of(&post(cloud, "/api/auth/login", body).await?.expect(200)?)
}

async fn present(cloud: &Cloud, pair: &Pair) -> Result<Reply> {
    post(cloud, "/api/auth/refresh", json!({"refresh_token": pair.refresh})).await
}

async fn renew(cloud: &Cloud, pair: &Pair) -> Result<Pair> {
    Pair::of(&present(cloud, pair).await?.expect(200)?)
}

/// Half a minute goes by, for what was exchanged.
async fn later(database: &PgPool) -> Result<()> {
    sqlx::query("update refresh_token set used_at = used_at - interval '30 seconds'")
        .execute(database)
        .await?;
    Ok(())
}

#[test]
fn two_tabs_that_refresh_at_the_same_moment_stay_signed_in_on_two_replicas() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let mut kept = sign_in(&cloud, "budi").await?;
        let database = cloud.database().await?;
        for round in 0..100 {
            let (one, other) = tokio::try_join!(renew(&cloud, &kept), renew(&replica, &kept))
                .with_context(|| format!("round {round}"))?;
            assert_ne!(one.refresh, other.refresh);
            for pair in [&one, &other] {
                assert_eq!(me(&replica, &pair.token).await?.status, 200, "round {round}");
            }
            // The tabs share one store: either may have written last.
            kept = if round % 2 == 0 { one } else { other };
            later(&database).await?;
        }
        // Tabs that each go on with what they got themselves, too.
        let (mut one, mut other) = (kept.clone(), kept);
        for _ in 0..20 {
            (one, other) = tokio::try_join!(renew(&cloud, &one), renew(&replica, &other))?;
        }
        // Many more at once than two: all are answered, and of what was out only the newest is left.
        let many = (0..16).map(|at| renew(if at % 2 == 0 { &cloud } else { &replica }, &one));
        let pairs = futures_util::future::try_join_all(many).await?;
        renew(&replica, &pairs[3]).await?;
        let left: i64 = sqlx::query_scalar("select count(*) from refresh_token where used_at is null")
            .fetch_one(&database)
            .await?;
        assert_eq!(left, 1, "an exchange left others good");
        Ok(())
    })
}

#[test]
fn another_secret_signs_everybody_out_and_the_old_one_brings_them_back() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        let restart = async |cloud: &mut Cloud, secret: &str| -> Result<()> {
            cloud.stop().await?;
            cloud.set("people.token_secret", secret);
            cloud.start().await
        };
        let (one, other) =
            ("one secret of this story, thirty-two letters", "another one of it, thirty-two letters");
        // How many are listed, by the one who asks and at the command line.
        let listed = async |cloud: &Cloud, token: &str| -> Result<(usize, usize)> {
            let list = ask(cloud, Method::GET, "/api/auth/sessions", Some(token), json!({})).await?;
            let sessions = list.expect(200)?["sessions"].as_array().context("sessions")?.len();
            Ok((sessions, cloud.must(&["user", "sessions", "budi@example.com"]).await?.lines().count()))
        };
        cloud.set("people.token_secret", one);
        cloud.start().await?;
        let first = sign_in(&cloud, "budi").await?;
        restart(&mut cloud, one).await?;
        let kept = renew(&cloud, &first).await?;
        for secret in [other, ""] {
            restart(&mut cloud, secret).await?;
            assert_eq!(me(&cloud, &kept.token).await?.status, 401, "{secret:?}");
            assert_eq!(present(&cloud, &kept).await?.status, 401, "{secret:?}: it was renewed");
            let here = again(&cloud, "budi", PASSWORD).await?;
            assert_eq!(listed(&cloud, &here.token).await?, (1, 1), "{secret:?}: what is dead is listed");
        }
        // Kept in the database it is no different.
        let drawn = again(&cloud, "budi", PASSWORD).await?;
        sqlx::query("delete from token_key").execute(&cloud.database().await?).await?;
        restart(&mut cloud, "").await?;
        assert_eq!(present(&cloud, &drawn).await?.status, 401);
        restart(&mut cloud, one).await?;
        let back = renew(&cloud, &kept).await?;
        assert_eq!(listed(&cloud, &back.token).await?, (1, 1));
        // Of those from before it was kept nobody knows.
        let forget = "update user_session set token_key_mark = null";
        sqlx::query(forget).execute(&cloud.database().await?).await?;
        assert_eq!(listed(&cloud, &back.token).await?, (4, 4));
        Ok(())
    })
}

#[test]
fn a_stolen_refresh_token_is_found_out_and_ends_the_session() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let database = cloud.database().await?;
        let unaware = again_after(&cloud, "budi").await?;
        let ended = async |pairs: &[&Pair]| -> Result<()> {
            for pair in pairs {
                let reply = present(&replica, pair).await?;
                assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHENTICATED"));
                refused(&replica, &pair.token).await?;
            }
            Ok(())
        };
        // The thief comes long after the owner.
        let stolen = again(&cloud, "budi", PASSWORD).await?;
        let owner = renew(&cloud, &stolen).await?;
        later(&database).await?;
        ended(&[&stolen, &owner]).await?;
        // The thief comes at once, in the moment that is given to tabs; the owner is next.
        let stolen = again(&cloud, "budi", PASSWORD).await?;
        let owner = renew(&cloud, &stolen).await?;
        let thief = renew(&replica, &stolen).await?;
        let owner = renew(&cloud, &owner).await?;
        later(&database).await?;
        assert_eq!(me(&cloud, &owner.token).await?.status, 200);
        ended(&[&thief, &owner]).await?;
        // The same, but the thief is next.
        let stolen = again(&cloud, "budi", PASSWORD).await?;
        let owner = renew(&cloud, &stolen).await?;
        let thief = renew(&replica, &renew(&replica, &stolen).await?).await?;
        later(&database).await?;
        ended(&[&owner, &thief]).await?;
        // Another sign-in of the same person went on all the while, and a made-up secret ends nothing.
        let mut made_up = unaware.clone();
        made_up.refresh.replace_range(47.., &"A".repeat(43));
        assert_eq!(present(&cloud, &made_up).await?.status, 401);
        let unaware = renew(&cloud, &unaware).await?;
        // Neither database nor logs hold what opens anything.
        let kept: String = sqlx::query_scalar("select string_agg(t::text, ' ') from refresh_token t")
            .fetch_one(&database)
            .await?;
        let logs = stand.logs();
        assert!(logs.contains("a refresh token came twice"));
        for secret in [&unaware.refresh, &unaware.refresh[47..].to_owned(), &unaware.token] {
            assert!(!kept.contains(secret.as_str()) && !logs.contains(secret.as_str()));
        }
        Ok(())
    })
}

/// A second sign-in of somebody who has an account since now.
async fn again_after(cloud: &Cloud, username: &str) -> Result<Pair> {
    sign_in(cloud, username).await?;
    again(cloud, username, PASSWORD).await
}

#[test]
fn a_refresh_after_logout_ban_new_password_or_its_time_is_refused() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let database = cloud.database().await?;
        let refused = async |why: &str, pair: &Pair| -> Result<()> {
            let reply = present(&replica, pair).await?;
            assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHENTICATED"), "after {why}");
            Ok(())
        };
        let left = sign_in(&cloud, "budi").await?;
        ask(&cloud, Method::POST, "/api/auth/logout", Some(&left.token), json!({})).await?.expect(200)?;
        refused("logout", &left).await?;
        // A new password ends the others; the one that chose it goes on.
        let (here, there) = (again(&cloud, "budi", PASSWORD).await?, again(&cloud, "budi", PASSWORD).await?);
        let body = json!({"current_password": PASSWORD, "new_password": "perahu biru muda"});
        ask(&cloud, Method::POST, "/api/auth/change-password", Some(&here.token), body).await?.expect(200)?;
        refused("a new password", &there).await?;
        let here = renew(&replica, &here).await?;
        cloud.must(&["user", "ban", "budi@example.com"]).await?;
        refused("a ban", &here).await?;
        cloud.must(&["user", "unban", "budi@example.com"]).await?;
        refused("a ban that was lifted", &here).await?;
        // A fortnight of quiet ends a session; a month ends the busiest.
        let lasts = "select round(extract(epoch from expires_at - now()) / 86400)::bigint from user_session
                     order by session_id desc limit 1";
        let quiet = again(&cloud, "budi", "perahu biru muda").await?;
        let days: i64 = sqlx::query_scalar(lasts).fetch_one(&database).await?;
        assert_eq!(days, 14);
        sqlx::query("update user_session set created_at = created_at - interval '20 days'")
            .execute(&database)
            .await?;
        let quiet = renew(&cloud, &quiet).await?;
        let days: i64 = sqlx::query_scalar(lasts).fetch_one(&database).await?;
        assert_eq!(days, 10, "it lasts longer than 30 days");
        sqlx::query("update user_session set expires_at = now()").execute(&database).await?;
        refused("its time", &quiet).await?;
        // Who did not ask for it has the documented day, and nothing to refresh.
        let body = json!({"email": "budi@example.com", "password": "perahu biru muda"});
        let body = post(&cloud, "/api/auth/login", body).await?.expect(200)?;
        assert!(body.get("refresh_token").is_none() && body.get("expires_in").is_none(), "{body}");
        Ok(())
    })
}
