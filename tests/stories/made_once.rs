//! What answers a secret is made once as well, however often it is asked for; and the answer that is given again lies
//! nowhere where somebody else could read it.

use anyhow::{Context, Result};
use futures_util::future::{Either, join_all, select};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use std::pin::pin;
use uuid::Uuid;

const PASSWORD: &str = "sepeda merah tua";
/// What people did; jobs write, too.
const ENTRIES: &str = "audit_entry where actor_kind in ('person', 'nobody')";

/// A POST that can be sent again as it is.
struct Wish {
    path: String,
    /// Empty: anyone's.
    token: String,
    key: String,
    body: String,
}

impl Wish {
    fn new(token: &str, path: impl Into<String>, body: &Value) -> Self {
        let (path, token) = (path.into(), token.to_owned());
        Self { path, token, key: Uuid::new_v4().to_string(), body: body.to_string() }
    }

    async fn ask(&self, cloud: &Cloud) -> Result<Reply> {
        let request = http::client()?.post(cloud.url(&self.path)).header("idempotency-key", &self.key);
        let request = match self.token.as_str() {
            "" => request,
            token => request.bearer_auth(token),
        };
        http::send(request.header("content-type", "application/json").body(self.body.clone())).await
    }

    /// From both replicas the first answer.
    async fn is_answered_again(&self, replicas: [&Cloud; 2], first: &Reply) -> Result<()> {
        for cloud in replicas {
            let again = self.ask(cloud).await?;
            assert_eq!((again.status, &again.text), (first.status, &first.text), "{}", self.path);
            assert_eq!(again.header("idempotency-replayed"), Some("true"), "{}", self.path);
            assert_eq!(again.header("content-type"), first.header("content-type"), "{}", self.path);
        }
        Ok(())
    }
}

fn told(reply: &Reply) -> (u16, String) {
    (reply.status, reply.error_code())
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

async fn admin(cloud: &Cloud, email: &str) -> Result<String> {
    let added = cloud.must(&["user", "add", "--email", email, "--role", "admin", "--json"]).await?;
    let added: Value = serde_json::from_str(&added)?;
    let body = json!({ "email": email, "password": added["password"] });
    let login = Wish::new("", "/api/auth/login", &body).ask(cloud).await?.expect(200)?;
    Ok(login["token"].as_str().context("token")?.to_owned())
}

fn registration(name: &str, password: &str) -> Value {
    json!({ "email": format!("{name}@example.com"), "username": name, "password": password, "refresh": true })
}

async fn count(database: &PgPool, of: &str) -> Result<i64> {
    let sql = format!("select count(*) from {of}");
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(database).await?)
}

/// Every text of an answer that opens something.
fn secrets(answer: &Value) -> Vec<String> {
    let named = ["token", "refresh_token", "key", "claim", "uri", "secret"];
    named.iter().filter_map(|name| answer[name].as_str()).map(str::to_owned).collect()
}

#[test]
fn what_answers_a_secret_is_made_once_by_two_replicas_and_its_secret_lies_nowhere() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        cloud.furnish().await?;
        let (ani, budi) = (admin(&cloud, "ani@example.com").await?, admin(&cloud, "budi@example.com").await?);
        let database = cloud.database().await?;
        let hook = json!({ "url": "https://operator.example.com/satu", "kinds": ["account.banned"] });
        let made = Wish::new(&ani, "/api/webhooks", &hook).ask(&cloud).await?.expect(201)?;
        let banned =
            Wish::new("", "/api/auth/register", &registration("iklan", PASSWORD)).ask(&cloud).await?;
        let ban = json!({ "user_id": banned.expect(201)?["user_id"], "reason": "Iklan" });
        let rotate = format!("/api/webhooks/{}/rotate", made["id"]);
        let gateway = |code: &str| json!({ "gateway_id": code, "site": "DAPUR-1" });
        let key = |name: &str| json!({ "name": name, "scopes": ["read"] });
        let mut hidden = vec![PASSWORD.to_owned()];
        for (token, path, body, changed) in [
            (
                "",
                "/api/auth/register",
                registration("siti", PASSWORD),
                registration("siti", "perahu biru muda"),
            ),
            (&ani, "/api/gateways", gateway("GW-1"), gateway("GW-2")),
            (&ani, "/api/gateways/GW-1/claim", json!({}), json!({ "site": "DAPUR-1" })),
            (&ani, "/api/keys", key("pemda"), key("dinas")),
            (&ani, "/api/webhooks", hook.clone(), json!({})),
            (&ani, &rotate, json!({}), json!(null)),
            (&ani, "/api/admin/ban-user", ban.clone(), json!({ "user_id": 1, "reason": "Lain" })),
        ] {
            let before = count(&database, ENTRIES).await?;
            let wish = Wish::new(token, path, &body);
            let crowd = join_all((0..6).map(|n| wish.ask(if n % 2 == 0 { &cloud } else { &replica }))).await;
            let crowd: Vec<Reply> = crowd.into_iter().collect::<Result<_>>()?;
            let (done, busy): (Vec<_>, Vec<_>) = crowd.iter().partition(|reply| reply.status < 300);
            assert!(
                busy.iter().all(|reply| told(reply) == refusal(409, "IDEMPOTENCY_IN_FLIGHT")),
                "{busy:?}"
            );
            let first = done.first().with_context(|| format!("{path}: nobody did it: {crowd:?}"))?;
            assert!(done.iter().all(|reply| reply.text == first.text), "{path}: {done:?}");
            let new = done.iter().filter(|reply| reply.header("idempotency-replayed").is_none()).count();
            assert_eq!(new, 1, "{path}");
            wish.is_answered_again([&cloud, &replica], first).await?;
            // Each of them is one entry of the audit log.
            assert_eq!(count(&database, ENTRIES).await?, before + 1, "{path}");

            let other = Wish { body: changed.to_string(), ..Wish::new(token, path, &json!({})) };
            let other = Wish { key: wish.key.clone(), ..other }.ask(&replica).await?;
            assert_eq!(told(&other), refusal(422, "IDEMPOTENCY_KEY_REUSED"), "{path}");
            let answer = first.json()?;
            if !token.is_empty() {
                assert_eq!(secrets(&answer).is_empty(), path == "/api/admin/ban-user", "{answer}");
                let same = |token: &str| Wish { key: wish.key.clone(), ..Wish::new(token, path, &body) };
                let theirs = same(&budi).ask(&replica).await?;
                assert_eq!(theirs.header("idempotency-replayed"), None, "{path}: {theirs:?}");
                assert!(secrets(&answer).iter().all(|secret| !theirs.text.contains(secret)), "{path}");
                let stranger = same("lbk_tebakan").ask(&replica).await?;
                assert_eq!(told(&stranger), refusal(401, "UNAUTHENTICATED"), "{path}");
            }
            // Nobody may find the answer by guessing its key.
            if path != "/api/admin/ban-user" {
                let before = count(&database, ENTRIES).await?;
                for guessable in ["satu", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"] {
                    let wish = Wish { key: guessable.to_owned(), ..Wish::new(token, path, &changed) };
                    assert_eq!(told(&wish.ask(&cloud).await?), refusal(400, "VALIDATION_ERROR"), "{path}");
                }
                assert_eq!(count(&database, ENTRIES).await?, before, "{path}");
                hidden.push(wish.key);
            }
            hidden.extend(secrets(&answer));
        }
        lies_nowhere(&database, &hidden).await?;
        for cloud in [&cloud, &replica] {
            let log = std::fs::read_to_string(&cloud.settings.log)?;
            for secret in &hidden {
                assert!(!log.contains(secret), "{} holds {secret}", cloud.settings.log.display());
            }
        }
        Ok(())
    })
}

/// In no row of the database, neither as it is nor as bytes.
async fn lies_nowhere(database: &PgPool, hidden: &[String]) -> Result<()> {
    let tables: Vec<String> =
        sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public'")
            .fetch_all(database)
            .await?;
    assert!(tables.iter().any(|table| table == "idempotent_request"), "{tables:?}");
    for table in tables {
        let sql = format!(
            "select needle from {table} t, unnest($1::text[]) needle
             where t::text like '%' || needle || '%'
                 or t::text like '%' || encode(convert_to(needle, 'UTF8'), 'hex') || '%'"
        );
        let found: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(sql)).bind(hidden).fetch_all(database).await?;
        assert!(found.is_empty(), "{table} holds {found:?}");
    }
    Ok(())
}

/// Sends it, and goes away when that has happened which it is to wait for.
async fn sent_until(wish: &Wish, cloud: &Cloud, happened: impl Future<Output = Result<()>>) -> Result<()> {
    match select(pin!(wish.ask(cloud)), pin!(happened)).await {
        Either::Left((answered, _)) => anyhow::bail!("answered while it was held: {answered:?}"),
        Either::Right((happened, _)) => happened,
    }
}

async fn eventually_there(database: &PgPool, what: &str, of: &str) -> Result<()> {
    eventually(what, || async { Ok(when(count(database, of).await? == 1)) }).await
}

const TAKEN: &str = "idempotent_request where status is null and turn_ends_at > now()";
const WAITS: &str = "pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
    and query like 'update idempotent_request%'";
const MADE: &str = "access_key where name = 'pemda'";

/// Other connections than the pool of [`Cloud::database`], each of which holds something.
async fn holders(cloud: &Cloud) -> Result<[PgPool; 2]> {
    Ok([cloud.database().await?, cloud.database().await?])
}

#[test]
fn a_replica_that_dies_between_the_work_and_its_answer_has_done_neither() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let ani = admin(&cloud, "ani@example.com").await?;
        let (database, [first, second]) = (cloud.database().await?, holders(&cloud).await?);
        let wish = Wish::new(&ani, "/api/keys", &json!({ "name": "pemda", "scopes": ["read"] }));
        // Its work is held until its row is, and then goes on as far as that row.
        let mut work = first.begin().await?;
        sqlx::query("lock table access_key in exclusive mode").execute(&mut *work).await?;
        let mut row = second.begin().await?;
        let held = async {
            eventually_there(&database, "its turn is on", TAKEN).await?;
            sqlx::query("select from idempotent_request for update").execute(&mut *row).await?;
            work.rollback().await?;
            eventually_there(&database, "its answer waits to be kept", WAITS).await
        };
        sent_until(&wish, &cloud, held).await?;
        cloud.kill();
        let end = format!("select pg_terminate_backend(pid) from {WAITS}");
        sqlx::query(AssertSqlSafe(end)).execute(&database).await?;
        row.rollback().await?;
        assert_eq!(told(&wish.ask(&replica).await?), refusal(409, "IDEMPOTENCY_IN_FLIGHT"));
        sqlx::query("update idempotent_request set turn_ends_at = now()").execute(&database).await?;
        let done = wish.ask(&replica).await?;
        assert_eq!((done.status, done.header("idempotency-replayed")), (201, None), "{}", done.text);
        wish.is_answered_again([&replica, &replica], &done).await?;
        assert_eq!(count(&database, MADE).await?, 1);
        let entries = "audit_entry where object_kind = 'access_key'";
        assert_eq!(count(&database, entries).await?, 1);
        Ok(())
    })
}

#[test]
fn whoever_is_slower_than_their_turn_does_nothing() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let ani = admin(&cloud, "ani@example.com").await?;
        let (database, [holder, _]) = (cloud.database().await?, holders(&cloud).await?);
        let wish = Wish::new(&ani, "/api/keys", &json!({ "name": "pemda", "scopes": ["read"] }));
        let mut work = holder.begin().await?;
        sqlx::query("lock table access_key in exclusive mode").execute(&mut *work).await?;
        let both_wait = async {
            eventually_there(&database, "its turn is on", TAKEN).await?;
            sqlx::query("update idempotent_request set turn_ends_at = now()").execute(&database).await?;
            let quicker = wish.ask(&replica);
            let released = async {
                eventually_there(&database, "the other's turn is on", TAKEN).await?;
                anyhow::Ok(work.rollback().await?)
            };
            let (quicker, ()) = futures_util::try_join!(quicker, released)?;
            anyhow::Ok(quicker)
        };
        let (slow, quicker) = futures_util::try_join!(wish.ask(&cloud), both_wait)?;
        assert_eq!(quicker.status, 201, "{}", quicker.text);
        assert_eq!(told(&slow), refusal(409, "IDEMPOTENCY_IN_FLIGHT"));
        assert_eq!(count(&database, MADE).await?, 1);
        wish.is_answered_again([&cloud, &replica], &quicker).await
    })
}

#[test]
fn an_account_is_opened_once_and_its_answer_goes_with_it() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("limits.register", "8/1h");
        cloud.start().await?;
        let database = cloud.database().await?;
        let open = Wish::new("", "/api/auth/register", &registration("siti", PASSWORD));
        let first = open.ask(&cloud).await?;
        let answer = first.expect(201)?;
        let token = answer["token"].as_str().context("token")?;
        let me = async |token: &str| {
            let me = http::client()?.get(cloud.url("/api/users/me")).bearer_auth(token);
            anyhow::Ok(http::send(me).await?.status)
        };
        open.is_answered_again([&cloud, &cloud], &first).await?;
        assert_eq!(me(token).await?, 200);
        // Who has no key learns no more than before, and who has it nothing about the password.
        let without = Wish::new("", "/api/auth/register", &registration("siti", PASSWORD));
        assert_eq!(told(&without.ask(&cloud).await?), refusal(409, "EMAIL_TAKEN"));
        let other = Wish::new("", "/api/auth/register", &registration("siti", "perahu biru muda"));
        let other = Wish { key: open.key.clone(), ..other };
        assert_eq!(told(&other.ask(&cloud).await?), refusal(422, "IDEMPOTENCY_KEY_REUSED"));
        // What was answered is answered still, when its session has ended: that says itself.
        Wish::new(token, "/api/auth/logout", &json!({})).ask(&cloud).await?.expect(200)?;
        open.is_answered_again([&cloud, &cloud], &first).await?;
        assert_eq!(me(token).await?, 401);
        // A ninth account of this address in this hour would be refused, and so is a ninth repeat.
        assert_eq!(open.ask(&cloud).await?.header("idempotency-replayed"), Some("true"));
        assert_eq!(told(&open.ask(&cloud).await?), refusal(429, "TOO_MANY_REQUESTS"));
        let login = json!({ "email": "siti@example.com", "password": PASSWORD });
        let login = Wish::new("", "/api/auth/login", &login).ask(&cloud).await?.expect(200)?;
        let leave = http::client()?.delete(cloud.url("/api/users/me"));
        let leave = leave.bearer_auth(login["token"].as_str().context("token")?);
        let leave = leave.header("content-type", "application/json");
        http::send(leave.body(json!({ "password": PASSWORD }).to_string())).await?.expect(200)?;
        assert_eq!(count(&database, "idempotent_request").await?, 0, "the answer is still there");
        Ok(())
    })
}
