//! What admins oversee: jobs, the audit log, the figures of the whole cloud.

use anyhow::{Context, Result};
use chrono::{Datelike, Utc};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use lumbung_tests::wire::{batch, scans};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::BTreeSet;

async fn ask(cloud: &Cloud, call: &str, token: &str, body: Option<Value>) -> Result<Reply> {
    let (method, path) = call.split_once(' ').context("METHOD /path")?;
    let mut request = http::client()?.request(method.parse::<Method>()?, cloud.url(path)).bearer_auth(token);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    http::send(request).await
}

/// An account made at the command line, signed in: its number and token.
async fn person(cloud: &Cloud, name: &str, role: &str) -> Result<(i64, String)> {
    let email = format!("{name}@example.com");
    let added = cloud.must(&["user", "add", "--email", &email, "--role", role, "--json"]).await?;
    let added: Value = serde_json::from_str(&added)?;
    let body = json!({ "email": email, "password": added["password"] });
    let signed_in = ask(cloud, "POST /api/auth/login", "", Some(body)).await?.expect(200)?;
    let id = added["user_id"].as_i64().context("user_id")?;
    Ok((id, signed_in["token"].as_str().context("token")?.to_owned()))
}

/// How many entries of the log fit.
async fn told(database: &PgPool, action: &str, object_kind: &str) -> Result<i64> {
    let query = "select count(*) from audit_entry where action = $1 and object_kind = $2";
    Ok(sqlx::query_scalar(query).bind(action).bind(object_kind).fetch_one(database).await?)
}

#[test]
fn an_admin_runs_a_job_sees_how_it_ended_and_the_log_says_who_it_was() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        // Half a year away: whatever the day, its turn does not come meanwhile.
        let month = (Utc::now().month0() + 6) % 12 + 1;
        cloud.set("jobs.claims_purge", format!("0 0 0 1 {month} *")).start().await?;
        let database = cloud.database().await?;
        let (id, admin) = person(&cloud, "admin", "admin").await?;
        let run = async || ask(&cloud, "POST /api/admin/jobs/claims_purge/run", &admin, None).await;
        let done = run().await?.expect(200)?;
        assert_eq!(
            (&done["round"]["outcome"], &done["round"]["cause"]),
            (&json!("success"), &json!("person"))
        );
        let mut elsewhere = database.begin().await?;
        sqlx::query("select pg_advisory_xact_lock(1785684595, hashtext('claims_purge'))")
            .execute(&mut *elsewhere)
            .await?;
        let refused = run().await?;
        assert_eq!((refused.status, refused.error_code().as_str()), (409, "JOB_RUNNING"));
        elsewhere.rollback().await?;
        sqlx::query("alter table gateway_claim rename to elsewhere").execute(&database).await?;
        let failed = run().await?.expect(200)?;
        assert_eq!(failed["round"]["outcome"], "failed");
        assert!(failed["round"]["error"].to_string().contains("gateway_claim"), "{failed}");
        let listed = ask(&cloud, "GET /api/admin/jobs", &admin, None).await?.expect(200)?;
        let jobs = listed["jobs"].as_array().context("jobs")?;
        let job = jobs.iter().find(|job| job["name"] == "claims_purge").context("not listed")?;
        let ends: Vec<&Value> =
            job["rounds"].as_array().into_iter().flatten().map(|round| &round["outcome"]).collect();
        assert_eq!(ends, ["failed", "success"], "{job}");
        assert!(job["cron"].is_string() && job["next_at"].is_string(), "{job}");
        let who = format!("person:{id}");
        let entries = cloud.must(&["audit", "list", "--action", "job_run", "--actor", &who]).await?;
        let outcomes: Vec<Value> = entries
            .lines()
            .map(|line| Ok(serde_json::from_str::<Value>(line)?["outcome"].take()))
            .collect::<Result<_>>()?;
        assert_eq!(outcomes, ["failed", "success"], "{entries}");
        Ok(())
    })
}

#[test]
fn each_search_of_the_log_is_in_the_log_once_and_its_further_pages_are_not() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let (id, admin) = person(&cloud, "admin", "admin").await?;
        for n in 0..5 {
            person(&cloud, &format!("warga{n}"), "user").await?;
        }
        let search = async |query: &str| -> Result<Value> {
            ask(&cloud, &format!("GET /api/admin/audit?{query}"), &admin, None).await?.expect(200)
        };
        let reads = || told(&database, "sensitive_read", "audit_entry");
        let (mut seen, mut cursor) = (BTreeSet::new(), String::new());
        loop {
            let page = search(&format!("action=user_created&limit=2{cursor}")).await?;
            for entry in page["entries"].as_array().context("entries")? {
                assert_eq!(
                    (&entry["action"], &entry["actor_kind"]),
                    (&json!("user_created"), &json!("command"))
                );
                assert!(seen.insert(entry["id"].as_i64()), "twice: {entry}");
            }
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!((seen.len(), reads().await?), (6, 1), "pages of one search");
        // Another search may not hide behind a cursor.
        search(&format!("outcome=success{cursor}")).await?;
        assert_eq!(reads().await?, 2);
        search("action=user_created&limit=2").await?;
        assert_eq!(reads().await?, 3, "the same one again is another one");
        let own = search(&format!("actor=person:{id}&action=sensitive_read")).await?;
        let entries = own["entries"].as_array().context("entries")?;
        assert_eq!(entries.len(), 3, "{own}");
        assert_eq!(entries[0]["detail"]["action"], "user_created");
        assert!(!own.to_string().contains("@example.com"), "{own}");
        Ok(())
    })
}

#[test]
fn whoever_asks_for_what_is_not_theirs_is_told_a_few_times_and_then_as_a_number() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let (id, budi) = person(&cloud, "budi", "user").await?;
        let minute = async || -> Result<i64> {
            let minute = "select floor(extract(epoch from now()) / 60)::bigint";
            Ok(sqlx::query_scalar(minute).fetch_one(&database).await?)
        };
        // Of a program that may not, its own answer is enough.
        let key = cloud.must(&["key", "add", "layar", "--scope", "read", "--json"]).await?;
        let key: Value = serde_json::from_str(&key)?;
        let programme = Some(json!({ "code": "P-1", "name": "Program" }));
        let reader = key["key"].as_str().context("key")?;
        assert_eq!(ask(&cloud, "POST /api/programmes", reader, programme).await?.status, 403);
        let began = minute().await?;
        for _ in 0..40 {
            assert_eq!(ask(&cloud, "GET /api/admin/users/7/grants", &budi, None).await?.status, 403);
        }
        let entries: Vec<(String, String, String)> = sqlx::query_as(
            "select actor_id, reason, detail ->> 'route' from audit_entry
             where action = 'authz_fail' and outcome = 'refused' and detail ? 'route'",
        )
        .fetch_all(&database)
        .await?;
        // Five in each minute that the forty have seen, of which there are many on a busy machine.
        let minutes = usize::try_from(minute().await? - began + 1)?;
        assert!((5..=5 * minutes).contains(&entries.len()), "{} entries in {minutes} minutes", entries.len());
        let entry = (id.to_string(), "ADMIN_ONLY".to_owned(), "/api/admin/users/{id}/grants".to_owned());
        assert!(entries.iter().all(|other| *other == entry), "{entries:?}");
        sqlx::query("update audit_tally set minute = minute - interval '1 hour'").execute(&database).await?;
        let single = i64::try_from(entries.len())?;
        eventually("the others are told as their number", || async {
            let more: Option<i64> = sqlx::query_scalar(
                "select sum((detail ->> 'more')::bigint)::bigint from audit_entry where action = 'authz_fail'",
            )
            .fetch_one(&database)
            .await?;
            Ok(when(more == Some(40 - single)))
        })
        .await
    })
}

#[test]
fn what_operators_do_at_the_command_line_and_whose_mails_admins_read_is_in_the_log() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("development.open_loopback", false).start().await?;
        let database = cloud.database().await?;
        cloud.furnish().await?;
        let (_, admin) = person(&cloud, "admin", "admin").await?;
        assert_eq!(told(&database, "user_created", "user").await?, 1);
        assert!(told(&database, "place_changed", "programme").await? > 0);
        assert!(told(&database, "place_changed", "site").await? > 0);
        assert_eq!(ask(&cloud, "GET /dev/outbox", &admin, None).await?.status, 200);
        assert_eq!(told(&database, "sensitive_read", "outbox").await?, 1);
        let sessions = cloud.must(&["user", "sessions", "admin@example.com"]).await?;
        cloud.must(&["user", "revoke", sessions.split('\t').next().context("no session")?]).await?;
        assert_eq!(told(&database, "authn_token_revoked", "user").await?, 1);
        let into = stand.path().join("backups");
        cloud.must(&["backup", into.to_str().context("path")?]).await?;
        assert_eq!(told(&database, "authz_admin", "backup").await?, 1);
        let folder = std::fs::read_dir(&into)?.next().context("no backup")??.path();
        cloud.stop().await?;
        database.close().await;
        cloud.must(&["restore", folder.to_str().context("path")?, "--replace"]).await?;
        let database = cloud.database().await?;
        let restored: i64 = sqlx::query_scalar(
            "select count(*) from audit_entry where object_kind = 'backup' and detail ->> 'restored' = 'true'",
        )
        .fetch_one(&database)
        .await?;
        assert_eq!(restored, 1, "a restored log does not say that it was restored");
        Ok(())
    })
}

#[test]
fn the_dashboard_counts_what_is_there_and_says_who_looked() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let gateway = cloud.hand_made("GW-1").await?;
        gateway.send(&batch(1, None, scans(1, 3, "ADA")?)?).await?;
        let (admin_id, admin) = person(&cloud, "admin", "admin").await?;
        person(&cloud, "siti", "user").await?;
        let (budi, _) = person(&cloud, "budi", "user").await?;
        let ban = json!({ "user_id": budi, "reason": "Iklan" });
        ask(&cloud, "POST /api/admin/ban-user", &admin, Some(ban)).await?.expect(200)?;
        sqlx::query("update app_user set created_at = now() - interval '20 days' where user_id = $1")
            .bind(budi)
            .execute(&database)
            .await?;
        let board = ask(&cloud, "GET /api/admin/dashboard", &admin, None).await?.expect(200)?;
        let users = json!({ "total": 3, "total_is_estimate": false, "active_24h": 3, "active_30d": 3,
            "sign_ups_24h": 2, "sign_ups_30d": 3, "banned": 1 });
        assert_eq!(board["stats"]["users"], users);
        let gateways = &board["stats"]["gateways"];
        assert_eq!(
            (&gateways["total"], &gateways["heard"], &gateways["scans"]),
            (&json!(1), &json!(1), &json!(3))
        );
        assert_eq!(board["stats"]["uploads"]["total"], 0);
        for (chart, sum) in [("sign_ups", Some(3)), ("uploads", Some(0)), ("scans", None)] {
            let days = board["charts"][chart].as_array().context("a chart")?;
            assert_eq!(days.len(), 30, "{chart}");
            assert!(days.windows(2).all(|pair| pair[0]["day"].as_str() < pair[1]["day"].as_str()), "{chart}");
            let counted: i64 = days.iter().filter_map(|day| day["count"].as_i64()).sum();
            assert!(sum.is_none_or(|sum| sum == counted), "{chart}: {counted}");
        }
        let newest = &board["recent_activity"][0];
        assert_eq!(
            (&newest["action"], &newest["actor_id"], &newest["object_id"]),
            (&json!("user_banned"), &json!(admin_id.to_string()), &json!(budi.to_string()))
        );
        ask(&cloud, "GET /api/admin/dashboard", &admin, None).await?.expect(200)?;
        assert_eq!(told(&database, "sensitive_read", "dashboard").await?, 1, "once an hour");
        Ok(())
    })
}

#[test]
fn what_admins_read_of_what_people_wrote_and_were_granted_is_in_the_log_once_an_hour() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let (_, admin) = person(&cloud, "admin", "admin").await?;
        let (budi, _) = person(&cloud, "budi", "user").await?;
        for _ in 0..2 {
            ask(&cloud, "GET /api/admin/privacy-requests", &admin, None).await?.expect(200)?;
            ask(&cloud, &format!("GET /api/admin/users/{budi}/grants"), &admin, None).await?.expect(200)?;
        }
        ask(&cloud, "GET /api/admin/users", &admin, None).await?.expect(200)?;
        assert_eq!(told(&database, "sensitive_read", "user").await?, 1);
        assert_eq!(told(&database, "sensitive_read", "privacy_request").await?, 1);
        assert_eq!(told(&database, "sensitive_read", "grants_of").await?, 1);
        Ok(())
    })
}

#[test]
fn who_asks_for_too_much_is_in_the_log_and_writes_no_entry_with_each_try() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("limits.read", "2/1h").start().await?;
        let database = cloud.database().await?;
        let (id, budi) = person(&cloud, "budi", "user").await?;
        for token in [budi.as_str(), "lbk_tidak_ada"] {
            let mut refused = 0;
            for _ in 0..30 {
                refused += u32::from(ask(&cloud, "GET /api/users/me", token, None).await?.status == 429);
            }
            assert!(refused >= 25, "{refused} of 30");
        }
        let entries: Vec<(String, Option<String>)> = sqlx::query_as(
            "select actor_kind, actor_id from audit_entry where action = 'excess_rate_limit_exceeded'
                 and reason = 'TOO_MANY_REQUESTS' and outcome = 'refused' order by audit_id",
        )
        .fetch_all(&database)
        .await?;
        // A slow machine may have taken some minutes.
        let of = |kind: &str, id: Option<String>| {
            entries.iter().filter(|one| **one == (kind.to_owned(), id.clone())).count()
        };
        for found in [of("person", Some(id.to_string())), of("nobody", None)] {
            assert!((1..=5).contains(&found), "{entries:?}");
        }
        // Nor is each try counted in the database.
        let most =
            "select coalesce(max(count), 0) from audit_tally where action = 'excess_rate_limit_exceeded'";
        let most: i64 = sqlx::query_scalar(most).fetch_one(&database).await?;
        assert!(most <= 2, "{most} of a minute");
        Ok(())
    })
}
