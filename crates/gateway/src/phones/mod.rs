//! The officers' phones that may talk to this gateway: `phones.json` (mode 0600) in the data directory.
//!
//! What must stay true:
//! - A token is known to its phone alone: the file holds the token's SHA-256.
//! - A phone is in the file, durably, before it hears its token; it is out of the file, durably, before
//!   anybody hears that it is revoked. From then on its next request is refused.
//! - Looking up a token takes the same time whichever phone it belongs to, or none.
//! - A file that cannot be read is put aside, never written over; scans from the reader are taken all the same.

mod certificate;
mod pairing;

pub use certificate::{Certificate, CertificateError};
pub use pairing::{Opened, Paired, Terms};

use crate::durable;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lumbung_shared::time::rfc3339;
use pairing::Pairings;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use subtle::{ConditionallySelectable, ConstantTimeEq};

const FILE: &str = "phones.json";
const TOKEN_PREFIX: &str = "lbp_";
/// More than any checkpoint has officers; a list that grows for ever would wear the card.
const MOST_PHONES: usize = 64;
/// How often the times of last use may be written: they are not worth more of the card.
const LAST_USE_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// A paired phone, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phone {
    pub id: String,
    pub name: String,
    /// Whose phone it is: stands on all its scans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub officer: Option<String>,
    /// Whether it may pair and revoke other phones.
    #[serde(default)]
    pub may_pair: bool,
    /// RFC 3339, the gateway's clock.
    pub paired_at: String,
    #[serde(default)]
    pub last_used_at: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    phone: Phone,
    token_sha256: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    phones: Vec<Kept>,
}

#[derive(Debug, thiserror::Error)]
pub enum PhonesError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    #[error("{MOST_PHONES} phones are paired already; revoke one that is not used any more")]
    TooMany,
    #[error("no phone has this id")]
    Unknown,
    /// The six digits or the secret are not, or no longer, those of an open pairing.
    #[error("the pairing code is wrong, used or too old")]
    WrongCode,
    /// So many wrong codes came that digits are not looked at for a while.
    #[error("too many wrong pairing codes; scan the QR code, or try again in {0:?}")]
    TooManyTries(Duration),
    #[error("the phone must say its name")]
    NoName,
}

/// Everything the gateway knows of phones.
#[derive(Debug)]
pub struct Phones {
    dir: PathBuf,
    /// Read by every request; replaced whole after a write.
    kept: RwLock<Arc<Vec<Kept>>>,
    /// Held while the file is written, so that what is kept and what counts is one thing.
    writing: Mutex<Instant>,
    /// Times of last use since the file was written, by id.
    used: Mutex<HashMap<String, String>>,
    pairings: Mutex<Pairings>,
}

impl Phones {
    /// The phones of a data directory.
    pub fn in_dir(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let content = match std::fs::read(&path) {
            // The message of the parser would quote what it stumbled over.
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("line {}", error.line())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(error.to_string()),
        };
        let content = content.unwrap_or_else(|error| {
            let kept = std::fs::rename(&path, dir.join(format!("{FILE}.damaged"))).is_ok();
            tracing::error!(error, kept, "{FILE} cannot be read: pair the phones again");
            Content::default()
        });
        Self {
            dir: dir.to_owned(),
            kept: RwLock::new(Arc::new(content.phones)),
            writing: Mutex::new(Instant::now()),
            used: Mutex::default(),
            pairings: Mutex::default(),
        }
    }

    /// The phones, oldest first, with when each was last heard.
    pub fn list(&self) -> Vec<Phone> {
        let used = locked(&self.used);
        let with_use = |kept: &Kept| {
            let mut phone = kept.phone.clone();
            if let Some(at) = used.get(&phone.id) {
                phone.last_used_at = Some(at.clone());
            }
            phone
        };
        self.snapshot().iter().map(with_use).collect()
    }

    /// The phone that a token belongs to; notes that it was used.
    pub fn of_token(&self, token: &str, now_ms: i64) -> Option<Phone> {
        let given = hash(token);
        let kept = self.snapshot();
        let mut found = u32::MAX;
        for (at, each) in (0u32..).zip(kept.iter()) {
            let same = each.token_sha256.as_bytes().ct_eq(given.as_bytes());
            found.conditional_assign(&at, same);
        }
        let phone = kept.get(usize::try_from(found).ok()?)?.phone.clone();
        locked(&self.used).insert(phone.id.clone(), rfc3339(now_ms));
        Some(phone)
    }

    /// Opens a pairing: whoever brings the digits or the secret within ten minutes becomes a phone.
    pub fn open_pairing(&self, terms: Terms) -> Result<Opened, PhonesError> {
        locked(&self.pairings).open(terms, Instant::now())
    }

    /// A phone brings a code and its own name; it hears its token, once. Writes a file: not for async threads.
    pub fn pair(&self, code: &str, name: Option<&str>, now_ms: i64) -> Result<Paired, PhonesError> {
        let now = Instant::now();
        let open = locked(&self.pairings).redeem(code, now)?;
        let added = self.add(&open.terms, name, now_ms);
        if added.is_err() {
            // The code was right; what failed is ours or can be mended by the caller.
            locked(&self.pairings).put_back(open);
        }
        added
    }

    fn add(&self, terms: &Terms, name: Option<&str>, now_ms: i64) -> Result<Paired, PhonesError> {
        let name = terms.name.as_deref().or(name).ok_or(PhonesError::NoName)?.to_owned();
        let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random::<32>()?));
        let phone = Phone {
            id: hex(&random::<4>()?),
            name,
            officer: terms.officer.clone(),
            may_pair: terms.may_pair,
            paired_at: rfc3339(now_ms),
            last_used_at: None,
        };
        let kept = Kept { phone: phone.clone(), token_sha256: hash(&token) };
        self.change(|phones| {
            if phones.len() >= MOST_PHONES || phones.iter().any(|other| other.phone.id == phone.id) {
                return Err(PhonesError::TooMany);
            }
            phones.push(kept);
            Ok(())
        })?;
        Ok(Paired { phone, token })
    }

    /// Takes a phone's right to talk to the gateway. Writes a file: not for async threads.
    pub fn revoke(&self, id: &str) -> Result<Phone, PhonesError> {
        let mut gone = None;
        self.change(|phones| {
            let at = phones.iter().position(|kept| kept.phone.id == id).ok_or(PhonesError::Unknown)?;
            gone = Some(phones.remove(at).phone);
            Ok(())
        })?;
        locked(&self.used).remove(id);
        gone.ok_or(PhonesError::Unknown)
    }

    /// Writes the times of last use if that is due, or if this is the end. Not for async threads.
    pub fn write_last_use(&self, at_the_end: bool) -> Result<(), PhonesError> {
        let due = at_the_end || locked(&self.writing).elapsed() >= LAST_USE_EVERY;
        let nothing = locked(&self.used).is_empty();
        if !due || nothing { Ok(()) } else { self.change(|_| Ok(())) }
    }

    /// Changes the list: on the card first, then here.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Kept>) -> Result<(), PhonesError>,
    ) -> Result<(), PhonesError> {
        let mut written = locked(&self.writing);
        let mut phones = Vec::clone(&self.snapshot());
        change(&mut phones)?;
        let used = locked(&self.used).clone();
        for kept in &mut phones {
            if let Some(at) = used.get(&kept.phone.id) {
                kept.phone.last_used_at = Some(at.clone());
            }
        }
        let file = |error| PhonesError::File { path: self.dir.join(FILE), error };
        let content = Content { phones };
        let text = serde_json::to_vec_pretty(&content).map_err(|error| file(error.into()))?;
        durable::replace(&self.dir, FILE, &text).map_err(file)?;
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(content.phones);
        // A use that came in meanwhile stays for the next time.
        locked(&self.used).retain(|id, at| used.get(id) != Some(at));
        *written = Instant::now();
        Ok(())
    }

    fn snapshot(&self) -> Arc<Vec<Kept>> {
        Arc::clone(&self.kept.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Nothing done under these locks can leave what they hold half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random<const N: usize>() -> Result<[u8; N], PhonesError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|error| PhonesError::Random(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn terms(officer: Option<&str>) -> Terms {
        Terms { officer: officer.map(str::to_owned), name: None, may_pair: false }
    }

    fn paired(phones: &Phones, officer: Option<&str>) -> Paired {
        let opened = phones.open_pairing(terms(officer)).unwrap();
        phones.pair(&opened.digits, Some("HP Sari"), 0).unwrap()
    }

    #[test]
    fn a_paired_phone_is_known_by_its_token_also_after_a_restart_and_until_it_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let phones = Phones::in_dir(dir.path());
        let (one, two) = (paired(&phones, Some("P-07")), paired(&phones, None));
        assert_ne!(one.token, two.token);
        let phones = Phones::in_dir(dir.path());
        assert_eq!(phones.of_token(&one.token, 1_000), Some(one.phone.clone()));
        assert_eq!(phones.of_token(&two.token, 1_000), Some(two.phone.clone()));
        for wrong in ["", "lbp_", &one.token[..20], &format!("{}x", one.token)] {
            assert_eq!(phones.of_token(wrong, 1_000), None, "{wrong}");
        }
        assert_eq!(phones.revoke(&one.phone.id).unwrap(), one.phone);
        assert_eq!(phones.of_token(&one.token, 1_000), None);
        assert!(matches!(phones.revoke(&one.phone.id), Err(PhonesError::Unknown)));
        let phones = Phones::in_dir(dir.path());
        assert_eq!(phones.of_token(&one.token, 1_000), None);
        assert!(phones.of_token(&two.token, 1_000).is_some());
    }

    #[test]
    fn the_file_is_its_owners_alone_and_holds_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let phones = Phones::in_dir(dir.path());
        let phone = paired(&phones, None);
        let path = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(&hash(&phone.token)) && !text.contains(&phone.token[TOKEN_PREFIX.len()..]));
    }

    #[test]
    fn the_last_use_is_shown_at_once_and_written_only_when_that_is_due() {
        let dir = tempfile::tempdir().unwrap();
        let phones = Phones::in_dir(dir.path());
        let phone = paired(&phones, None);
        phones.of_token(&phone.token, 7_000).unwrap();
        assert_eq!(phones.list()[0].last_used_at, Some(rfc3339(7_000)));
        phones.write_last_use(false).unwrap();
        assert_eq!(Phones::in_dir(dir.path()).list()[0].last_used_at, None, "written too often");
        phones.write_last_use(true).unwrap();
        assert_eq!(Phones::in_dir(dir.path()).list()[0].last_used_at, Some(rfc3339(7_000)));
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let phone = paired(&Phones::in_dir(dir.path()), None);
        let path = dir.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        let phones = Phones::in_dir(dir.path());
        assert_eq!(phones.of_token(&phone.token, 0), None);
        paired(&phones, None);
        assert!(dir.path().join("phones.json.damaged").exists());
    }

    #[test]
    fn a_code_whose_phone_could_not_be_kept_is_not_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let phones = Phones::in_dir(dir.path());
        let opened = phones.open_pairing(terms(None)).unwrap();
        assert!(matches!(phones.pair(&opened.digits, None, 0), Err(PhonesError::NoName)));
        let elsewhere = dir.path().with_extension("moved");
        std::fs::rename(dir.path(), &elsewhere).unwrap();
        let full = phones.pair(&opened.digits, Some("HP"), 0);
        std::fs::rename(&elsewhere, dir.path()).unwrap();
        assert!(matches!(full, Err(PhonesError::File { .. })), "{full:?}");
        assert!(phones.list().is_empty());
        phones.pair(&opened.digits, Some("HP"), 0).unwrap();
    }
}
