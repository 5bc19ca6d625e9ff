//! How a gateway becomes known to the cloud.
//!
//! The gateway draws its own key and sends it with the operator's claim, so a lost answer costs
//! nothing: the same claim with the same key is the same enrolment.

use crate::signing::{PublicKey, Purpose, Signature, Signer};
use serde::{Deserialize, Serialize};

/// What every gateway key starts with, so that a leaked one is recognised for what it is.
pub const KEY_PREFIX: &str = "lbg_";
/// Characters after the prefix: 32 random bytes in base64url without padding.
pub const KEY_BODY_CHARS: usize = 43;

/// Whether a text has the form of a gateway key.
pub fn is_key(text: &str) -> bool {
    text.strip_prefix(KEY_PREFIX).is_some_and(|body| {
        body.len() == KEY_BODY_CHARS
            && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

/// `POST /api/gateways/enrol`
#[derive(Debug, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The operator's single-use claim, dashes and case ignored.
    pub claim: String,
    /// The gateway's own new key.
    pub key: String,
    /// The board's serial number where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// With what it will sign bundles that people carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<SigningKey>,
}

/// A gateway's public signing key, and the proof that it holds the other half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    pub public_key: PublicKey,
    /// Over the bearer key that goes with the same request.
    pub proof: Signature,
}

impl SigningKey {
    pub fn new(signer: &Signer, bearer: &str) -> Self {
        Self { public_key: signer.public_key(), proof: signer.sign(Purpose::Possession, bearer.as_bytes()) }
    }

    pub fn is_proven(&self, bearer: &str) -> bool {
        self.public_key.verifies(Purpose::Possession, bearer.as_bytes(), &self.proof)
    }
}

/// What the cloud says of an enrolled gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The gateway's code.
    pub gateway_id: String,
    pub site: EnrolledSite,
    /// RFC 3339.
    pub server_time: String,
    /// With what the cloud signs receipts for carried bundles; the gateway keeps to the first it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_key: Option<PublicKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolledSite {
    pub code: String,
    pub name: String,
    /// IANA name, `Asia/Jakarta`.
    pub time_zone: String,
}

/// `POST /api/gateways/rotate`, with the old key as Bearer. The old key stays good until the new one
/// was first used.
#[derive(Debug, Serialize, Deserialize)]
pub struct RotateRequest {
    pub new_key: String,
}
