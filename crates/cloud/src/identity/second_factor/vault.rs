//! Second factors' secrets as they are kept: encrypted with a key that is not in the database.

use crate::error::{Error, Result};
use crate::sealed::Key;
use anyhow::Context;
use ring::hmac;

/// Empty without `people.totp_key`: then nothing is sealed or opened.
pub(in crate::identity) struct Vault(Option<Key>);

impl Vault {
    /// # Errors
    /// None that is known.
    pub fn open(configured: &str) -> anyhow::Result<Self> {
        if configured.is_empty() {
            return Ok(Self(None));
        }
        let configured = hmac::Key::new(hmac::HMAC_SHA256, configured.as_bytes());
        let key = hmac::sign(&configured, b"lumbung: secrets of second factors");
        Ok(Self(Some(Key::of(&key)?)))
    }

    /// # Errors
    /// `TOTP_NOT_CONFIGURED`, or the system's for want of random bytes.
    pub fn seal(&self, user_id: i64, secret: &[u8]) -> Result<Vec<u8>> {
        let key = self.0.as_ref().ok_or(Error::NotFound("TOTP_NOT_CONFIGURED"))?;
        Ok(key.seal(&whose(user_id), secret)?)
    }

    /// # Errors
    /// A key that is missing, or another than it was sealed with: unexpected, for the operator to mend.
    pub fn unseal(&self, user_id: i64, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let key = self.0.as_ref().context("there are second factors, but people.totp_key is missing")?;
        let opened = key.open(&whose(user_id), sealed);
        opened.context("a second factor's secret does not open with this people.totp_key")
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
