//! Secrets sent by e-mail: they show that somebody reads a mailbox.
//!
//! What must stay true:
//! - A secret is good once, for a short while, and is kept by hash; its mail is written in the same transaction.
//! - In a link it stands behind `#`, which browsers send to nobody: no log and no Referer has it.
//! - Nobody gets more than three mails of one purpose in an hour, however often anybody asks. Those that were sent
//!   stay good meanwhile, so asking in another's name takes nothing from them.

use super::secret;
use crate::error::Result;
use crate::notify::{self, Kind, Language, Message, Recipient};
use crate::state::State;
use serde_json::json;
use sqlx::PgConnection;

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    VerifyEmail,
    ResetPassword,
    /// Goes to the address that is to be.
    ChangeEmail,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ResetPassword => "reset_password",
            Self::ChangeEmail => "change_email",
        }
    }

    fn minutes(self) -> f64 {
        match self {
            Self::VerifyEmail => 48.0 * 60.0,
            Self::ResetPassword | Self::ChangeEmail => 30.0,
        }
    }

    /// The page that takes it.
    fn path(self) -> &'static str {
        match self {
            Self::VerifyEmail => "/verify-email",
            Self::ResetPassword => "/reset-password",
            Self::ChangeEmail => "/change-email",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::VerifyEmail => Kind::VerifyEmail,
            Self::ResetPassword => Kind::ResetPassword,
            Self::ChangeEmail => Kind::ChangeEmail,
        }
    }
}

/// Whom a letter goes to: the account, and its address as the database has it, or is to have it.
pub(super) struct Addressee {
    pub user_id: i64,
    pub email: String,
    pub language: Language,
}

/// Writes a mail with a new secret; false when the last hour had enough of them. The caller holds the account's row.
pub(super) async fn write(
    conn: &mut PgConnection,
    state: &State,
    purpose: Purpose,
    to: Addressee,
) -> Result<bool> {
    let Some(code) = draw(conn, purpose, &to).await? else { return Ok(false) };
    let link = format!("{}{}#{code}", state.config.public_url(), purpose.path());
    let to = Recipient { user_id: Some(to.user_id), email: Some(to.email), language: to.language };
    let values = json!({ "link": link, "code": code });
    notify::send(conn, &Message { to, kind: purpose.kind(), values, related: None, group: None }).await?;
    Ok(true)
}

/// Counts a mail that is not written, so that nobody learns from the limit that it was not. Nobody has its secret.
pub(super) async fn only_count(conn: &mut PgConnection, purpose: Purpose, to: &Addressee) -> Result<bool> {
    Ok(draw(conn, purpose, to).await?.is_some())
}

/// Keeps a new secret; none when the last hour had enough of them.
async fn draw(conn: &mut PgConnection, purpose: Purpose, to: &Addressee) -> Result<Option<String>> {
    sqlx::query!(
        "delete from mail_token
         where user_id = $1 and created_at < now() - interval '1 hour' and expires_at < now()",
        to.user_id
    )
    .execute(&mut *conn)
    .await?;
    let code = secret::draw_claim()?;
    let written = sqlx::query!(
        "insert into mail_token (token_hash, user_id, purpose, email, expires_at)
         select $1, $2, $3, $4, now() + interval '1 minute' * $5::float8
         where (select count(*) from mail_token
                where user_id = $2 and purpose = $3 and created_at > now() - interval '1 hour') < 3",
        secret::hash(&secret::normalise_claim(&code)),
        to.user_id,
        purpose.word(),
        to.email,
        purpose.minutes()
    )
    .execute(&mut *conn)
    .await?;
    Ok((written.rows_affected() > 0).then_some(code))
}

/// Whose a secret is that is good still.
pub(super) async fn whose(conn: &mut PgConnection, purpose: Purpose, typed: &str) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar!(
        "select user_id from mail_token where token_hash = $1 and purpose = $2 and expires_at > now()",
        secret::hash(&secret::normalise_claim(typed)),
        purpose.word()
    )
    .fetch_optional(conn)
    .await?)
}

/// Takes a secret, and with it every other of its purpose: the account, and the address that it was sent to.
pub(super) async fn take(
    conn: &mut PgConnection,
    purpose: Purpose,
    typed: &str,
) -> Result<Option<(i64, String)>> {
    // Two links of one account wait for each other here, not for each other's links.
    sqlx::query!(
        "select user_id from app_user
         where user_id = (select user_id from mail_token where token_hash = $1) for no key update",
        secret::hash(&secret::normalise_claim(typed))
    )
    .fetch_optional(&mut *conn)
    .await?;
    // What was taken stays for as long as it counts against the hour. Its time ended when it was made: whoever waits
    // here for the one before may be of an earlier moment than that.
    let taken = sqlx::query!(
        "update mail_token set expires_at = created_at
         where token_hash = $1 and purpose = $2 and expires_at > now()
         returning user_id, email",
        secret::hash(&secret::normalise_claim(typed)),
        purpose.word()
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(taken) = taken else { return Ok(None) };
    void(conn, taken.user_id, &[purpose]).await?;
    Ok(Some((taken.user_id, taken.email)))
}

/// Ends every secret of these purposes that is out. The caller holds the account's row.
pub(super) async fn void(conn: &mut PgConnection, user_id: i64, purposes: &[Purpose]) -> Result<()> {
    let words: Vec<String> = purposes.iter().map(|purpose| purpose.word().to_owned()).collect();
    sqlx::query!(
        "update mail_token set expires_at = created_at where user_id = $1 and purpose = any($2)",
        user_id,
        &words
    )
    .execute(conn)
    .await?;
    Ok(())
}
