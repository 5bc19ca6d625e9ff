//! Operators' own programs, told what happens here.
//!
//! What must stay true:
//! - [`tell`] only writes rows, in the caller's transaction, as for people.
//! - Who it is about travels as an id alone: names and reasons are asked of the API by whoever may.

use crate::audit::{Action, By, Object};
use crate::error::{Error, Result};
use crate::outside::Webhook;
use crate::random;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;

/// Webhooks of one installation.
const MOST: i64 = 20;
/// How long what is sent is signed with the secret before the new one, too.
const OLD_SECRET_HOURS: i32 = 24;

/// What a webhook may be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Told {
    /// `user_id`, `expires_at` (null: for good)
    #[serde(rename = "account.banned")]
    AccountBanned,
    /// `user_id`
    #[serde(rename = "account.unbanned")]
    AccountUnbanned,
}

impl Told {
    const ALL: [Self; 2] = [Self::AccountBanned, Self::AccountUnbanned];

    /// As it is stored and sent.
    fn word(self) -> &'static str {
        match self {
            Self::AccountBanned => "account.banned",
            Self::AccountUnbanned => "account.unbanned",
        }
    }
}

/// Writes what each webhook that asked for it is to be told, in the caller's transaction.
///
/// # Errors
/// The database's.
pub async fn tell(conn: &mut PgConnection, told: Told, data: Value) -> Result<()> {
    let at = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    let body = json!({ "type": told.word(), "timestamp": at, "data": data }).to_string();
    sqlx::query!(
        "insert into delivery (kind, channel, address, title, content)
         select $1, 'webhook', webhook_id::text, $1, $2 from webhook where $1 = any(kinds) and gone_at is null",
        told.word(),
        body
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A webhook that was just made, or its secret that was; this is the only time that it is seen.
#[derive(Serialize, ToSchema)]
pub struct NewWebhook {
    #[schema(example = 4)]
    pub id: i64,
    /// What requests are signed with; shown this once.
    #[schema(example = "whsec_…")]
    pub secret: String,
}

impl NewWebhook {
    fn of(id: i64, secret: [u8; 32]) -> Self {
        Self { id, secret: format!("whsec_{}", STANDARD.encode(secret)) }
    }
}

/// Makes a webhook at an address that was checked.
///
/// # Errors
/// [`Error::Fields`] without a kind, `TOO_MANY_WEBHOOKS`, or the database's.
pub async fn add(conn: &mut PgConnection, url: &str, kinds: &[Told], by: &By) -> Result<NewWebhook> {
    let words: Vec<String> = Told::ALL
        .into_iter()
        .filter(|told| kinds.contains(told))
        .map(|told| told.word().to_owned())
        .collect();
    if words.is_empty() {
        let all = Told::ALL.map(Told::word).join(", ");
        return Err(Error::field(
            "kinds",
            format!("sebutkan paling sedikit satu dari {all}"),
            format!("must name at least one of {all}"),
        ));
    }
    let secret = random::draw::<32>()?;
    let id = sqlx::query_scalar!(
        "insert into webhook (url, secret, kinds, made_by)
         select $1, $2, $3, $4 where (select count(*) from webhook) < $5 returning webhook_id",
        url,
        &secret[..],
        &words,
        by.person(),
        MOST
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(Error::Conflict("TOO_MANY_WEBHOOKS"))?;
    let detail = json!({ "added": words });
    by.did(conn, Action::AdminAction, Object::new("webhook", &id), None, detail).await?;
    Ok(NewWebhook::of(id, secret))
}

/// Gives a webhook another secret. For a day requests are signed with the one before, too, so that the operator's
/// program can change over when it suits it; a second change in that day ends the first one's.
///
/// # Errors
/// `NOT_FOUND`, or the database's.
pub async fn rotate(conn: &mut PgConnection, id: i64, by: &By) -> Result<NewWebhook> {
    let secret = random::draw::<32>()?;
    sqlx::query_scalar!(
        "update webhook set secret = $2, old_secret = secret, old_until = now() + make_interval(hours => $3)
         where webhook_id = $1 returning webhook_id",
        id,
        &secret[..],
        OLD_SECRET_HOURS
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    by.did(conn, Action::AdminAction, Object::new("webhook", &id), None, json!({ "rotated": true })).await?;
    Ok(NewWebhook::of(id, secret))
}

/// A webhook as admins list it.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookListed)]
pub struct Listed {
    #[schema(example = 4)]
    pub id: i64,
    #[schema(example = "https://operator.example.com/lumbung")]
    pub url: String,
    #[schema(example = json!(["account.banned"]))]
    pub kinds: Vec<String>,
    pub created_at: DateTime<Utc>,
    /// Since when it says 410: it is told nothing more.
    pub gone_at: Option<DateTime<Utc>>,
}

/// All of them, oldest first.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool) -> Result<Vec<Listed>> {
    Ok(sqlx::query_as!(
        Listed,
        "select webhook_id as id, url, kinds, created_at, gone_at from webhook order by webhook_id"
    )
    .fetch_all(pool)
    .await?)
}

/// Ends a webhook; what was still to be told is given up.
///
/// # Errors
/// `NOT_FOUND`, or the database's.
pub async fn end(conn: &mut PgConnection, id: i64, by: &By) -> Result<()> {
    sqlx::query_scalar!("delete from webhook where webhook_id = $1 returning webhook_id", id)
        .fetch_optional(&mut *conn)
        .await?
        .ok_or(Error::NotFound("NOT_FOUND"))?;
    by.did(conn, Action::AdminAction, Object::new("webhook", &id), None, json!({ "ended": true })).await
}

/// The webhook that a delivery's address names.
pub(super) async fn find(pool: &PgPool, id: &str) -> sqlx::Result<Option<Webhook>> {
    sqlx::query_as!(
        Webhook,
        "select url, secret, case when old_until > now() then old_secret end as old_secret
         from webhook where webhook_id::text = $1 and gone_at is null",
        id
    )
    .fetch_optional(pool)
    .await
}

/// It is gone for good, it says: admins see that it is.
pub(super) async fn is_gone(pool: &PgPool, id: &str) -> sqlx::Result<()> {
    sqlx::query!("update webhook set gone_at = now() where webhook_id::text = $1 and gone_at is null", id)
        .execute(pool)
        .await
        .map(drop)
}
