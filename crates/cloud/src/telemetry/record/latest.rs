//! The newest reading of each series.

use super::{Row, newest};
use sqlx::PgConnection;

/// Notes the newest of these rows where they are newer than what is known. Rows are in the order of their keys.
pub(super) async fn note(tx: &mut PgConnection, readings: &[Row]) -> sqlx::Result<()> {
    let rows: Vec<&Row> = newest(readings).collect();
    sqlx::query!(
        "insert into series_latest (series_id, reading_time, epoch, seq, value, quality, time_basis, uncertainty_ms,
             received_at)
         select * from unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::float8[],
             $6::smallint[], $7::smallint[], $8::int[], $9::timestamptz[])
         on conflict on constraint series_latest_pk do update
             set reading_time = excluded.reading_time, epoch = excluded.epoch, seq = excluded.seq,
                 value = excluded.value, quality = excluded.quality, time_basis = excluded.time_basis,
                 uncertainty_ms = excluded.uncertainty_ms, received_at = excluded.received_at
             where (excluded.reading_time, excluded.epoch, excluded.seq)
                 > (series_latest.reading_time, series_latest.epoch, series_latest.seq)",
        &rows.iter().map(|row| row.series_id).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.when.at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.epoch).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.seq).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.value).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.quality).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.when.basis.code()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.when.uncertainty_ms).collect::<Vec<_>>() as &[Option<i32>],
        &rows.iter().map(|row| row.received_at).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Looks the newest reading of these series up anew: times were corrected.
pub(super) async fn renew(tx: &mut PgConnection, series: &[i64]) -> sqlx::Result<()> {
    sqlx::query!(
        "update series_latest l
         set reading_time = r.reading_time, epoch = r.epoch, seq = r.seq, value = r.value, quality = r.quality,
             time_basis = r.time_basis, uncertainty_ms = r.uncertainty_ms, received_at = r.received_at
         from (
             select distinct on (r.series_id) r.*
             from unnest($1::bigint[]) as k (series_id)
             cross join lateral (
                 select * from reading where series_id = k.series_id
                 order by reading_time desc, epoch desc, seq desc limit 1
             ) r
             order by r.series_id
         ) r
         where l.series_id = r.series_id",
        series
    )
    .execute(tx)
    .await?;
    Ok(())
}
