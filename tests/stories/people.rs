//! People open accounts, sign in and out; nobody else passes for them.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when, within_a_second};
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};

pub(crate) const PASSWORD: &str = "sepeda merah tua";
const SECRET: &str = "a secret of this story, longer than thirty-two characters";

/// As an app does it.
pub(crate) async fn ask(
    cloud: &Cloud,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Value,
) -> Result<Reply> {
    let mut request = http::client()?
        .request(method, cloud.url(path))
        .header("content-type", "application/json")
        .body(body.to_string());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    http::send(request).await
}

pub(crate) async fn post(cloud: &Cloud, path: &str, body: Value) -> Result<Reply> {
    ask(cloud, Method::POST, path, None, body).await
}

pub(crate) async fn me(cloud: &Cloud, token: &str) -> Result<Reply> {
    http::send(http::client()?.get(cloud.url("/api/users/me")).bearer_auth(token)).await
}

pub(crate) fn registration(username: &str) -> Value {
    json!({"email": format!("{username}@example.com"), "password": PASSWORD, "username": username,
        "full_name": "Budi Santoso"})
}

pub(crate) async fn register(cloud: &Cloud, username: &str) -> Result<(i64, String)> {
    let body = post(cloud, "/api/auth/register", registration(username)).await?.expect(201)?;
    Ok((body["user_id"].as_i64().context("user_id")?, token_of(&body)?))
}

pub(crate) fn token_of(body: &Value) -> Result<String> {
    Ok(body["token"].as_str().context("token")?.to_owned())
}

pub(crate) async fn login(cloud: &Cloud, email: &str, password: &str) -> Result<Reply> {
    post(cloud, "/api/auth/login", json!({"email": email, "password": password})).await
}

/// A token that was ended just now is refused by this replica within a second.
pub(crate) async fn refused(cloud: &Cloud, token: &str) -> Result<()> {
    within_a_second("the token is refused", &200, &401, || async { Ok(me(cloud, token).await?.status) }).await
}

#[test]
fn an_account_is_opened_used_and_left_on_every_replica() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        let body = post(&cloud, "/api/auth/register", registration("budi")).await?.expect(201)?;
        assert_eq!((&body["success"], &body["message"]), (&json!(true), &json!("Pendaftaran berhasil")));
        let first = token_of(&body)?;
        let signed_in = login(&replica, "BUDI@example.com", PASSWORD).await?.expect(200)?;
        assert_eq!(signed_in["user_id"], body["user_id"]);
        assert_eq!(signed_in["user_data"]["email"], "budi@example.com");
        assert!(!signed_in.to_string().contains("argon2"), "the hash was told");
        let second = token_of(&signed_in)?;
        for (at, token) in [(&cloud, &first), (&replica, &first), (&cloud, &second), (&replica, &second)] {
            let user = me(at, token).await?.expect(200)?["user_data"].clone();
            assert_eq!((&user["username"], &user["role"]), (&json!("budi"), &json!("user")));
            assert_eq!((&user["full_name"], &user["is_verified"]), (&json!("Budi Santoso"), &json!(false)));
        }
        // A token in the body is nobody's.
        let reply = post(&cloud, "/api/auth/logout", json!({"token": first})).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHENTICATED"));
        let left =
            ask(&cloud, Method::POST, "/api/auth/logout", Some(&first), json!({})).await?.expect(200)?;
        assert_eq!(left["success"], true);
        assert_eq!(me(&cloud, &first).await?.status, 401, "it is still good where it was ended");
        refused(&replica, &first).await?;
        assert_eq!(me(&replica, &second).await?.status, 200, "another sign-in ended with it");
        // Neither the database nor a log knows what opens the account, and no log whose it is.
        let database = cloud.database().await?;
        let kept: String = sqlx::query_scalar(
            "select (select string_agg(t::text, ' ') from user_session t)
                 || (select string_agg(t::text, ' ') from app_user t)",
        )
        .fetch_one(&database)
        .await?;
        let logs = stand.logs();
        for secret in [PASSWORD, &first, &second] {
            assert!(!kept.contains(secret) && !logs.contains(secret), "a secret is kept or logged");
        }
        assert!(!logs.contains("example.com"), "a log holds an e-mail address");
        Ok(())
    })
}

#[test]
fn an_address_and_a_name_are_one_accounts_only() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        register(&cloud, "budi").await?;
        let with = |field: &str, value: &str| {
            let mut body = registration("siti");
            body[field] = json!(value);
            body
        };
        for (body, code) in
            [(with("email", "Budi@Example.com"), "EMAIL_TAKEN"), (with("username", "BUDI"), "USERNAME_TAKEN")]
        {
            let reply = post(&cloud, "/api/auth/register", body).await?;
            assert_eq!((reply.status, reply.error_code().as_str()), (409, code));
        }
        for (field, value) in [
            ("email", "siti"),
            ("username", "s t"),
            ("password", "pendek1"),
            ("password", "password123"),
            ("password", "Alhamdulillah1"),
            ("password", "P@ssw0rd!"),
            ("password", "siti2026"),
            ("password", "Siti@example.com"),
            ("full_name", "a\u{0}b"),
        ] {
            let reply = post(&cloud, "/api/auth/register", with(field, value)).await?;
            let body = reply.expect(400)?;
            assert_eq!(body["error"]["details"][0]["field"], field, "{body}");
            assert!(!reply.text.contains("password123"), "the answer repeats a password");
        }
        // Many at once: one of them gets it.
        let same = (0..8).map(|_| post(&cloud, "/api/auth/register", registration("ayu")));
        let statuses: Vec<u16> =
            futures_util::future::try_join_all(same).await?.iter().map(|reply| reply.status).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [201, 409, 503].contains(status)), "{statuses:?}");
        Ok(())
    })
}

#[test]
fn a_wrong_password_and_an_unknown_account_are_answered_alike() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        register(&cloud, "budi").await?;
        let database = cloud.database().await?;
        let free_at =
            async |when: &'static str| sqlx::query(when).execute(&database).await.context("moving the wait");
        let answers = async |email: &str| -> Result<Vec<(u16, Value)>> {
            let mut answers = Vec::new();
            // Tried by turns on both: asking another replica gains nothing.
            for (turn, at) in [&cloud, &replica].into_iter().cycle().take(6).enumerate() {
                if turn == 5 {
                    // The wait began at the fifth; it must not be over before a busy machine comes to the sixth.
                    free_at(
                        "update sign_in_failure set free_at = free_at + interval '1 hour' where failures = 5",
                    )
                    .await?;
                }
                let reply = login(at, email, &format!("kata sandi salah {turn}")).await?;
                answers.push((reply.status, reply.json()?["error"].clone()));
            }
            Ok(answers)
        };
        let known = answers("budi@example.com").await?;
        assert_eq!(known, answers("nobody@example.com").await?);
        let statuses: Vec<u16> = known.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
        assert_eq!(known[0].1["code"], "WRONG_CREDENTIALS");
        // Nor does the right password pass before its time; then it does, and all is forgiven.
        let early = login(&replica, "budi@example.com", PASSWORD).await?;
        assert_eq!(early.status, 429);
        let wait: i64 = early.header("retry-after").context("no Retry-After")?.parse()?;
        assert!((3000..=7300).contains(&wait), "{wait}");
        free_at("update sign_in_failure set free_at = now()").await?;
        assert_eq!(login(&cloud, "budi@example.com", PASSWORD).await?.status, 200);
        for turn in 0..4 {
            assert_eq!(login(&cloud, "budi@example.com", &format!("salah lagi {turn}")).await?.status, 401);
        }
        assert_eq!(login(&cloud, "budi@example.com", PASSWORD).await?.status, 200);
        Ok(())
    })
}

#[test]
fn tries_at_the_same_moment_are_no_reason_to_wait() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        assert_eq!(login(&cloud, "nobody@example.com", "kata sandi salah").await?.status, 401);
        // One that came later gets to the row first.
        let mut first = database.begin().await?;
        sqlx::query("select from sign_in_failure for update").execute(&mut *first).await?;
        let second = login(&cloud, "nobody@example.com", "kata sandi salah");
        let let_go = async {
            eventually("the second try waits for the row", || async {
                let waiting: i64 = sqlx::query_scalar(
                    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
                )
                .fetch_one(&database)
                .await?;
                Ok(when(waiting == 1))
            })
            .await?;
            sqlx::query("update sign_in_failure set free_at = clock_timestamp()")
                .execute(&mut *first)
                .await?;
            first.commit().await.context("letting go")
        };
        let (reply, ()) = futures_util::future::try_join(second, let_go).await?;
        assert_eq!((reply.status, reply.error_code()), (401, "WRONG_CREDENTIALS".to_owned()));
        Ok(())
    })
}

#[test]
fn the_wait_after_wrong_passwords_doubles_up_to_a_quarter_of_an_hour() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let mut waits = Vec::new();
        for _ in 0..18 {
            login(&cloud, "nobody@example.com", "kata sandi salah").await?;
            let wait: f64 = sqlx::query_scalar(
                "update sign_in_failure f set free_at = now() from sign_in_failure was
                 where was.address_hash = f.address_hash
                 returning extract(epoch from was.free_at - was.last_at)::float8",
            )
            .fetch_one(&database)
            .await?;
            waits.push(wait);
        }
        let expected: Vec<f64> =
            [0., 0., 0., 0., 1., 2., 4., 8., 16., 32., 64., 128., 256., 512., 900., 900., 900., 900.].into();
        assert_eq!(waits, expected);
        sqlx::query("update sign_in_failure set last_at = now() - interval '25 hours'")
            .execute(&database)
            .await?;
        login(&cloud, "nobody@example.com", "kata sandi salah").await?;
        let failures: i32 =
            sqlx::query_scalar("select failures from sign_in_failure").fetch_one(&database).await?;
        assert_eq!(failures, 1, "a day of quiet was not forgiven");
        Ok(())
    })
}

#[test]
fn a_token_that_this_cloud_did_not_make_as_it_is_opens_nothing() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("people.token_secret", SECRET);
        cloud.start().await?;
        let (user_id, token) = register(&cloud, "budi").await?;
        let mut parts = token.split('.');
        let (header, body) = (parts.next().context("header")?, parts.next().context("body")?);
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body)?)?;
        assert_eq!(
            claims["exp"].as_i64().context("exp")? - claims["iat"].as_i64().context("iat")?,
            24 * 3600
        );
        let sign = |secret: &str, header: &str, claims: &Value| {
            let said = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            format!("{said}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, said.as_bytes())))
        };
        let with = |field: &str, value: Value| {
            let mut other = claims.clone();
            other[field] = value;
            other
        };
        assert_eq!(
            me(&cloud, &sign(SECRET, header, &claims)).await?.status,
            200,
            "the forgery itself is wrong"
        );
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let now = claims["iat"].as_i64().context("iat")?;
        for (what, forged) in [
            ("another secret", sign("another secret, also longer than thirty-two", header, &claims)),
            ("no algorithm", format!("{none}.{body}.")),
            ("no algorithm, signed", sign(SECRET, &none, &claims)),
            ("expired", sign(SECRET, header, &with("exp", json!(now - 60)))),
            ("another audience", sign(SECRET, header, &with("aud", json!("someone")))),
            ("another issuer", sign(SECRET, header, &with("iss", json!("someone")))),
            ("another person", sign(SECRET, header, &with("sub", json!((user_id + 1).to_string())))),
            ("a session that never was", sign(SECRET, header, &with("jti", json!("x")))),
            ("half a token", token[..token.len() / 2].to_owned()),
            ("an access key", "lbk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()),
        ] {
            let reply = me(&cloud, &forged).await?;
            assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHENTICATED"), "{what}");
        }
        // The database's word counts too: a session that ran out, an account that was shut.
        let database = cloud.database().await?;
        sqlx::query("update app_user set is_active = false").execute(&database).await?;
        refused(&cloud, &token).await?;
        let reply = login(&cloud, "budi@example.com", PASSWORD).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (403, "ACCOUNT_INACTIVE"));
        assert_eq!(login(&cloud, "budi@example.com", "salah").await?.error_code(), "WRONG_CREDENTIALS");
        sqlx::query("update app_user set is_active = true").execute(&database).await?;
        assert_eq!(me(&cloud, &token).await?.status, 200);
        sqlx::query("update user_session set expires_at = now()").execute(&database).await?;
        refused(&cloud, &token).await
    })
}

#[test]
fn people_change_their_own_profile_and_nobody_elses() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (budi, token) = register(&cloud, "budi").await?;
        let (siti, _) = register(&cloud, "siti").await?;
        let put = async |body: Value| ask(&cloud, Method::PUT, "/api/users/me", Some(&token), body).await;
        let changes = json!({"user_id": budi, "bio": "Menanam bayam.\nDi atap.", "phone_number": "+62 811-0000-000",
            "address": "Jl. Cikini 1", "city": "Jakarta", "country": "Indonesia", "unheard_of": 1});
        let user = put(changes).await?.expect(200)?["user_data"].clone();
        for (field, value) in [
            ("bio", json!("Menanam bayam.\nDi atap.")),
            ("phone_number", json!("+62 811-0000-000")),
            ("city", json!("Jakarta")),
            ("country", json!("Indonesia")),
            ("full_name", json!("Budi Santoso")),
            ("profile_picture_url", Value::Null),
            ("role", json!("user")),
            ("is_verified", json!(false)),
        ] {
            assert_eq!(user[field], value, "{field}");
        }
        let user = put(json!({"bio": null, "city": ""})).await?.expect(200)?["user_data"].clone();
        assert_eq!(
            (&user["bio"], &user["city"], &user["address"]),
            (&Value::Null, &Value::Null, &json!("Jl. Cikini 1"))
        );
        // A whole profile comes back as it was got.
        let user = put(user).await?.expect(200)?["user_data"].clone();
        assert_eq!(user["address"], "Jl. Cikini 1");
        let null = json!({ "profile_picture_url": Value::Null });
        put(null).await?.expect(200)?;
        // What an account has and this does not set is refused, null too, and nothing of the rest is done.
        let elsewhere = ["email", "password", "role", "is_verified", "profile_picture_url"];
        let mut body = json!({"bio": "x", "profile_picture_url": "x.jpg"});
        for field in &elsewhere[..4] {
            body[field] = Value::Null;
        }
        let details = put(body).await?.expect(400)?["error"]["details"].clone();
        let details = details.as_array().context("details")?;
        assert!(details.iter().filter_map(|detail| detail["field"].as_str()).eq(elsewhere), "{details:?}");
        assert_eq!(details[0]["message"], "diganti lewat POST /api/users/me/email");
        let refused = put(json!({"email": "lain@example.com", "role": "admin", "bio": "x"})).await?;
        assert_eq!((refused.status, refused.error_code().as_str()), (400, "VALIDATION_ERROR"));
        let user = me(&cloud, &token).await?.expect(200)?["user_data"].clone();
        assert_eq!((&user["bio"], &user["role"]), (&Value::Null, &json!("user")));
        // A user name is chosen like at registration: nobody else's, whatever its case.
        for (name, status) in [("Siti", 409), ("b u", 400), ("", 400), ("Budi.S", 200)] {
            assert_eq!(put(json!({ "username": name })).await?.status, status, "{name}");
        }
        // The log says which fields, never what they hold; those that lead to somebody's door are told apart.
        put(json!({ "address": "Jl. Cikini 1" })).await?.expect(200)?;
        for (action, of) in [("user_updated", "username"), ("sensitive_update", "address")] {
            let told = cloud.must(&["audit", "list", "--action", action]).await?;
            assert!(told.lines().any(|line| line.contains(&format!("[\"{of}\"]"))), "{told}");
            assert!(!told.contains("Budi.S") && !told.contains("Cikini"), "{told}");
        }
        let user = me(&cloud, &token).await?.expect(200)?["user_data"].clone();
        assert_eq!((&user["username"], &user["address"]), (&json!("Budi.S"), &json!("Jl. Cikini 1")));
        let reply = put(json!({"user_id": siti, "bio": "x"})).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (403, "OTHER_USER"));
        let reply =
            put(json!({"phone_number": "call me", "city": "x".repeat(101), "full_name": "a\nb"})).await?;
        let details = reply.expect(400)?["error"]["details"].clone();
        let fields: Vec<&str> =
            details.as_array().context("details")?.iter().filter_map(|d| d["field"].as_str()).collect();
        assert_eq!(fields, ["full_name", "phone_number", "city"]);
        // Who registers in a language is written to in that language.
        let register = |name: &str, language: &str| {
            let body = registration(name).to_string();
            let request = http::client()?.post(cloud.url("/api/auth/register")).body(body);
            anyhow::Ok(request.header("content-type", "application/json").header("accept-language", language))
        };
        for (name, wanted, language) in [("joko", "id;q=0.5, en", "en"), ("dewi", "en;q=0.1, id", "id")] {
            let token = token_of(&http::send(register(name, wanted)?).await?.expect(201)?)?;
            let asked = http::client()?.get(cloud.url("/api/notifications/preferences")).bearer_auth(token);
            assert_eq!(http::send(asked).await?.expect(200)?["language"], language, "{wanted}");
        }
        assert_eq!(ask(&cloud, Method::PUT, "/api/users/me", None, json!({"bio": "x"})).await?.status, 401);
        Ok(())
    })
}

#[test]
fn an_admin_made_at_the_command_line_reads_what_others_may_not() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("development.open_loopback", false);
        cloud.start().await?;
        let added =
            cloud.must(&["user", "add", "--email", "admin@example.com", "--role", "admin", "--json"]).await?;
        let added: Value = serde_json::from_str(&added)?;
        let password = added["password"].as_str().context("password")?;
        let admin = token_of(&login(&cloud, "admin@example.com", password).await?.expect(200)?)?;
        let (_, user) = register(&cloud, "budi").await?;
        let read = async |path: &str, token: &str| {
            http::send(http::client()?.get(cloud.url(path)).bearer_auth(token)).await
        };
        for path in ["/api/dashboard/summary", "/api/scans", "/api/telemetry/series"] {
            assert_eq!(read(path, &admin).await?.status, 200, "{path}");
            let reply = read(path, &user).await?;
            assert_eq!((reply.status, reply.error_code().as_str()), (403, "NOT_GRANTED"), "{path}");
            assert_eq!(read(path, "x.y.z").await?.status, 401, "{path}");
        }
        let listed = cloud.must(&["user", "list"]).await?;
        assert!(listed.contains("admin\tactive\tadmin\tadmin@example.com"), "{listed}");
        // A ban ends what is open, and letting in again does not open it.
        cloud.must(&["user", "ban", "budi@example.com"]).await?;
        refused(&cloud, &user).await?;
        assert_eq!(login(&cloud, "budi@example.com", PASSWORD).await?.error_code(), "ACCOUNT_INACTIVE");
        cloud.must(&["user", "unban", "budi@example.com"]).await?;
        assert_eq!(me(&cloud, &user).await?.status, 401);
        let again = token_of(&login(&cloud, "budi@example.com", PASSWORD).await?.expect(200)?)?;
        let sessions = cloud.must(&["user", "sessions", "budi@example.com"]).await?;
        let id = sessions.split('\t').next().context("no session")?;
        assert_eq!(sessions.lines().count(), 1, "{sessions}");
        cloud.must(&["user", "revoke", id]).await?;
        refused(&cloud, &again).await?;
        let taken = cloud.cli(&["user", "add", "--email", "BUDI@example.com"]).await?;
        assert_eq!(taken.code(), 1, "{}", taken.stderr);
        assert_eq!(cloud.cli(&["user", "ban", "nobody@example.com"]).await?.code(), 3);
        Ok(())
    })
}

#[test]
fn people_see_where_they_are_signed_in_and_end_it() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (_, here) = register(&cloud, "budi").await?;
        let (_, stranger) = register(&cloud, "siti").await?;
        let sign_in = async || -> Result<String> {
            token_of(&login(&cloud, "budi@example.com", PASSWORD).await?.expect(200)?)
        };
        let (phone, laptop) = (sign_in().await?, sign_in().await?);
        let list = http::client()?.get(cloud.url("/api/auth/sessions")).bearer_auth(&here);
        let sessions = http::send(list).await?.expect(200)?["sessions"].clone();
        let sessions = sessions.as_array().context("sessions")?;
        let current: Vec<bool> = sessions.iter().filter_map(|session| session["current"].as_bool()).collect();
        assert_eq!(current, [false, false, true]);
        let id = sessions[1]["session_id"].as_i64().context("session_id")?;
        let end = async |token: &str| {
            let path = format!("/api/auth/sessions/{id}");
            ask(&cloud, Method::DELETE, &path, Some(token), json!({})).await
        };
        assert_eq!(end(&stranger).await?.status, 404, "somebody else ended it");
        assert_eq!(me(&cloud, &phone).await?.status, 200);
        assert_eq!(end(&here).await?.status, 200);
        assert_eq!(me(&cloud, &phone).await?.status, 401);
        // A new password ends every session but the one that chose it.
        let change = async |current: &str, new: &str| {
            let body = json!({"current_password": current, "new_password": new});
            ask(&cloud, Method::POST, "/api/auth/change-password", Some(&here), body).await
        };
        for (current, new, field) in [
            ("salah sama sekali", "perahu biru muda", "current_password"),
            (PASSWORD, "password123", "new_password"),
        ] {
            let body = change(current, new).await?.expect(400)?;
            assert_eq!(body["error"]["details"][0]["field"], field);
        }
        assert_eq!(me(&cloud, &laptop).await?.status, 200);
        change(PASSWORD, "perahu biru muda").await?.expect(200)?;
        assert_eq!(me(&cloud, &laptop).await?.status, 401);
        assert_eq!(me(&cloud, &here).await?.status, 200);
        assert_eq!(login(&cloud, "budi@example.com", PASSWORD).await?.status, 401);
        assert_eq!(login(&cloud, "budi@example.com", "perahu biru muda").await?.status, 200);
        Ok(())
    })
}
