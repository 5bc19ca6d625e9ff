//! Operators' own programs, told what happens here.
//!
//! What must stay true:
//! - [`tell`] only writes rows, in the caller's transaction, as for people.
//! - Who it is about travels as an id alone: names and reasons are asked of the API by whoever may.
//! - Where `receipts.seal_key` is set no secret is kept in clear, also one that was before.
//! - What is signed with a secret that cannot be opened is not sent: it waits for the key.

use crate::audit::{Action, By, Object};
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::outside::Webhook;
use crate::random;
use crate::sealed::{Kept, Vault};
use anyhow::Context;
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

/// A webhook with what its requests are signed with, as its row has it.
struct Stored {
    webhook_id: i64,
    url: String,
    secret: Option<Vec<u8>>,
    sealed_secret: Option<Vec<u8>>,
    old_secret: Option<Vec<u8>>,
    sealed_old_secret: Option<Vec<u8>>,
    old_until: Option<DateTime<Utc>>,
}

impl Stored {
    /// # Errors
    /// A `seal_key` that is missing, or another than it was sealed with.
    fn open(&self, vault: &Vault) -> anyhow::Result<Webhook> {
        let open = |clear: &Option<Vec<u8>>, sealed: &Option<Vec<u8>>| match sealed {
            Some(sealed) => vault.unseal(self.webhook_id, sealed).map(Some),
            None => Ok(clear.clone()),
        };
        Ok(Webhook {
            url: self.url.clone(),
            secret: open(&self.secret, &self.sealed_secret)?.context("a webhook without a secret")?,
            old_secret: open(&self.old_secret, &self.sealed_old_secret)?,
        })
    }

    fn is_in_clear(&self) -> bool {
        self.secret.is_some() || self.old_secret.is_some()
    }
}

/// As a row is to have a secret: one of the two.
#[derive(Default)]
struct Laid {
    clear: Option<Vec<u8>>,
    sealed: Option<Vec<u8>>,
}

impl Laid {
    fn of(vault: &Vault, id: i64, secret: &[u8]) -> anyhow::Result<Self> {
        if vault.has_key() {
            Ok(Self { clear: None, sealed: Some(vault.seal(id, secret)?) })
        } else {
            Ok(Self { clear: Some(secret.to_vec()), sealed: None })
        }
    }
}

/// Writes both secrets of a webhook, the one before with its end.
async fn write(
    conn: &mut PgConnection,
    vault: &Vault,
    id: i64,
    secret: &[u8],
    old: Option<(Vec<u8>, DateTime<Utc>)>,
) -> Result<()> {
    let secret = Laid::of(vault, id, secret)?;
    let (old, old_until) = old.unzip();
    let old = old.map(|old| Laid::of(vault, id, &old)).transpose()?.unwrap_or_default();
    sqlx::query!(
        "update webhook set secret = $2, sealed_secret = $3, old_secret = $4, sealed_old_secret = $5, old_until = $6
         where webhook_id = $1",
        id,
        secret.clear.as_deref(),
        secret.sealed.as_deref(),
        old.clear.as_deref(),
        old.sealed.as_deref(),
        old_until
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes a webhook at an address that was checked.
///
/// # Errors
/// [`Error::Fields`] without a kind, `TOO_MANY_WEBHOOKS`, or the database's.
pub async fn add(
    conn: &mut PgConnection,
    seal_key: &str,
    url: &str,
    kinds: &[Told],
    by: &By,
) -> Result<NewWebhook> {
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
    // First its number, which its secret is sealed for: in clear it is not even written for a moment.
    let id = sqlx::query_scalar!(
        r#"select nextval(pg_get_serial_sequence('webhook', 'webhook_id')) as "id!"
           where (select count(*) from webhook) < $1"#,
        MOST
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(Error::Conflict("TOO_MANY_WEBHOOKS"))?;
    let laid = Laid::of(&Vault::open(seal_key, Kept::Webhooks)?, id, &secret)?;
    sqlx::query!(
        "insert into webhook (webhook_id, url, secret, sealed_secret, kinds, made_by)
         overriding system value values ($1, $2, $3, $4, $5, $6)",
        id,
        url,
        laid.clear.as_deref(),
        laid.sealed.as_deref(),
        &words,
        by.person()
    )
    .execute(&mut *conn)
    .await?;
    let detail = json!({ "added": words });
    by.did(conn, Action::AdminAction, Object::new("webhook", &id), None, detail).await?;
    Ok(NewWebhook::of(id, secret))
}

/// Gives a webhook another secret. For a day requests are signed with the one before, too, so that the operator's
/// program can change over when it suits it; a second change in that day ends the first one's. One that cannot be opened
/// ends at once: this is what helps when the key that it was sealed with is lost.
///
/// # Errors
/// `NOT_FOUND`, or the database's.
pub async fn rotate(conn: &mut PgConnection, seal_key: &str, id: i64, by: &By) -> Result<NewWebhook> {
    let vault = Vault::open(seal_key, Kept::Webhooks)?;
    let before = sqlx::query_as!(
        Stored,
        "select webhook_id, url, secret, sealed_secret, null::bytea as old_secret, null::bytea as sealed_old_secret,
             now() + make_interval(hours => $2) as old_until
         from webhook where webhook_id = $1 for update",
        id,
        OLD_SECRET_HOURS
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    let old = match before.open(&vault) {
        Ok(opened) => before.old_until.map(|until| (opened.secret, until)),
        Err(error) => {
            tracing::warn!(webhook_id = id, "requests are signed with the new secret alone: {error:#}");
            None
        }
    };
    let secret = random::draw::<32>()?;
    write(conn, &vault, id, &secret, old).await?;
    by.did(conn, Action::AdminAction, Object::new("webhook", &id), None, json!({ "rotated": true })).await?;
    Ok(NewWebhook::of(id, secret))
}

/// Seals what lies in clear since before `receipts.seal_key` was set; at every start.
///
/// # Errors
/// The database's, or the system's for want of random bytes.
pub async fn seal(pool: &PgPool, seal_key: &str) -> Result<()> {
    let vault = Vault::open(seal_key, Kept::Webhooks)?;
    let mut tx = pool.begin().await?;
    // Another replica may be at it, or somebody at a rotation.
    sqlx::query!("lock table webhook in share row exclusive mode").execute(&mut *tx).await?;
    let all = all(&mut tx).await?;
    // Nothing is sealed with a key that is not the one of the others.
    if let Err(error) = all.iter().try_for_each(|one| one.open(&vault).map(drop)) {
        tracing::error!("webhooks wait, because their requests cannot be signed: {error:#}");
        return Ok(());
    }
    for one in all.iter().filter(|one| vault.has_key() && one.is_in_clear()) {
        let opened = one.open(&vault)?;
        write(&mut tx, &vault, one.webhook_id, &opened.secret, opened.old_secret.zip(one.old_until)).await?;
        tracing::info!(one.webhook_id, "its secret is sealed from now on");
    }
    Ok(tx.commit().await?)
}

async fn all(conn: &mut PgConnection) -> sqlx::Result<Vec<Stored>> {
    sqlx::query_as!(
        Stored,
        "select webhook_id, url, secret, sealed_secret, old_secret, sealed_old_secret, old_until
         from webhook order by webhook_id"
    )
    .fetch_all(conn)
    .await
}

/// Whether the secrets are safe from who can read the database, and there for who signs.
pub async fn check(pool: &PgPool, seal_key: &str) -> Finding {
    match look(pool, seal_key).await {
        Ok(finding) => finding,
        Err(error) => Finding::fail("webhooks", format!("{error:#}"), "see the database"),
    }
}

async fn look(pool: &PgPool, seal_key: &str) -> anyhow::Result<Finding> {
    let vault = Vault::open(seal_key, Kept::Webhooks)?;
    let all = all(&mut *pool.acquire().await?).await?;
    if let Some(Err(error)) = all.iter().map(|one| one.open(&vault)).find(std::result::Result::is_err) {
        let advice = "set receipts.seal_key as it was when they were sealed, then `lumbung-cloud message retry ID` for \
                      what was given up; where it is lost, POST /api/webhooks/{id}/rotate gives each another secret";
        return Ok(Finding::fail(
            "webhooks",
            format!("requests cannot be signed, and wait: {error:#}"),
            advice,
        ));
    }
    let clear = all.iter().filter(|one| one.is_in_clear()).count();
    Ok(match (all.len(), clear) {
        (0, _) => Finding::ok("webhooks", "there are none"),
        (_, 0) => Finding::ok("webhooks", "their secrets are sealed in the database"),
        _ if vault.has_key() => Finding::warn(
            "webhooks",
            format!("{clear} secrets lie in the database in clear"),
            "start the cloud again: it seals them",
        ),
        _ => Finding::warn(
            "webhooks",
            "whoever reads the database or a backup can sign requests, and operators' programs believe them",
            "set receipts.seal_key, a credential that no backup holds",
        ),
    })
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
///
/// # Errors
/// The database's, or a `seal_key` that is missing or another.
pub(super) async fn find(pool: &PgPool, seal_key: &str, id: &str) -> anyhow::Result<Option<Webhook>> {
    let found = sqlx::query_as!(
        Stored,
        "select webhook_id, url, secret, sealed_secret, old_until,
             case when old_until > now() then old_secret end as old_secret,
             case when old_until > now() then sealed_old_secret end as sealed_old_secret
         from webhook where webhook_id::text = $1 and gone_at is null",
        id
    )
    .fetch_optional(pool)
    .await?;
    let vault = Vault::open(seal_key, Kept::Webhooks)?;
    found.map(|found| found.open(&vault)).transpose()
}

/// It is gone for good, it says: admins see that it is.
pub(super) async fn is_gone(pool: &PgPool, id: &str) -> sqlx::Result<()> {
    sqlx::query!("update webhook set gone_at = now() where webhook_id::text = $1 and gone_at is null", id)
        .execute(pool)
        .await
        .map(drop)
}
