//! Second factors' secrets as they are kept: encrypted with a key that is not in the database.

use crate::error::{Error, Result};
use crate::random;
use anyhow::{Context, anyhow};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

/// Empty without `people.totp_key`: then nothing is sealed or opened.
pub(in crate::identity) struct Vault(Option<LessSafeKey>);

impl Vault {
    /// # Errors
    /// None that is known.
    pub fn open(configured: &str) -> anyhow::Result<Self> {
        if configured.is_empty() {
            return Ok(Self(None));
        }
        let configured = hmac::Key::new(hmac::HMAC_SHA256, configured.as_bytes());
        let key = hmac::sign(&configured, b"lumbung: secrets of second factors");
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref())
            .map_err(|_| anyhow!("the key of second factors cannot be used"))?;
        Ok(Self(Some(LessSafeKey::new(key))))
    }

    /// # Errors
    /// `TOTP_NOT_CONFIGURED`, or the system's for want of random bytes.
    pub fn seal(&self, user_id: i64, secret: &[u8]) -> Result<Vec<u8>> {
        let key = self.0.as_ref().ok_or(Error::NotFound("TOTP_NOT_CONFIGURED"))?;
        let nonce: [u8; NONCE_LEN] = random::draw()?;
        let mut sealed = secret.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(whose(user_id)),
            &mut sealed,
        )
        .map_err(|_| anyhow!("a second factor's secret cannot be sealed"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// # Errors
    /// A key that is missing, or another than it was sealed with: unexpected, for the operator to mend.
    pub fn unseal(&self, user_id: i64, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let key = self.0.as_ref().context("there are second factors, but people.totp_key is missing")?;
        let (nonce, sealed) = sealed.split_first_chunk().context("a second factor's secret is cut short")?;
        let mut secret = sealed.to_vec();
        let opened = key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(whose(user_id)), &mut secret)
            .map_err(|_| anyhow!("a second factor's secret was sealed with another people.totp_key"))?;
        Ok(opened.to_vec())
    }
}

/// A secret that was moved to another account does not open there.
fn whose(user_id: i64) -> [u8; 8] {
    user_id.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_with_its_key_for_its_account_and_is_never_kept_in_clear() {
        let vault = Vault::open(&"k".repeat(32)).unwrap();
        let sealed = vault.seal(7, b"twenty bytes, secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"twenty"));
        assert_ne!(sealed, vault.seal(7, b"twenty bytes, secret").unwrap(), "two that are alike look alike");
        assert_eq!(vault.unseal(7, &sealed).unwrap(), b"twenty bytes, secret");
        assert!(vault.unseal(8, &sealed).is_err(), "it opens for somebody else");
        assert!(Vault::open(&"l".repeat(32)).unwrap().unseal(7, &sealed).is_err(), "another key opens it");
        assert!(Vault::open("").unwrap().unseal(7, &sealed).is_err());
        assert!(Vault::open("").unwrap().seal(7, b"x").is_err());
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(vault.unseal(7, &other).is_err(), "byte {at} was changed");
        }
        assert!(vault.unseal(7, &sealed[..5]).is_err());
    }
}
