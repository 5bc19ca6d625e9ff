//! In which language somebody is written to when it is not they who ask.

use crate::error::{Error, Language, Result};
use crate::notify::Recipient;
use sqlx::PgConnection;

/// # Errors
/// An account that is gone, or the database's.
pub async fn of(conn: &mut PgConnection, user_id: i64) -> Result<Language> {
    Ok(recipient(conn, user_id).await?.language)
}

/// # Errors
/// The database's.
pub async fn set(conn: &mut PgConnection, user_id: i64, language: Language) -> Result<()> {
    sqlx::query!("update app_user set language = $2 where user_id = $1", user_id, language.code())
        .execute(conn)
        .await?;
    Ok(())
}

/// Somebody's addresses and language, to tell them what somebody else did.
///
/// # Errors
/// An account that is gone, or the database's.
pub async fn recipient(conn: &mut PgConnection, user_id: i64) -> Result<Recipient> {
    let row = sqlx::query!("select email, language from app_user where user_id = $1", user_id)
        .fetch_optional(conn)
        .await?
        .ok_or(Error::Unauthenticated)?;
    Ok(written_to(user_id, row.email, &row.language))
}

/// Somebody by their address and the language that the database has of them.
pub(super) fn written_to(user_id: i64, email: String, language: &str) -> Recipient {
    let language = Language::from_code(language).unwrap_or(Language::Indonesian);
    Recipient { user_id: Some(user_id), email: Some(email), language }
}
