//! With what this gateway signs what people carry: the file `signing.json` (mode 0600) in the data directory.
//!
//! What must stay true:
//! - The key is made once and never replaced: what it signed must stay provable. It is as secret as the
//!   gateway's other key, which is in a file of its own so that neither is ever written over for the other.
//! - The cloud's receipt key is kept as it was first told for a gateway; only a new enrolment changes it.

use crate::durable;
use lumbung_shared::signing::{PublicKey, Signer};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "signing.json";

#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path} is not a signing key of this program")]
    Content { path: PathBuf },
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// The cloud that knows this gateway's signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The gateway's code there.
    pub gateway_id: String,
    /// What was registered: a file put back from a backup may hold another key.
    pub public_key: PublicKey,
    /// With what that cloud signs its receipts.
    pub receipt_key: PublicKey,
}

#[derive(Serialize, Deserialize)]
struct Content {
    /// 32 bytes in hex.
    seed: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registered: Option<Registered>,
}

/// The file, in one data directory.
#[derive(Debug, Clone)]
pub struct SigningFile {
    dir: PathBuf,
}

impl SigningFile {
    pub fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// The key and the cloud that knows it; `None` while there is no file.
    pub fn read(&self) -> Result<Option<(Signer, Option<Registered>)>, SigningError> {
        let Some(content) = self.content()? else { return Ok(None) };
        let signer = seed(&content.seed).and_then(|seed| Signer::from_seed(&seed).ok());
        let signer = signer.ok_or_else(|| SigningError::Content { path: self.path() })?;
        let registered = content.registered.filter(|known| known.public_key == signer.public_key());
        Ok(Some((signer, registered)))
    }

    /// The key, made now if there is none yet, and who knows it.
    pub fn read_or_make(&self) -> Result<(Signer, Option<Registered>), SigningError> {
        if let Some(found) = self.read()? {
            return Ok(found);
        }
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed).map_err(|error| SigningError::Random(error.to_string()))?;
        let seed = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        self.write(&Content { seed, registered: None })?;
        // What is in the file counts: another process may have been there too.
        self.read()?.ok_or_else(|| SigningError::Content { path: self.path() })
    }

    /// Keeps what the cloud told when it took the key.
    pub fn keep(&self, registered: Registered) -> Result<(), SigningError> {
        let content = self.content()?.ok_or_else(|| SigningError::Content { path: self.path() })?;
        self.write(&Content { registered: Some(registered), ..content })
    }

    fn content(&self) -> Result<Option<Content>, SigningError> {
        let text = match fs::read_to_string(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SigningError::File { path: self.path(), error }),
        };
        // serde's own words would quote the text, which is a secret.
        serde_json::from_str(&text).map(Some).map_err(|_| SigningError::Content { path: self.path() })
    }

    fn write(&self, content: &Content) -> Result<(), SigningError> {
        let text = serde_json::to_vec(content).map_err(|_| SigningError::Content { path: self.path() })?;
        durable::replace(&self.dir, FILE, &text)
            .map_err(|error| SigningError::File { path: self.path(), error })
    }
}

fn seed(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = SigningFile::in_dir(dir.path());
        assert!(file.read().unwrap().is_none());
        let (made, registered) = file.read_or_make().unwrap();
        assert_eq!(registered, None);
        let public_key = made.public_key();
        let told = Registered { gateway_id: "GW-1".into(), public_key, receipt_key: public_key };
        file.keep(told.clone()).unwrap();
        let (again, registered) = file.read_or_make().unwrap();
        assert_eq!((again.public_key(), registered), (public_key, Some(told)));
        let foreign = Signer::from_seed(&[1; 32]).unwrap().public_key();
        file.keep(Registered { gateway_id: "GW-1".into(), public_key: foreign, receipt_key: foreign })
            .unwrap();
        assert_eq!(file.read_or_make().unwrap().1, None, "another key was registered, not this one");
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_named_without_showing_it_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = SigningFile::in_dir(dir.path());
        for damage in ["{\"seed\": \"abcdef", "{\"seed\": \"abcdef\"}", ""] {
            fs::write(file.path(), damage).unwrap();
            let problem = file.read_or_make().unwrap_err().to_string();
            assert!(problem.contains(FILE) && !problem.contains("abcdef"), "{problem}");
            assert_eq!(fs::read_to_string(file.path()).unwrap(), damage);
        }
    }
}
