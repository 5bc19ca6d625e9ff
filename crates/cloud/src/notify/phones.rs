//! Telephones that text messages are sent to.
//!
//! What must stay true:
//! - Nothing but the code goes to a number that its person has not shown to be theirs, and nothing at all to one that
//!   they gave up meanwhile: that is asked when a message leaves, not when it is written.
//! - A person causes at most [`DAILY`] text messages a day, and so does everybody together to one number: whoever
//!   makes others pay for messages, or a stranger's telephone ring, gets no further. Each is one part of a message.
//! - Of a code only the hash is kept here, and it bears few guesses.
//! - A message is counted against the installation's day before it leaves.

use super::kind::Kind;
use super::render::{self, Rendered};
use crate::audit::{Action, By, Object};
use crate::error::{Error, Language, Result};
use crate::outside::{Outside, Text, Undelivered};
use crate::random;
use anyhow::Context;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};

/// Text messages that a person, and a number, gets within 24 hours.
const DAILY: i64 = 5;
/// Guesses at one code.
const GUESSES: i32 = 5;
const CODE_MINUTES: i32 = 10;

/// A number as the world writes it (E.164): `+62812…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(String);

impl Number {
    /// As people type it: spaces, dashes, dots and brackets do not count, and 0812 is +62812.
    pub fn parse(typed: &str) -> Option<Self> {
        let bare: String = typed.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')')).collect();
        let digits = match (bare.strip_prefix('+'), bare.strip_prefix('0')) {
            (Some(digits), _) => digits.to_owned(),
            (None, Some(national)) => format!("62{national}"),
            _ => return None,
        };
        let fits = (7..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|digit| digit.is_ascii_digit());
        fits.then(|| Self(format!("+{digits}")))
    }

    /// Whether it begins with one of these: `+62`.
    pub fn is_of(&self, countries: &[String]) -> bool {
        countries.iter().any(|country| self.0.starts_with(country))
    }
}

/// A person's telephone.
#[derive(Debug)]
pub struct Phone {
    pub number: String,
    pub verified: bool,
}

/// # Errors
/// The database's.
pub async fn of(conn: &mut PgConnection, user_id: i64) -> Result<Option<Phone>> {
    Ok(sqlx::query_as!(
        Phone,
        r#"select number, verified_at is not null as "verified!" from phone where user_id = $1"#,
        user_id
    )
    .fetch_optional(conn)
    .await?)
}

/// Makes it the person's number and sends it a code, unless it is theirs already.
///
/// # Errors
/// [`Error::TooMany`] when the person or the number was sent enough today, or the database's.
pub async fn ask(
    conn: &mut PgConnection,
    user_id: i64,
    Number(number): &Number,
    language: Language,
    by: &By,
) -> Result<()> {
    if of(conn, user_id).await?.is_some_and(|phone| phone.verified && phone.number == *number) {
        return Ok(());
    }
    // Until the end: of two that ask for one number at once, the second counts the first one's message.
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 0))", number).execute(&mut *conn).await?;
    let code = draw()?;
    // And the row is the person's own lock.
    sqlx::query!(
        "insert into phone (user_id, number, code_hash, code_expires_at)
         values ($1, $2, $3, now() + make_interval(mins => $4))
         on conflict on constraint phone_pk do update set verified_at = null, number = excluded.number,
             code_hash = excluded.code_hash, code_expires_at = excluded.code_expires_at, code_tries = 0",
        user_id,
        number,
        hash(user_id, &code),
        CODE_MINUTES
    )
    .execute(&mut *conn)
    .await?;
    if !has_room(conn, user_id, number).await? {
        return Err(Error::TooMany { retry_after: 24 * 3600 });
    }
    let kind = Kind::VerifyPhone;
    let Rendered { title, content, .. } = render::render(kind, language, &json!({ "code": code }), 1)
        .with_context(|| format!("the text of {}", kind.word()))?;
    write(conn, user_id, None, kind, number, &title, &content).await?;
    changed(conn, user_id, "number given", by).await
}

/// The code that was sent shows that the number is theirs.
///
/// # Errors
/// `LINK_UNKNOWN` for a wrong or old code or after too many guesses, or the database's.
pub async fn verify(pool: &PgPool, user_id: i64, code: &str, by: &By) -> Result<()> {
    // Counted and committed before it is looked at: guesses at once are guesses.
    let kept = sqlx::query_scalar!(
        "update phone set code_tries = code_tries + 1
         where user_id = $1 and code_expires_at > now() and code_tries < $2 returning code_hash",
        user_id,
        GUESSES
    )
    .fetch_optional(pool)
    .await?;
    let given = hash(user_id, code);
    if kept.flatten().is_none_or(|kept| kept != given) {
        return Err(Error::NotFound("LINK_UNKNOWN"));
    }
    let mut tx = pool.begin().await?;
    sqlx::query_scalar!(
        "update phone set verified_at = now(), code_hash = null, code_expires_at = null
         where user_id = $1 and code_hash = $2 returning user_id",
        user_id,
        given
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::NotFound("LINK_UNKNOWN"))?;
    changed(&mut tx, user_id, "number verified", by).await?;
    Ok(tx.commit().await?)
}

/// Nothing is sent there any more.
///
/// # Errors
/// `NOT_FOUND`, or the database's.
pub async fn end(conn: &mut PgConnection, user_id: i64, by: &By) -> Result<()> {
    sqlx::query_scalar!("delete from phone where user_id = $1 returning user_id", user_id)
        .fetch_optional(&mut *conn)
        .await?
        .ok_or(Error::NotFound("NOT_FOUND"))?;
    changed(conn, user_id, "number given up", by).await
}

async fn changed(conn: &mut PgConnection, user_id: i64, what: &str, by: &By) -> Result<()> {
    let detail = json!({ "text_messages": what });
    by.did(conn, Action::SensitiveUpdate, Object::new("user", &user_id), None, detail).await
}

/// Writes a text message for somebody who has a telephone for it and was not sent enough today; whoever was is told in
/// the app all the same.
pub(super) async fn text(
    conn: &mut PgConnection,
    user_id: i64,
    notification_id: Option<i64>,
    kind: Kind,
    title: &str,
) -> Result<()> {
    let number = sqlx::query_scalar!(
        "select number from phone where user_id = $1 and verified_at is not null for update",
        user_id
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(number) = number else { return Ok(()) };
    if !has_room(conn, user_id, &number).await? {
        tracing::info!(kind = kind.word(), "a text message is not sent: enough for today");
        return Ok(());
    }
    write(conn, user_id, notification_id, kind, &number, title, &format!("Lumbung: {title}")).await
}

async fn has_room(conn: &mut PgConnection, user_id: i64, number: &str) -> Result<bool> {
    let sent = sqlx::query!(
        r#"select (select count(*) from delivery where channel = 'sms' and user_id = $1
                       and created_at > now() - interval '1 day') as "person!",
               (select count(*) from delivery where channel = 'sms' and address = $2
                       and created_at > now() - interval '1 day') as "number!""#,
        user_id,
        number
    )
    .fetch_one(conn)
    .await?;
    Ok(sent.person < DAILY && sent.number < DAILY)
}

async fn write(
    conn: &mut PgConnection,
    user_id: i64,
    notification_id: Option<i64>,
    kind: Kind,
    number: &str,
    title: &str,
    text: &str,
) -> Result<()> {
    sqlx::query!(
        "insert into delivery (notification_id, user_id, kind, channel, address, title, content)
         values ($1, $2, $3, 'sms', $4, $5, $6)",
        notification_id,
        user_id,
        kind.word(),
        number,
        title,
        one_part(text)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// As much as one part of a message holds, so that each costs the same: 160 characters where all are of the telephones'
/// own alphabet, else 70.
fn one_part(text: &str) -> String {
    let plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"`^{}\\[~]|".contains(&byte));
    let (most, mut units) = (if plain { 160 } else { 70 }, 0);
    let fits = |c: &char| {
        units += c.len_utf16();
        units <= most
    };
    text.chars().take_while(fits).collect()
}

/// Hands a text message to the provider, if somebody still wants it and the day has room.
pub(super) async fn carry(
    pool: &PgPool,
    outside: &Outside,
    user_id: Option<i64>,
    kind: &str,
    text: &Text<'_>,
) -> std::result::Result<(), Undelivered> {
    let ours = |error: sqlx::Error| Undelivered::Later(error.to_string());
    if !reaches(pool, user_id, text.to, kind).await.map_err(ours)? {
        return Err(Undelivered::Gone);
    }
    if !take(pool, outside.texts_daily()).await.map_err(ours)? {
        return Err(Undelivered::Later("no more text messages today, see sms.daily".into()));
    }
    let sent = outside.text(text).await;
    if matches!(sent, Err(Undelivered::Later(_))) {
        give_back(pool).await.map_err(ours)?;
    }
    sent
}

/// Whether a message may still go to a number.
async fn reaches(pool: &PgPool, user_id: Option<i64>, number: &str, kind: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from phone where user_id = $1 and number = $2
               and (verified_at is not null or $3)) as "reaches!""#,
        user_id,
        number,
        kind == Kind::VerifyPhone.word()
    )
    .fetch_one(pool)
    .await
}

/// Counts one more for today, if there is room.
async fn take(pool: &PgPool, daily: i32) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        "insert into text_day as t (day, sent) select (now() at time zone 'UTC')::date, 1 where $1 > 0
         on conflict on constraint text_day_pk do update set sent = t.sent + 1 where t.sent < $1",
        daily
    );
    Ok(taken.execute(pool).await?.rows_affected() > 0)
}

/// One that certainly did not leave costs nothing.
async fn give_back(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query!(
        "update text_day set sent = sent - 1 where day = (now() at time zone 'UTC')::date and sent > 0"
    )
    .execute(pool)
    .await
    .map(drop)
}

/// Six digits.
fn draw() -> Result<String> {
    Ok(format!("{:06}", u64::from_be_bytes(random::draw()?) % 1_000_000))
}

fn hash(user_id: i64, code: &str) -> Vec<u8> {
    Sha256::digest(format!("{user_id} {code}")).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_known_however_it_is_typed() {
        for typed in ["+62 812-3456-7890", "0812 3456 7890", "(0812) 3456.7890"] {
            assert_eq!(Number::parse(typed), Some(Number("+6281234567890".into())), "{typed}");
        }
        for typed in [
            "",
            "812",
            "6281234567890",
            "+0812345678",
            "+62",
            "+6281234567890123",
            "+62812abc4567",
            "08١٢345678",
        ] {
            assert_eq!(Number::parse(typed), None, "{typed}");
        }
        let (ours, theirs) = (Number::parse("0812345678"), Number::parse("+1900555000"));
        let countries = ["+62".to_owned()];
        assert!(ours.unwrap().is_of(&countries) && !theirs.unwrap().is_of(&countries));
    }

    #[test]
    fn a_message_is_one_part_whatever_is_in_it() {
        assert_eq!(one_part(&"a".repeat(500)).len(), 160);
        for (strange, most) in [("é", 70), ("[", 70), ("🌾", 35)] {
            assert_eq!(one_part(&strange.repeat(500)).chars().count(), most, "{strange}");
        }
    }

    #[test]
    fn a_code_is_six_digits_and_says_nothing_of_another_persons() {
        let code = draw().unwrap();
        assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()), "{code}");
        assert_ne!(hash(1, &code), hash(2, &code));
    }
}
