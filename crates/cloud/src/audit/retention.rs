//! The one way out of the log: entries that are old enough go together, from the oldest on, and leave an anchor
//! from which the rest of the chain can still be verified. The database checks all of it and lets nothing go that
//! is younger than a year.

use super::{Action, Actor, Entry, Object, record};
use crate::error::Result;
use serde_json::json;
use sqlx::PgPool;
use std::time::Duration;

/// Gives up what is older than `keep`; how many entries that were.
///
/// # Errors
/// The database's, such as for a `keep` that it does not allow.
pub async fn one_round(pool: &PgPool, keep: Duration) -> Result<u64> {
    let mut tx = pool.begin().await?;
    let keep = keep.as_secs_f64();
    // The oldest that stays ends the walk: numbers and times need not go quite together.
    let last = sqlx::query!(
        "select s.number, s.hash, e.logged_at from audit_seal s join audit_entry e using (audit_id)
         where s.number < coalesce(
             (select min(young.number) from audit_seal young join audit_entry e using (audit_id)
              where e.logged_at >= now() - make_interval(secs => $1)),
             (select max(number) + 1 from audit_seal))
         order by s.number desc limit 1",
        keep
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(last) = last else { return Ok(0) };
    sqlx::query!(
        "insert into audit_anchor (number, hash, logged_at) values ($1, $2, $3)",
        last.number,
        last.hash,
        last.logged_at
    )
    .execute(&mut *tx)
    .await?;
    let gone = sqlx::query!(
        "delete from audit_entry e using audit_seal s where s.audit_id = e.audit_id and s.number <= $1",
        last.number
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    sqlx::query!("delete from audit_seal where number <= $1", last.number).execute(&mut *tx).await?;
    let entry = Entry {
        object: Some(Object::new("audit_entry", &last.number)),
        detail: json!({ "entries": gone, "up_to": last.number, "logged_before": last.logged_at }),
        ..Entry::of(Actor::Itself, Action::SensitiveDelete)
    };
    record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(gone)
}
