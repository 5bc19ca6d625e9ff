//! The signed token that a person's programs carry: a JWT, HS256 and nothing else.
//!
//! What must stay true:
//! - This program is the only one that makes and reads these tokens, so its header is one fixed text: no other
//!   algorithm can be asked for.
//! - A good signature is not enough: the session that the token names decides (see `sessions`).
//! - The secret is the same for every replica and is never logged. Another one ends every session: it also keys the
//!   hashes of refresh tokens.

use crate::random;
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
const ISSUER: &str = "lumbung-cloud";
const AUDIENCE: &str = "lumbung";
/// How far the replicas' clocks may differ, seconds.
const LEEWAY: i64 = 5;
/// Ours are a third of this.
const LONGEST: usize = 1024;

/// What a token says. Every field is required.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The person's id.
    sub: String,
    /// Which session; kept only by hash.
    jti: String,
    iat: i64,
    exp: i64,
}

/// Whom a good token speaks for, as far as it can say by itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    pub user_id: i64,
    pub token_id: String,
}

/// Makes and reads tokens.
#[derive(Clone)]
pub struct Tokens {
    key: hmac::Key,
}

impl Tokens {
    fn new(secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// With the configured secret, else with the database's own, made when it is first needed.
    ///
    /// # Errors
    /// The database's, or the system's for want of random bytes.
    pub async fn open(pool: &PgPool, configured: &str) -> anyhow::Result<Self> {
        if !configured.is_empty() {
            return Ok(Self::new(configured.as_bytes()));
        }
        let mut kept = stored(pool).await?;
        if kept.is_none() {
            let drawn = random::draw::<32>()?;
            // Two replicas may be at it: the first one's stays.
            sqlx::query!("insert into token_key (secret) values ($1) on conflict do nothing", &drawn[..])
                .execute(pool)
                .await?;
            kept = stored(pool).await?;
        }
        Ok(Self::new(&kept.context("the token key was not kept")?))
    }

    /// A token for a session; times are seconds since 1970.
    ///
    /// # Errors
    /// None that is known.
    pub fn issue(&self, named: &Named, now: i64, expires: i64) -> anyhow::Result<String> {
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: named.user_id.to_string(),
            jti: named.token_id.clone(),
            iat: now,
            exp: expires,
        };
        let said = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims)?));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, said.as_bytes()));
        Ok(format!("{said}.{signature}"))
    }

    /// What is kept of another secret that must end with ours.
    pub fn hash(&self, secret: &str) -> Vec<u8> {
        hmac::sign(&self.key, secret.as_bytes()).as_ref().to_vec()
    }

    /// Which key this is, for knowing it again.
    pub fn mark(&self) -> Vec<u8> {
        let whole = hmac::sign(&self.key, b"lumbung: which key of tokens");
        whole.as_ref().iter().take(8).copied().collect()
    }

    /// Whom a token speaks for; `None` for everything that is not a token of ours in its time.
    pub fn read(&self, token: &str, now: i64) -> Option<Named> {
        if token.len() > LONGEST {
            return None;
        }
        let (said, signature) = token.rsplit_once('.')?;
        let (header, body) = said.split_once('.')?;
        if header != HEADER {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, said.as_bytes(), &signature).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        let ours = claims.iss == ISSUER && claims.aud == AUDIENCE;
        let in_time = claims.exp.saturating_add(LEEWAY) > now && claims.iat <= now.saturating_add(LEEWAY);
        if !ours || !in_time {
            return None;
        }
        Some(Named { user_id: claims.sub.parse().ok()?, token_id: claims.jti })
    }
}

async fn stored(pool: &PgPool) -> sqlx::Result<Option<Vec<u8>>> {
    sqlx::query_scalar!("select secret from token_key").fetch_optional(pool).await
}

#[cfg(any(test, fuzzing))]
impl Tokens {
    /// Signed with the right secret, whatever it says.
    fn signed(&self, header: &str, claims: &[u8]) -> String {
        let said = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, said.as_bytes()));
        format!("{said}.{signature}")
    }
}

/// What nobody signed speaks for nobody; what is signed, whatever it says, speaks for nobody or for somebody whose token
/// would be read the same.
#[cfg(any(test, fuzzing))]
pub fn must_hold(bytes: &[u8]) {
    const NOW: i64 = 1_800_000_000;
    let tokens = Tokens::new(&[7; 32]);
    assert_eq!(tokens.read(&String::from_utf8_lossy(bytes), NOW), None);
    if let Some(named) = tokens.read(&tokens.signed(HEADER, bytes), NOW) {
        let again = tokens.issue(&named, NOW, NOW + 60).unwrap_or_default();
        assert!(again.len() > LONGEST || tokens.read(&again, NOW) == Some(named), "{again}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_800_000_000;

    fn tokens() -> Tokens {
        Tokens::new(&[7; 32])
    }

    fn signed(header: &str, claims: &Value) -> String {
        tokens().signed(header, claims.to_string().as_bytes())
    }

    fn claims() -> Value {
        json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "12", "jti": "abc", "iat": NOW, "exp": NOW + 60})
    }

    #[test]
    fn the_header_says_hs256() {
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(HEADER).unwrap()).unwrap();
        assert_eq!(header, json!({"alg": "HS256", "typ": "JWT"}));
    }

    #[test]
    fn a_token_is_good_until_it_expires() {
        let named = Named { user_id: 12, token_id: "abc".into() };
        let token = tokens().issue(&named, NOW, NOW + 60).unwrap();
        assert_eq!(tokens().read(&token, NOW), Some(named));
        assert_eq!(tokens().read(&token, NOW + 60 + LEEWAY), None);
        assert_eq!(tokens().read(&token, NOW - LEEWAY - 1), None, "it is from the future");
        assert_eq!(Tokens::new(&[8; 32]).read(&token, NOW), None, "another secret reads it");
    }

    #[test]
    fn every_claim_is_required_and_must_be_ours() {
        assert!(tokens().read(&signed(HEADER, &claims()), NOW).is_some());
        for field in ["iss", "aud", "sub", "jti", "iat", "exp"] {
            let mut without = claims();
            without.as_object_mut().unwrap().remove(field);
            assert_eq!(tokens().read(&signed(HEADER, &without), NOW), None, "without {field}");
        }
        for (field, value) in [
            ("iss", json!("someone")),
            ("aud", json!("someone")),
            ("aud", json!([AUDIENCE])),
            ("sub", json!("x")),
            ("exp", json!("never")),
        ] {
            let mut other = claims();
            other[field] = value;
            assert_eq!(tokens().read(&signed(HEADER, &other), NOW), None, "{other}");
        }
    }

    #[test]
    fn no_other_algorithm_can_be_asked_for() {
        let good = signed(HEADER, &claims());
        let (said, _) = good.rsplit_once('.').unwrap();
        let body = said.split_once('.').unwrap().1;
        for header in [r#"{"alg":"none","typ":"JWT"}"#, r#"{"alg":"HS512","typ":"JWT"}"#, "{}"] {
            let header = URL_SAFE_NO_PAD.encode(header);
            assert_eq!(tokens().read(&signed(&header, &claims()), NOW), None);
            assert_eq!(tokens().read(&format!("{header}.{body}."), NOW), None);
        }
        for bad in ["", ".", "..", "a.b.c", &format!("{said}."), &format!("{good}="), &"x".repeat(2000)] {
            assert_eq!(tokens().read(bad, NOW), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whoever_is_named_is_read_again_and_nothing_else_is_a_token(
            user_id: i64,
            token_id in "\\PC{0,40}",
            text in "\\PC{0,200}|[A-Za-z0-9_-]{0,60}(\\.[A-Za-z0-9_-]{0,60}){0,3}",
            place: prop::sample::Index,
            bit in 0..7_u32,
        ) {
            let named = Named { user_id, token_id };
            let token = tokens().issue(&named, NOW, NOW + 60).unwrap();
            let mut changed = token.clone().into_bytes();
            *place.get_mut(&mut changed) ^= 1 << bit;
            let read = |text: &str| tokens().read(text, NOW).map(|named| (named.user_id, named.token_id));
            prop_assert_eq!(read(&token), (token.len() <= LONGEST).then_some((named.user_id, named.token_id)));
            must_hold(text.as_bytes());
            prop_assert_eq!(str::from_utf8(&changed).ok().and_then(read), None);
        }

        #[test]
        fn whatever_is_signed_speaks_for_one_person_or_none(
            sub in "-?[0-9]{0,20}|\\PC{0,5}",
            times: [i64; 2],
            jti in "\\PC{0,40}",
        ) {
            for [iat, exp] in [times, [NOW, times[1]], [times[0], NOW]] {
                let said = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "jti": jti, "iat": iat, "exp": exp});
                must_hold(said.to_string().as_bytes());
            }
        }
    }
}
