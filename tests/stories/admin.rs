//! Admins look after people, keys and places through the API; nobody else does, and every change is kept.

use anyhow::{Context, Result};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::within_a_second;
use reqwest::Method;
use serde_json::{Value, json};

async fn ask(cloud: &Cloud, call: &str, token: Option<&str>, body: Option<Value>) -> Result<Reply> {
    let (method, path) = call.split_once(' ').context("METHOD /path")?;
    let mut request = http::client()?.request(method.parse::<Method>()?, cloud.url(path));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    http::send(request).await
}

/// An account made at the command line: its number, its password, its token.
async fn person(cloud: &Cloud, email: &str, role: &str) -> Result<(i64, String, String)> {
    let added = cloud.must(&["user", "add", "--email", email, "--role", role, "--json"]).await?;
    let added: Value = serde_json::from_str(&added)?;
    let password = added["password"].as_str().context("password")?.to_owned();
    let token = login(cloud, email, &password).await?.expect(200)?["token"].clone();
    let id = added["user_id"].as_i64().context("user_id")?;
    Ok((id, password, token.as_str().context("token")?.to_owned()))
}

async fn login(cloud: &Cloud, email: &str, password: &str) -> Result<Reply> {
    let body = json!({ "email": email, "password": password });
    ask(cloud, "POST /api/auth/login", None, Some(body)).await
}

/// The code of a refusal with that status.
fn refused(reply: &Reply) -> (u16, String) {
    (reply.status, reply.error_code())
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn a_ban_ends_sessions_everywhere_says_why_and_runs_out_by_itself() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let (_, _, admin) = person(&cloud, "admin@example.com", "admin").await?;
        let (budi, password, token) = person(&cloud, "budi@example.com", "user").await?;
        assert_eq!(ask(&replica, "GET /api/users/me", Some(&token), None).await?.status, 200);
        let body =
            json!({ "user_id": budi, "reason": "Iklan berulang", "expires_at": "2999-01-02T03:04:05+07:00" });
        let done = ask(&cloud, "POST /api/admin/ban-user", Some(&admin), Some(body)).await?.expect(200)?;
        assert_eq!(done, json!({ "success": true }));
        assert_eq!(ask(&cloud, "GET /api/users/me", Some(&token), None).await?.status, 401);
        within_a_second("the replica refuses too", &200, &401, || async {
            Ok(ask(&replica, "GET /api/users/me", Some(&token), None).await?.status)
        })
        .await?;
        // Why, to whoever knows the password and nobody else.
        let told = login(&replica, "budi@example.com", &password).await?.expect(403)?["error"].clone();
        assert_eq!(told["code"], "ACCOUNT_INACTIVE");
        let details = json!([{ "field": "reason", "message": "Iklan berulang" },
            { "field": "expires_at", "message": "2999-01-01T20:04:05Z" }]);
        assert_eq!(told["details"], details);
        let guess = login(&cloud, "budi@example.com", "salah sama sekali").await?;
        assert_eq!(refused(&guess), refusal(401, "WRONG_CREDENTIALS"));
        let banned =
            ask(&cloud, "GET /api/admin/users?state=banned", Some(&admin), None).await?.expect(200)?;
        assert_eq!(
            (&banned["total"], &banned["users"][0]["ban_reason"]),
            (&json!(1), &json!("Iklan berulang"))
        );
        // It runs out: nobody has to do anything, and the old sessions stay ended.
        let database = cloud.database().await?;
        sqlx::query("update user_ban set expires_at = now()").execute(&database).await?;
        let banned =
            ask(&cloud, "GET /api/admin/users?state=banned", Some(&admin), None).await?.expect(200)?;
        assert_eq!(banned["total"], 0);
        let again = login(&cloud, "budi@example.com", &password).await?.expect(200)?;
        let again = again["token"].as_str().context("token")?.to_owned();
        assert_eq!(ask(&replica, "GET /api/users/me", Some(&again), None).await?.status, 200);
        assert_eq!(ask(&cloud, "GET /api/users/me", Some(&token), None).await?.status, 401);
        // For good, until somebody lifts it.
        cloud.must(&["user", "ban", "budi@example.com", "--reason", "Lagi"]).await?;
        assert_eq!(login(&cloud, "budi@example.com", &password).await?.status, 403);
        let unban = async || {
            ask(&cloud, "POST /api/admin/unban-user", Some(&admin), Some(json!({ "user_id": budi }))).await
        };
        assert_eq!(unban().await?.status, 200);
        assert_eq!(refused(&unban().await?), refusal(409, "NOT_BANNED"));
        assert_eq!(login(&cloud, "budi@example.com", &password).await?.status, 200);
        let kept: Vec<(String, Option<String>)> = sqlx::query_as(
            "select action, reason from audit_entry where object_kind = 'user' and action like 'user_%ban%'
             order by happened_at",
        )
        .fetch_all(&database)
        .await?;
        let entry = |action: &str, reason: Option<&str>| (action.to_owned(), reason.map(str::to_owned));
        let expected = [
            entry("user_banned", Some("Iklan berulang")),
            entry("user_banned", Some("Lagi")),
            entry("user_unbanned", None),
        ];
        assert_eq!(kept, expected);
        Ok(())
    })
}

#[test]
fn there_is_always_an_admin_who_can_sign_in() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (first, _, one) = person(&cloud, "satu@example.com", "admin").await?;
        let ban = async |token: &str, id: i64| {
            let body = json!({ "user_id": id, "reason": "x" });
            ask(&cloud, "POST /api/admin/ban-user", Some(token), Some(body)).await
        };
        let role = async |token: &str, id: i64, role: &str| {
            let call = format!("PUT /api/admin/users/{id}/role");
            ask(&cloud, &call, Some(token), Some(json!({ "role": role }))).await
        };
        assert_eq!(refused(&ban(&one, first).await?), refusal(409, "OWN_ACCOUNT"));
        assert_eq!(refused(&role(&one, first, "user").await?), refusal(409, "LAST_ADMIN"));
        assert_eq!(cloud.cli(&["user", "ban", "satu@example.com"]).await?.code(), 1);
        let (second, _, two) = person(&cloud, "dua@example.com", "user").await?;
        assert_eq!(refused(&ban(&two, first).await?), refusal(403, "ADMIN_ONLY"));
        assert_eq!(role(&one, second, "admin").await?.status, 200);
        // Each at the other's throat, at once and again: one of them stays.
        for _ in 0..5 {
            let (a, b) = tokio::try_join!(ban(&one, second), ban(&two, first))?;
            let shut = [&a, &b].iter().filter(|reply| reply.status == 200).count();
            assert!(shut <= 1, "{} {}", a.text, b.text);
        }
        let admins = cloud.must(&["user", "list"]).await?;
        assert!(admins.contains("admin\tactive"), "{admins}");
        Ok(())
    })
}

#[test]
fn accounts_are_found_by_role_state_and_text_page_by_page() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (_, _, admin) = person(&cloud, "admin@example.com", "admin").await?;
        for name in ["ayu", "budi_1", "budi-1", "citra"] {
            cloud
                .must(&["user", "add", "--email", &format!("{name}@example.com"), "--role", "volunteer"])
                .await?;
        }
        let list = async |query: &str| -> Result<Value> {
            ask(&cloud, &format!("GET /api/admin/users?{query}"), Some(&admin), None).await?.expect(200)
        };
        let names = |page: &Value| -> Vec<String> {
            let users = page["users"].as_array().into_iter().flatten();
            users.filter_map(|user| user["username"].as_str().map(str::to_owned)).collect()
        };
        assert_eq!(list("").await?["total"], 5);
        assert_eq!(names(&list("filter=budi_").await?), ["budi_1"], "an underscore is one");
        assert_eq!(names(&list("filter=CITRA%40").await?), ["citra"]);
        assert_eq!(names(&list("role=admin&state=active").await?), ["admin"]);
        let first = list("role=volunteer&limit=3").await?;
        assert_eq!(
            (names(&first), &first["total"]),
            (vec!["citra".into(), "budi-1".into(), "budi_1".into()], &json!(4))
        );
        let cursor = first["next_cursor"].as_str().context("next_cursor")?;
        assert_eq!(names(&list(&format!("role=volunteer&limit=3&cursor={cursor}")).await?), ["ayu"]);
        let second = list("role=volunteer&limit=3&page=2").await?;
        assert_eq!((names(&second), &second["next_cursor"]), (vec!["ayu".into()], &Value::Null));
        for wrong in ["limit=51", "limit=0", "page=0", "cursor=x", "filter=%00"] {
            let reply = ask(&cloud, &format!("GET /api/admin/users?{wrong}"), Some(&admin), None).await?;
            assert_eq!(refused(&reply), refusal(400, "VALIDATION_ERROR"), "{wrong}");
        }
        Ok(())
    })
}

#[test]
fn only_admins_reach_what_is_for_admins() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        cloud.furnish().await?;
        let (_, _, admin) = person(&cloud, "admin@example.com", "admin").await?;
        let (budi, _, user) = person(&cloud, "budi@example.com", "ambassador").await?;
        cloud.must(&["user", "grant", "budi@example.com", "operator", "--programme", "MBG"]).await?;
        let key = cloud.must(&["key", "add", "x", "--scope", "read,metrics", "--json"]);
        let key: Value = serde_json::from_str(&key.await?)?;
        let key = key["key"].as_str().context("key")?;
        let wish = json!({ "name": "dasbor", "scopes": ["read"] });
        let duty = json!({ "role": "officer", "site": "DAPUR-1" });
        let calls: Vec<(String, Option<Value>, u16)> = vec![
            ("GET /api/admin/users".into(), None, 200),
            ("POST /api/admin/ban-user".into(), Some(json!({ "user_id": 999_999, "reason": "x" })), 404),
            ("POST /api/admin/unban-user".into(), Some(json!({ "user_id": 999_999 })), 404),
            (format!("PUT /api/admin/users/{budi}/role"), Some(json!({ "role": "volunteer" })), 200),
            ("PUT /api/admin/users/999999/role".into(), Some(json!({ "role": "volunteer" })), 404),
            (format!("POST /api/admin/users/{budi}/grants"), Some(duty.clone()), 201),
            (format!("POST /api/admin/users/{budi}/grants"), Some(duty.clone()), 409),
            ("POST /api/admin/users/999999/grants".into(), Some(duty), 404),
            (format!("POST /api/admin/users/{budi}/grants"), Some(json!({ "role": "officer" })), 400),
            (format!("GET /api/admin/users/{budi}/grants"), None, 200),
            (format!("DELETE /api/admin/users/{budi}/grants/999999"), None, 404),
            ("POST /api/keys".into(), Some(wish), 201),
            ("POST /api/keys".into(), Some(json!({ "name": "x", "scopes": [] })), 400),
            ("POST /api/keys".into(), Some(json!({ "name": "x", "scopes": ["semua"] })), 400),
            ("GET /api/keys".into(), None, 200),
            ("GET /api/keys?limit=51".into(), None, 400),
            ("DELETE /api/keys/999999".into(), None, 404),
        ];
        for (call, body, status) in calls {
            // Without a key and from this machine, too: what changes something is for somebody.
            for (token, expected) in [
                (None, 401),
                (Some("lbk_bukan"), 401),
                (Some(key), 401),
                (Some(user.as_str()), 403),
                (Some(admin.as_str()), status),
            ] {
                let reply = ask(&cloud, &call, token, body.clone()).await?;
                // A value that cannot be read may be told before who asks is looked at.
                let early = reply.status == 400 && status == 400;
                assert!(reply.status == expected || early, "{call}: {} {}", reply.status, reply.text);
                if expected == 403 && !early {
                    assert_eq!(reply.error_code(), "ADMIN_ONLY", "{call}");
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_key_made_by_an_admin_is_shown_once_and_ends_at_once() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (_, _, admin) = person(&cloud, "admin@example.com", "admin").await?;
        let wish = json!({ "name": "dasbor", "scopes": ["read"], "expires_at": "2999-01-01T00:00:00Z" });
        let made = ask(&cloud, "POST /api/keys", Some(&admin), Some(wish)).await?.expect(201)?;
        let key = made["key"].as_str().context("key")?;
        assert_eq!(ask(&cloud, "GET /api/scans", Some(key), None).await?.status, 200);
        let listed = ask(&cloud, "GET /api/keys", Some(&admin), None).await?;
        let body = listed.expect(200)?;
        assert!(!listed.text.contains(key), "it is shown again");
        assert!(body["keys"][0]["last_used_at"].is_string(), "{body}");
        let call = format!("DELETE /api/keys/{}", made["id"]);
        assert_eq!(ask(&cloud, &call, Some(&admin), None).await?.status, 200);
        assert_eq!(ask(&cloud, "GET /api/scans", Some(key), None).await?.status, 401);
        let past = json!({ "name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z" });
        let reply = ask(&cloud, "POST /api/keys", Some(&admin), Some(past)).await?;
        assert_eq!(refused(&reply), refusal(400, "VALIDATION_ERROR"));
        let database = cloud.database().await?;
        let kept: String = sqlx::query_scalar("select string_agg(t::text, ' ') from audit_entry t")
            .fetch_one(&database)
            .await?;
        assert!(kept.contains("authn_token_created") && kept.contains("authn_token_revoked"), "{kept}");
        assert!(!kept.contains(key), "the audit knows the key");
        Ok(())
    })
}
