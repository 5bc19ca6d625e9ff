//! The transaction that stores a group of batches: small tables first, then the scans, then what is
//! derived from them, and word of it to whoever listens.

mod anchors;
mod heard;
mod quarantine;
mod runs;

use super::clock::when;
use super::parse::{Incoming, Outcome};
use crate::distribution::live;
use crate::distribution::record::{self, Kept, NewScan};
use anchors::{Anchors, told_by_scan};
use heard::{hear, hold, raise};
use lumbung_shared::wire::SCAN_STREAM;
use quarantine::{Quarantined, conflict, quarantine};
use runs::{KnownRun, RunKey, add_runs, find_forks, known_runs};
use sqlx::PgConnection;
use sqlx::PgPool;
use std::collections::HashMap;

/// Stores everything of these batches in one transaction; the outcomes are in the batches' order.
pub(super) async fn store(pool: &PgPool, group: &[Incoming]) -> sqlx::Result<Vec<Outcome>> {
    let mut tx = pool.begin().await?;
    let (mut outcomes, new_scans) = keep_records(&mut tx, group).await?;
    find_forks(&mut tx, group).await?;
    hold(&mut tx, group, &mut outcomes).await?;
    hear(&mut tx, group, &new_scans).await?;
    raise(&mut tx, group, &mut outcomes).await?;
    tx.commit().await?;
    Ok(outcomes)
}

/// Keeps records that come from the quarantine, in the caller's transaction; they say nothing new of their
/// gateway.
pub(super) async fn keep_again(tx: &mut PgConnection, again: &Incoming) -> sqlx::Result<Outcome> {
    let (mut outcomes, new_scans) = keep_records(tx, std::slice::from_ref(again)).await?;
    sqlx::query!(
        "update gateway_state set scans = scans + $2 where gateway_id = $1",
        again.gateway_id,
        new_scans.get(&again.gateway_id).copied().unwrap_or(0)
    )
    .execute(tx)
    .await?;
    Ok(outcomes.pop().unwrap_or_default())
}

/// Runs, scans and quarantine of a group; answers what became of them and the new scans per gateway.
async fn keep_records(
    tx: &mut PgConnection,
    group: &[Incoming],
) -> sqlx::Result<(Vec<Outcome>, HashMap<i32, i64>)> {
    let mut outcomes: Vec<Outcome> = group.iter().map(|_| Outcome::default()).collect();
    add_runs(tx, group).await?;
    let runs = known_runs(tx, group).await?;
    let anchors = Anchors::of(group, &runs);
    anchors.improve(tx).await?;
    let (scans, origin) = order(group, &runs, &anchors);
    let kept = record::keep(tx, &scans).await?;
    let mut refused = Vec::new();
    let mut new_scans: HashMap<i32, i64> = HashMap::new();
    for ((scan, &from), kept) in scans.iter().zip(&origin).zip(&kept) {
        let key = || (scan.epoch, SCAN_STREAM.to_owned());
        match kept {
            Kept::New => *new_scans.entry(scan.gateway_id).or_default() += 1,
            Kept::Duplicate => outcomes[from].duplicates.entry(key()).or_default().push(scan.scan.seq),
            Kept::Conflict => {
                refused.push(conflict(scan));
                let reason = (scan.scan.seq, scan.scan.seq, "conflict".to_owned());
                outcomes[from].quarantined.entry(key()).or_default().push(reason);
            }
        }
    }
    for (incoming, outcome) in group.iter().zip(&mut outcomes) {
        for refused_record in &incoming.refusals {
            let refusal = &refused_record.refusal;
            let key = (refused_record.epoch, refused_record.stream.clone());
            outcome.quarantined.entry(key).or_default().push((
                refusal.seq,
                refusal.through,
                refusal.reason.to_owned(),
            ));
            refused.push(Quarantined {
                gateway_id: incoming.gateway_id,
                epoch: refused_record.epoch.to_db(),
                stream: refused_record.stream.clone(),
                seq: refusal.seq,
                through: refusal.through,
                reason: refusal.reason,
                detail: refusal.detail.clone(),
                raw: refusal.raw.clone(),
                received_at: incoming.received_at,
            });
        }
    }
    quarantine(tx, refused).await?;
    let arrived =
        scans.iter().zip(&kept).filter(|(_, kept)| **kept == Kept::New).map(|(scan, _)| scan.name());
    live::announce(tx, arrived).await?;
    Ok((outcomes, new_scans))
}

/// Tries each scan of a batch by itself and answers which ones the database will not take, and why.
pub(super) async fn find_poison(pool: &PgPool, incoming: &Incoming) -> sqlx::Result<Vec<(usize, String)>> {
    let mut tx = pool.begin().await?;
    let group = std::slice::from_ref(incoming);
    add_runs(&mut tx, group).await?;
    let runs = known_runs(&mut tx, group).await?;
    let (scans, _) = order(group, &runs, &Anchors::of(group, &runs));
    let mut poison = HashMap::new();
    for scan in scans {
        let name = scan.name();
        sqlx::query!("savepoint one").execute(&mut *tx).await?;
        if let Err(error) = record::keep(&mut tx, &[scan]).await {
            if crate::error::is_unreachable(&error) {
                return Err(error);
            }
            poison.insert(name, error.to_string());
        }
        sqlx::query!("rollback to savepoint one").execute(&mut *tx).await?;
    }
    tx.rollback().await?;
    let name = |record: &super::parse::Record| (incoming.gateway_id, record.epoch.to_db(), record.scan.seq);
    let found = incoming.scans.iter().enumerate();
    Ok(found.filter_map(|(i, record)| Some((i, poison.get(&name(record))?.clone()))).collect())
}

/// All scans of the group in the order of their names, each with the batch it came in.
fn order<'a>(
    group: &'a [Incoming],
    runs: &HashMap<RunKey, KnownRun>,
    anchors: &Anchors<'_>,
) -> (Vec<NewScan<'a>>, Vec<usize>) {
    let mut scans = Vec::new();
    for (from, incoming) in group.iter().enumerate() {
        // What ties a run to the time of day is looked for once.
        let mut ties = HashMap::new();
        for record in &incoming.scans {
            // add_runs put every run of the batch there in this transaction.
            let key = (incoming.gateway_id, record.epoch.to_db());
            let Some(known) = runs.get(&key) else { continue };
            let tie = *ties
                .entry(record.epoch)
                .or_insert_with(|| [anchors.best(key), anchors.own(incoming, record.epoch)]);
            let when = when(told_by_scan(&record.scan, incoming.received_at), tie.into_iter().flatten());
            let new = NewScan {
                gateway_id: incoming.gateway_id,
                epoch: record.epoch,
                scan: &record.scan,
                site_id: known.site_id,
                when,
                local_day: when.at.with_timezone(&known.zone).date_naive(),
                received_at: incoming.received_at,
            };
            scans.push((new, from));
        }
    }
    scans.sort_by_key(|(scan, _)| scan.name());
    scans.into_iter().unzip()
}
