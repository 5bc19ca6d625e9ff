//! Whether gateways are heard, and whether what they sent could be taken.

use crate::finding::Finding;
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;

/// A school's box is off at night; a day without a word is more than that.
const SILENT_HOURS: i32 = 24;
/// So many are named; the others are in `gateway list`.
const NAMED: usize = 5;

/// What is watched all the time.
#[derive(Debug)]
pub struct Figures {
    /// Gateways that said something within a quarter of an hour, and those that did not.
    pub heard: i64,
    pub silent: i64,
    /// Open entries of the quarantine.
    pub quarantined: i64,
}

/// Counts.
///
/// # Errors
/// The database's.
pub async fn figures(pool: &PgPool) -> Result<Figures, sqlx::Error> {
    sqlx::query_as!(
        Figures,
        r#"select count(*) filter (where s.last_heard_at > now() - interval '15 minutes') as "heard!",
               count(*) filter (where s.last_heard_at <= now() - interval '15 minutes') as "silent!",
               (select count(*) from quarantine where replayed_at is null) as "quarantined!"
           from gateway_state s join gateway g using (gateway_id) where g.revoked_at is null"#
    )
    .fetch_one(pool)
    .await
}

/// Gateways and what they told, for the admins' dashboard.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = GatewayFigures)]
pub struct Boxes {
    /// Those that may send, heard or not.
    #[schema(example = 40)]
    pub total: i64,
    /// Within a quarter of an hour.
    #[schema(example = 38)]
    pub heard: i64,
    #[schema(example = 1)]
    pub revoked: i64,
    /// What happened to gateways (a sensor that died, a clock that was set), as it came within 24 hours.
    #[schema(example = 17)]
    pub events_24h: i64,
    #[schema(example = 812_345)]
    pub scans: i64,
    /// Entries that wait in quarantine.
    #[schema(example = 0)]
    pub quarantined: i64,
}

/// # Errors
/// The database's.
pub async fn boxes(conn: &mut PgConnection) -> crate::error::Result<Boxes> {
    Ok(sqlx::query_as!(
        Boxes,
        r#"select count(*) filter (where g.revoked_at is null) as "total!",
               count(*) filter (where g.revoked_at is null and s.last_heard_at > now() - interval '15 minutes')
                   as "heard!",
               count(*) filter (where g.revoked_at is not null) as "revoked!",
               (select count(*) from gateway_event where received_at > now() - interval '1 day') as "events_24h!",
               coalesce(sum(s.scans), 0)::bigint as "scans!",
               (select count(*) from quarantine where replayed_at is null) as "quarantined!"
           from gateway g left join gateway_state s using (gateway_id)"#
    )
    .fetch_one(conn)
    .await?)
}

/// Gateways that fell silent, and the quarantine.
pub async fn check(pool: &PgPool) -> Vec<Finding> {
    let unseen = |check, error: sqlx::Error| Finding::fail(check, error.to_string(), "see the database");
    vec![
        silent(pool).await.unwrap_or_else(|error| unseen("gateways", error)),
        quarantine(pool).await.unwrap_or_else(|error| unseen("quarantine", error)),
    ]
}

async fn silent(pool: &PgPool) -> Result<Finding, sqlx::Error> {
    let heard = sqlx::query!(
        r#"select g.code, s.last_heard_at < now() - make_interval(hours => $1) as "silent!"
           from gateway_state s join gateway g using (gateway_id) where g.revoked_at is null
           order by s.last_heard_at"#,
        SILENT_HOURS
    )
    .fetch_all(pool)
    .await?;
    let silent: Vec<&str> =
        heard.iter().filter_map(|gateway| gateway.silent.then_some(gateway.code.as_str())).collect();
    if silent.is_empty() {
        return Ok(Finding::ok("gateways", format!("{} heard within {SILENT_HOURS} h", heard.len())));
    }
    let mut names = silent.get(..NAMED).unwrap_or(&silent).join(", ");
    if silent.len() > NAMED {
        names.push_str(", …");
    }
    Ok(Finding::warn(
        "gateways",
        format!("{} of {} silent for more than {SILENT_HOURS} h: {names}", silent.len(), heard.len()),
        "see their power and network; `lumbung-cloud gateway revoke` what is out of service",
    ))
}

async fn quarantine(pool: &PgPool) -> Result<Finding, sqlx::Error> {
    let open = sqlx::query_scalar!(r#"select count(*) as "open!" from quarantine where replayed_at is null"#)
        .fetch_one(pool)
        .await?;
    Ok(match open {
        0 => Finding::ok("quarantine", "empty"),
        open => Finding::warn(
            "quarantine",
            format!("{open} entries wait"),
            "`lumbung-cloud quarantine list` says why; `quarantine replay` takes them after a fix",
        ),
    })
}
