//! Deliveries as admins see them: what waits, what was given up, and giving it another chance.
//!
//! No address and no text is shown: whose it is, is enough.

use crate::audit::{Action, By, Object};
use crate::database::anew;
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::page::Page;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;

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

/// A page of the deliveries in a state, the newest first.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, state: &str, page: Page) -> Result<Vec<Listed>> {
    Ok(sqlx::query_as!(
        Listed,
        "select delivery_id, user_id, channel, kind, state, attempts, last_error, created_at, next_try_at, ended_at
         from delivery where state = $1 and ($2::bigint is null or delivery_id < $2)
         order by delivery_id desc limit $3 offset $4",
        state,
        page.after,
        page.most,
        page.skip
    )
    .fetch_all(anew(pool))
    .await?)
}

/// Messages in figures, for the admins' dashboard.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MessageFigures)]
pub struct Messages {
    #[schema(example = 0)]
    pub waiting: i64,
    /// Given up within 7 days.
    #[schema(example = 0)]
    pub dead_7d: i64,
}

/// # Errors
/// The database's.
pub async fn messages(conn: &mut PgConnection) -> Result<Messages> {
    Ok(sqlx::query_as!(
        Messages,
        r#"select (select count(*) from delivery where state in ('queued', 'sending')) as "waiting!",
               (select count(*) from delivery where state = 'dead' and ended_at > now() - interval '7 days')
                   as "dead_7d!""#
    )
    .fetch_one(conn)
    .await?)
}

/// Within how many days something that was given up is worth a look.
const LATELY_DAYS: i32 = 7;

/// Whether messages were given up lately.
pub async fn check(pool: &PgPool) -> Finding {
    let dead = sqlx::query!(
        r#"select count(*) as "count!", string_agg(distinct channel, ', ') as channels from delivery
           where state = 'dead' and ended_at > now() - make_interval(days => $1)"#,
        LATELY_DAYS
    );
    match dead.fetch_one(pool).await {
        Err(error) => Finding::fail("messages", error.to_string(), "see the database"),
        Ok(dead) if dead.count == 0 => {
            Finding::ok("messages", format!("none was given up in {LATELY_DAYS} days"))
        }
        Ok(dead) => Finding::warn(
            "messages",
            format!(
                "{} were given up in {LATELY_DAYS} days by {}",
                dead.count,
                dead.channels.unwrap_or_default()
            ),
            "`lumbung-cloud message list` says why, `message retry ID` tries again",
        ),
    }
}

/// Gives a dead delivery all of its tries anew.
///
/// # Errors
/// `NOT_FOUND`; `DELIVERY_NOT_DEAD` when it is not dead, or was a link that opens an account, which is not kept; or
/// the database's.
pub async fn retry(conn: &mut PgConnection, delivery_id: i64, by: &By) -> Result<()> {
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
    by.did(conn, Action::AdminAction, Object::new("delivery", &delivery_id), None, json!({})).await
}
