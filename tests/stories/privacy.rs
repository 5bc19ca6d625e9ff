//! A person's data is theirs: they see what it is for, take a copy along, and leave without a trace.

use anyhow::{Context, Result, bail};
use lumbung_cloud::audit::{self, Action, Actor, Entry, Object, Origin};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub(super) const PASSWORD: &str = "sepeda merah tua";

pub(super) async fn ask(
    cloud: &Cloud,
    method: Method,
    path: &str,
    token: &str,
    body: Option<Value>,
) -> Result<Reply> {
    let mut request = http::client()?.request(method, cloud.url(path)).bearer_auth(token);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    http::send(request).await
}

async fn register(cloud: &Cloud, username: &str, consents: Value) -> Result<Reply> {
    let full_name = if username == "siti" { "Siti Rahayu Wulandari" } else { "Tetangga" };
    let body = json!({ "email": format!("{username}@example.com"), "password": PASSWORD, "username": username,
        "full_name": full_name, "consents": consents });
    let request = http::client()?.post(cloud.url("/api/auth/register"));
    http::send(request.header("content-type", "application/json").body(body.to_string())).await
}

pub(super) async fn someone(cloud: &Cloud, username: &str) -> Result<(i64, String)> {
    let body =
        register(cloud, username, json!([{ "purpose": "account", "version": 1 }])).await?.expect(201)?;
    let token = body["token"].as_str().context("token")?.to_owned();
    Ok((body["user_id"].as_i64().context("user_id")?, token))
}

pub(super) async fn show_a_picture(cloud: &Cloud, token: &str) -> Result<()> {
    let mut image = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(40, 30).write_to(&mut image, image::ImageFormat::Png)?;
    let mut body = b"--batas\r\ncontent-disposition: form-data; name=\"profile_picture\"\r\n\r\n".to_vec();
    body.extend(image.into_inner());
    body.extend(b"\r\n--batas--\r\n");
    let request = http::client()?.post(cloud.url("/api/users/me/picture")).bearer_auth(token).body(body);
    http::send(request.header("content-type", "multipart/form-data; boundary=batas")).await?.expect(200)?;
    Ok(())
}

#[test]
fn consent_is_given_to_a_version_provable_and_withdrawn() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let texts = cloud.get("/api/consents").await?.expect(200)?;
        let purposes: Vec<&str> = texts["consents"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|t| t["purpose"].as_str())
            .collect();
        assert_eq!(purposes, ["account", "research", "news"]);
        for wrong in
            [json!([{ "purpose": "apa saja", "version": 1 }]), json!([{ "purpose": "news", "version": 9 }])]
        {
            let reply = register(&cloud, "budi", wrong).await?;
            assert_eq!((reply.status, reply.error_code().as_str()), (400, "VALIDATION_ERROR"));
        }
        let (_, token) = someone(&cloud, "budi").await?;
        let path = "/api/users/me/consents";
        let news = json!({ "purpose": "news", "version": 1 });
        for _ in 0..2 {
            let given = ask(&cloud, Method::POST, path, &token, Some(news.clone())).await?.expect(200)?;
            assert_eq!(given["consents"].as_array().map(Vec::len), Some(2), "{given}");
        }
        let newest = ask(&cloud, Method::GET, path, &token, None).await?.expect(200)?["consents"][0].clone();
        assert_eq!((&newest["purpose"], &newest["withdrawn_at"]), (&json!("news"), &Value::Null));
        let gone = ask(&cloud, Method::DELETE, &format!("{path}/news"), &token, None).await?.expect(200)?;
        assert!(gone["consents"][0]["withdrawn_at"].is_string(), "{gone}");
        for missing in ["news", "research", "apa"] {
            let reply = ask(&cloud, Method::DELETE, &format!("{path}/{missing}"), &token, None).await?;
            assert_eq!(reply.status, 404, "{missing}");
        }
        let addresses: Vec<Option<String>> = sqlx::query_scalar("select distinct address from consent")
            .fetch_all(&cloud.database().await?)
            .await?;
        assert_eq!(addresses, [Some("127.0.0.0/24".to_owned())]);
        Ok(())
    })
}

#[test]
fn a_copy_of_everything_goes_to_its_owner_alone() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let ((siti_id, siti), (_, other)) = (someone(&cloud, "siti").await?, someone(&cloud, "budi").await?);
        show_a_picture(&cloud, &siti).await?;
        let database = cloud.database().await?;
        sqlx::query("insert into notification_preference (user_id, kind, channel, wanted) values ($1, 'x', 'email', false)")
            .bind(siti_id)
            .execute(&database)
            .await?;
        let entry = Entry {
            object: Some(Object::new("user", &siti_id)),
            reason: Some("Iklan"),
            origin: Some(Origin { address: Some("10.1.2.0/24".into()), ..Origin::default() }),
            ..Entry::of(Actor::Person(0), Action::UserBanned)
        };
        audit::record(&mut *database.acquire().await?, &entry).await?;
        let asked = ask(&cloud, Method::POST, "/api/users/me/export", &siti, None).await?.expect(202)?;
        let path = format!("/api/users/me/export/{}", asked["export_id"]);
        let zip = eventually("the copy is ready", || async {
            let request = http::client()?.get(cloud.url(&path)).bearer_auth(&siti);
            let answer = request.send().await?;
            match answer.status().as_u16() {
                200 => Ok(Some(answer.bytes().await?)),
                409 => Ok(None),
                other => bail!("{other}"),
            }
        })
        .await?;
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(zip))?;
        let names: Vec<String> =
            zip.file_names().map(|name| Ok(name?.into_owned())).collect::<Result<_>>()?;
        assert!(names.iter().any(|name| name.starts_with("files/") && name.ends_with(".jpg")), "{names:?}");
        let account = std::io::read_to_string(zip.by_name("account.json")?)?;
        assert!(account.contains("siti@example.com") && !account.contains("argon2"), "{account}");
        assert!(!account.contains("budi"));
        let messages: Value = serde_json::from_reader(zip.by_name("messages.json")?)?;
        assert_eq!(messages["preferences"][0]["wanted"], json!(false), "{messages}");
        // What others did to the account is in it, and from where they did it is theirs.
        let activity: Value = serde_json::from_reader(zip.by_name("activity.json")?)?;
        let entry = |action: &str| activity.as_array()?.iter().find(|entry| entry["action"] == action);
        let upload = entry("upload_complete").context("no upload")?;
        assert_eq!((&upload["address"], upload["detail"]["bytes"].is_u64()), (&json!("127.0.0.0/24"), true));
        let banned = entry("user_banned").context("no ban")?;
        assert_eq!((&banned["reason"], &banned["address"]), (&json!("Iklan"), &Value::Null), "{banned}");
        assert_eq!(ask(&cloud, Method::GET, &path, &other, None).await?.status, 404);
        let told = ask(&cloud, Method::GET, "/api/notifications", &siti, None).await?.expect(200)?;
        assert_eq!(told["notifications"][0]["title"], "Salinan data Anda siap", "{told}");

        // A new one takes the place of the old, and one whose upload the store has lost is made all the same.
        for object in objects(&cloud, "files")? {
            std::fs::remove_file(object)?;
        }
        let again = ask(&cloud, Method::POST, "/api/users/me/export", &siti, None).await?.expect(202)?;
        assert_eq!(
            ask(&cloud, Method::GET, &path, &siti, None).await?.status,
            404,
            "the old one is still there"
        );
        let path = format!("/api/users/me/export/{}", again["export_id"]);
        cloud.must(&["jobs", "run", "exports"]).await?;
        assert_eq!(ask(&cloud, Method::GET, &path, &siti, None).await?.status, 200);
        sqlx::query("update data_export set expires_at = now()").execute(&database).await?;
        assert_eq!(ask(&cloud, Method::GET, &path, &siti, None).await?.status, 404, "it has expired");
        // What a program that died left behind goes a day later, with the expired one.
        let left = cloud.settings.dir.join("files/exports/left.zip");
        std::fs::write(&left, "half")?;
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3_600);
        std::fs::File::options().write(true).open(&left)?.set_modified(then)?;
        cloud.must(&["jobs", "run", "exports"]).await?;
        assert_eq!(objects(&cloud, "files/exports")?, Vec::<PathBuf>::new());
        let rows: i64 = sqlx::query_scalar("select count(*) from data_export").fetch_one(&database).await?;
        assert_eq!(rows, 0);
        Ok(())
    })
}

/// The objects in a folder of the cloud's data.
pub(super) fn objects(cloud: &Cloud, folder: &str) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(cloud.settings.dir.join(folder))?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().map(std::fs::DirEntry::path).filter(|path| path.is_file()).collect())
}

/// Table, rule: the list in docs/privacy.md.
fn rules() -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/privacy.md"))?;
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_matches('`').to_owned(), cells.next()?.to_owned()))
    };
    Ok(text.lines().filter_map(row).collect())
}

async fn columns(database: &PgPool, which: &str) -> Result<Vec<(String, String)>> {
    let sql = format!(
        "select c.table_name::text, c.column_name::text from information_schema.columns c
         join information_schema.tables t using (table_schema, table_name)
         where c.table_schema = 'public' and t.table_type = 'BASE TABLE' and {which} order by 1, 2"
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql)).fetch_all(database).await?)
}

#[test]
fn who_leaves_is_in_no_row_and_no_file_and_no_table_is_forgotten() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let rules = rules()?;
        let about =
            "(c.column_name in ('user_id', 'email', 'address', 'address_hash', 'phone_number', 'actor_id')
            and c.table_name not in ('site', 'audit_tally')
            or exists (select from pg_constraint k where k.conrelid = to_regclass(quote_ident(c.table_name))
                and k.confrelid in ('app_user'::regclass, 'user_session'::regclass)))";
        for (table, column) in columns(&database, about).await? {
            assert!(rules.contains_key(&table), "{table}.{column} has no rule in docs/privacy.md");
        }
        let (user_id, token) = someone(&cloud, "siti").await?;
        let (_, neighbour) = someone(&cloud, "budi").await?;
        let profile = json!({ "phone_number": "+62 811 2345 678", "address": "Jalan Kenanga 7", "bio": "siti.pribadi",
            "city": "Wonosobo-7" });
        ask(&cloud, Method::PUT, "/api/users/me", &token, Some(profile)).await?.expect(200)?;
        show_a_picture(&cloud, &token).await?;
        show_a_picture(&cloud, &neighbour).await?;
        let wish = json!({ "kind": "correction", "content": "Saya Siti Rahayu Wulandari" });
        ask(&cloud, Method::POST, "/api/users/me/privacy-requests", &token, Some(wish)).await?.expect(201)?;
        let copy = ask(&cloud, Method::POST, "/api/users/me/export", &token, None).await?.expect(202)?;
        eventually("the copy is made", || async {
            let path = format!("/api/users/me/export/{}", copy["export_id"]);
            let request = http::client()?.get(cloud.url(&path)).bearer_auth(&token);
            Ok((request.send().await?.status() == 200).then_some(()))
        })
        .await?;
        let wrong = json!({ "email": "siti@example.com", "password": "bukan ini" });
        let login = http::client()?.post(cloud.url("/api/auth/login")).body(wrong.to_string());
        http::send(login.header("content-type", "application/json")).await?;
        for sql in [
            "insert into user_google (user_id, google_sub) values ($1, '104800000000000000001')",
            "insert into notification (user_id, kind, title, content) values ($1, 'x', 'Siti', 'Halo Siti Rahayu Wulandari')",
            "insert into delivery (user_id, kind, channel, address, title, content)
             values ($1, 'x', 'sms', '+62 811 2345 678', 'x', 'x')",
            "insert into delivery (kind, channel, address, title, content, next_try_at)
             select 'x', 'email', 'SITI@example.com', 'x', 'x', now() + interval '1 day' where $1 > 0",
            "insert into kept_message (channel, address, title, content, message_id)
             select 'email', 'siti@example.com', 'x', 'x', gen_random_uuid() where $1 > 0",
            "insert into notification_preference (user_id, kind, channel, wanted) values ($1, 'x', 'email', false)",
            "insert into phone (user_id, number) values ($1, '+628112345678')",
            "insert into user_ban (user_id, reason, lifted_at) values ($1, 'Siti Rahayu Wulandari', now())",
            "insert into user_totp (user_id, sealed_secret) values ($1, 'x')",
            "insert into recovery_code (user_id, code_hash) values ($1, sha256('x'))",
            "insert into sign_in_challenge (challenge_hash, user_id, refresh, expires_at)
             values (sha256('x'), $1, false, now() + interval '1 hour')",
            "insert into role_grant (user_id, role, site_id) select $1, 'officer', site_id from site limit 1",
        ] {
            sqlx::query(sql).bind(user_id).execute(&database).await.with_context(|| sql.to_owned())?;
        }
        let request = http::client()?.post(cloud.url("/api/notifications/push-subscriptions"));
        // A browser's key as RFC 8291's example has it.
        let browser = json!({ "endpoint": "https://push.example.com/siti", "keys": { "auth": "BTBZMqHH6r4Tts7J_aSIgg",
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4" } });
        let request = request.bearer_auth(&token).header("idempotency-key", "satu");
        http::send(request.header("content-type", "application/json").body(browser.to_string()))
            .await?
            .expect(201)?;
        let of_person = "c.column_name = 'user_id'";
        let count = async |table: &str| -> Result<i64> {
            let sql = format!("select count(*) from {table} where user_id = $1");
            Ok(sqlx::query_scalar(AssertSqlSafe(sql)).bind(user_id).fetch_one(&database).await?)
        };
        for (table, _) in columns(&database, of_person).await? {
            assert!(count(&table).await? > 0, "{table} is empty before: this story shows nothing about it");
        }

        let old = json!({ "password": "bukan ini juga" });
        let reply = ask(&cloud, Method::DELETE, "/api/users/me", &token, Some(old)).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (400, "VALIDATION_ERROR"));
        let reply = ask(&cloud, Method::DELETE, "/api/users/me", &token, Some(json!({}))).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (400, "VALIDATION_ERROR"));
        // Who has no password shows it by having just signed in.
        for sql in [
            "update app_user set password_hash = null where user_id = $1",
            "update user_session set created_at = now() - interval '1 hour' where user_id = $1",
        ] {
            sqlx::query(sql).bind(user_id).execute(&database).await?;
        }
        let body = json!({ "password": PASSWORD });
        let reply = ask(&cloud, Method::DELETE, "/api/users/me", &token, Some(body)).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (403, "SIGN_IN_AGAIN"));
        sqlx::query("update user_session set created_at = now()").execute(&database).await?;
        let body = json!({});
        let left = ask(&cloud, Method::DELETE, "/api/users/me", &token, Some(body)).await?.expect(200)?;
        assert_eq!(left["receipt"]["files"], 1, "{left}");
        assert_eq!(ask(&cloud, Method::GET, "/api/users/me", &token, None).await?.status, 401);

        for (table, _) in columns(&database, of_person).await? {
            let left = count(&table).await?;
            assert_eq!(left == 0, rules[&table] == "deleted", "{table}: {left} rows left");
        }
        let names = [
            "siti@example",
            "rahayu wulandari",
            "2345 678",
            "12345678",
            "jalan kenanga",
            "siti.pribadi",
            "wonosobo-7",
        ];
        for (table, column) in
            columns(&database, "c.data_type in ('text', 'jsonb', 'character varying')").await?
        {
            let sql =
                format!("select count(*) from {table} where lower({column}::text) like '%' || $1 || '%'");
            for name in names {
                let found: i64 =
                    sqlx::query_scalar(AssertSqlSafe(sql.clone())).bind(name).fetch_one(&database).await?;
                assert_eq!(found, 0, "{table}.{column} still says {name}");
            }
        }
        assert_eq!(objects(&cloud, "files")?.len(), 2, "the neighbour's picture and its thumbnail");
        assert_eq!(objects(&cloud, "files/exports")?.len(), 0, "a copy is left");
        let told = cloud.must(&["audit", "list", "--actor", &format!("person:{user_id}")]).await?;
        for action in ["upload_complete", "sensitive_delete"] {
            assert_eq!(told.matches(action).count(), 1, "{told}");
        }
        assert!(!stand.logs().contains("siti@example.com"));
        // The name and the address are free again.
        someone(&cloud, "siti").await?;
        Ok(())
    })
}

#[test]
fn the_last_admin_stays() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let ((first, one), (second, other)) =
            (someone(&cloud, "siti").await?, someone(&cloud, "budi").await?);
        sqlx::query("update app_user set role = 'admin' where user_id in ($1, $2)")
            .bind(first)
            .bind(second)
            .execute(&database)
            .await?;
        let leave = Some(json!({ "password": PASSWORD }));
        ask(&cloud, Method::DELETE, "/api/users/me", &one, leave.clone()).await?.expect(200)?;
        let reply = ask(&cloud, Method::DELETE, "/api/users/me", &other, leave).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (409, "LAST_ADMIN"));
        ask(&cloud, Method::GET, "/api/users/me", &other, None).await?.expect(200)?;
        Ok(())
    })
}

#[test]
fn a_request_has_three_days_and_is_answered_by_an_admin() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (admin_id, admin) = someone(&cloud, "kepala").await?;
        let (_, siti) = someone(&cloud, "siti").await?;
        let database = cloud.database().await?;
        sqlx::query("update app_user set role = 'admin' where user_id = $1")
            .bind(admin_id)
            .execute(&database)
            .await?;
        let mine = "/api/users/me/privacy-requests";
        let wish = json!({ "kind": "objection", "content": "Foto saya dinilai mesin." });
        let asked = ask(&cloud, Method::POST, mine, &siti, Some(wish.clone())).await?.expect(201)?;
        let id = &asked["request"]["privacy_request_id"];
        let told = ask(&cloud, Method::GET, "/api/notifications", &admin, None).await?.expect(200)?;
        let title = "Permintaan tentang data pribadi menunggu jawaban";
        assert_eq!(told["notifications"][0]["title"], title, "{told}");
        let hours: f64 = sqlx::query_scalar(
            "select extract(epoch from due_at - requested_at)::float8 / 3600 from privacy_request",
        )
        .fetch_one(&database)
        .await?;
        assert!((hours - 72.0).abs() < 0.01, "{hours}");
        for _ in 0..9 {
            ask(&cloud, Method::POST, mine, &siti, Some(wish.clone())).await?.expect(201)?;
        }
        let eleventh = ask(&cloud, Method::POST, mine, &siti, Some(wish)).await?;
        assert_eq!((eleventh.status, eleventh.error_code().as_str()), (409, "TOO_MANY_OPEN_REQUESTS"));
        let odd = json!({ "kind": "revenge", "content": "x" });
        assert_eq!(ask(&cloud, Method::POST, mine, &siti, Some(odd)).await?.status, 400);

        let late = "update privacy_request set due_at = now() + make_interval(hours => case
                        when privacy_request_id = (select min(privacy_request_id) from privacy_request) then -1
                        when privacy_request_id = (select max(privacy_request_id) from privacy_request) then 25
                        else 23 end)";
        sqlx::query(late).execute(&database).await?;
        let metrics = cloud.get("/metrics").await?.text;
        for (state, count) in [("open", 1), ("due_soon", 8), ("overdue", 1)] {
            let line = format!("lumbung_cloud_privacy_requests{{state=\"{state}\"}} {count}");
            assert!(metrics.lines().any(|told| told == line), "{line}: {metrics}");
        }

        let all = "/api/admin/privacy-requests";
        assert_eq!(ask(&cloud, Method::GET, all, &siti, None).await?.error_code(), "ADMIN_ONLY");
        eventually("the admin's role is felt", || async {
            Ok((ask(&cloud, Method::GET, all, &admin, None).await?.status == 200).then_some(()))
        })
        .await?;
        let page = ask(&cloud, Method::GET, &format!("{all}?limit=4"), &admin, None).await?.expect(200)?;
        assert_eq!(&page["requests"][0]["privacy_request_id"], id);
        let next = page["next_cursor"].as_str().context("there are more")?;
        let rest =
            ask(&cloud, Method::GET, &format!("{all}?cursor={next}"), &admin, None).await?.expect(200)?;
        assert_eq!(rest["requests"].as_array().map(Vec::len), Some(6));
        let path = format!("{all}/{id}/answer");
        let answer = json!({ "granted": true, "answer": "Seorang petugas sudah menilainya lagi." });
        assert_eq!(ask(&cloud, Method::POST, &path, &siti, Some(answer.clone())).await?.status, 403);
        ask(&cloud, Method::POST, &path, &admin, Some(answer.clone())).await?.expect(200)?;
        assert_eq!(ask(&cloud, Method::POST, &path, &admin, Some(answer)).await?.status, 404, "twice");
        let notices = ask(&cloud, Method::GET, "/api/notifications", &siti, None).await?.expect(200)?;
        assert_eq!(
            notices["notifications"][0]["title"], "Permintaan Anda tentang data pribadi sudah dijawab",
            "{notices}"
        );
        let notices = ask(&cloud, Method::GET, "/api/notifications", &admin, None).await?.expect(200)?;
        assert_eq!(notices["notifications"].as_array().map(Vec::len), Some(1), "not one for all: {notices}");
        let told = ask(&cloud, Method::GET, mine, &siti, None).await?.expect(200)?;
        let told = told["requests"].as_array().and_then(|all| all.last()).cloned().context("none")?;
        assert_eq!((&told["granted"], told["answer"].is_string()), (&json!(true), true), "{told}");
        Ok(())
    })
}
