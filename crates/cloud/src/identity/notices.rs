//! What people are told of their own account's safety, so that whoever did not do it themselves finds out. In the
//! language of the account, since it may be somebody else who asks.

use super::language;
use crate::error::Result;
use crate::notify::{self, Kind, Message, Recipient};
use chrono::{FixedOffset, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;

/// Somebody signed in where nobody had before.
pub(super) async fn new_sign_in(
    conn: &mut PgConnection,
    user_id: i64,
    device: Option<&str>,
    network: Option<&str>,
) -> Result<()> {
    tell(conn, user_id, Kind::NewSignIn, json!({ "device": device, "network": network, "at": now() })).await
}

pub(super) async fn password_changed(conn: &mut PgConnection, user_id: i64) -> Result<()> {
    tell(conn, user_id, Kind::PasswordChanged, json!({ "at": now() })).await
}

/// To the address that was.
pub(super) async fn email_changed(conn: &mut PgConnection, before: Recipient) -> Result<()> {
    send(conn, before, Kind::EmailChanged, json!({ "at": now() })).await
}

/// `on`, `off` or `reset`.
pub(super) async fn second_factor_changed(
    conn: &mut PgConnection,
    user_id: i64,
    change: &'static str,
) -> Result<()> {
    tell(conn, user_id, Kind::SecondFactorChanged, json!({ "change": change, "at": now() })).await
}

pub(super) async fn recovery_code_used(conn: &mut PgConnection, user_id: i64, left: i64) -> Result<()> {
    let values = json!({ "change": "recovery", "left": left, "at": now() });
    tell(conn, user_id, Kind::SecondFactorChanged, values).await
}

async fn tell(conn: &mut PgConnection, user_id: i64, kind: Kind, values: Value) -> Result<()> {
    let to = language::recipient(conn, user_id).await?;
    send(conn, to, kind, values).await
}

async fn send(conn: &mut PgConnection, to: Recipient, kind: Kind, values: Value) -> Result<()> {
    notify::send(conn, &Message { to, kind, values, related: None, group: None }).await
}

/// By the clock of Jakarta, which everybody in the country can reckon with.
fn now() -> String {
    let jakarta = FixedOffset::east_opt(7 * 3600).map(|offset| Utc::now().with_timezone(&offset));
    jakarta.map_or_else(String::new, |at| at.format("%Y-%m-%d %H:%M WIB").to_string())
}
