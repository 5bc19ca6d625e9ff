//! The chain: every entry's hash holds the one before it, so that none can be changed or taken out unnoticed.
//!
//! What must stay true:
//! - Only one sealer at a time adds to the chain: it holds a lock for its short transaction, and no writer of an
//!   entry ever waits for that lock.
//! - The chain's numbers are given here, to entries that have committed; one that commits late comes later.
//! - The canonical text of an entry is the same for ever, whatever the program's version: a JSON array of its
//!   number and columns in the order below, times in microseconds, the detail as PostgreSQL writes jsonb.

use crate::error::Result;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};

/// Whoever holds it may add to the chain: "lbg:audt" in ASCII.
const LOCK: i64 = 0x6c62_673a_6175_6474;
/// Entries of one transaction.
const BATCH: i64 = 1_000;
/// What stands before the first entry.
const NOTHING: [u8; 32] = [0; 32];

/// An entry as it is sealed.
pub(super) struct Sealable {
    pub audit_id: i64,
    pub happened_at: DateTime<Utc>,
    pub logged_at: DateTime<Utc>,
    pub request_id: Option<String>,
    pub actor_kind: String,
    pub actor_id: Option<String>,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub action: String,
    pub object_kind: Option<String>,
    pub object_id: Option<String>,
    pub outcome: String,
    pub reason: Option<String>,
    pub detail: String,
    pub version: String,
}

impl Sealable {
    /// The hash of this entry at a place in the chain.
    pub(super) fn hash(&self, number: i64, previous: &[u8]) -> Result<Vec<u8>> {
        let canonical = serde_json::to_vec(&(
            number,
            self.audit_id,
            self.happened_at.timestamp_micros(),
            self.logged_at.timestamp_micros(),
            &self.request_id,
            &self.actor_kind,
            &self.actor_id,
            &self.address,
            &self.user_agent,
            &self.action,
            &self.object_kind,
            &self.object_id,
            &self.outcome,
            &self.reason,
            &self.detail,
            &self.version,
        ));
        let canonical = canonical.map_err(anyhow::Error::from)?;
        Ok(Sha256::new().chain_update(previous).chain_update(canonical).finalize().to_vec())
    }
}

/// The end of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub number: i64,
    pub hash: Vec<u8>,
}

/// As it is told and kept: `HASH@NUMBER`.
impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in &self.hash {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "@{}", self.number)
    }
}

impl std::str::FromStr for Head {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let read = || {
            let (hash, number) = text.split_once('@')?;
            let hash: Option<Vec<u8>> = (hash.len() == 64 && hash.is_ascii())
                .then(|| (0..32).map(|i| u8::from_str_radix(&hash[2 * i..2 * i + 2], 16).ok()).collect())?;
            Some(Self { hash: hash?, number: number.parse().ok().filter(|number| *number >= 0)? })
        };
        read().ok_or("write 64 hexadecimal digits, @ and a number, as `audit verify` does")
    }
}

/// Where the chain begins: nothing, or what was given up last.
pub(super) async fn anchor(conn: &mut PgConnection) -> Result<Head> {
    let anchor = sqlx::query_as!(Head, "select number, hash from audit_anchor order by number desc limit 1")
        .fetch_optional(conn)
        .await?;
    Ok(anchor.unwrap_or_else(|| Head { number: 0, hash: NOTHING.to_vec() }))
}

/// Where the chain ends.
///
/// # Errors
/// The database's.
pub async fn head(conn: &mut PgConnection) -> Result<Head> {
    let head = sqlx::query_as!(Head, "select number, hash from audit_seal order by number desc limit 1")
        .fetch_optional(&mut *conn)
        .await?;
    match head {
        Some(head) => Ok(head),
        None => anchor(conn).await,
    }
}

/// Puts everything that waits into the chain; how many entries that were. None when another is at it.
///
/// # Errors
/// The database's.
pub async fn one_round(pool: &PgPool) -> Result<i64> {
    let mut sealed = 0;
    loop {
        let batch = batch(pool).await?;
        sealed += batch;
        if batch < BATCH {
            return Ok(sealed);
        }
    }
}

async fn batch(pool: &PgPool) -> Result<i64> {
    let mut tx = pool.begin().await?;
    let ours = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "ours!""#, LOCK)
        .fetch_one(&mut *tx)
        .await?;
    if !ours {
        return Ok(0);
    }
    // After the lock, so that it sees what the sealer before added.
    let entries = sqlx::query_as!(
        Sealable,
        r#"select e.audit_id, happened_at, logged_at, request_id, actor_kind, actor_id, address, user_agent, action,
               object_kind, object_id, outcome, reason, detail::text as "detail!", version
           from audit_waiting w join audit_entry e on e.audit_id = w.audit_id
           order by e.audit_id limit $1"#,
        BATCH
    )
    .fetch_all(&mut *tx)
    .await?;
    if entries.is_empty() {
        return Ok(0);
    }
    let mut head = head(&mut tx).await?;
    let (mut numbers, mut ids, mut before, mut hashes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for entry in &entries {
        let number = head.number + 1;
        let hash = entry.hash(number, &head.hash)?;
        numbers.push(number);
        ids.push(entry.audit_id);
        before.push(std::mem::replace(&mut head, Head { number, hash: hash.clone() }).hash);
        hashes.push(hash);
    }
    sqlx::query!(
        "insert into audit_seal (number, audit_id, previous_hash, hash)
         select * from unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[])",
        &numbers,
        &ids,
        &before,
        &hashes
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("delete from audit_waiting where audit_id = any($1)", &ids).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(i64::try_from(ids.len()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_told() {
        let head = Head { number: 12, hash: (0..32).collect() };
        assert_eq!(head.to_string().parse(), Ok(head));
        for bad in ["", "@1", "00@1", &format!("{}@-1", "0".repeat(64)), &format!("{}@1", "é".repeat(32))] {
            assert!(bad.parse::<Head>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_canonical_text_never_changes() {
        let at = DateTime::from_timestamp_micros(1_800_000_000_000_001).unwrap_or_default();
        let entry = Sealable {
            audit_id: 7,
            happened_at: at,
            logged_at: at,
            request_id: Some("cerita-1".into()),
            actor_kind: "person".into(),
            actor_id: Some("12".into()),
            address: None,
            user_agent: None,
            action: "authn_logout".into(),
            object_kind: None,
            object_id: None,
            outcome: "success".into(),
            reason: None,
            detail: "{}".into(),
            version: "0.1.0".into(),
        };
        let canonical = r#"[1,7,1800000000000001,1800000000000001,"cerita-1","person","12",null,null,"authn_logout",null,null,"success",null,"{}","0.1.0"]"#;
        let by_hand = Sha256::new().chain_update(NOTHING).chain_update(canonical).finalize().to_vec();
        assert_eq!(entry.hash(1, &NOTHING).unwrap(), by_hand);
        assert_ne!(entry.hash(2, &NOTHING).unwrap(), by_hand);
    }
}
