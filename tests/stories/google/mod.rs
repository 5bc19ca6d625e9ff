//! People sign in with Google's word; a stand-in publishes keys and signs as Google does. Its key is for tests only.

use crate::address::{follow, wish};
use crate::people::{PASSWORD, ask, login, me, post, register, token_of};
use crate::reset::{codes, forgot, reset};
use crate::second_factor::{answer, challenge, enrol};
use actix_web::web::{self, Data};
use actix_web::{App, HttpResponse, HttpServer};
use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lumbung_tests::http::Reply;
use lumbung_tests::programs::Cloud;
use lumbung_tests::stand::Stand;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair, PublicKeyComponents};
use ring::signature::RSA_PKCS1_SHA256;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Keys at an address, and how often they were asked for.
struct Google {
    url: String,
    key: KeyPair,
    asked: Arc<AtomicUsize>,
}

impl Google {
    fn open() -> Result<Self> {
        let key = KeyPair::from_pkcs8(include_bytes!("test_only_key.pk8"))
            .map_err(|why| anyhow!("the test's key: {why}"))?;
        let public: PublicKeyComponents<Vec<u8>> = key.public().into();
        let part = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let set = json!({"keys": [{"kid": "one", "kty": "RSA", "alg": "RS256", "use": "sig",
            "n": part(&public.n), "e": part(&public.e)}]});
        let asked = Arc::new(AtomicUsize::new(0));
        let shared = Data::new((set, Arc::clone(&asked)));
        let server =
            HttpServer::new(move || App::new().app_data(shared.clone()).default_service(web::to(keys)))
                .workers(1)
                .disable_signals()
                .bind("127.0.0.1:0")?;
        let address = server.addrs().first().copied().context("not bound")?;
        tokio::spawn(server.run());
        Ok(Self { url: format!("http://{address}/certs"), key, asked })
    }

    fn signed(&self, head: &Value, claims: &Value) -> Result<String> {
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let said = format!("{}.{}", part(head), part(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), said.as_bytes(), &mut signature)
            .map_err(|_| anyhow!("not signed"))?;
        Ok(format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// As Google says it of somebody.
    fn token(&self, sub: &str, email: &str) -> Result<String> {
        self.signed(&json!({"alg": "RS256", "kid": "one", "typ": "JWT"}), &claims(sub, email))
    }
}

async fn keys(shared: Data<(Value, Arc<AtomicUsize>)>) -> HttpResponse {
    shared.1.fetch_add(1, Ordering::SeqCst);
    HttpResponse::Ok().insert_header(("cache-control", "public, max-age=20000")).json(&shared.0)
}

fn claims(sub: &str, email: &str) -> Value {
    let now = chrono::Utc::now().timestamp();
    json!({"iss": "https://accounts.google.com", "aud": "android.example", "sub": sub, "email": email,
        "email_verified": true, "name": "Budi Santoso", "iat": now, "exp": now + 3600})
}

async fn cloud(stand: &Stand, google: &Google) -> Result<Cloud> {
    let mut cloud = stand.cloud_not_started().await?;
    cloud.set("google.client_ids", "web.example,android.example").set("google.jwks_url", &google.url);
    cloud.start().await?;
    Ok(cloud)
}

async fn sign_in(cloud: &Cloud, token: &str) -> Result<Reply> {
    post(cloud, "/api/auth/google", json!({"google_token": token})).await
}

#[test]
fn somebody_comes_with_googles_word_and_comes_again_under_another_address() -> Result<()> {
    story(async |stand| {
        let google = Google::open()?;
        let cloud = cloud(stand, &google).await?;
        // Many first times at once are one account, again and again.
        let first = google.token("117", "Budi@gmail.com")?;
        let mut tokens = vec![first.clone()];
        for at in 0..6 {
            tokens.push(google.token(&format!("other-{at}"), &format!("warga{at}@gmail.com"))?);
        }
        for token in &tokens {
            let many = futures_util::future::try_join_all((0..6).map(|_| sign_in(&cloud, token))).await?;
            let mut new = 0;
            let mut ids = Vec::new();
            // A busy machine may tell some of them to come again.
            for reply in many.iter().filter(|reply| reply.status != 503) {
                let body = reply.expect(200)?;
                new += usize::from(body["is_new_user"] == true);
                ids.push(body["user_id"].as_i64().context("user_id")?);
            }
            ids.dedup();
            assert_eq!((new, ids.len()), (1, 1), "{ids:?}");
        }
        let budi: i64 = sqlx::query_scalar("select user_id from user_google where google_sub = '117'")
            .fetch_one(&cloud.database().await?)
            .await?;
        let body = sign_in(&cloud, &google.token("117", "moved@desa.example")?).await?.expect(200)?;
        assert_eq!((&body["user_id"], &body["is_new_user"]), (&json!(budi), &json!(false)));
        let user = me(&cloud, &token_of(&body)?).await?.expect(200)?["user_data"].clone();
        assert_eq!((&user["email"], &user["is_verified"]), (&json!("Budi@gmail.com"), &json!(true)));
        assert_eq!(user["full_name"], "Budi Santoso");
        let username = user["username"].as_str().context("username")?;
        assert!(username.starts_with("user-"), "{username} tells the address");
        // There is no password to sign in with, nor to guess.
        assert_eq!(login(&cloud, "budi@gmail.com", "").await?.status, 400);
        assert_eq!(login(&cloud, "budi@gmail.com", PASSWORD).await?.error_code(), "WRONG_CREDENTIALS");
        // Google vouches for mailboxes that it runs, and for no other.
        let body = sign_in(&cloud, &google.token("118", "siti@desa.example")?).await?.expect(200)?;
        let user = me(&cloud, &token_of(&body)?).await?.expect(200)?["user_data"].clone();
        assert_eq!(user["is_verified"], false);
        let refresh = json!({"google_token": first, "refresh": true});
        let body = post(&cloud, "/api/auth/google", refresh).await?.expect(200)?;
        assert!(body["refresh_token"].is_string() && body["expires_in"].is_number(), "{body}");
        cloud.must(&["user", "ban", "budi@gmail.com", "--reason", "Iklan", "--until", "7d"]).await?;
        let body = sign_in(&cloud, &first).await?.expect(403)?;
        assert_eq!(
            (&body["error"]["code"], &body["error"]["details"][0]["message"]),
            (&json!("ACCOUNT_INACTIVE"), &json!("Iklan"))
        );
        // A ban that ran out lets them in again.
        let database = cloud.database().await?;
        sqlx::query("update user_ban set expires_at = now()").execute(&database).await?;
        sign_in(&cloud, &first).await?.expect(200)?;
        assert!(!stand.logs().contains("@gmail.com") && !stand.logs().contains(&first));
        Ok(())
    })
}

#[test]
fn an_account_with_a_password_is_joined_only_by_who_knows_it_and_has_the_address() -> Result<()> {
    story(async |stand| {
        let google = Google::open()?;
        let cloud = cloud(stand, &google).await?;
        let (budi, _) = register(&cloud, "budi").await?;
        let token = google.token("117", "BUDI@example.com")?;
        let reply = sign_in(&cloud, &token).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (409, "PASSWORD_NEEDED_TO_LINK"));
        let with = async |token: &str, password: &str| {
            let body = json!({"google_token": token, "password": password});
            post(&cloud, "/api/auth/google", body).await
        };
        let reply = with(&token, "kata sandi salah").await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (401, "WRONG_CREDENTIALS"));
        assert_eq!(sign_in(&cloud, &token).await?.status, 409, "a wrong password joined them");
        // Nobody has shown yet whose the address is: neither here nor, for a mailbox that it does not run, Google.
        let reply = with(&token, PASSWORD).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (409, "EMAIL_NOT_CONFIRMED"));
        assert_eq!(sign_in(&cloud, &token).await?.status, 409, "an unconfirmed address joined them");
        let database = cloud.database().await?;
        let code = codes(&cloud, &database, "budi@example.com", "verify_email", 1).await?.remove(0);
        post(&cloud, "/api/auth/verify-email", json!({"token": code})).await?.expect(200)?;
        let body = with(&token, PASSWORD).await?.expect(200)?;
        assert_eq!((&body["user_id"], &body["is_new_user"]), (&json!(budi), &json!(false)));
        assert_eq!(sign_in(&cloud, &token).await?.expect(200)?["user_id"], budi);
        assert_eq!(login(&cloud, "budi@example.com", PASSWORD).await?.status, 200);
        // Where Google runs the mailbox its word is enough for the address, never for the account.
        let siti = registered_at_gmail(&cloud, "siti").await?;
        let token = google.token("118", "siti@gmail.com")?;
        assert_eq!(sign_in(&cloud, &token).await?.error_code(), "PASSWORD_NEEDED_TO_LINK");
        let body = with(&token, PASSWORD).await?.expect(200)?;
        assert_eq!(body["user_id"], siti);
        let user = me(&cloud, &token_of(&body)?).await?.expect(200)?["user_data"].clone();
        assert_eq!(user["is_verified"], true);
        Ok(())
    })
}

async fn registered_at_gmail(cloud: &Cloud, username: &str) -> Result<Value> {
    let body = json!({"email": format!("{username}@gmail.com"), "username": username, "password": PASSWORD});
    Ok(post(cloud, "/api/auth/register", body).await?.expect(201)?["user_id"].clone())
}

#[test]
fn an_address_that_google_has_not_verified_neither_opens_nor_joins_an_account() -> Result<()> {
    story(async |stand| {
        let google = Google::open()?;
        let cloud = cloud(stand, &google).await?;
        registered_at_gmail(&cloud, "budi").await?;
        for (sub, email) in [("117", "budi@gmail.com"), ("118", "siti@gmail.com")] {
            for said in [json!(false), Value::Null] {
                let mut claims = claims(sub, email);
                if said.is_null() {
                    claims.as_object_mut().context("claims")?.remove("email_verified");
                } else {
                    claims["email_verified"] = said;
                }
                let token = google.signed(&json!({"alg": "RS256", "kid": "one"}), &claims)?;
                let body = json!({"google_token": token, "password": PASSWORD});
                let body = post(&cloud, "/api/auth/google", body).await?.expect(400)?;
                assert_eq!(body["error"]["details"][0]["field"], "google_token", "{body}");
            }
        }
        Ok(())
    })
}

#[test]
fn who_opened_an_account_in_anothers_name_has_no_way_in_once_its_owner_chose_a_password() -> Result<()> {
    story(async |stand| {
        let google = Google::open()?;
        let cloud = cloud(stand, &google).await?;
        // Google has seen that mailbox once; whose it is now, it does not know.
        let token = google.token("117", "siti@desa.example")?;
        let session = token_of(&sign_in(&cloud, &token).await?.expect(200)?)?;
        let database = cloud.database().await?;
        // Siti follows the mail that came to her, wherever it came from, and then the one for a password.
        let code = codes(&cloud, &database, "siti@desa.example", "verify_email", 1).await?.remove(0);
        post(&cloud, "/api/auth/verify-email", json!({"token": code})).await?.expect(200)?;
        forgot(&cloud, "siti@desa.example").await?.expect(200)?;
        let code = codes(&cloud, &database, "siti@desa.example", "reset_password", 1).await?.remove(0);
        reset(&cloud, &code, "perahu biru muda").await?.expect(200)?;
        assert_eq!(me(&cloud, &session).await?.status, 401);
        assert_eq!(sign_in(&cloud, &token).await?.error_code(), "PASSWORD_NEEDED_TO_LINK");
        login(&cloud, "siti@desa.example", "perahu biru muda").await?.expect(200)?;
        Ok(())
    })
}

#[test]
fn who_came_by_google_stays_connected_when_the_address_changes() -> Result<()> {
    story(async |stand| {
        let google = Google::open()?;
        let cloud = cloud(stand, &google).await?;
        let database = cloud.database().await?;
        let token = google.token("117", "budi@gmail.com")?;
        let body = sign_in(&cloud, &token).await?.expect(200)?;
        let session = token_of(&body)?;
        // Who has no password shows that it is they by having just signed in.
        let signed_in = async |at: &str| {
            let sql = "update user_session set created_at = now() - $1::text::interval";
            sqlx::query(sql).bind(at).execute(&database).await
        };
        signed_in("1 hour").await?;
        let reply = wish(&cloud, &session, "budi@desa.example", "").await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (403, "SIGN_IN_AGAIN"));
        signed_in("0 s").await?;
        wish(&cloud, &session, "budi@desa.example", "").await?.expect(200)?;
        let code = codes(&cloud, &database, "budi@desa.example", "change_email", 1).await?.remove(0);
        follow(&cloud, &code).await?.expect(200)?;
        let again = sign_in(&cloud, &token).await?.expect(200)?;
        assert_eq!((&again["user_id"], &again["is_new_user"]), (&body["user_id"], &json!(false)));
        // Whom Google knows by the address of before has nothing to do with the account.
        let other = sign_in(&cloud, &google.token("118", "budi@gmail.com")?).await?.expect(200)?;
        assert_eq!(other["is_new_user"], true);
        Ok(())
    })
}

#[test]
fn an_account_that_changes_its_address_meanwhile_is_not_joined_by_the_one_of_before() -> Result<()> {
    story(async |stand| {
        let google = Google::open()?;
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("google.client_ids", "android.example").set("google.jwks_url", &google.url);
        cloud.set("database.statement_timeout", "60s");
        cloud.start().await?;
        let database = cloud.database().await?;
        registered_at_gmail(&cloud, "budi").await?;
        let mut held = database.begin().await?;
        sqlx::query("update app_user set email = 'budi@desa.example'").execute(&mut *held).await?;
        let body = json!({"google_token": google.token("117", "budi@gmail.com")?, "password": PASSWORD});
        let (reply, let_go) = tokio::join!(post(&cloud, "/api/auth/google", body), async {
            eventually("it waits", || async {
                let waiting: i64 = sqlx::query_scalar(
                    "select count(*) from pg_stat_activity where datname = current_database()
                         and wait_event_type = 'Lock' and query like 'select is_active from app_user%'",
                )
                .fetch_one(&database)
                .await?;
                Ok(when(waiting == 1))
            })
            .await?;
            anyhow::Ok(held.commit().await?)
        });
        let_go?;
        let reply = reply?;
        assert_eq!((reply.status, reply.error_code().as_str()), (401, "WRONG_CREDENTIALS"));
        let joined: i64 = sqlx::query_scalar("select count(*) from user_google").fetch_one(&database).await?;
        assert_eq!(joined, 0);
        Ok(())
    })
}

#[test]
fn googles_word_is_the_first_step_only_where_there_is_a_second() -> Result<()> {
    story(async |stand| {
        let google = Google::open()?;
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("google.client_ids", "android.example").set("google.jwks_url", &google.url);
        cloud.set("people.totp_key", "what the secrets of apps are sealed with");
        cloud.start().await?;
        let token = google.token("117", "budi@gmail.com")?;
        let session = token_of(&sign_in(&cloud, &token).await?.expect(200)?)?;
        // Who has no password shows that it is they by having just signed in.
        let database = cloud.database().await?;
        sqlx::query("update user_session set created_at = now() - interval '1 hour'")
            .execute(&database)
            .await?;
        let begin = json!({ "password": PASSWORD });
        let reply = ask(&cloud, Method::POST, "/api/auth/totp/enrol", Some(&session), begin).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (403, "SIGN_IN_AGAIN"));
        sqlx::query("update user_session set created_at = now()").execute(&database).await?;
        let (app, _) = enrol(&cloud, &session, Value::Null).await?;
        let body = json!({"google_token": token, "refresh": true});
        let half = challenge(&post(&cloud, "/api/auth/google", body).await?)?;
        let pair = answer(&cloud, &half, &app.shows(1)?).await?.expect(200)?;
        let body = json!({"refresh_token": pair["refresh_token"]});
        post(&cloud, "/api/auth/refresh", body).await?.expect(200)?;
        Ok(())
    })
}

#[test]
fn a_token_that_google_did_not_make_for_us_opens_nothing_and_asks_for_no_keys() -> Result<()> {
    story(async |stand| {
        let google = Google::open()?;
        let cloud = cloud(stand, &google).await?;
        let head = json!({"alg": "RS256", "kid": "one"});
        let good = claims("117", "budi@gmail.com");
        let with = |field: &str, value: Value| {
            let mut other = good.clone();
            other[field] = value;
            other
        };
        let whole = google.signed(&head, &good)?;
        let (said, signature) = whole.rsplit_once('.').context("a token")?;
        let body = said.split_once('.').context("a token")?.1;
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"one"}"#);
        let mut bad = vec![
            String::new(),
            said.to_owned(),
            format!("{said}."),
            format!("{none}.{body}."),
            format!(
                "{}.{}.{signature}",
                said.split_once('.').context("a token")?.0,
                URL_SAFE_NO_PAD.encode("{}")
            ),
            google.signed(&json!({"alg": "HS256", "kid": "one"}), &good)?,
            google.signed(&head, &with("aud", json!("somebody.example")))?,
            google.signed(&head, &with("iss", json!("https://somebody.example")))?,
            google.signed(&head, &with("exp", json!(1_700_000_000)))?,
        ];
        for at in 0..20 {
            bad.push(google.signed(&json!({"alg": "RS256", "kid": format!("unknown-{at}")}), &good)?);
        }
        for token in &bad {
            let reply = sign_in(&cloud, token).await?;
            assert_eq!((reply.status, reply.error_code().as_str()), (401, "UNAUTHENTICATED"), "{token}");
        }
        assert_eq!(google.asked.load(Ordering::SeqCst), 1, "strangers make us ask Google");
        sign_in(&cloud, &whole).await?.expect(200)?;
        Ok(())
    })
}

#[test]
fn where_google_was_not_set_up_that_is_said() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let reply = sign_in(&cloud, "x.y.z").await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (404, "GOOGLE_NOT_CONFIGURED"));
        Ok(())
    })
}
