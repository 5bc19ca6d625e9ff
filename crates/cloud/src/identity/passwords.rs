//! Passwords: which may be chosen, and Argon2id, all of it away from the async threads.
//!
//! What must stay true:
//! - A hash takes 19 MiB and a core for a moment, so only a few run at once; a request that is dropped does not
//!   free its place before its hash is done.
//! - Checking the password of nobody takes as long as checking that of somebody.

use crate::error::{Error, Result};
use anyhow::anyhow;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as HashError, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use lumbung_shared::FieldError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What people here try first and the estimator's own lists, mostly English, do not have; one a line, in lower case.
const LOCAL: &str = include_str!("local_passwords.txt");
/// A password that so many guesses find is refused. The estimator's list of the most used passwords ends far below.
const GUESSES: u64 = 1_000_000;
/// How much of a password is judged: the estimator's work grows fast with the length, up to seconds.
const JUDGED: usize = 24;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a kept hash may ask for, in KiB, passes and lanes.
const MOST_MEMORY: u32 = 128 * 1024;
const MOST_PASSES: u32 = 16;
const MOST_LANES: u32 = 16;

/// A password as somebody sent it: of a length that may be hashed. Never printed.
pub struct Password(String);

impl Password {
    /// A password to be checked.
    ///
    /// # Errors
    /// The field, with what is wrong.
    pub fn typed(field: &'static str, password: String) -> Result<Self> {
        match password.chars().take(257).count() {
            0 => Err(FieldError::empty(field).into()),
            257 => Err(FieldError::too_long(field, 256).into()),
            _ => Ok(Self(password)),
        }
    }
}

/// What came of checking a password.
#[derive(Debug)]
pub enum Checked {
    Wrong,
    Right,
    /// Right, and its hash is of weaker parameters than ours: this one is to be kept instead.
    Rehashed(String),
}

/// Hashes and checks, a few at a time.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
}

impl Passwords {
    /// Half of the cores, at least one: signing in must leave room for everything else.
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self { turns: Arc::new(Semaphore::new((cores / 2).max(1))) }
    }

    /// What is kept of a new password; `names` are what everybody can guess of its owner.
    ///
    /// # Errors
    /// The field, with what is wrong; [`Error::Busy`] when too many wait.
    pub async fn choose(&self, field: &'static str, password: String, names: &[&str]) -> Result<String> {
        let chosen = Password::typed(field, password)?;
        if chosen.0.chars().take(8).count() < 8 {
            return Err(Error::field(field, "paling sedikit 8 karakter", "must have at least 8 characters"));
        }
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        self.in_turn(move || {
            if is_guessable(&chosen.0, &names) {
                return Err(Error::field(
                    field,
                    "mudah ditebak; pilih beberapa kata yang tidak saling berhubungan",
                    "is easy to guess; choose several words that do not belong together",
                ));
            }
            Ok(hash(&chosen)?)
        })
        .await
    }

    /// Compares with what is kept; with `None`, of nobody, it is wrong and takes as long.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many wait; a kept hash that cannot be read.
    pub async fn check(&self, password: Password, kept: Option<String>) -> Result<Checked> {
        self.in_turn(move || {
            let Some(kept) = kept else {
                hash(&password)?;
                return Ok(Checked::Wrong);
            };
            let kept = PasswordHash::new(&kept).map_err(|error| anyhow!("a kept hash: {error}"))?;
            bounded(&kept)?;
            match ours()?.verify_password(password.0.as_bytes(), &kept) {
                Ok(()) if weaker(&kept) => Ok(Checked::Rehashed(hash(&password)?)),
                Ok(()) => Ok(Checked::Right),
                Err(HashError::PasswordInvalid) => Ok(Checked::Wrong),
                Err(error) => Err(anyhow!("a password cannot be checked: {error}").into()),
            }
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let busy = || Error::Busy { retry_after: 2, reason: "too many sign-ins at once".into() };
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned())
            .await
            .map_err(|_| busy())?
            .map_err(|_| busy())?;
        let worked = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        worked.await.map_err(|error| anyhow!("hashing ended: {error}"))?
    }
}

/// Whether it is one of the most used passwords, or made from such, from the names, or from keys in a row.
fn is_guessable(password: &str, names: &[String]) -> bool {
    let judged: String = password.chars().take(JUDGED).collect();
    let parts = names.iter().flat_map(|name| name.split('@').take(1).chain([name.as_str()]));
    let known: Vec<&str> = LOCAL.lines().chain(parts).collect();
    zxcvbn::zxcvbn(&judged, &known).guesses() < GUESSES
}

/// The parameters that OWASP recommends: 19 MiB, two passes, one lane.
fn ours() -> anyhow::Result<Argon2<'static>> {
    let params = Params::new(19_456, 2, 1, None).map_err(|error| anyhow!("Argon2's parameters: {error}"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &Password) -> anyhow::Result<String> {
    let hash: PasswordHash = ours()?
        .hash_password(password.0.as_bytes())
        .map_err(|error| anyhow!("a password cannot be hashed: {error}"))?;
    Ok(hash.to_string())
}

/// A hash that somebody put into the database must not take the machine's memory, or a core for minutes.
fn bounded(kept: &PasswordHash) -> anyhow::Result<()> {
    let params = Params::try_from(kept).map_err(|error| anyhow!("a kept hash: {error}"))?;
    let within =
        params.m_cost() <= MOST_MEMORY && params.t_cost() <= MOST_PASSES && params.p_cost() <= MOST_LANES;
    anyhow::ensure!(within, "a kept hash asks for more than is ever given: {params:?}");
    Ok(())
}

fn weaker(kept: &PasswordHash) -> bool {
    let Ok(params) = Params::try_from(kept) else { return true };
    kept.algorithm.as_str() != "argon2id" || params.m_cost() < 19_456 || params.t_cost() < 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(password: &str) -> Password {
        Password::typed("password", password.into()).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other_is() {
        let passwords = Passwords::new();
        let kept = passwords.choose("password", "sepeda merah tua".into(), &[]).await.unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        let check =
            async |word: &str, kept: Option<String>| passwords.check(typed(word), kept).await.unwrap();
        assert!(matches!(check("sepeda merah tua", Some(kept.clone())).await, Checked::Right));
        assert!(matches!(check("sepeda merah muda", Some(kept)).await, Checked::Wrong));
        assert!(matches!(check("sepeda merah tua", None).await, Checked::Wrong));
    }

    #[tokio::test]
    async fn a_weaker_hash_is_replaced_when_its_password_comes_by() {
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(1024, 1, 1, None).unwrap());
        let hash: PasswordHash = weak.hash_password(b"sepeda merah tua").unwrap();
        let checked =
            Passwords::new().check(typed("sepeda merah tua"), Some(hash.to_string())).await.unwrap();
        let Checked::Rehashed(new) = checked else { panic!("{checked:?}") };
        assert!(new.contains("m=19456,t=2,p=1"), "{new}");
    }

    #[tokio::test]
    async fn a_hash_that_would_take_the_machine_is_not_computed() {
        let kept = |m: u32, t: u32| {
            format!(
                "$argon2id$v=19$m={m},t={t},p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
            )
        };
        let check = async |kept: String| Passwords::new().check(typed("sepeda merah tua"), Some(kept)).await;
        assert!(matches!(check(kept(MOST_MEMORY, 1)).await, Ok(Checked::Wrong)));
        for heavy in [kept(MOST_MEMORY + 8, 1), kept(1_024, MOST_PASSES + 1)] {
            assert!(matches!(check(heavy.clone()).await, Err(Error::Unexpected(_))), "{heavy}");
        }
    }

    #[test]
    fn a_password_that_anybody_would_try_first_is_refused() {
        let names = ["budi.santoso@example.com".to_owned(), "budisantoso".to_owned()];
        for bad in [
            "Password123",
            "P@ssw0rd",
            "BISMILLAH",
            "alhamdulillah1",
            "88888888",
            "x1x1x1x1",
            "abcdefgh",
            "qwertyuiop12",
            "Budi.Santoso",
            "budi.santoso@example.com",
            "BudiSantoso1",
            "lumbung2026",
            "passwordpasswordpasswordpassword",
        ] {
            assert!(is_guessable(bad, &names), "{bad} was taken");
        }
        let long = "é1".repeat(128);
        for good in
            ["sepeda merah tua", "perahu biru muda", "7Q2M4-X9TKB-0V6HD-R3PWA-C8ZNE-1", "kucing hitam 9"]
        {
            assert!(!is_guessable(good, &names), "{good} was refused");
        }
        assert!(is_guessable(&long, &names), "two characters again and again");
        assert!(
            !is_guessable("BudiSantoso1x", &["siti@example.com".to_owned()]),
            "another's name is no name"
        );
    }

    #[tokio::test]
    async fn a_password_has_8_to_256_characters_of_any_kind() {
        let choose = async |password: String| Passwords::new().choose("password", password, &[]).await;
        for bad in ["".to_owned(), "pendek".to_owned(), "sepeda ".repeat(37)] {
            assert!(matches!(choose(bad.clone()).await, Err(Error::Fields(_))), "{bad} was taken");
        }
        let long = format!("sepeda merah tua {}", "é".repeat(239));
        assert!(choose(long).await.is_ok(), "256 characters are not 256 bytes");
    }

    #[test]
    fn the_local_list_has_only_what_the_estimator_would_let_through() {
        for known in LOCAL.lines() {
            assert_eq!(known, known.to_lowercase());
            assert!(zxcvbn::zxcvbn(known, &[]).guesses() >= GUESSES, "{known} need not be listed");
        }
    }
}
