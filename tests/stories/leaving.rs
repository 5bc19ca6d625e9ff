//! An account that was erased stays empty, whoever touches it afterwards.

use super::privacy::{PASSWORD, ask, someone};
use anyhow::Result;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use reqwest::Method;
use serde_json::{Value, json};

#[test]
fn an_operator_erases_who_cannot_sign_in() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (siti, token) = someone(&cloud, "siti").await?;
        let siti = siti.to_string();
        assert_eq!(cloud.cli(&["user", "erase", &siti]).await?.code(), 2, "without --yes");
        ask(&cloud, Method::GET, "/api/users/me", &token, None).await?.expect(200)?;
        assert_eq!(cloud.cli(&["user", "erase", "999", "--yes"]).await?.code(), 3);
        let said = cloud.must(&["user", "erase", &siti, "--yes"]).await?;
        assert!(said.starts_with(&format!("account {siti} erased with 0 files (request ")), "{said}");
        eventually("the session ends", || async {
            Ok(when(ask(&cloud, Method::GET, "/api/users/me", &token, None).await?.status == 401))
        })
        .await?;
        let told =
            cloud.must(&["audit", "list", "--action", "sensitive_delete", "--actor", "command"]).await?;
        assert!(told.lines().count() == 1 && told.contains(&format!("\"object_id\":\"{siti}\"")), "{told}");
        // After a restore it is repeated for people who may be gone already.
        cloud.must(&["user", "erase", &siti, "--yes"]).await?;
        let (budi, _) = someone(&cloud, "budi").await?;
        let budi = budi.to_string();
        cloud.must(&["user", "role", "budi@example.com", "admin"]).await?;
        assert_eq!(cloud.cli(&["user", "erase", &budi, "--yes"]).await?.code(), 1, "the last admin");
        Ok(())
    })
}

#[test]
fn nobody_lets_an_erased_account_in_again() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (_, admin) = someone(&cloud, "kepala").await?;
        cloud.must(&["user", "role", "kepala@example.com", "admin"]).await?;
        let ((siti, token), (budi, _)) = (someone(&cloud, "siti").await?, someone(&cloud, "budi").await?);
        let body = Some(json!({ "password": PASSWORD }));
        ask(&cloud, Method::DELETE, "/api/users/me", &token, body).await?.expect(200)?;
        let list = eventually("the admin's role is felt", || async {
            let reply = ask(&cloud, Method::GET, "/api/admin/users", &admin, None).await?;
            Ok((reply.status == 200).then_some(reply))
        })
        .await?
        .json()?;
        assert_eq!((&list["total"], list["users"].as_array().map(Vec::len)), (&json!(2), Some(2)), "{list}");
        assert_eq!(cloud.must(&["user", "list"]).await?.lines().count(), 2);
        let of = |user_id: i64| {
            [
                (Method::POST, "/api/admin/unban-user".to_owned(), json!({ "user_id": user_id })),
                (
                    Method::POST,
                    "/api/admin/ban-user".to_owned(),
                    json!({ "user_id": user_id, "reason": "Iklan" }),
                ),
                (Method::PUT, format!("/api/admin/users/{user_id}/role"), json!({ "role": "volunteer" })),
                (
                    Method::POST,
                    format!("/api/admin/users/{user_id}/grants"),
                    json!({ "role": "officer", "site": "DAPUR-1" }),
                ),
            ]
        };
        for (method, path, body) in of(siti) {
            let reply = ask(&cloud, method, &path, &admin, Some(body)).await?;
            assert_eq!((reply.status, reply.error_code().as_str()), (404, "NOT_FOUND"), "{path}");
        }
        // The same is done to somebody who is there, so the refusals were for the right reason.
        for (method, path, body) in of(budi).into_iter().skip(1) {
            let reply = ask(&cloud, method, &path, &admin, Some(body)).await?;
            assert!((200..300).contains(&reply.status), "{path}: {}", reply.text);
        }
        Ok(())
    })
}

#[test]
fn what_came_a_second_after_an_erasure_goes_too() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let (siti, token) = someone(&cloud, "siti").await?;
        let body = Some(json!({ "password": PASSWORD }));
        ask(&cloud, Method::DELETE, "/api/users/me", &token, body).await?.expect(200)?;
        let account = async || -> Result<Value> {
            let sql = "select to_jsonb(u) - 'updated_at' from app_user u where user_id = $1";
            Ok(sqlx::query_scalar(sql).bind(siti).fetch_one(&database).await?)
        };
        let empty = account().await?;
        let late = async || -> Result<()> {
            for sql in [
                "update app_user set full_name = 'Siti Rahayu', bio = 'Siti', language = 'en' where user_id = $1",
                "insert into notification (user_id, kind, title, content) values ($1, 'x', 'Siti', 'Siti')",
                "insert into privacy_request (user_id, kind, content) values ($1, 'access', 'Siti')",
                "insert into file (name, owner_kind, owner_id, user_id, purpose, bytes, width, height, sha256)
                 values (repeat('a', 32), 'user', $1, $1, 'profile_picture', 1, 1, 1, sha256('x'))
                 on conflict do nothing",
            ] {
                sqlx::query(sql).bind(siti).execute(&database).await?;
            }
            Ok(())
        };
        late().await?;
        assert_eq!(cloud.must(&["jobs", "run", "erasures_repeat"]).await?.trim(), "1 erasures repeated");
        assert_eq!(account().await?, empty);
        let left: i64 = sqlx::query_scalar(
            "select (select count(*) from notification) + (select count(*) from file where deleted_at is null)
                 + (select count(*) from privacy_request where content is not null or answered_at is null)",
        )
        .fetch_one(&database)
        .await?;
        assert_eq!(left, 0);
        // No request is under way for two hours.
        sqlx::query("update app_user set erased_at = now() - interval '2 hours 1 minute' where user_id = $1")
            .bind(siti)
            .execute(&database)
            .await?;
        assert_eq!(cloud.must(&["jobs", "run", "erasures_repeat"]).await?.trim(), "0 erasures repeated");
        Ok(())
    })
}
