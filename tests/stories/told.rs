//! What people are told of their own account's safety, and what a new password puts an end to.

use crate::people::{PASSWORD, ask, login, register};
use crate::reset::{codes, forgot, reset};
use crate::second_factor::told;
use anyhow::Result;
use lumbung_tests::http;
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use reqwest::Method;
use serde_json::json;

const NEW: &str = "perahu biru muda";

/// Signs in by a program that calls itself so.
async fn sign_in_by(cloud: &Cloud, program: &str, email: &str) -> Result<()> {
    let body = json!({ "email": email, "password": PASSWORD }).to_string();
    let request =
        http::client()?.post(cloud.url("/api/auth/login")).header("content-type", "application/json");
    http::send(request.header("user-agent", program).body(body)).await?.expect(200)?;
    Ok(())
}

#[test]
fn who_signs_in_by_a_new_program_is_told_once_in_the_language_of_the_account() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        register(&cloud, "budi").await?;
        let (_, token) = register(&cloud, "siti").await?;
        let english = json!({ "language": "en", "preferences": [] });
        ask(&cloud, Method::PUT, "/api/notifications/preferences", Some(&token), english)
            .await?
            .expect(200)?;
        for (email, title, content) in [
            (
                "budi@example.com",
                "Akun Anda masuk di perangkat baru",
                "masuk dari Ruang/1.0 (jaringan 127.0.0.0/24)",
            ),
            (
                "siti@example.com",
                "Your account was signed in on a new device",
                "from Ruang/1.0 (network 127.0.0.0/24)",
            ),
        ] {
            // Where somebody was already nothing is new.
            login(&cloud, email, PASSWORD).await?.expect(200)?;
            for _ in 0..2 {
                sign_in_by(&cloud, "Ruang/1.0", email).await?;
            }
            assert_eq!(told(&database, email, 2).await?[1], title);
            let kept: String =
                sqlx::query_scalar("select content from kept_message where address = $1 and title = $2")
                    .bind(email)
                    .bind(title)
                    .fetch_one(&database)
                    .await?;
            assert!(kept.contains(content), "{kept}");
            // The same program from another network is.
            sqlx::query(
                "update user_session s set network = '203.0.113.0/24' from app_user u
                 where u.user_id = s.user_id and u.email = $1",
            )
            .bind(email)
            .execute(&database)
            .await?;
            login(&cloud, email, PASSWORD).await?.expect(200)?;
            assert_eq!(told(&database, email, 3).await?[2], title);
        }
        Ok(())
    })
}

#[test]
fn a_new_password_is_told_and_ends_the_links_that_wait_in_mails() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let (_, token) = register(&cloud, "budi").await?;
        forgot(&cloud, "budi@example.com").await?.expect(200)?;
        let link = codes(&cloud, &database, "budi@example.com", "reset_password", 1).await?.remove(0);
        let body = json!({ "current_password": PASSWORD, "new_password": NEW });
        ask(&cloud, Method::POST, "/api/auth/change-password", Some(&token), body).await?.expect(200)?;
        assert_eq!(reset(&cloud, &link, PASSWORD).await?.error_code(), "LINK_UNKNOWN");
        login(&cloud, "budi@example.com", NEW).await?.expect(200)?;
        // By mail it is told too, when the account has the mail's word for it.
        forgot(&cloud, "budi@example.com").await?.expect(200)?;
        let link = codes(&cloud, &database, "budi@example.com", "reset_password", 2).await?.remove(1);
        reset(&cloud, &link, PASSWORD).await?.expect(200)?;
        let titles = told(&database, "budi@example.com", 5).await?;
        let changed = "Kata sandi Anda sudah diganti";
        assert_eq!((titles[2].as_str(), titles[4].as_str()), (changed, changed), "{titles:?}");
        Ok(())
    })
}

#[test]
fn a_ban_that_ran_out_keeps_nobody_from_choosing_a_new_password() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        register(&cloud, "budi").await?;
        forgot(&cloud, "budi@example.com").await?.expect(200)?;
        let before = codes(&cloud, &database, "budi@example.com", "reset_password", 1).await?.remove(0);
        cloud.must(&["user", "ban", "budi@example.com", "--reason", "Iklan", "--until", "7d"]).await?;
        // While it lasts, not even what was sent before helps.
        assert_eq!(reset(&cloud, &before, NEW).await?.error_code(), "LINK_UNKNOWN");
        sqlx::query("update user_ban set expires_at = now()").execute(&database).await?;
        forgot(&cloud, "budi@example.com").await?.expect(200)?;
        let after = codes(&cloud, &database, "budi@example.com", "reset_password", 2).await?.remove(1);
        reset(&cloud, &after, NEW).await?.expect(200)?;
        login(&cloud, "budi@example.com", NEW).await?.expect(200)?;
        Ok(())
    })
}
