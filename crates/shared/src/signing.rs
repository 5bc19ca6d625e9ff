//! Ed25519: what a gateway and its cloud can prove to each other without a line between them.
//!
//! What must stay true:
//! - Every signature says what it is for ([`Purpose`]): none can be passed off as one of another kind.
//! - Keys and signatures travel as base64url without padding; a secret one shows itself to nobody.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A gateway shows, when it registers a public key, that it holds the other half; over its bearer key.
    Possession,
    /// A bundle of records that people carry; over its manifest.
    Bundle,
    /// The cloud's word on a bundle; over the statement.
    Receipt,
}

impl Purpose {
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Possession => b"lumbung possession 1\n",
            Self::Bundle => b"lumbung bundle 1\n",
            Self::Receipt => b"lumbung receipt 1\n",
        }
    }

    fn on(self, message: &[u8]) -> Vec<u8> {
        [self.prefix(), message].concat()
    }
}

/// A text that is no key or no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0} bytes in base64url without padding")]
pub struct NotBytes(usize);

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], NotBytes> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotBytes(N))?;
    bytes.try_into().map_err(|_| NotBytes(N))
}

/// The half that everybody may know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Whether the other half signed this.
    pub fn verifies(&self, purpose: Purpose, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(&purpose.on(message), &signature.0).is_ok()
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for PublicKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = NotBytes;

    fn try_from(text: String) -> Result<Self, NotBytes> {
        bytes(&text).map(Self)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        URL_SAFE_NO_PAD.encode(key.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature(pub(crate) [u8; 64]);

impl TryFrom<String> for Signature {
    type Error = NotBytes;

    fn try_from(text: String) -> Result<Self, NotBytes> {
        bytes(&text).map(Self)
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> Self {
        URL_SAFE_NO_PAD.encode(signature.0)
    }
}

/// The half that signs, made from 32 random bytes.
pub struct Signer(Ed25519KeyPair);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public_key())
    }
}

impl Signer {
    /// # Errors
    /// When there are not 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Result<Self, NotBytes> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| NotBytes(32))
    }

    pub fn public_key(&self) -> PublicKey {
        // The library's public keys are 32 bytes; a shorter one would verify nothing.
        PublicKey(<[u8; 32]>::try_from(self.0.public_key().as_ref()).unwrap_or_default())
    }

    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        let signature = self.0.sign(&purpose.on(message));
        Signature(<[u8; 64]>::try_from(signature.as_ref()).unwrap_or([0; 64]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_its_message_and_its_purpose_alone() {
        let (ours, other) = (Signer::from_seed(&[7; 32]).unwrap(), Signer::from_seed(&[8; 32]).unwrap());
        let signature = ours.sign(Purpose::Bundle, b"isi");
        assert!(ours.public_key().verifies(Purpose::Bundle, b"isi", &signature));
        assert!(!ours.public_key().verifies(Purpose::Bundle, b"isI", &signature));
        assert!(!ours.public_key().verifies(Purpose::Receipt, b"isi", &signature));
        assert!(!other.public_key().verifies(Purpose::Bundle, b"isi", &signature));
        assert!(Signer::from_seed(&[7; 31]).is_err());
    }

    #[test]
    fn keys_and_signatures_survive_their_text() {
        let signer = Signer::from_seed(&[1; 32]).unwrap();
        let signature = signer.sign(Purpose::Receipt, b"x");
        let text = serde_json::to_string(&(signer.public_key(), signature)).unwrap();
        let (key, read): (PublicKey, Signature) = serde_json::from_str(&text).unwrap();
        assert!((key, read) == (signer.public_key(), signature));
        assert!(PublicKey::try_from("AAAA".to_owned()).is_err());
        assert!(!format!("{signer:?}").contains("AQEBAQ"));
    }
}
