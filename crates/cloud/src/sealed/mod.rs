//! Bytes as they are kept when the database's owner must not read them: encrypted with a key that is not there, by
//! ChaCha20-Poly1305, each time with a nonce that was drawn.

mod vault;

pub(crate) use vault::{Kept, Vault};

use crate::random;
use anyhow::{Context, anyhow};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

pub(crate) struct Key(LessSafeKey);

impl Key {
    /// From 32 bytes that nobody can guess.
    ///
    /// # Errors
    /// None that is known.
    pub fn of(secret: &hmac::Tag) -> anyhow::Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, secret.as_ref());
        Ok(Self(LessSafeKey::new(key.map_err(|_| anyhow!("a key that cannot be used"))?)))
    }

    /// # Errors
    /// The system's, for want of random bytes.
    pub fn seal(&self, whose: &[u8], clear: &[u8]) -> anyhow::Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random::draw()?;
        let mut sealed = clear.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(whose), &mut sealed)
            .map_err(|_| anyhow!("it cannot be sealed"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// # Errors
    /// It was sealed with another key, as somebody else's, or it was changed since.
    pub fn open(&self, whose: &[u8], sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk().context("it is cut short")?;
        let mut clear = sealed.to_vec();
        let opened = self
            .0
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(whose), &mut clear)
            .map_err(|_| anyhow!("it was sealed with another key, or changed since"))?;
        Ok(opened.to_vec())
    }
}
