//! `audit verify`: reckons the whole chain anew and says where it is broken first.

use super::seal::{Head, Sealable, anchor};
use crate::error::Result;
use sqlx::{PgConnection, PgPool};

/// Entries read at once.
const PAGE: i64 = 2_000;

/// What was found.
pub struct Verified {
    /// Entries up to this number were given up by rule.
    pub given_up: i64,
    /// Entries whose hashes are right.
    pub sealed: i64,
    pub head: Head,
    /// Entries that are not in the chain yet, and for how many seconds the oldest has been waiting.
    pub waiting: i64,
    pub oldest_seconds: i64,
    /// The first thing that is wrong.
    pub broken: Option<String>,
}

impl Verified {
    /// Nothing yet, from a place in the chain on.
    fn from(head: Head) -> Self {
        Self { given_up: 0, sealed: 0, head, waiting: 0, oldest_seconds: 0, broken: None }
    }

    async fn count_waiting(&mut self, conn: &mut PgConnection) -> Result<()> {
        let waiting = sqlx::query!(
            r#"select count(*) as "entries!",
                   coalesce(ceil(extract(epoch from now() - min(logged_at))), 0)::bigint as "oldest!"
               from audit_waiting w join audit_entry e using (audit_id)"#
        )
        .fetch_one(conn)
        .await?;
        (self.waiting, self.oldest_seconds) = (waiting.entries, waiting.oldest.max(0));
        Ok(())
    }
}

/// Verifies the last `entries` of the chain, and that none waits for long: what can be asked every day.
///
/// # Errors
/// The database's.
pub(super) async fn verify_end(pool: &PgPool, entries: i64) -> Result<Verified> {
    let mut tx = pool.begin_with("begin isolation level repeatable read, read only").await?;
    let anchor = anchor(&mut tx).await?;
    let before = sqlx::query!(
        "select number, hash from audit_seal where number = (select max(number) - $1 from audit_seal)",
        entries
    )
    .fetch_optional(&mut *tx)
    .await?
    .map_or(anchor, |seal| Head { number: seal.number, hash: seal.hash });
    let mut found = Verified::from(before);
    found.broken = walk(&mut tx, &mut found, None).await?;
    found.count_waiting(&mut tx).await?;
    Ok(found)
}

/// Verifies the log as it stood at one moment; `expected` is a head that somebody kept elsewhere.
///
/// # Errors
/// The database's.
pub async fn verify(pool: &PgPool, expected: Option<&Head>) -> Result<Verified> {
    let mut tx = pool.begin_with("begin isolation level repeatable read, read only").await?;
    let start = anchor(&mut tx).await?;
    let mut found = Verified { given_up: start.number, ..Verified::from(start) };
    found.broken = walk(&mut tx, &mut found, expected).await?;
    found.count_waiting(&mut tx).await?;
    if found.broken.is_none() {
        found.broken = strays(&mut tx).await?;
    }
    Ok(found)
}

/// Goes along the chain as far as it is right; what stopped it.
async fn walk(
    conn: &mut PgConnection,
    found: &mut Verified,
    expected: Option<&Head>,
) -> Result<Option<String>> {
    if let Some(kept) = expected.filter(|kept| kept.number < found.head.number) {
        return Ok(Some(format!(
            "entry {} was given up by rule: the log begins after entry {}",
            kept.number, found.head.number
        )));
    }
    loop {
        if let Some(kept) = expected.filter(|kept| kept.number == found.head.number)
            && kept.hash != found.head.hash
        {
            return Ok(Some(format!(
                "entry {}: its hash is right in itself, but it is not the one that was kept: the log was written anew",
                kept.number
            )));
        }
        let page = sqlx::query!(
            r#"select s.number, s.previous_hash, s.hash, e.audit_id, happened_at, logged_at, request_id, actor_kind,
                   actor_id, address, user_agent, action, object_kind, object_id, outcome, reason,
                   detail::text as "detail!", version
               from audit_seal s join audit_entry e on e.audit_id = s.audit_id
               where s.number > $1 order by s.number limit $2"#,
            found.head.number,
            PAGE
        )
        .fetch_all(&mut *conn)
        .await?;
        if page.is_empty() {
            break;
        }
        for row in page {
            let number = found.head.number + 1;
            if row.number != number {
                return missing(conn, number).await.map(Some);
            }
            let entry = Sealable {
                audit_id: row.audit_id,
                happened_at: row.happened_at,
                logged_at: row.logged_at,
                request_id: row.request_id,
                actor_kind: row.actor_kind,
                actor_id: row.actor_id,
                address: row.address,
                user_agent: row.user_agent,
                action: row.action,
                object_kind: row.object_kind,
                object_id: row.object_id,
                outcome: row.outcome,
                reason: row.reason,
                detail: row.detail,
                version: row.version,
            };
            if row.previous_hash != found.head.hash {
                return Ok(Some(format!("entry {number}: it does not follow the entry before it")));
            }
            if entry.hash(number, &found.head.hash)? != row.hash {
                return Ok(Some(format!("entry {number} (id {}): it was changed", row.audit_id)));
            }
            found.sealed += 1;
            found.head = Head { number, hash: row.hash };
            if let Some(kept) = expected.filter(|kept| kept.number == number)
                && kept.hash != found.head.hash
            {
                return Ok(Some(format!(
                    "entry {number}: its hash is right in itself, but it is not the one that was kept: the log was written anew"
                )));
            }
        }
    }
    // Seals whose entries are gone do not show above when they are the last ones.
    let last = sqlx::query_scalar!("select max(number) from audit_seal").fetch_one(&mut *conn).await?;
    if last.is_some_and(|last| last > found.head.number) {
        return missing(conn, found.head.number + 1).await.map(Some);
    }
    Ok(expected.filter(|kept| kept.number > found.head.number).map(|kept| {
        format!("entry {} was kept elsewhere, but the log ends at entry {}", kept.number, found.head.number)
    }))
}

async fn missing(conn: &mut PgConnection, number: i64) -> Result<String> {
    let id = sqlx::query_scalar!("select audit_id from audit_seal where number = $1", number)
        .fetch_optional(conn)
        .await?;
    Ok(match id {
        Some(id) => format!("entry {number} (id {id}): it was taken out"),
        None => format!("entry {number}: it and its seal were taken out"),
    })
}

/// Entries that are neither in the chain nor on their way there.
async fn strays(conn: &mut PgConnection) -> Result<Option<String>> {
    let lost = sqlx::query_scalar!(
        "select min(audit_id) from audit_entry e
         where not exists (select from audit_seal s where s.audit_id = e.audit_id)
             and not exists (select from audit_waiting w where w.audit_id = e.audit_id)"
    )
    .fetch_one(&mut *conn)
    .await?;
    if let Some(id) = lost {
        return Ok(Some(format!("id {id}: it is not in the chain, and was kept from getting there")));
    }
    let gone = sqlx::query_scalar!(
        "select min(audit_id) from audit_waiting w
         where not exists (select from audit_entry e where e.audit_id = w.audit_id)"
    )
    .fetch_one(conn)
    .await?;
    Ok(gone.map(|id| format!("id {id}: it was taken out before it was sealed")))
}
