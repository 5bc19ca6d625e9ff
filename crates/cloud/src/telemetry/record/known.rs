//! The series behind readings: looked up, and made where a name is new.

use super::NewReading;
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap};

/// Gateway, site, name and unit.
type Key<'a> = (i32, i32, &'a str, &'a str);

fn key<'a>(new: &NewReading<'a>) -> Key<'a> {
    let content = &new.reading.content;
    (new.gateway_id, new.site_id, content.series.as_str(), content.unit.as_str())
}

/// Most series of a gateway: far more than any site measures, and few enough that names which change with every
/// reading do no harm to anyone else.
pub(crate) const MOST_SERIES: i64 = 2_000;

/// The series of each reading, in order; `None` for a new one beyond [`MOST_SERIES`] of its gateway.
pub(crate) async fn series_of(
    tx: &mut PgConnection,
    readings: &[NewReading<'_>],
) -> sqlx::Result<Vec<Option<i64>>> {
    if readings.is_empty() {
        return Ok(Vec::new());
    }
    let keys: BTreeSet<Key<'_>> = readings.iter().map(key).collect();
    let mut known = find(tx, &keys).await?;
    if known.len() < keys.len() {
        let mut missing = keys.clone();
        missing.retain(|key| !known.contains_key(&owned(key)));
        let mut room = room(tx, &missing).await?;
        missing.retain(|key| {
            let left = room.get_mut(&key.0);
            left.is_some_and(|left| {
                *left -= 1;
                *left >= 0
            })
        });
        add(tx, &missing).await?;
        known.extend(find(tx, &missing).await?);
    }
    // Thousands of readings of a few series: each is looked up by reference first.
    let ids: HashMap<Key<'_>, i64> =
        keys.into_iter().filter_map(|key| Some((key, *known.get(&owned(&key))?))).collect();
    Ok(readings.iter().map(|new| ids.get(&key(new)).copied()).collect())
}

/// How many more series each of these gateways may have. The gateways are locked by whoever brings readings.
async fn room(tx: &mut PgConnection, keys: &BTreeSet<Key<'_>>) -> sqlx::Result<HashMap<i32, i64>> {
    let gateways: BTreeSet<i32> = keys.iter().map(|key| key.0).collect();
    let rows = sqlx::query!(
        r#"select k.gateway_id as "gateway_id!",
               (select count(*) from series s where s.gateway_id = k.gateway_id) as "series!"
           from unnest($1::int[]) as k (gateway_id)"#,
        &gateways.into_iter().collect::<Vec<_>>()
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.gateway_id, MOST_SERIES - row.series)).collect())
}

fn owned(key: &Key<'_>) -> (i32, i32, String, String) {
    (key.0, key.1, key.2.to_owned(), key.3.to_owned())
}

async fn find(
    tx: &mut PgConnection,
    keys: &BTreeSet<Key<'_>>,
) -> sqlx::Result<HashMap<(i32, i32, String, String), i64>> {
    let rows = sqlx::query!(
        "select s.series_id, s.gateway_id, s.site_id, s.name, s.unit
         from unnest($1::int[], $2::int[], $3::text[], $4::text[]) as k (gateway_id, site_id, name, unit)
         join series s on (s.gateway_id, s.site_id, s.name, s.unit) = (k.gateway_id, k.site_id, k.name, k.unit)",
        &keys.iter().map(|key| key.0).collect::<Vec<_>>(),
        &keys.iter().map(|key| key.1).collect::<Vec<_>>(),
        &keys.iter().map(|key| key.2).collect::<Vec<_>>() as &[&str],
        &keys.iter().map(|key| key.3).collect::<Vec<_>>() as &[&str],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.gateway_id, row.site_id, row.name, row.unit), row.series_id))
        .collect())
}

async fn add(tx: &mut PgConnection, keys: &BTreeSet<Key<'_>>) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into series (gateway_id, site_id, name, unit)
         select * from unnest($1::int[], $2::int[], $3::text[], $4::text[])
         on conflict on constraint series_once do nothing",
        &keys.iter().map(|key| key.0).collect::<Vec<_>>(),
        &keys.iter().map(|key| key.1).collect::<Vec<_>>(),
        &keys.iter().map(|key| key.2).collect::<Vec<_>>() as &[&str],
        &keys.iter().map(|key| key.3).collect::<Vec<_>>() as &[&str],
    )
    .execute(tx)
    .await?;
    Ok(())
}
