//! Google's word for who somebody is: its ID tokens, checked with the keys that it publishes.
//!
//! What must stay true:
//! - A token counts only when it was made for one of our own client ids: others' apps get tokens of the same people.
//! - Keys are asked for when they are out of date, or for one that is not known, at most once a minute whatever
//!   strangers send (every five seconds until the first answer); while Google cannot be reached, those that are known stay.

use crate::config::Google as Settings;
use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Real ones are about 1,200 characters.
const LONGEST: usize = 8 * 1024;
const LARGEST_SET: usize = 64 * 1024;
/// Between two requests for keys, and the least that an answer is believed.
const FLOOR: Duration = Duration::from_secs(60);
/// The same while no key was ever had: nobody can sign in until one is.
const EAGER: Duration = Duration::from_secs(5);
/// How long an answer is believed that does not say.
const UNSAID: Duration = Duration::from_secs(3600);
/// And that says too much.
const LONGEST_BELIEVED: u64 = 7 * 24 * 3600;
/// How far Google's clock may be from ours, seconds.
const LEEWAY: i64 = 60;

/// Whom a token speaks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Google's own id of the person.
    pub sub: String,
    pub email: Option<String>,
    /// Google has seen, at some time, that the mailbox is theirs.
    pub email_verified: bool,
    /// Google itself runs the mailbox, so the address is theirs for certain.
    pub owns_address: bool,
    pub name: Option<String>,
}

#[derive(Debug)]
pub enum NotVouched {
    /// Not a token for us, or not in its time.
    Wrong,
    Unreachable,
}

/// Checks tokens.
pub struct Google {
    client: reqwest::Client,
    settings: Settings,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, Arc<Key>>,
    fresh_until: Option<Instant>,
    asked: Option<Instant>,
}

impl Known {
    fn must_ask(&self, kid: &str, now: Instant) -> bool {
        let wanted = self.fresh_until.is_none_or(|until| until <= now) || !self.keys.contains_key(kid);
        let floor = if self.keys.is_empty() { EAGER } else { FLOOR };
        wanted && self.asked.is_none_or(|at| now.duration_since(at) >= floor)
    }
}

struct Key {
    n: Vec<u8>,
    e: Vec<u8>,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: Option<String>,
    kty: String,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
    hd: Option<String>,
    name: Option<String>,
}

impl Google {
    /// None when no client id is configured.
    ///
    /// # Errors
    /// What is wrong with the trust in the public authorities.
    pub fn open(settings: &Settings) -> anyhow::Result<Option<Self>> {
        if settings.client_ids.is_empty() {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
            roots.add(root.clone())?;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(5))
            .build()?;
        Ok(Some(Self { client, settings: settings.clone(), known: Mutex::default() }))
    }

    /// Whom a token speaks for; `now` is seconds since 1970.
    ///
    /// # Errors
    /// A token that is not good, or no keys to tell by.
    pub async fn verify(&self, token: &str, now: i64) -> Result<Vouched, NotVouched> {
        let wrong = NotVouched::Wrong;
        if token.len() > LONGEST {
            return Err(wrong);
        }
        let (said, signature) = token.rsplit_once('.').ok_or(NotVouched::Wrong)?;
        let (head, body) = said.split_once('.').ok_or(NotVouched::Wrong)?;
        let head: Head = json(head).ok_or(NotVouched::Wrong)?;
        if head.alg != "RS256" {
            return Err(wrong);
        }
        let key = self.key(&head.kid).await?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| NotVouched::Wrong)?;
        RsaPublicKeyComponents { n: &key.n, e: &key.e }
            .verify(&RSA_PKCS1_2048_8192_SHA256, said.as_bytes(), &signature)
            .map_err(|_| NotVouched::Wrong)?;
        let claims = json(body).ok_or(NotVouched::Wrong)?;
        judge(claims, &self.settings.client_ids, now).ok_or(wrong)
    }

    async fn key(&self, kid: &str) -> Result<Arc<Key>, NotVouched> {
        let mut known = self.known.lock().await;
        let now = Instant::now();
        if known.must_ask(kid, now) {
            known.asked = Some(now);
            match self.fetch().await {
                Ok((keys, lasts)) => (known.keys, known.fresh_until) = (keys, Some(now + lasts)),
                Err(error) => tracing::warn!("Google's keys cannot be had: {error:#}"),
            }
        }
        match known.keys.get(kid) {
            Some(key) => Ok(Arc::clone(key)),
            None if known.keys.is_empty() => Err(NotVouched::Unreachable),
            None => Err(NotVouched::Wrong),
        }
    }

    async fn fetch(&self) -> anyhow::Result<(HashMap<String, Arc<Key>>, Duration)> {
        let mut response = self.client.get(&self.settings.jwks_url).send().await?.error_for_status()?;
        let lasts = response.headers().get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
        let lasts = believed(lasts);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            ensure!(body.len() + chunk.len() <= LARGEST_SET, "the answer is too large");
            body.extend_from_slice(&chunk);
        }
        let set: Set = serde_json::from_slice(&body).context("the answer is not a set of keys")?;
        let keys: HashMap<_, _> = set.keys.into_iter().filter_map(Jwk::key).collect();
        ensure!(!keys.is_empty(), "the set has no key that we can use");
        Ok((keys, lasts))
    }
}

impl Jwk {
    fn key(self) -> Option<(String, Arc<Key>)> {
        let usable = self.kty == "RSA" && self.alg.is_none_or(|alg| alg == "RS256");
        let part = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let key = Key { n: part(self.n)?, e: part(self.e)? };
        usable.then_some((self.kid?, Arc::new(key)))
    }
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// How long a `Cache-Control` lets an answer be believed.
fn believed(cache_control: Option<&str>) -> Duration {
    let seconds = cache_control.and_then(|value| {
        value.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse::<u64>().ok())
    });
    seconds.map_or(UNSAID, |seconds| Duration::from_secs(seconds.min(LONGEST_BELIEVED)).max(FLOOR))
}

/// What a token with a good signature says, if it says it to us and now.
fn judge(claims: Claims, client_ids: &[String], now: i64) -> Option<Vouched> {
    let from_google = ["https://accounts.google.com", "accounts.google.com"].contains(&claims.iss.as_str());
    let for_us = client_ids.contains(&claims.aud);
    let begun = claims.iat.max(claims.nbf.unwrap_or(claims.iat));
    let in_time = claims.exp.saturating_add(LEEWAY) > now && begun <= now.saturating_add(LEEWAY);
    let named = (1..=255).contains(&claims.sub.len());
    if !(from_google && for_us && in_time && named) {
        return None;
    }
    let email_verified = claims.email_verified;
    let gmail = claims.email.as_deref().is_some_and(|email| email.to_lowercase().ends_with("@gmail.com"));
    let owns_address = email_verified && (gmail || claims.hd.is_some_and(|hd| !hd.is_empty()));
    Some(Vouched { sub: claims.sub, email: claims.email, email_verified, owns_address, name: claims.name })
}

/// Whatever a set of keys or a token says: no key vouches for what it did not sign, and nobody is vouched for to
/// somebody else.
#[cfg(any(test, fuzzing))]
pub fn must_hold(bytes: &[u8]) {
    if let Ok(set) = serde_json::from_slice::<Set>(bytes) {
        for (_, key) in set.keys.into_iter().filter_map(Jwk::key) {
            let key = RsaPublicKeyComponents { n: &key.n, e: &key.e };
            assert!(key.verify(&RSA_PKCS1_2048_8192_SHA256, b"said", &[7; 256]).is_err());
        }
    }
    let part = URL_SAFE_NO_PAD.encode(bytes);
    drop(json::<Head>(&part));
    let (ours, now) = ("ours".to_owned(), 1_800_000_000);
    let Some(claims) = json::<Claims>(&part) else { return };
    let (aud, exp) = (claims.aud.clone(), claims.exp);
    if let Some(vouched) = judge(claims, std::slice::from_ref(&ours), now) {
        assert!(aud == ours && exp > now - 2 * LEEWAY, "{vouched:?}");
        assert!(vouched.email_verified || !vouched.owns_address, "{vouched:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_800_000_000;

    fn with(field: &str, value: Value) -> Option<Vouched> {
        let mut claims = json!({"iss": "https://accounts.google.com", "aud": "ours", "sub": "1", "exp": NOW + 3600,
            "iat": NOW, "email": "budi@desa.example", "email_verified": true});
        claims[field] = value;
        judge(serde_json::from_value(claims).ok()?, &["ours".to_owned(), "android".to_owned()], NOW)
    }

    #[test]
    fn a_token_for_another_app_of_another_issuer_or_another_time_is_refused() {
        for (field, value) in [
            ("aud", json!("android")),
            ("iss", json!("accounts.google.com")),
            ("exp", json!(NOW - LEEWAY + 1)),
            ("iat", json!(NOW + LEEWAY)),
            ("nbf", json!(NOW - 10)),
        ] {
            assert!(with(field, value.clone()).is_some(), "{field} {value}");
        }
        for (field, value) in [
            ("aud", json!("somebody's")),
            ("aud", json!(["ours"])),
            ("iss", json!("https://accounts.google.com.example")),
            ("exp", json!(NOW - LEEWAY)),
            ("exp", Value::Null),
            ("iat", json!(NOW + LEEWAY + 1)),
            ("nbf", json!(NOW + LEEWAY + 1)),
            ("sub", json!("")),
            ("sub", Value::Null),
        ] {
            assert!(with(field, value.clone()).is_none(), "{field} {value}");
        }
    }

    #[test]
    fn an_address_is_theirs_for_certain_only_where_google_runs_the_mailbox() {
        let owns = |field: &str, value: Value| with(field, value).is_some_and(|vouched| vouched.owns_address);
        assert!(!owns("email_verified", json!(true)), "once verified is not now");
        assert!(owns("hd", json!("desa.example")));
        assert!(owns("email", json!("Budi@Gmail.com")));
        assert!(!owns("email", json!("budi@gmail.com.example")));
    }

    #[test]
    fn keys_are_asked_for_once_a_minute_and_sooner_only_until_some_are_there() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut known = Known::default();
        assert!(known.must_ask("one", start));
        known.asked = Some(start);
        assert!(
            !known.must_ask("one", start + 4 * second),
            "a minute of strangers would be a minute of questions"
        );
        assert!(known.must_ask("one", start + 5 * second), "one lost answer is a minute without sign-ins");
        known.keys.insert("one".into(), Arc::new(Key { n: vec![], e: vec![] }));
        known.fresh_until = Some(start + 100 * second);
        assert!(!known.must_ask("one", start + 99 * second));
        assert!(!known.must_ask("two", start + 59 * second) && known.must_ask("two", start + 60 * second));
        assert!(known.must_ask("one", start + 100 * second), "they are out of date");
    }

    #[test]
    fn keys_are_believed_as_long_as_google_says_within_reason() {
        for (said, seconds) in [
            (None, 3600),
            (Some("no-transform"), 3600),
            (Some("public, max-age=22305, must-revalidate"), 22_305),
            (Some("max-age=0"), 60),
            (Some("max-age=99999999999"), LONGEST_BELIEVED),
        ] {
            assert_eq!(believed(said).as_secs(), seconds, "{said:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_to_come_from_google_is_borne(
            aud in "ours|theirs",
            times: [i64; 3],
            soon in -90..90_i64,
            verified: bool,
            address in "[a-z]{0,3}@(gmail|GMAIL|desa)\\.com",
            key in "[A-Za-z0-9_-]{0,40}",
            noise in "\\PC{0,60}",
        ) {
            for [iat, exp, nbf] in [times, [NOW + soon, NOW - soon, NOW]] {
                let token = json!({"iss": "accounts.google.com", "aud": aud, "sub": "1", "exp": exp, "iat": iat,
                    "nbf": nbf, "email": address, "email_verified": verified});
                must_hold(token.to_string().as_bytes());
            }
            let keys = json!({"keys": [{"kid": "1", "kty": "RSA", "n": key, "e": "AQAB"}, {"kty": noise}]});
            must_hold(keys.to_string().as_bytes());
            must_hold(noise.as_bytes());
        }
    }
}
