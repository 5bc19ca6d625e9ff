//! Uploads in figures, for the admins' dashboard.

use crate::error::Result;
use chrono::NaiveDate;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = UploadFigures)]
pub struct Uploads {
    #[schema(example = 5210)]
    pub total: i64,
    /// The total is an estimate: there are more than 100,000.
    #[schema(example = false)]
    pub total_is_estimate: bool,
    #[schema(example = 12)]
    pub uploaded_24h: i64,
    #[schema(example = 430)]
    pub uploaded_30d: i64,
    /// Of those of 30 days, as kept.
    #[schema(example = 90_112_000)]
    pub bytes_30d: i64,
}

/// # Errors
/// The database's.
pub async fn uploads(conn: &mut PgConnection) -> Result<Uploads> {
    Ok(sqlx::query_as!(
        Uploads,
        r#"select case when c.reltuples > 100000 then c.reltuples::bigint else (select count(*) from file) end
                   as "total!",
               c.reltuples > 100000 as "total_is_estimate!",
               (select count(*) from file where created_at > now() - interval '1 day') as "uploaded_24h!",
               month.count as "uploaded_30d!", month.bytes as "bytes_30d!"
           from pg_class c, (select count(*) as count, coalesce(sum(bytes), 0)::bigint as bytes from file
               where created_at > now() - interval '30 days') month
           where c.oid = 'file'::regclass"#
    )
    .fetch_one(conn)
    .await?)
}

/// Uploads of each day from `first`, as days are in Jakarta; days without any are left out.
///
/// # Errors
/// The database's.
pub async fn uploads_per_day(conn: &mut PgConnection, first: NaiveDate) -> Result<Vec<(NaiveDate, i64)>> {
    let rows = sqlx::query!(
        r#"select (created_at at time zone 'Asia/Jakarta')::date as "day!", count(*) as "count!" from file
           where created_at >= $1::date::timestamp at time zone 'Asia/Jakarta' group by 1"#,
        first
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.day, row.count)).collect())
}
