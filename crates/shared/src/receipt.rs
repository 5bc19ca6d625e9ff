//! The cloud's word on a bundle, carried back to its gateway.

use crate::signing::{PublicKey, Purpose, Signature, Signer};
use crate::wire::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format this build writes and reads.
pub const FORMAT: u16 = 1;
/// Most bytes of a receipt.
pub const MAX_BYTES: usize = 8 << 20;

/// What the cloud holds now. A record is named by its run as well: another card's numbers are not meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    pub format: u16,
    pub gateway_id: String,
    /// The bundle's name.
    pub bundle: String,
    /// RFC 3339, the cloud's clock.
    pub issued_at: String,
    pub runs: Vec<HeldRun>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRun {
    pub epoch: Epoch,
    pub streams: BTreeMap<String, HeldStream>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStream {
    /// First and last number, both included: accepted, duplicate or quarantined, the cloud has them.
    pub held: Vec<(i64, i64)>,
    /// Of those, how many it had before.
    #[serde(default)]
    pub duplicates: u64,
    /// Of those, which it keeps unread, and why: first, last, reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<(i64, i64, String)>,
}

/// A statement and the cloud's signature over its very text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    statement: String,
    signature: Signature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error("this is not a receipt of a Lumbung cloud")]
    NotAReceipt,
    #[error("the receipt is not signed by the cloud that this gateway knows")]
    Signature,
    #[error("the receipt has format {0}, which this program does not know; update it")]
    Format(u16),
}

impl Receipt {
    /// # Errors
    /// When the statement cannot be written.
    pub fn sign(statement: &Statement, signer: &Signer) -> serde_json::Result<Self> {
        let statement = serde_json::to_string(statement)?;
        let signature = signer.sign(Purpose::Receipt, statement.as_bytes());
        Ok(Self { statement, signature })
    }

    /// # Errors
    /// [`ReceiptError::NotAReceipt`].
    pub fn read(text: &[u8]) -> Result<Self, ReceiptError> {
        let text = text.get(..=MAX_BYTES).map_or(Ok(text), |_| Err(ReceiptError::NotAReceipt))?;
        serde_json::from_slice(text).map_err(|_| ReceiptError::NotAReceipt)
    }

    /// What it says, if that cloud said it.
    ///
    /// # Errors
    /// [`ReceiptError`]; nothing of it may be believed then.
    pub fn open(&self, cloud: &PublicKey) -> Result<Statement, ReceiptError> {
        if !cloud.verifies(Purpose::Receipt, self.statement.as_bytes(), &self.signature) {
            return Err(ReceiptError::Signature);
        }
        // A newer format may have other fields: its number is read first.
        #[derive(Deserialize)]
        struct Version {
            format: u16,
        }
        let read = |_| ReceiptError::NotAReceipt;
        let Version { format } = serde_json::from_str(&self.statement).map_err(read)?;
        if format != FORMAT {
            return Err(ReceiptError::Format(format));
        }
        serde_json::from_str(&self.statement).map_err(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        let stream =
            HeldStream { held: vec![(1, 9)], duplicates: 2, quarantined: vec![(4, 4, "bad".into())] };
        Statement {
            format: FORMAT,
            gateway_id: "GW-1".into(),
            bundle: "x".into(),
            issued_at: "2026-11-21T00:00:00.000Z".into(),
            runs: vec![HeldRun { epoch: Epoch(7), streams: [("scan".to_owned(), stream)].into() }],
        }
    }

    #[test]
    fn a_receipt_says_what_was_signed_and_only_its_clouds_key_opens_it() {
        let cloud = Signer::from_seed(&[1; 32]).unwrap();
        let text = serde_json::to_vec(&Receipt::sign(&statement(), &cloud).unwrap()).unwrap();
        let receipt = Receipt::read(&text).unwrap();
        assert_eq!(receipt.open(&cloud.public_key()).unwrap(), statement());
        let other = Signer::from_seed(&[2; 32]).unwrap();
        assert_eq!(receipt.open(&other.public_key()), Err(ReceiptError::Signature));
        let forged = Receipt { statement: receipt.statement.replace("[1,9]", "[1,99]"), ..receipt };
        assert_eq!(forged.open(&cloud.public_key()), Err(ReceiptError::Signature));
        assert_eq!(Receipt::read(b"{}"), Err(ReceiptError::NotAReceipt));
    }
}
