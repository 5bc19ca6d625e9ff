//! People get another e-mail address: the new mailbox answers, the old one is told, and nobody else learns anything.

use crate::people::{PASSWORD, ask, login, me, post, register};
use crate::reset::{codes, forgot, reset};
use crate::second_factor::told;
use anyhow::Result;
use lumbung_tests::http::Reply;
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use reqwest::Method;
use serde_json::json;

const NEW: &str = "perahu biru muda";

/// Asks for another address.
pub(crate) async fn wish(cloud: &Cloud, token: &str, email: &str, password: &str) -> Result<Reply> {
    let body = json!({ "email": email, "password": password });
    ask(cloud, Method::POST, "/api/users/me/email", Some(token), body).await
}

/// Follows the link that came of it.
pub(crate) async fn follow(cloud: &Cloud, code: &str) -> Result<Reply> {
    post(cloud, "/api/auth/change-email", json!({ "token": code })).await
}

#[test]
fn a_new_address_counts_once_its_mailbox_has_answered_and_the_old_one_is_told() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let database = cloud.database().await?;
        let (_, token) = register(&cloud, "budi").await?;
        let (old, new) = ("budi@example.com", "Budi.Baru@example.com");
        let verify = codes(&cloud, &database, old, "verify_email", 1).await?.remove(0);
        forgot(&cloud, old).await?.expect(200)?;
        let forgotten = codes(&cloud, &database, old, "reset_password", 1).await?.remove(0);
        for (email, password, field) in
            [(new, "kata sandi salah", "password"), ("budi", PASSWORD, "email"), (old, PASSWORD, "email")]
        {
            let body = wish(&cloud, &token, email, password).await?.expect(400)?;
            assert_eq!(body["error"]["details"][0]["field"], field, "{body}");
        }
        wish(&cloud, &token, new, PASSWORD).await?.expect(200)?;
        let code = codes(&cloud, &database, new, "change_email", 1).await?.remove(0);
        // Until it is followed nothing is different.
        assert_eq!(me(&cloud, &token).await?.expect(200)?["user_data"]["email"], old);
        assert_eq!(login(&cloud, new, PASSWORD).await?.status, 401);
        assert_eq!(login(&cloud, old, "kata sandi salah").await?.status, 401);
        let page = cloud.get("/change-email").await?;
        assert!(page.status == 200 && page.text.contains("/api/auth/"), "{}", page.status);
        assert_eq!(reset(&cloud, &code, NEW).await?.error_code(), "LINK_UNKNOWN", "of another purpose");
        let until = async |text: &str| {
            let sql = "update mail_token set expires_at = now() + $1::text::interval where purpose = 'change_email'";
            sqlx::query(sql).bind(text).execute(&database).await
        };
        until("0 s").await?;
        assert_eq!(follow(&cloud, &code).await?.error_code(), "LINK_UNKNOWN", "it is good for ever");
        until("1 hour").await?;
        follow(&replica, &code.to_lowercase().replace('-', " ")).await?.expect(200)?;
        assert_eq!(follow(&cloud, &code).await?.error_code(), "LINK_UNKNOWN", "it was good twice");
        // Whoever was signed in is so still.
        let user = me(&cloud, &token).await?.expect(200)?["user_data"].clone();
        assert_eq!((&user["email"], &user["is_verified"]), (&json!(new), &json!(true)));
        let counted: i64 =
            sqlx::query_scalar("select count(*) from sign_in_failure").fetch_one(&database).await?;
        assert_eq!(counted, 1, "tries at the old address are counted still");
        login(&cloud, "budi.baru@example.com", PASSWORD).await?.expect(200)?;
        assert_eq!(login(&cloud, old, PASSWORD).await?.status, 401);
        assert_eq!(reset(&cloud, &forgotten, NEW).await?.error_code(), "LINK_UNKNOWN");
        let reply = post(&cloud, "/api/auth/verify-email", json!({ "token": verify })).await?;
        assert_eq!(reply.error_code(), "LINK_UNKNOWN");
        let titles = told(&database, old, 3).await?;
        assert_eq!(titles[2], "Alamat email Anda sudah diganti");
        let entries = "select count(*) from audit_entry where action = 'authn_email_changed'";
        assert_eq!(sqlx::query_scalar::<_, i64>(entries).fetch_one(&database).await?, 1);
        let logs = stand.logs();
        assert!(!logs.contains(&code) && !logs.to_lowercase().contains("example.com"));
        // Who leaves takes the addresses of before along.
        let leave = json!({ "password": PASSWORD });
        ask(&cloud, Method::DELETE, "/api/users/me", Some(&token), leave).await?.expect(200)?;
        let kept: Vec<String> =
            sqlx::query_scalar("select address from kept_message").fetch_all(&database).await?;
        assert!(kept.is_empty(), "{kept:?}");
        Ok(())
    })
}

#[test]
fn an_address_that_somebody_has_is_answered_and_counted_like_any_other_and_gets_no_mail() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let (_, budi) = register(&cloud, "budi").await?;
        let (_, siti) = register(&cloud, "siti").await?;
        let taken = wish(&cloud, &budi, "SITI@example.com", PASSWORD).await?.expect(200)?;
        assert_eq!(wish(&cloud, &budi, "bebas@example.com", PASSWORD).await?.expect(200)?, taken);
        wish(&cloud, &budi, "siti@example.com", PASSWORD).await?.expect(200)?;
        for email in ["siti@example.com", "lain@example.com"] {
            let reply = wish(&cloud, &budi, email, PASSWORD).await?;
            assert_eq!((reply.status, reply.error_code().as_str()), (429, "TOO_MANY_REQUESTS"), "{email}");
        }
        let sent: Vec<String> =
            sqlx::query_scalar("select address from delivery where kind = 'change_email'")
                .fetch_all(&database)
                .await?;
        assert_eq!(sent, ["bebas@example.com"]);
        for (token, email) in [(&budi, "budi@example.com"), (&siti, "siti@example.com")] {
            assert_eq!(me(&cloud, token).await?.expect(200)?["user_data"]["email"], email);
        }
        // Nothing of hers is left with those who typed her address.
        let leave = json!({ "password": PASSWORD });
        ask(&cloud, Method::DELETE, "/api/users/me", Some(&siti), leave).await?.expect(200)?;
        let left = "select count(*) from mail_token where lower(email) = 'siti@example.com'";
        assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&database).await?, 0);
        Ok(())
    })
}

#[test]
fn of_two_people_who_confirm_one_address_one_gets_it_and_the_other_keeps_theirs() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let database = cloud.database().await?;
        let mut tokens = Vec::new();
        for name in ["budi", "siti"] {
            let (_, token) = register(&cloud, name).await?;
            wish(&cloud, &token, "kebun@example.com", PASSWORD).await?.expect(200)?;
            tokens.push(token);
        }
        let links = codes(&cloud, &database, "kebun@example.com", "change_email", 2).await?;
        let (one, other) = tokio::join!(follow(&cloud, &links[0]), follow(&replica, &links[1]));
        let mut replies = [one?, other?];
        replies.sort_by_key(|reply| reply.status);
        assert_eq!((replies[0].status, replies[1].status), (200, 409));
        assert_eq!(replies[1].error_code(), "EMAIL_TAKEN");
        let mut having = 0;
        for (token, own) in tokens.iter().zip(["budi@example.com", "siti@example.com"]) {
            let user = me(&cloud, token).await?.expect(200)?["user_data"].clone();
            if user["email"] == "kebun@example.com" {
                having += 1;
            } else {
                assert_eq!((&user["email"], &user["is_verified"]), (&json!(own), &json!(false)));
            }
        }
        assert_eq!(having, 1);
        Ok(())
    })
}

#[test]
fn what_was_asked_for_with_a_password_of_before_comes_to_nothing() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("database.statement_timeout", "60s");
        cloud.start().await?;
        let database = cloud.database().await?;
        let (budi, token) = register(&cloud, "budi").await?;
        let link = async |email: &str, password: &str| {
            wish(&cloud, &token, email, password).await?.expect(200)?;
            anyhow::Ok(codes(&cloud, &database, email, "change_email", 1).await?.remove(0))
        };
        let first = link("satu@example.com", PASSWORD).await?;
        let body = json!({ "current_password": PASSWORD, "new_password": NEW });
        ask(&cloud, Method::POST, "/api/auth/change-password", Some(&token), body).await?.expect(200)?;
        assert_eq!(follow(&cloud, &first).await?.error_code(), "LINK_UNKNOWN");
        // One that comes while the password is looked at.
        let mut held = database.begin().await?;
        sqlx::query("update app_user set updated_at = now(), password_hash = null where user_id = $1")
            .bind(budi)
            .execute(&mut *held)
            .await?;
        let (asked, let_go) = tokio::join!(wish(&cloud, &token, "dua@example.com", NEW), async {
            eventually("it waits", || async {
                let waiting: i64 = sqlx::query_scalar(
                    "select count(*) from pg_stat_activity where datname = current_database()
                         and wait_event_type = 'Lock' and query like 'select user_id from app_user%'",
                )
                .fetch_one(&database)
                .await?;
                Ok(when(waiting == 1))
            })
            .await?;
            anyhow::Ok(held.commit().await?)
        });
        let_go?;
        let asked = asked?;
        assert_eq!((asked.status, asked.error_code().as_str()), (409, "PASSWORD_CHANGED"));
        // Of an account that is shut, and then of one whose password was chosen anew by mail.
        forgot(&cloud, "budi@example.com").await?.expect(200)?;
        let mailed = codes(&cloud, &database, "budi@example.com", "reset_password", 1).await?.remove(0);
        let third = link("tiga@example.com", NEW).await?;
        sqlx::query("update app_user set is_active = false").execute(&database).await?;
        assert_eq!(follow(&cloud, &third).await?.error_code(), "LINK_UNKNOWN");
        sqlx::query("update app_user set is_active = true").execute(&database).await?;
        reset(&cloud, &mailed, PASSWORD).await?.expect(200)?;
        assert_eq!(follow(&cloud, &third).await?.error_code(), "LINK_UNKNOWN");
        login(&cloud, "budi@example.com", PASSWORD).await?.expect(200)?;
        Ok(())
    })
}
