//! Deliveries as admins see them: what waits, what was given up, and giving it another chance.
//!
//! No address and no text is shown: whose it is, is enough.

use crate::audit::{self, Action, Actor, Entry, Object, Origin};
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

/// Every state, as it is stored and asked for.
pub const STATES: [&str; 4] = ["queued", "sending", "sent", "dead"];

/// A delivery as admins list it.
#[derive(Debug)]
pub struct Listed {
    pub delivery_id: i64,
    pub user_id: Option<i64>,
    pub channel: String,
    pub kind: String,
    pub state: String,
    pub attempts: i32,
    pub last_error: Option<String>,
    pub created_at: DateTime<Utc>,
    pub next_try_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// Deliveries in a state, the newest first, from below `before`.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, state: &str, before: Option<i64>, most: i64) -> Result<Vec<Listed>> {
    Ok(sqlx::query_as!(
        Listed,
        "select delivery_id, user_id, channel, kind, state, attempts, last_error, created_at, next_try_at, ended_at
         from delivery where state = $1 and ($2::bigint is null or delivery_id < $2)
         order by delivery_id desc limit $3",
        state,
        before,
        most
    )
    .fetch_all(pool)
    .await?)
}

/// Gives a dead delivery all of its tries anew.
///
/// # Errors
/// `NOT_FOUND`; `DELIVERY_NOT_DEAD` when it is not dead, or was a link that opens an account, which is not kept; or
/// the database's.
pub async fn retry(
    conn: &mut PgConnection,
    delivery_id: i64,
    actor: Actor<'_>,
    origin: Option<Origin>,
) -> Result<()> {
    let revived = sqlx::query_scalar!(
        "update delivery set state = 'queued', attempts = 0, next_try_at = now(), ended_at = null
         where delivery_id = $1 and state = 'dead' and content is not null returning delivery_id",
        delivery_id
    )
    .fetch_optional(&mut *conn)
    .await?;
    if revived.is_none() {
        let known = sqlx::query_scalar!(
            r#"select exists (select from delivery where delivery_id = $1) as "known!""#,
            delivery_id
        )
        .fetch_one(conn)
        .await?;
        return Err(if known { Error::Conflict("DELIVERY_NOT_DEAD") } else { Error::NotFound("NOT_FOUND") });
    }
    let object = Some(Object::new("delivery", &delivery_id));
    audit::record(conn, &Entry { object, origin, ..Entry::of(actor, Action::AdminAction) }).await
}
