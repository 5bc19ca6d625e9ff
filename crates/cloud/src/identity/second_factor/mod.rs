//! A second way to show who somebody is, beside the password or Google's word: the codes of an authenticator app
//! (TOTP, RFC 6238).
//!
//! What must stay true:
//! - A secret is kept encrypted, with a key that the database does not have, for one account alone.
//! - It counts once a code has shown that the app has it, and from then on no sign-in goes without.
//! - A code is good once: the step of the last one is kept, and none of that step or before it is taken.
//! - Codes are tried as slowly as passwords and counted by themselves: a right password forgives no wrong code.
//! - Without the key nobody is let in for its sake; recovery codes need none.

pub mod own;
pub mod sign_in;

use super::notices;
use super::people::People;
use super::secret;
use super::sessions;
use crate::audit::{Action, By, Object};
use crate::error::{Error, Result};
use anyhow::anyhow;
use chrono::Utc;
use serde_json::json;
use sqlx::PgConnection;
use totp_rs::{Algorithm, Builder, Totp};

/// How authenticator apps know us.
const ISSUER: &str = "Lumbung";
const RECOVERY_CODES: usize = 10;

/// Codes of a secret: six digits, every 30 seconds, one step early or late. SHA-1 because apps ignore anything else.
fn codes_of(secret: Vec<u8>, email: &str) -> anyhow::Result<Totp> {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(30)
        .with_skew(1)
        .with_secret(secret)
        .with_issuer(Some(ISSUER))
        .with_account_name(email)
        .build()
        .map_err(|error| anyhow!("a second factor's secret: {error}"))
}

/// Which step a code is of, if it is of one that may still be used.
fn step_of(codes: &Totp, typed: &str, now: i64, used: i64) -> Option<i64> {
    let step = codes.check(typed, u64::try_from(now).ok()?)?;
    i64::try_from(step).ok().filter(|step| *step > used)
}

/// A code as it was meant: apps show it in two groups.
fn without_spaces(typed: &str) -> String {
    typed.chars().filter(|c| !c.is_whitespace()).collect()
}

/// What somebody typed is so short that nothing bad can be done with it.
fn check_code(code: &str) -> Result<()> {
    let good = (6..=64).contains(&code.chars().take(65).count());
    good.then_some(()).ok_or_else(|| {
        Error::field(
            "code",
            "harus kode dari aplikasi atau kode pemulihan",
            "must be a code of the app or a recovery code",
        )
    })
}

/// Whether a sign-in to the account needs a code.
pub(super) async fn is_on(conn: &mut PgConnection, user_id: i64) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from user_totp where user_id = $1 and confirmed_at is not null) as "on!""#,
        user_id
    )
    .fetch_one(conn)
    .await
}

/// A right code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Code,
    /// One of those for a lost app; how many are left.
    Recovery {
        left: i64,
    },
}

/// Takes a code, so that it is good no more once the caller's transaction is through. None for a wrong one. The
/// caller holds the account's row.
async fn take(conn: &mut PgConnection, people: &People, user_id: i64, typed: &str) -> Result<Option<Taken>> {
    let Some(factor) = sqlx::query!(
        "select sealed_secret, used_step from user_totp where user_id = $1 and confirmed_at is not null",
        user_id
    )
    .fetch_optional(&mut *conn)
    .await?
    else {
        return Ok(None);
    };
    let typed = without_spaces(typed);
    if typed.len() == 6 {
        let codes = codes_of(people.vault.unseal(user_id, &factor.sealed_secret)?, "")?;
        let Some(step) = step_of(&codes, &typed, Utc::now().timestamp(), factor.used_step) else {
            return Ok(None);
        };
        sqlx::query!("update user_totp set used_step = $2 where user_id = $1", user_id, step)
            .execute(conn)
            .await?;
        return Ok(Some(Taken::Code));
    }
    let used = sqlx::query!(
        "delete from recovery_code where user_id = $1 and code_hash = $2",
        user_id,
        secret::hash(&secret::normalise_claim(&typed))
    );
    if used.execute(&mut *conn).await?.rows_affected() == 0 {
        return Ok(None);
    }
    let left =
        sqlx::query_scalar!(r#"select count(*) as "left!" from recovery_code where user_id = $1"#, user_id)
            .fetch_one(conn)
            .await?;
    Ok(Some(Taken::Recovery { left }))
}

/// What happened to somebody's second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    On,
    Off,
    /// By an admin, or at the command line.
    Reset,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Reset => "reset",
        }
    }
}

/// Signs every other device out, and tells the audit and the person. `here` is the session that asked.
async fn changed(
    conn: &mut PgConnection,
    user_id: i64,
    change: Change,
    by: &By,
    here: Option<i64>,
) -> Result<()> {
    sessions::end_all(conn, user_id, here).await?;
    notices::second_factor_changed(conn, user_id, change.word()).await?;
    let detail = json!({ "change": change.word() });
    by.did(conn, Action::SecondFactorChanged, Object::new("user", &user_id), None, detail).await
}

/// Takes the second factor from an account whose person lost it. They are signed out everywhere, within a second.
///
/// # Errors
/// `OWN_ACCOUNT`, `NOT_FOUND`, `TOTP_OFF`, or the database's.
pub async fn reset(conn: &mut PgConnection, user_id: i64, by: &By) -> Result<()> {
    if by.person() == Some(user_id) {
        // With a stolen session an admin would be rid of it. Their own they switch off, with a code.
        return Err(Error::Conflict("OWN_ACCOUNT"));
    }
    hold(conn, user_id).await?;
    if !remove(conn, user_id).await? {
        return Err(Error::Conflict("TOTP_OFF"));
    }
    changed(conn, user_id, Change::Reset, by, None).await
}

/// One change of an account at a time.
async fn hold(conn: &mut PgConnection, user_id: i64) -> Result<()> {
    sqlx::query_scalar!("select user_id from app_user where user_id = $1 for update", user_id)
        .fetch_optional(conn)
        .await?
        .map(|_| ())
        .ok_or(Error::NotFound("NOT_FOUND"))
}

/// False when there was none that counted.
async fn remove(conn: &mut PgConnection, user_id: i64) -> sqlx::Result<bool> {
    let counted = sqlx::query_scalar!(
        r#"delete from user_totp where user_id = $1 returning confirmed_at is not null as "counted!""#,
        user_id
    );
    Ok(counted.fetch_optional(conn).await? == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B: its SHA-1 codes are of eight digits, ours are their last six.
    #[test]
    fn the_codes_are_those_of_the_rfc() {
        let codes = codes_of(b"12345678901234567890".to_vec(), "budi@example.com").unwrap();
        for (now, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(step_of(&codes, code, now, 0), Some(now / 30), "{now}");
        }
    }

    #[test]
    fn a_code_is_good_for_a_step_more_and_once() {
        let codes = codes_of(b"12345678901234567890".to_vec(), "").unwrap();
        let (now, step) = (1_111_111_111, 1_111_111_111 / 30);
        for (at, good) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            assert_eq!(step_of(&codes, "050471", now + at * 30, 0), good.then_some(step), "{at}");
        }
        assert_eq!(step_of(&codes, "050471", now, step), None, "it was used");
        assert_eq!(step_of(&codes, "050471", now, step + 1), None, "a later one was used");
        assert_eq!(step_of(&codes, "050471", now, step - 1), Some(step));
        for bad in ["", "05047", "0504711", "+50471", "05047x", "٠٥٠٤٧١"] {
            assert_eq!(step_of(&codes, bad, now, 0), None, "{bad}");
        }
    }

    #[test]
    fn an_app_is_told_whose_codes_they_are() {
        let uri = codes_of(b"12345678901234567890".to_vec(), "budi+x@example.com").unwrap().to_url().unwrap();
        assert!(uri.starts_with("otpauth://totp/Lumbung:budi"), "{uri}");
        for part in ["secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "issuer=Lumbung"] {
            assert!(uri.contains(part), "{uri}");
        }
    }
}
