//! What strangers can repeat as fast as they like: told one by one up to a few per minute, then only counted.
//!
//! Whoever tries passwords all day makes at most [`TOLD`] entries and one sum per minute and account, and all
//! addresses that have no account are one account here.

use super::{Action, Actor, Entry, Object, record};
use crate::error::Result;
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool};

/// Entries per minute of one action on one account.
const TOLD: i64 = 5;

/// Writes an entry unless its action on its object was told often enough in this minute; then it counts. Either way
/// it is one commit: how long a wrong password takes must not tell whether there is such an account.
///
/// # Errors
/// The database's.
pub async fn record_capped(conn: &mut PgConnection, entry: &Entry<'_>) -> Result<()> {
    let about = entry.object.as_ref().map_or("", |object| object.id.as_str());
    let mut tx = conn.begin().await?;
    let count = sqlx::query_scalar!(
        "insert into audit_tally as t (minute, action, actor_id, count)
         values (date_trunc('minute', now()), $1, left($2, 128), 1)
         on conflict on constraint audit_tally_pk do update set count = t.count + 1
         returning count",
        entry.action.word(),
        about
    )
    .fetch_one(&mut *tx)
    .await?;
    if count <= TOLD {
        record(&mut tx, entry).await?;
    }
    Ok(tx.commit().await?)
}

/// Tells what was only counted in the minutes that are over; how many entries that made.
///
/// # Errors
/// The database's.
pub async fn one_round(pool: &PgPool) -> Result<usize> {
    let mut tx = pool.begin().await?;
    let over = sqlx::query!(
        "delete from audit_tally where (minute, action, actor_id) in (
             select minute, action, actor_id from audit_tally where minute < date_trunc('minute', now())
             order by minute limit 1000 for update skip locked)
         returning minute, action, actor_id, count"
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut told = 0;
    for tally in over.iter().filter(|tally| tally.count > TOLD) {
        let Some(action) = Action::of_word(&tally.action) else { continue };
        let entry = Entry {
            object: (!tally.actor_id.is_empty()).then(|| Object::new("user", &tally.actor_id)),
            outcome: super::Outcome::Refused,
            reason: Some("repeated"),
            detail: json!({ "minute": tally.minute, "more": tally.count - TOLD }),
            ..Entry::of(Actor::Nobody, action)
        };
        record(&mut tx, &entry).await?;
        told += 1;
    }
    tx.commit().await?;
    Ok(told)
}
