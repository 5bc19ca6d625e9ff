//! Keeping scans: once each, in the transaction of whoever brings them.

mod copy;
mod correct;
mod insert;
mod new;
mod refs;

pub(crate) use correct::correct;
pub(crate) use new::{Name, NewScan};

use chrono::{DateTime, NaiveDate, Utc};
use lumbung_shared::scan::{Scan, ScanContent};
use lumbung_shared::time::from_ms;
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// What became of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    New,
    /// It was here before, with the same content.
    Duplicate,
    /// Its name, or its phone's key, belongs to a scan with other content.
    Conflict,
}

/// Stores scans that are not stored yet and answers for each, in order. Scans must be sorted by name, so
/// that two transactions with the same scans wait for each other instead of locking each other out.
pub(crate) async fn keep(tx: &mut PgConnection, scans: &[NewScan<'_>]) -> sqlx::Result<Vec<Kept>> {
    let owners = refs::claim(tx, scans).await?;
    // A scan whose phone's key already belongs to another scan is not stored again.
    let belongs = |scan: &NewScan<'_>| {
        scan.scan
            .content
            .client_ref
            .is_none_or(|key| owners.get(&key).is_none_or(|owner| *owner == scan.name()))
    };
    let own: Vec<&NewScan<'_>> = scans.iter().filter(|scan| belongs(scan)).collect();
    let quick = own.len() == scans.len() && own.len() >= copy::WORTH_IT;
    if quick && copy::try_copy(tx, &own).await? {
        count_days(tx, scans.iter()).await?;
        return Ok(vec![Kept::New; scans.len()]);
    }
    let stored = insert::insert(tx, &own).await?;
    if stored.len() == scans.len() {
        count_days(tx, scans.iter()).await?;
        return Ok(vec![Kept::New; scans.len()]);
    }
    let mut stored: HashSet<Name> = stored.into_iter().collect();
    let mut kept = Vec::with_capacity(scans.len());
    let mut again = Vec::new();
    for (i, scan) in scans.iter().enumerate() {
        if belongs(scan) && stored.remove(&scan.name()) {
            kept.push(Kept::New);
        } else {
            let key = scan.scan.content.client_ref.and_then(|key| owners.get(&key).copied());
            again.push((i, key.unwrap_or_else(|| scan.name())));
            kept.push(Kept::Duplicate);
        }
    }
    let before = contents(tx, again.iter().map(|(_, name)| *name)).await?;
    for (i, name) in again {
        if before.get(&name).is_none_or(|content| !same(content, scans[i].scan)) {
            kept[i] = Kept::Conflict;
        }
    }
    let conflicts = scans.iter().zip(&kept).filter(|(_, kept)| **kept == Kept::Conflict);
    let refused: Vec<Uuid> = conflicts.filter_map(|(scan, _)| scan.scan.content.client_ref).collect();
    refs::release(tx, &refused).await?;
    count_days(tx, scans.iter().zip(&kept).filter(|(_, kept)| **kept == Kept::New).map(|(scan, _)| scan))
        .await?;
    Ok(kept)
}

/// What is stored under these names, as far as two tellings of a scan must agree.
struct Stored {
    tag: String,
    status: String,
    timestamp: DateTime<Utc>,
    note: Option<String>,
    officer: Option<String>,
    quantity: Option<f64>,
    client_ref: Option<Uuid>,
}

async fn contents(
    tx: &mut PgConnection,
    names: impl Iterator<Item = Name>,
) -> sqlx::Result<HashMap<Name, Stored>> {
    let (mut gateways, mut epochs, mut seqs) = (Vec::new(), Vec::new(), Vec::new());
    for (gateway_id, epoch, seq) in names {
        gateways.push(gateway_id);
        epochs.push(epoch);
        seqs.push(seq);
    }
    let rows = sqlx::query!(
        r#"select e.gateway_id, e.epoch, e.seq, e.nfc_tag_id, e.status_scan, e."timestamp", e.note, e.officer,
               e.quantity, e.client_ref
           from unnest($1::int[], $2::bigint[], $3::bigint[]) as k (gateway_id, epoch, seq)
           join scan_event e on (e.gateway_id, e.epoch, e.seq) = (k.gateway_id, k.epoch, k.seq)"#,
        &gateways,
        &epochs,
        &seqs
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let stored = Stored {
                tag: row.nfc_tag_id,
                status: row.status_scan,
                timestamp: row.timestamp,
                note: row.note,
                officer: row.officer,
                quantity: row.quantity,
                client_ref: row.client_ref,
            };
            ((row.gateway_id, row.epoch, row.seq), stored)
        })
        .collect())
}

fn same(stored: &Stored, scan: &Scan) -> bool {
    let ScanContent { tag, status, at_ms: _, note, officer, quantity, client_ref } = &scan.content;
    // A phone's key may come by two gateways, whose own clocks differ; with a key only the phone's own
    // time counts.
    let same_time = stored.timestamp == from_ms(scan.timestamp_ms())
        || (client_ref.is_some() && scan.content.at_ms.is_none());
    stored.tag == tag.as_str()
        && stored.status == *status
        && same_time
        && stored.note == *note
        && stored.officer == *officer
        && stored.quantity == *quantity
        && stored.client_ref == *client_ref
}

/// Keeps the count per day in step with what was stored.
async fn count_days<'a>(
    tx: &mut PgConnection,
    new: impl Iterator<Item = &'a NewScan<'a>>,
) -> sqlx::Result<()> {
    let mut counts: BTreeMap<Day<'_>, i64> = BTreeMap::new();
    for scan in new {
        let status = scan.scan.content.status.as_str();
        *counts.entry((scan.gateway_id, scan.site_id, scan.local_day, status)).or_default() += 1;
    }
    add_to_days(tx, counts).await
}

/// Gateway, site, day and status.
type Day<'a> = (i32, i32, NaiveDate, &'a str);

async fn add_to_days(tx: &mut PgConnection, mut counts: BTreeMap<Day<'_>, i64>) -> sqlx::Result<()> {
    counts.retain(|_, scans| *scans != 0);
    if counts.is_empty() {
        return Ok(());
    }
    let gateways: Vec<i32> = counts.keys().map(|key| key.0).collect();
    let sites: Vec<i32> = counts.keys().map(|key| key.1).collect();
    let days: Vec<NaiveDate> = counts.keys().map(|key| key.2).collect();
    let statuses: Vec<&str> = counts.keys().map(|key| key.3).collect();
    let scans: Vec<i64> = counts.values().copied().collect();
    sqlx::query!(
        "insert into scan_day (gateway_id, site_id, local_day, status_scan, scans)
         select * from unnest($1::int[], $2::int[], $3::date[], $4::text[], $5::bigint[])
         on conflict on constraint scan_day_pk do update set scans = scan_day.scans + excluded.scans",
        &gateways,
        &sites,
        &days,
        &statuses as &[&str],
        &scans
    )
    .execute(&mut *tx)
    .await?;
    if scans.iter().any(|scans| *scans < 0) {
        // A day that lost its last scan has none.
        sqlx::query!(
            "delete from scan_day d using unnest($1::int[], $2::int[], $3::date[], $4::text[])
                 as k (gateway_id, site_id, local_day, status_scan)
             where (d.gateway_id, d.site_id, d.local_day, d.status_scan)
                 = (k.gateway_id, k.site_id, k.local_day, k.status_scan) and d.scans = 0",
            &gateways,
            &sites,
            &days,
            &statuses as &[&str],
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}
