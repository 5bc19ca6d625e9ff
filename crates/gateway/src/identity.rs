//! Who this gateway is to the cloud: the file `identity.json` (mode 0600) in the data directory.
//!
//! What must stay true:
//! - A new key is in the file, durably, before the cloud ever sees it: an answer that got lost is asked
//!   for again with the same key.
//! - The key never appears in a log or an error.

use crate::durable;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const FILE: &str = "identity.json";

/// A gateway's key. Shows itself to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// Draws a new key: `lbg_` and 32 random bytes in base64url.
    pub fn draw() -> Result<Self, IdentityError> {
        use base64::Engine;
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(|error| IdentityError::Random(error.to_string()))?;
        let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        Ok(Self(format!("{}{body}", lumbung_shared::enrol::KEY_PREFIX)))
    }

    /// A text that is as secret as a key.
    pub fn secret(text: String) -> Self {
        Self(text)
    }

    /// The key itself, for the one header that carries it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `None` until the first enrolment succeeded.
    #[serde(flatten)]
    pub enrolled: Option<Enrolment>,
    /// A key the cloud may or may not know yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
}

/// A gateway that the cloud knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    pub gateway_id: String,
    pub site: Site,
    /// The cloud's base address.
    pub cloud_url: String,
    pub key: Key,
    /// RFC 3339, the cloud's clock.
    pub enrolled_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    pub code: String,
    pub name: String,
    pub time_zone: String,
}

/// A key on its way to the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "purpose", rename_all = "lowercase")]
pub enum Pending {
    Enrol { cloud_url: String, claim: Key, key: Key },
    Rotate { key: Key },
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path} is not an identity file of this program: {error}")]
    Content { path: PathBuf, error: String },
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// The file, in one data directory.
#[derive(Debug, Clone)]
pub struct IdentityFile {
    dir: PathBuf,
    path: PathBuf,
}

/// Tells one content of the file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also another owner or mode may make it readable.
    changed: (i64, i64),
}

impl IdentityFile {
    pub fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), path: dir.join(FILE) }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes whenever the file is written anew; `None` while there is none.
    pub fn stamp(&self) -> Option<Stamp> {
        let meta = fs::metadata(&self.path).ok()?;
        Some(Stamp {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// The identity; an empty one while there is no file.
    pub fn read(&self) -> Result<Identity, IdentityError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Identity::default()),
            Err(error) => return Err(self.file_error(error)),
        };
        // serde's message would quote the text it stumbled over, which may be a key.
        serde_json::from_str(&text).map_err(|error| IdentityError::Content {
            path: self.path.clone(),
            error: format!("line {}, column {}", error.line(), error.column()),
        })
    }

    /// Puts a new content in place: all of it or none, and durably.
    pub fn write(&self, identity: &Identity) -> Result<(), IdentityError> {
        let text = serde_json::to_string_pretty(identity)
            .map_err(|error| IdentityError::Content { path: self.path.clone(), error: error.to_string() })?;
        durable::replace(&self.dir, FILE, text.as_bytes()).map_err(|error| self.file_error(error))
    }

    fn file_error(&self, error: io::Error) -> IdentityError {
        IdentityError::File { path: self.path.clone(), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_survives_the_file_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = IdentityFile::in_dir(dir.path());
        assert_eq!(file.read().unwrap(), Identity::default());
        assert_eq!(file.stamp(), None);
        let key = Key::draw().unwrap();
        assert!(lumbung_shared::enrol::is_key(key.reveal()));
        let pending = Pending::Enrol {
            cloud_url: "http://c".into(),
            claim: Key::secret("ABCD-EFGH".into()),
            key: key.clone(),
        };
        let identity = Identity { enrolled: None, pending: Some(pending) };
        file.write(&identity).unwrap();
        let first = file.stamp();
        assert_eq!(file.read().unwrap(), identity);
        let site = Site { code: "DAPUR-1".into(), name: "Dapur".into(), time_zone: "Asia/Jakarta".into() };
        let enrolled = Identity {
            enrolled: Some(Enrolment {
                gateway_id: "GW-1".into(),
                site,
                cloud_url: "http://c".into(),
                key: key.clone(),
                enrolled_at: "2026-11-21T00:00:00Z".into(),
            }),
            pending: Some(Pending::Rotate { key: key.clone() }),
        };
        file.write(&enrolled).unwrap();
        assert_eq!(file.read().unwrap(), enrolled);
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(file.stamp(), first);
        assert!(!format!("{identity:?}").contains(key.reveal()));
    }

    #[test]
    fn a_damaged_file_is_named_without_showing_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = IdentityFile::in_dir(dir.path());
        fs::write(file.path(), "{\"pending\": \"lbg_secret\"}").unwrap();
        let problem = file.read().unwrap_err().to_string();
        assert!(problem.contains("identity.json") && !problem.contains("secret"), "{problem}");
    }
}
