//! A second factor: an authenticator app's codes and what stands in for them, and who must have one.

use crate::people::{PASSWORD, ask, login, me, post, refused, register, token_of};
use crate::reset::{codes as mailed, forgot, reset};
use anyhow::{Context, Result, anyhow};
use lumbung_tests::http::Reply;
use lumbung_tests::programs::{Cloud, settings};
use lumbung_tests::stand::Stand;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};
use sqlx::PgPool;

const KEY: &str = "what the secrets of apps are sealed with";

pub(crate) async fn cloud(stand: &Stand) -> Result<Cloud> {
    let mut cloud = stand.cloud_not_started().await?;
    cloud.set("people.totp_key", KEY);
    cloud.start().await?;
    Ok(cloud)
}

async fn replica(stand: &Stand, of: &Cloud) -> Result<Cloud> {
    let mut cloud = Cloud::new(settings("replica", stand.path(), of.settings.database_url.clone()))?;
    cloud.set("people.totp_key", KEY);
    cloud.start().await?;
    Ok(cloud)
}

/// An authenticator app, as RFC 6238 and 4648 tell how to write one.
pub(crate) struct App(Vec<u8>);

impl App {
    fn given(secret: &str) -> Result<Self> {
        let mut bits = String::new();
        for letter in secret.chars() {
            let digit = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(letter).context("not base 32")?;
            bits += &format!("{digit:05b}");
        }
        let bytes = bits.as_bytes().chunks_exact(8).map(|byte| {
            u8::from_str_radix(std::str::from_utf8(byte)?, 2).map_err(|why| anyhow!("not a byte: {why}"))
        });
        Ok(Self(bytes.collect::<Result<_>>()?))
    }

    /// What it shows now, or so many steps of half a minute from now.
    pub(crate) fn shows(&self, steps: i64) -> Result<String> {
        let step = chrono::Utc::now().timestamp() / 30 + steps;
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let at = usize::from(tag.as_ref()[19] & 15);
        let cut = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into()?) & 0x7fff_ffff;
        Ok(format!("{:06}", cut % 1_000_000))
    }

    /// A code that it does not show around now.
    fn never_shows(&self) -> Result<String> {
        let shown: Vec<String> = (-3..=3).map(|steps| self.shows(steps)).collect::<Result<_>>()?;
        (0..).map(|n| format!("{n:06}")).find(|code| !shown.contains(code)).context("no code")
    }
}

async fn totp(cloud: &Cloud, step: &str, token: &str, body: Value) -> Result<Reply> {
    ask(cloud, Method::POST, &format!("/api/auth/totp{step}"), Some(token), body).await
}

async fn standing(cloud: &Cloud, token: &str) -> Result<Value> {
    ask(cloud, Method::GET, "/api/auth/totp", Some(token), Value::Null).await?.expect(200)
}

async fn begin(cloud: &Cloud, token: &str, password: Value) -> Result<App> {
    let begun = totp(cloud, "/enrol", token, json!({ "password": password })).await?.expect(200)?;
    App::given(begun["secret"].as_str().context("secret")?)
}

/// Gets somebody a second factor: their app, and what is for when it is lost.
pub(crate) async fn enrol(cloud: &Cloud, token: &str, password: Value) -> Result<(App, Vec<String>)> {
    let app = begin(cloud, token, password).await?;
    let on = totp(cloud, "/confirm", token, json!({ "code": app.shows(0)? })).await?.expect(200)?;
    Ok((app, serde_json::from_value(on["recovery_codes"].clone())?))
}

/// What the first step of a sign-in gives for the second.
pub(crate) fn challenge(reply: &Reply) -> Result<String> {
    let error = reply.expect(403)?["error"].clone();
    assert_eq!(error["code"], "TOTP_REQUIRED", "{error}");
    let told = |at: usize| (error["details"][at]["field"].as_str(), error["details"][at]["message"].as_str());
    assert_eq!(told(1), (Some("expires_in"), Some("300")));
    assert_eq!(told(0).0, Some("challenge"));
    Ok(told(0).1.context("challenge")?.to_owned())
}

pub(crate) async fn answer(cloud: &Cloud, challenge: &str, code: &str) -> Result<Reply> {
    post(cloud, "/api/auth/login/totp", json!({ "challenge": challenge, "code": code })).await
}

/// Both steps of a sign-in.
async fn sign_in(cloud: &Cloud, email: &str, code: &str) -> Result<Reply> {
    answer(cloud, &challenge(&login(cloud, email, PASSWORD).await?)?, code).await
}

fn code_of(reply: &Reply) -> (u16, String) {
    (reply.status, reply.error_code())
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The accounts against which failed tries are held.
async fn held_against_anyone(database: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from sign_in_failure").fetch_one(database).await?)
}

/// What the audit log says of wrong codes: how many entries of each action.
async fn wrong_codes_told(database: &PgPool) -> Result<Vec<(String, i64)>> {
    let counted =
        "select action, count(*) from audit_entry where reason = 'wrong code' group by 1 order by 1";
    Ok(sqlx::query_as(counted).fetch_all(database).await?)
}

fn told_of(action: &str, many: i64) -> (String, i64) {
    (action.to_owned(), many)
}

/// Half a minute goes by: codes that the app shows now are new.
async fn later(database: &PgPool) -> Result<()> {
    sqlx::query("update user_totp set used_step = used_step - 5").execute(database).await?;
    Ok(())
}

/// The titles of what was sent to an address in turn, once there is so much of it; nothing was sent twice.
pub(crate) async fn told(database: &PgPool, address: &str, many: usize) -> Result<Vec<String>> {
    let sent = eventually(&format!("{many} mails to {address}"), || async {
        let sent: i64 = sqlx::query_scalar("select count(*) from kept_message where address = $1")
            .bind(address)
            .fetch_one(database)
            .await?;
        Ok((usize::try_from(sent)? >= many).then_some(sent))
    })
    .await?;
    let titles: Vec<String> =
        sqlx::query_scalar("select title from delivery where address = $1 order by delivery_id")
            .bind(address)
            .fetch_all(database)
            .await?;
    assert_eq!((titles.len(), usize::try_from(sent)?), (many, many), "{titles:?}");
    Ok(titles)
}

#[test]
fn once_an_app_has_shown_a_code_no_sign_in_goes_without_one() -> Result<()> {
    story(async |stand| {
        let cloud = cloud(stand).await?;
        let replica = replica(stand, &cloud).await?;
        let database = cloud.database().await?;
        let (_, token) = register(&cloud, "budi").await?;
        let (email, password) = ("budi@example.com", json!(PASSWORD));
        let other = token_of(&login(&cloud, email, PASSWORD).await?.expect(200)?)?;
        // Whoever has the session alone gets none.
        for body in [json!({}), json!({ "password": "kata sandi salah" })] {
            assert_eq!(totp(&cloud, "/enrol", &token, body).await?.status, 400);
        }
        let nothing = totp(&cloud, "/confirm", &token, json!({ "code": "123456" })).await?;
        assert_eq!(code_of(&nothing), refusal(409, "TOTP_OFF"));
        let begun = totp(&cloud, "/enrol", &token, json!({ "password": password })).await?.expect(200)?;
        let (secret, uri) = (begun["secret"].as_str().context("secret")?, begun["otpauth_uri"].as_str());
        let uri = uri.context("otpauth_uri")?;
        assert_eq!(secret.len(), 32);
        assert!(uri.starts_with("otpauth://totp/Lumbung:budi%40example.com?"), "{uri}");
        assert!(uri.contains(&format!("secret={secret}")) && uri.contains("issuer=Lumbung"), "{uri}");
        let app = App::given(secret)?;
        // Until the app has shown a code it counts for nothing.
        assert_eq!(login(&cloud, email, PASSWORD).await?.status, 200);
        let wrong = totp(&cloud, "/confirm", &token, json!({ "code": app.never_shows()? })).await?;
        assert_eq!(wrong.expect(400)?["error"]["details"][0]["field"], "code");
        let before = standing(&cloud, &token).await?;
        assert_eq!((&before["on"], &before["required"]), (&json!(false), &json!(false)));
        // As people type it.
        let shown = app.shows(0)?;
        let typed = format!("{} {}", &shown[..3], &shown[3..]);
        let on = totp(&replica, "/confirm", &token, json!({ "code": typed })).await?.expect(200)?;
        let recovery: Vec<String> = serde_json::from_value(on["recovery_codes"].clone())?;
        assert_eq!(recovery.len(), 10);
        let after = standing(&replica, &token).await?;
        assert_eq!((&after["on"], &after["recovery_codes_left"]), (&json!(true), &json!(10)));
        for step in ["/enrol", "/confirm"] {
            let body = json!({ "password": password, "code": app.shows(1)? });
            assert_eq!(code_of(&totp(&replica, step, &token, body).await?), refusal(409, "TOTP_ON"));
        }
        // Other devices are out; this one stays.
        refused(&cloud, &other).await?;
        assert_eq!(me(&cloud, &token).await?.status, 200);
        // The code that switched it on is used up, on every replica.
        let half = challenge(&login(&cloud, email, PASSWORD).await?)?;
        assert_eq!(code_of(&answer(&replica, &half, &shown).await?), refusal(401, "WRONG_CODE"));
        assert_eq!(answer(&replica, &half, "12345").await?.status, 400);
        // A clock that is half a minute ahead is no matter, one that is further off is.
        assert_eq!(code_of(&answer(&cloud, &half, &app.shows(4)?).await?), refusal(401, "WRONG_CODE"));
        let ahead = app.shows(1)?;
        let body = answer(&replica, &half, &ahead).await?.expect(200)?;
        assert_eq!((&body["user_data"]["email"], &body["refresh_token"]), (&json!(email), &Value::Null));
        assert_eq!(me(&cloud, &token_of(&body)?).await?.status, 200);
        // Two signed in by the password alone, one by both steps; none by the first of them.
        let signed_in = "select count(*) from audit_entry where action = 'authn_login_success'";
        assert_eq!(sqlx::query_scalar::<_, i64>(signed_in).fetch_one(&database).await?, 3);
        let unknown = refusal(404, "CHALLENGE_UNKNOWN");
        assert_eq!(code_of(&answer(&cloud, &half, &app.shows(0)?).await?), unknown, "it was good twice");
        assert_eq!(code_of(&sign_in(&cloud, email, &ahead).await?), refusal(401, "WRONG_CODE"));
        // Of many that come with one code at once, one gets in.
        later(&database).await?;
        let mut halves = Vec::new();
        for _ in 0..4 {
            halves.push(challenge(&login(&cloud, email, PASSWORD).await?)?);
        }
        let shown = app.shows(0)?;
        let many = halves
            .iter()
            .enumerate()
            .map(|(at, half)| answer(if at % 2 == 0 { &cloud } else { &replica }, half, &shown));
        let mut statuses: Vec<u16> =
            futures_util::future::try_join_all(many).await?.iter().map(|reply| reply.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401, 401, 401]);
        // What the first step asked for is what the second gives, within five minutes.
        later(&database).await?;
        let body = json!({ "email": email, "password": PASSWORD, "refresh": true });
        let half = challenge(&post(&cloud, "/api/auth/login", body.clone()).await?)?;
        let pair = answer(&cloud, &half, &app.shows(0)?).await?.expect(200)?;
        let renewed =
            post(&replica, "/api/auth/refresh", json!({ "refresh_token": pair["refresh_token"] })).await?;
        assert_eq!(renewed.status, 200, "{}", renewed.text);
        later(&database).await?;
        let half = challenge(&post(&cloud, "/api/auth/login", body).await?)?;
        sqlx::query("update sign_in_challenge set expires_at = now()").execute(&database).await?;
        assert_eq!(code_of(&answer(&cloud, &half, &app.shows(0)?).await?), unknown);
        // Neither the database nor a log has what opens the account.
        let kept: String = sqlx::query_scalar(
            "select (select string_agg(t::text, ' ') from user_totp t)
                 || (select string_agg(t::text, ' ') from recovery_code t)
                 || (select string_agg(t::text, ' ') from sign_in_challenge t)
                 || (select string_agg(t::text, ' ') from audit_entry t)",
        )
        .fetch_one(&database)
        .await?;
        let logs = stand.logs();
        let in_hex: String = app.0.iter().map(|byte| format!("{byte:02x}")).collect();
        for secret in recovery.iter().map(String::as_str).chain([secret, &in_hex, &half]) {
            assert!(!kept.contains(secret) && !logs.contains(secret), "a secret is kept or logged");
        }
        Ok(())
    })
}

#[test]
fn codes_are_tried_as_slowly_as_passwords_and_a_right_password_forgives_none() -> Result<()> {
    story(async |stand| {
        let cloud = cloud(stand).await?;
        let replica = replica(stand, &cloud).await?;
        let database = cloud.database().await?;
        let (_, token) = register(&cloud, "budi").await?;
        let (app, recovery) = enrol(&cloud, &token, json!(PASSWORD)).await?;
        let wrong = app.never_shows()?;
        for turn in 0..5 {
            let at = if turn % 2 == 0 { &cloud } else { &replica };
            let half = challenge(&login(at, "budi@example.com", PASSWORD).await?)?;
            // A challenge is no new chance.
            let other = challenge(&login(at, "budi@example.com", PASSWORD).await?)?;
            assert_eq!(code_of(&answer(at, &half, &wrong).await?), refusal(401, "WRONG_CODE"), "{turn}");
            sqlx::query("delete from sign_in_challenge where challenge_hash = sha256($1::bytea)")
                .bind(other.as_bytes())
                .execute(&database)
                .await?;
        }
        sqlx::query("update sign_in_failure set free_at = now() + interval '1 hour'")
            .execute(&database)
            .await?;
        let half = challenge(&login(&replica, "budi@example.com", PASSWORD).await?)?;
        for code in [&app.shows(1)?, &recovery[0]] {
            for at in [&cloud, &replica] {
                let reply = answer(at, &half, code).await?;
                assert_eq!(code_of(&reply), refusal(429, "TOO_MANY_REQUESTS"));
                assert!(reply.header("retry-after").is_some());
            }
        }
        // Nobody else waits for it.
        let (_, other) = register(&cloud, "siti").await?;
        let (hers, _) = enrol(&cloud, &other, json!(PASSWORD)).await?;
        sign_in(&cloud, "siti@example.com", &hers.shows(1)?).await?.expect(200)?;
        // Nor is a new password a way around it.
        forgot(&cloud, "budi@example.com").await?.expect(200)?;
        let link = mailed(&cloud, &database, "budi@example.com", "reset_password", 1).await?.remove(0);
        reset(&cloud, &link, PASSWORD).await?.expect(200)?;
        assert_eq!(code_of(&answer(&cloud, &half, &app.shows(1)?).await?), refusal(404, "CHALLENGE_UNKNOWN"));
        assert_eq!(sign_in(&cloud, "budi@example.com", &app.shows(1)?).await?.status, 429);
        // When the wait is over the owner comes in, and nothing is held against them.
        sqlx::query("update sign_in_failure set free_at = now()").execute(&database).await?;
        assert_eq!(sign_in(&cloud, "budi@example.com", &app.shows(1)?).await?.status, 200);
        assert_eq!(held_against_anyone(&database).await?, 0);
        assert_eq!(
            wrong_codes_told(&database).await?,
            [told_of("authn_login_fail", 5), told_of("authn_login_lock", 1)]
        );
        Ok(())
    })
}

#[test]
fn whoever_has_a_session_does_not_guess_the_code_that_switches_it_on() -> Result<()> {
    story(async |stand| {
        let cloud = cloud(stand).await?;
        let replica = replica(stand, &cloud).await?;
        let database = cloud.database().await?;
        let (_, token) = register(&cloud, "budi").await?;
        let confirm =
            async |at: &Cloud, code: &str| totp(at, "/confirm", &token, json!({ "code": code })).await;
        // Nothing is counted that could not have been right.
        for _ in 0..6 {
            assert_eq!(code_of(&confirm(&cloud, "123456").await?), refusal(409, "TOTP_OFF"));
        }
        let app = begin(&cloud, &token, json!(PASSWORD)).await?;
        for turn in 0..5 {
            let at = if turn % 2 == 0 { &cloud } else { &replica };
            let reply = confirm(at, &app.never_shows()?).await?;
            assert_eq!(code_of(&reply), refusal(400, "VALIDATION_ERROR"), "{turn}");
        }
        sqlx::query("update sign_in_failure set free_at = now() + interval '1 hour'")
            .execute(&database)
            .await?;
        for at in [&cloud, &replica] {
            assert_eq!(code_of(&confirm(at, &app.shows(0)?).await?), refusal(429, "TOO_MANY_REQUESTS"));
        }
        // Another secret is no new chance.
        let app = begin(&cloud, &token, json!(PASSWORD)).await?;
        assert_eq!(confirm(&cloud, &app.shows(0)?).await?.status, 429);
        sqlx::query("update sign_in_failure set free_at = now()").execute(&database).await?;
        confirm(&cloud, &app.shows(0)?).await?.expect(200)?;
        assert_eq!(held_against_anyone(&database).await?, 0);
        assert_eq!(code_of(&confirm(&cloud, &app.shows(0)?).await?), refusal(409, "TOTP_ON"));
        assert_eq!(
            wrong_codes_told(&database).await?,
            [told_of("authn_login_fail", 5), told_of("authn_login_lock", 1)]
        );
        Ok(())
    })
}

#[test]
fn a_recovery_code_signs_in_once_even_while_the_key_of_all_secrets_is_lost() -> Result<()> {
    story(async |stand| {
        let mut cloud = cloud(stand).await?;
        let database = cloud.database().await?;
        let (_, token) = register(&cloud, "budi").await?;
        let english = json!({ "language": "en", "preferences": [] });
        ask(&cloud, Method::PUT, "/api/notifications/preferences", Some(&token), english)
            .await?
            .expect(200)?;
        let (app, recovery) = enrol(&cloud, &token, json!(PASSWORD)).await?;
        // Another's are none of theirs.
        let (_, other) = register(&cloud, "siti").await?;
        let (_, hers) = enrol(&cloud, &other, json!(PASSWORD)).await?;
        let foreign = sign_in(&cloud, "budi@example.com", &hers[0]).await?;
        assert_eq!(code_of(&foreign), refusal(401, "WRONG_CODE"));
        assert_eq!(standing(&cloud, &other).await?["recovery_codes_left"], 10);
        let typed = recovery[0].to_lowercase().replace('-', " ");
        sign_in(&cloud, "budi@example.com", &typed).await?.expect(200)?;
        let again = sign_in(&cloud, "budi@example.com", &recovery[0]).await?;
        assert_eq!(code_of(&again), refusal(401, "WRONG_CODE"));
        assert_eq!(standing(&cloud, &token).await?["recovery_codes_left"], 9);
        cloud.stop().await?;
        cloud.set("people.totp_key", "");
        cloud.start().await?;
        let nobody = totp(&cloud, "/enrol", &token, json!({ "password": PASSWORD })).await?;
        assert_eq!(code_of(&nobody), refusal(404, "TOTP_NOT_CONFIGURED"));
        assert_eq!(sign_in(&cloud, "budi@example.com", &app.shows(1)?).await?.status, 500);
        sign_in(&cloud, "budi@example.com", &recovery[1]).await?.expect(200)?;
        // Told each time, by mail and in the language of the account.
        let used = "A recovery code of your account was used";
        let titles = told(&database, "budi@example.com", 4).await?;
        assert_eq!(titles[1..], ["The second factor of your account is on", used, used], "{titles:?}");
        Ok(())
    })
}

#[test]
fn who_lost_the_app_is_helped_by_an_admin_or_a_command_and_that_is_written_down() -> Result<()> {
    story(async |stand| {
        let cloud = cloud(stand).await?;
        let database = cloud.database().await?;
        let (admin, admins) = register(&cloud, "admin").await?;
        cloud.must(&["user", "role", "admin@example.com", "admin"]).await?;
        let (siti, token) = register(&cloud, "siti").await?;
        let help = async |id: i64, by: &str| {
            let path = format!("/api/admin/users/{id}/totp");
            ask(&cloud, Method::DELETE, &path, Some(by), Value::Null).await
        };
        eventually("the admin is one", || async {
            Ok(when(code_of(&help(siti, &admins).await?) == refusal(409, "TOTP_OFF")))
        })
        .await?;
        // One that was only begun does not count, and is no door left open.
        begin(&cloud, &token, json!(PASSWORD)).await?;
        assert_eq!(code_of(&help(siti, &admins).await?), refusal(409, "TOTP_OFF"));
        let (_, recovery) = enrol(&cloud, &token, json!(PASSWORD)).await?;
        let half = challenge(&login(&cloud, "siti@example.com", PASSWORD).await?)?;
        assert_eq!(code_of(&help(siti, &token).await?), refusal(403, "ADMIN_ONLY"));
        assert_eq!(code_of(&help(admin, &admins).await?), refusal(409, "OWN_ACCOUNT"));
        assert_eq!(code_of(&help(0, &admins).await?), refusal(404, "NOT_FOUND"));
        assert_eq!(help(siti, &admins).await?.expect(200)?, json!({ "success": true }));
        // Signed out everywhere, half-way too; what opened the account opens nothing.
        assert_eq!(me(&cloud, &token).await?.status, 401);
        assert_eq!(answer(&cloud, &half, &recovery[0]).await?.status, 404);
        let token = token_of(&login(&cloud, "siti@example.com", PASSWORD).await?.expect(200)?)?;
        // And once more at the command line.
        let (_, _) = enrol(&cloud, &token, json!(PASSWORD)).await?;
        cloud.must(&["user", "totp-reset", "siti@example.com"]).await?;
        assert_eq!(cloud.cli(&["user", "totp-reset", "siti@example.com"]).await?.code(), 1);
        refused(&cloud, &token).await?;
        login(&cloud, "siti@example.com", PASSWORD).await?.expect(200)?;
        let titles = told(&database, "siti@example.com", 5).await?;
        let (on, off) =
            ("Langkah kedua akun Anda sudah aktif", "Langkah kedua akun Anda sudah dihapus oleh admin");
        assert_eq!(titles[1..], [on, off, on, off]);
        let entries: Vec<(String, Value, String)> = sqlx::query_as(
            "select actor_kind, detail, object_id from audit_entry
             where action = 'authn_second_factor_changed' order by happened_at",
        )
        .fetch_all(&database)
        .await?;
        let whose: Vec<(&str, &str)> = entries
            .iter()
            .map(|(actor, detail, object)| {
                assert_eq!(*object, siti.to_string());
                (actor.as_str(), detail["change"].as_str().unwrap_or(""))
            })
            .collect();
        assert_eq!(whose, [("person", "on"), ("person", "reset"), ("person", "on"), ("command", "reset")]);
        Ok(())
    })
}

#[test]
fn switching_it_off_takes_the_password_and_a_code() -> Result<()> {
    story(async |stand| {
        let cloud = cloud(stand).await?;
        let database = cloud.database().await?;
        let (_, token) = register(&cloud, "budi").await?;
        let off = async |password: &str, code: &str| {
            totp(&cloud, "/off", &token, json!({ "password": password, "code": code })).await
        };
        assert_eq!(code_of(&off(PASSWORD, "123456").await?), refusal(409, "TOTP_OFF"));
        let (app, recovery) = enrol(&cloud, &token, json!(PASSWORD)).await?;
        let other = token_of(&sign_in(&cloud, "budi@example.com", &recovery[0]).await?.expect(200)?)?;
        for (password, code, field) in [
            ("kata sandi salah", app.shows(1)?, "password"),
            (PASSWORD, app.never_shows()?, "code"),
            (PASSWORD, app.shows(4)?, "code"),
            (PASSWORD, recovery[0].clone(), "code"),
        ] {
            let body = off(password, &code).await?.expect(400)?;
            assert_eq!(body["error"]["details"][0]["field"], field, "{body}");
        }
        assert_eq!(standing(&cloud, &token).await?["on"], true);
        // Tried here or while signing in, codes are counted together.
        let failures: Vec<i32> =
            sqlx::query_scalar("select failures from sign_in_failure").fetch_all(&database).await?;
        assert_eq!(failures, [3]);
        off(PASSWORD, &app.shows(1)?).await?.expect(200)?;
        assert_eq!(me(&cloud, &token).await?.status, 200);
        refused(&cloud, &other).await?;
        login(&cloud, "budi@example.com", PASSWORD).await?.expect(200)?;
        let left: (i64, i64) = sqlx::query_as(
            "select (select count(*) from recovery_code), (select count(*) from sign_in_failure)",
        )
        .fetch_one(&database)
        .await?;
        assert_eq!(left, (0, 0), "what was for a lost app stays, or is held against them");
        let titles = told(&database, "budi@example.com", 4).await?;
        assert_eq!(titles[3], "Langkah kedua akun Anda sudah dimatikan", "{titles:?}");
        Ok(())
    })
}

#[test]
fn whoever_must_have_one_does_nothing_before_but_get_it() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("people.totp_key", KEY).set("people.totp_required_for", "admin,operator");
        cloud.start().await?;
        cloud.furnish().await?;
        let (_, admin) = register(&cloud, "admin").await?;
        let (_, budi) = register(&cloud, "budi").await?;
        for token in [&admin, &budi] {
            assert_eq!(me(&cloud, token).await?.status, 200, "a user need not");
        }
        cloud.must(&["user", "role", "admin@example.com", "admin"]).await?;
        cloud.must(&["user", "grant", "budi@example.com", "operator", "--programme", "MBG"]).await?;
        for token in [&admin, &budi] {
            eventually("they must", || async { Ok(when(me(&cloud, token).await?.status == 403)) }).await?;
            assert_eq!(standing(&cloud, token).await?["required"], true);
            for path in ["/api/users/me", "/api/auth/sessions", "/api/scans", "/api/dashboard/summary"] {
                let reply = ask(&cloud, Method::GET, path, Some(token), Value::Null).await?;
                assert_eq!(code_of(&reply), refusal(403, "TOTP_ENROLMENT_REQUIRED"), "{path}");
            }
            let put = ask(&cloud, Method::PUT, "/api/users/me", Some(token), json!({ "bio": "x" })).await?;
            assert_eq!(code_of(&put), refusal(403, "TOTP_ENROLMENT_REQUIRED"));
        }
        let users = ask(&cloud, Method::GET, "/api/admin/users", Some(&admin), Value::Null).await?;
        assert_eq!(code_of(&users), refusal(403, "TOTP_ENROLMENT_REQUIRED"));
        let (app, _) = enrol(&cloud, &admin, json!(PASSWORD)).await?;
        let users = ask(&cloud, Method::GET, "/api/admin/users", Some(&admin), Value::Null).await?;
        assert_eq!(users.status, 200, "{}", users.text);
        // Without it again, they are where they were; and leaving is always allowed.
        let body = json!({ "password": PASSWORD, "code": app.shows(1)? });
        totp(&cloud, "/off", &admin, body).await?.expect(200)?;
        assert_eq!(code_of(&me(&cloud, &admin).await?), refusal(403, "TOTP_ENROLMENT_REQUIRED"));
        ask(&cloud, Method::POST, "/api/auth/logout", Some(&budi), json!({})).await?.expect(200)?;
        assert_eq!(me(&cloud, &budi).await?.status, 401);
        Ok(())
    })
}
