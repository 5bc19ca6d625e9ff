//! Web push: a message is encrypted for one browser (RFC 8291), and its push service is shown who we are (RFC 8292).

use super::Undelivered;
use super::web::Web;
use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use lumbung_shared::language::Words;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;
use web_push_native::p256::PublicKey;
use web_push_native::{Auth, WebPushBuilder};

/// How long a push service keeps a message for a browser that sleeps.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long we are known by one signature; services allow a day.
const SIGNED: i64 = 12 * 3600;
/// What every service takes, less what encryption adds.
pub const LONGEST: usize = 3900;

/// A browser's subscription.
#[derive(Debug)]
pub struct Subscription {
    pub endpoint: String,
    pub p256dh: Vec<u8>,
    pub auth: Vec<u8>,
}

impl Subscription {
    /// # Errors
    /// What its keys must be.
    pub fn check(&self) -> Result<(), Words> {
        let good = self.p256dh.len() == 65
            && self.auth.len() == 16
            && PublicKey::from_sec1_bytes(&self.p256dh).is_ok();
        good.then_some(()).ok_or_else(|| {
            Words::new(
                "harus dua kunci yang diberikan peramban",
                "must be the two keys that the browser gave",
            )
        })
    }
}

pub(super) struct Push {
    key: EcdsaKeyPair,
    random: SystemRandom,
    /// Who is to be asked when something is wrong with what we send.
    contact: String,
}

impl Push {
    /// With the installation's key, made when it is first needed.
    pub(super) async fn open(pool: &PgPool, contact: String) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let stored = || sqlx::query_scalar!("select pkcs8 from push_key").fetch_optional(pool);
        let mut kept = stored().await?;
        if kept.is_none() {
            let drawn = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
                .map_err(|_| anyhow!("the system gave no random bytes"))?;
            // Two replicas may be at it: the first one's stays.
            sqlx::query!("insert into push_key (pkcs8) values ($1) on conflict do nothing", drawn.as_ref())
                .execute(pool)
                .await?;
            kept = stored().await?;
        }
        let kept = kept.context("the push key was not kept")?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &kept, &random)
            .map_err(|error| anyhow!("the push key cannot be used: {error}"))?;
        Ok(Self { key, random, contact })
    }

    /// What browsers subscribe with.
    pub(super) fn public_key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.public_key())
    }

    pub(super) async fn send(
        &self,
        web: &Web,
        to: &Subscription,
        text: &str,
        message_id: Uuid,
    ) -> Result<(), Undelivered> {
        let url = web.check(&to.endpoint).map_err(|wrong| Undelivered::Never(wrong.to_string()))?;
        let request = self.request(&url, to, text, message_id).map_err(|error| {
            // A key that the browser gave and that is none.
            Undelivered::Never(format!("cannot be encrypted: {error:#}"))
        })?;
        match web.send(request).await? {
            200..=299 => Ok(()),
            404 | 410 => Err(Undelivered::Gone),
            status @ (400 | 401 | 403 | 413) => Err(Undelivered::Never(format!("refused with {status}"))),
            status => Err(Undelivered::Later(format!("answered {status}"))),
        }
    }

    fn request(
        &self,
        url: &Url,
        to: &Subscription,
        text: &str,
        message_id: Uuid,
    ) -> anyhow::Result<reqwest::Request> {
        let browser = PublicKey::from_sec1_bytes(&to.p256dh)?;
        let auth: [u8; 16] = to.auth.as_slice().try_into()?;
        let sealed = WebPushBuilder::new(url.as_str().parse()?, browser, Auth::from(auth))
            .with_valid_duration(KEPT)
            .build(text)
            .map_err(|error| anyhow!("{error}"))?;
        let mut request = reqwest::Request::try_from(sealed)?;
        let headers = request.headers_mut();
        let signed = self.signed(url, Utc::now().timestamp())?;
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&signed)?);
        // A second copy takes the place of the first, as long as the browser sleeps.
        headers.insert("topic", HeaderValue::from_str(&message_id.simple().to_string())?);
        Ok(request)
    }

    /// Who we are, for one push service.
    fn signed(&self, url: &Url, now: i64) -> anyhow::Result<String> {
        let claims =
            json!({ "aud": url.origin().ascii_serialization(), "exp": now + SIGNED, "sub": self.contact });
        let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ES256"}"#);
        let said = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self
            .key
            .sign(&self.random, said.as_bytes())
            .map_err(|_| anyhow!("the push key does not sign"))?;
        Ok(format!("vapid t={said}.{}, k={}", URL_SAFE_NO_PAD.encode(signature), self.public_key()))
    }
}
