//! Secrets as they are kept: encrypted with a key that is not in the database.

use super::Key;
use anyhow::Context;
use ring::hmac;

/// What is kept so. Each has a key of its own, even where the same one is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    SecondFactors,
    ReceiptKey,
    Webhooks,
}

impl Kept {
    /// What its key is made with; another one opens nothing that is kept.
    fn label(self) -> &'static [u8] {
        match self {
            Self::SecondFactors => b"lumbung: secrets of second factors",
            Self::ReceiptKey => b"lumbung: the key of receipts",
            Self::Webhooks => b"lumbung: secrets of webhooks",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::SecondFactors => "people.totp_key",
            Self::ReceiptKey | Self::Webhooks => "receipts.seal_key",
        }
    }
}

/// Without its setting nothing is sealed or opened.
pub(crate) struct Vault {
    key: Option<Key>,
    kept: Kept,
}

impl Vault {
    /// # Errors
    /// None that is known.
    pub fn open(configured: &str, kept: Kept) -> anyhow::Result<Self> {
        if configured.is_empty() {
            return Ok(Self { key: None, kept });
        }
        let configured = hmac::Key::new(hmac::HMAC_SHA256, configured.as_bytes());
        let key = Key::of(&hmac::sign(&configured, kept.label()))?;
        Ok(Self { key: Some(key), kept })
    }

    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    fn key(&self) -> anyhow::Result<&Key> {
        self.key.as_ref().with_context(|| format!("{} is missing", self.kept.setting()))
    }

    /// For one account or one webhook, or 0 for the only one.
    ///
    /// # Errors
    /// A key that is missing, or the system's for want of random bytes.
    pub fn seal(&self, whose: i64, secret: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.key()?.seal(&bytes(whose), secret)
    }

    /// # Errors
    /// A key that is missing, or another than it was sealed with: unexpected, for the operator to mend.
    pub fn unseal(&self, whose: i64, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let opened = self.key()?.open(&bytes(whose), sealed);
        opened.with_context(|| format!("a secret does not open with this {}", self.kept.setting()))
    }
}

/// A secret that was moved to another row does not open there.
fn bytes(whose: i64) -> [u8; 8] {
    whose.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_with_its_key_for_its_account_and_is_never_kept_in_clear() {
        let open = |configured: &str| Vault::open(configured, Kept::SecondFactors).unwrap();
        let vault = open(&"k".repeat(32));
        let sealed = vault.seal(7, b"twenty bytes, secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"twenty"));
        assert_ne!(sealed, vault.seal(7, b"twenty bytes, secret").unwrap(), "two that are alike look alike");
        assert_eq!(vault.unseal(7, &sealed).unwrap(), b"twenty bytes, secret");
        assert!(vault.unseal(8, &sealed).is_err(), "it opens for somebody else");
        assert!(open(&"l".repeat(32)).unseal(7, &sealed).is_err(), "another key opens it");
        let receipts = Vault::open(&"k".repeat(32), Kept::ReceiptKey).unwrap();
        assert!(receipts.unseal(7, &sealed).is_err(), "the same key opens it for something else");
        assert!(open("").unseal(7, &sealed).is_err());
        assert!(open("").seal(7, b"x").is_err());
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(vault.unseal(7, &other).is_err(), "byte {at} was changed");
        }
        assert!(vault.unseal(7, &sealed[..5]).is_err());
    }
}
