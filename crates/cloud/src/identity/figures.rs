//! Accounts in figures, for the admins' dashboard.

use crate::error::Result;
use chrono::NaiveDate;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AccountFigures)]
pub struct Accounts {
    #[schema(example = 1234)]
    pub total: i64,
    /// The total is an estimate: there are more than 100,000.
    #[schema(example = false)]
    pub total_is_estimate: bool,
    /// People with a session that was used within 24 hours, and within 30 days.
    #[schema(example = 87)]
    pub active_24h: i64,
    #[schema(example = 640)]
    pub active_30d: i64,
    #[schema(example = 5)]
    pub sign_ups_24h: i64,
    #[schema(example = 120)]
    pub sign_ups_30d: i64,
    #[schema(example = 2)]
    pub banned: i64,
}

/// # Errors
/// The database's.
pub async fn accounts(conn: &mut PgConnection) -> Result<Accounts> {
    Ok(sqlx::query_as!(
        Accounts,
        r#"select case when c.reltuples > 100000 then c.reltuples::bigint else (select count(*) from app_user) end
                   as "total!",
               c.reltuples > 100000 as "total_is_estimate!",
               (select count(distinct user_id) from user_session where last_seen_at > now() - interval '1 day')
                   as "active_24h!",
               (select count(distinct user_id) from user_session where last_seen_at > now() - interval '30 days')
                   as "active_30d!",
               (select count(*) from app_user where created_at > now() - interval '1 day') as "sign_ups_24h!",
               (select count(*) from app_user where created_at > now() - interval '30 days') as "sign_ups_30d!",
               (select count(*) from user_ban where lifted_at is null
                   and (expires_at is null or expires_at > now())) as "banned!"
           from pg_class c where c.oid = 'app_user'::regclass"#
    )
    .fetch_one(conn)
    .await?)
}

/// New accounts on each day from `first`, as days are in Jakarta; days without any are left out.
///
/// # Errors
/// The database's.
pub async fn sign_ups_per_day(conn: &mut PgConnection, first: NaiveDate) -> Result<Vec<(NaiveDate, i64)>> {
    let rows = sqlx::query!(
        r#"select (created_at at time zone 'Asia/Jakarta')::date as "day!", count(*) as "count!" from app_user
           where created_at >= $1::date::timestamp at time zone 'Asia/Jakarta' group by 1"#,
        first
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.day, row.count)).collect())
}
