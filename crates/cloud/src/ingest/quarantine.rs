//! What the cloud could not take as it came: looked at by people, taken again after a fix.

use super::parse::Incoming;
use super::store;
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use lumbung_shared::scan::Scan;
use lumbung_shared::wire::{Epoch, Refusal, SCAN_STREAM, read_raw_scan, read_raw_segment};
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
    pub raw: String,
}

/// The open quarantine, oldest first; with `id` only that entry, open or not.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, id: Option<i64>, limit: i64) -> Result<Vec<Quarantined>> {
    let rows = sqlx::query!(
        "select q.quarantine_id, g.code, q.epoch, q.stream, q.seq, q.through, q.reason, q.detail, q.received_at, q.raw
         from quarantine q join gateway g using (gateway_id)
         where case when $1::bigint is null then q.replayed_at is null else q.quarantine_id = $1 end
         order by q.quarantine_id limit $2",
        id,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Quarantined {
            id: row.quarantine_id,
            gateway_id: row.code,
            epoch: Epoch::from_db(row.epoch).to_string(),
            stream: row.stream,
            seq: row.seq,
            through: row.through,
            reason: row.reason,
            detail: row.detail,
            received_at: row.received_at,
            raw: row.raw,
        })
        .collect())
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

/// Reads an entry again and stores it through the same road as a batch.
///
/// # Errors
/// [`Error::NotFound`] for an unknown id or one that was replayed before, or the database's.
pub async fn replay(pool: &PgPool, id: i64) -> Result<Replayed> {
    let entry = sqlx::query!(
        "select gateway_id, epoch, stream, seq, through, raw, received_at from quarantine
         where quarantine_id = $1 and replayed_at is null",
        id
    )
    .fetch_optional(pool)
    .await?
    .ok_or(Error::NotFound("not_found"))?;
    if entry.stream != SCAN_STREAM {
        return Ok(Replayed::Refused(format!("this program does not know the stream {}", entry.stream)));
    }
    let scans = match read(entry.epoch, entry.seq, entry.through, &entry.raw) {
        Ok(scans) => scans,
        Err(why) => return Ok(Replayed::Refused(why)),
    };
    let again = Incoming::again(entry.gateway_id, Epoch::from_db(entry.epoch), scans, entry.received_at);
    let outcomes = store::store_records(pool, &again).await?;
    if !outcomes.quarantined.is_empty() {
        return Ok(Replayed::Refused("another record with its identity has other content".into()));
    }
    sqlx::query!(
        "update quarantine set replayed_at = now() where gateway_id = $1 and quarantine_id = $2",
        entry.gateway_id,
        id
    )
    .execute(pool)
    .await?;
    Ok(Replayed::Stored)
}

/// The records of an entry, if every one can be read now.
fn read(epoch: i64, seq: i64, through: i64, raw: &str) -> std::result::Result<Vec<Scan>, String> {
    let why = |refusal: Refusal| refusal.detail;
    if epoch == Epoch::LEGACY.to_db() {
        return super::legacy::read_again(raw).map(|scan| vec![scan]).map_err(why);
    }
    if through == seq
        && let Ok(scan) = read_raw_scan(seq, raw)
    {
        return Ok(vec![scan]);
    }
    match read_raw_segment(seq, raw) {
        Ok(records) => records.into_iter().collect::<std::result::Result<_, _>>().map_err(why),
        Err(_) => read_raw_scan(seq, raw).map(|scan| vec![scan]).map_err(why),
    }
}
