//! A phone's own key is one scan, whichever gateway it was posted to.

use super::new::{Name, NewScan};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Claims each phone's key for its scan; answers who owns the keys now.
pub(super) async fn claim(tx: &mut PgConnection, scans: &[NewScan<'_>]) -> sqlx::Result<HashMap<Uuid, Name>> {
    let mut claims: Vec<(Uuid, Name)> =
        scans.iter().filter_map(|scan| Some((scan.scan.content.client_ref?, scan.name()))).collect();
    if claims.is_empty() {
        return Ok(HashMap::new());
    }
    claims.sort_unstable();
    claims.dedup_by_key(|(key, _)| *key);
    let keys: Vec<Uuid> = claims.iter().map(|(key, _)| *key).collect();
    let gateways: Vec<i32> = claims.iter().map(|(_, name)| name.0).collect();
    let epochs: Vec<i64> = claims.iter().map(|(_, name)| name.1).collect();
    let seqs: Vec<i64> = claims.iter().map(|(_, name)| name.2).collect();
    sqlx::query!(
        "insert into scan_client_ref (client_ref, gateway_id, epoch, seq)
         select * from unnest($1::uuid[], $2::int[], $3::bigint[], $4::bigint[])
         on conflict do nothing",
        &keys,
        &gateways,
        &epochs,
        &seqs
    )
    .execute(&mut *tx)
    .await?;
    let rows = sqlx::query!(
        "select client_ref, gateway_id, epoch, seq from scan_client_ref where client_ref = any($1)",
        &keys
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.client_ref, (row.gateway_id, row.epoch, row.seq))).collect())
}

/// Lets go of keys claimed for scans that turned out not to be stored under that name with that key.
pub(super) async fn release(tx: &mut PgConnection, refused: &[Uuid]) -> sqlx::Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "delete from scan_client_ref r where r.client_ref = any($1) and not exists (
             select from scan_event e where (e.gateway_id, e.epoch, e.seq) = (r.gateway_id, r.epoch, r.seq)
                 and e.client_ref = r.client_ref)",
        refused
    )
    .execute(tx)
    .await?;
    Ok(())
}
