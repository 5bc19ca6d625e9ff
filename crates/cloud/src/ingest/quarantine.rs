//! What the cloud could not take as it came: looked at by people, taken again after a fix.

use super::parse::Incoming;
use super::store;
use super::streams::{Record, Records};
use crate::audit::{self, Action, Actor, Entry, Object};
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use lumbung_shared::wire::Epoch;
use serde::Serialize;
use sqlx::PgPool;

/// A refused record, or a range of them.
#[derive(Debug, Serialize)]
pub struct Quarantined {
    pub id: i64,
    pub gateway_id: String,
    pub epoch: String,
    pub stream: String,
    pub seq: i64,
    pub through: i64,
    pub reason: String,
    pub detail: String,
    pub received_at: DateTime<Utc>,
}

/// An entry's columns as both queries below select them.
struct Row {
    id: i64,
    code: String,
    epoch: i64,
    stream: String,
    seq: i64,
    through: i64,
    reason: String,
    detail: String,
    received_at: DateTime<Utc>,
    replayed_at: Option<DateTime<Utc>>,
    raw: Option<String>,
}

impl From<Row> for Quarantined {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            gateway_id: row.code,
            epoch: Epoch::from_db(row.epoch).to_string(),
            stream: row.stream,
            seq: row.seq,
            through: row.through,
            reason: row.reason,
            detail: row.detail,
            received_at: row.received_at,
        }
    }
}

/// Up to `limit` open entries after the entry `after`, oldest first.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, after: i64, limit: i64) -> Result<Vec<Quarantined>> {
    // Without the raw records: a thousand of them may be gigabytes.
    let rows = sqlx::query_as!(
        Row,
        r#"select q.quarantine_id as id, g.code, q.epoch, q.stream, q.seq, q.through, q.reason, q.detail,
               q.received_at, q.replayed_at, null as "raw: String"
           from quarantine q join gateway g using (gateway_id)
           where q.replayed_at is null and q.quarantine_id > $1
           order by q.quarantine_id limit $2"#,
        after,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(Quarantined::from).collect())
}

/// An entry with all there is of the record, replayed or not.
#[derive(Debug, Serialize)]
pub struct Whole {
    #[serde(flatten)]
    pub entry: Quarantined,
    pub replayed_at: Option<DateTime<Utc>>,
    /// JSON, as it can be read again.
    pub raw: String,
}

/// One entry.
///
/// # Errors
/// [`Error::NotFound`], or the database's.
pub async fn show(pool: &PgPool, id: i64) -> Result<Whole> {
    let mut row = sqlx::query_as!(
        Row,
        r#"select q.quarantine_id as id, g.code, q.epoch, q.stream, q.seq, q.through, q.reason, q.detail,
               q.received_at, q.replayed_at, q.raw as "raw?"
           from quarantine q join gateway g using (gateway_id) where q.quarantine_id = $1"#,
        id
    )
    .fetch_optional(pool)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    let (replayed_at, raw) = (row.replayed_at, row.raw.take().unwrap_or_default());
    Ok(Whole { entry: row.into(), replayed_at, raw })
}

/// What a replay did.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replayed {
    /// Every record of the entry is stored now, or was already.
    Stored,
    /// Still not to be taken; why.
    Refused(String),
}

/// Reads an entry again and stores it through the same road as a batch: all of it, or nothing.
///
/// # Errors
/// [`Error::NotFound`] for an unknown id or one that was replayed before, or the database's.
pub async fn replay(pool: &PgPool, id: i64) -> Result<Replayed> {
    let mut tx = pool.begin().await?;
    let entry = sqlx::query!(
        "select q.gateway_id, g.code, q.epoch, q.stream, q.seq, q.through, q.raw, q.received_at
         from quarantine q join gateway g using (gateway_id)
         where q.quarantine_id = $1 and q.replayed_at is null for update of q",
        id
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    let (epoch, numbers) = (Epoch::from_db(entry.epoch), (entry.seq, entry.through));
    let records = match epoch {
        Epoch::LEGACY => legacy(&entry.raw, &entry.code),
        _ => Records::read_again(&entry.stream, epoch, numbers, &entry.raw),
    };
    let records = match records {
        Ok(records) => records,
        Err(why) => return Ok(Replayed::Refused(why)),
    };
    let again = Incoming::again(entry.gateway_id, epoch, records, entry.received_at);
    let outcome = store::keep_again(&mut tx, &again).await?;
    if let Some((.., reason)) = outcome.quarantined.values().flatten().next() {
        tx.rollback().await?;
        return Ok(Replayed::Refused(match reason.as_str() {
            "conflict" => "another record with its identity has other content".to_owned(),
            "foreign_site" => "its gateway is not known to have stood at the site".to_owned(),
            reason => reason.to_owned(),
        }));
    }
    sqlx::query!(
        "update quarantine set replayed_at = now() where gateway_id = $1 and quarantine_id = $2",
        entry.gateway_id,
        id
    )
    .execute(&mut *tx)
    .await?;
    let replayed = Entry {
        object: Some(Object::new("quarantine", &id)),
        ..Entry::of(Actor::Command, Action::RecordsReplayed)
    };
    audit::record(&mut tx, &replayed).await?;
    tx.commit().await?;
    Ok(Replayed::Stored)
}

/// An old client's record.
fn legacy(raw: &str, gateway: &str) -> std::result::Result<Records, String> {
    let of = super::legacy::read(raw, gateway).map_err(|refusal| refusal.detail)?;
    Ok(Records { scans: vec![Record { epoch: Epoch::LEGACY, of }], ..Records::default() })
}
