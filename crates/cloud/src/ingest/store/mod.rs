//! The transaction that stores a group of batches: small tables first, then the records of each stream, then
//! what is derived from them, and word of it to whoever listens.

mod anchors;
mod claim;
mod heard;
mod placed;
mod poison;
mod quarantine;
mod runs;

pub(super) use poison::{Poison, find_poison};

use super::events::{self, NewEvent};
use super::parse::{Incoming, Outcome};
use super::streams::Stream;
use crate::distribution::live;
use crate::distribution::record::{self, Kept, NewScan};
use crate::telemetry;
use crate::telemetry::record::NewReading;
use anchors::Anchors;
use heard::{count_carried, hear, hold, raise};
use lumbung_shared::event::Event;
use lumbung_shared::reading::Reading;
use lumbung_shared::scan::Scan;
use placed::{Placed, place};
use quarantine::{
    FOREIGN_SITE, Quarantined, TOO_MANY_SERIES, conflict, flood_of_series, of_another_place, quarantine,
};
use runs::{add_runs, find_forks, known_runs};
use sqlx::PgConnection;
use sqlx::PgPool;
use std::collections::HashMap;

/// How many records of each stream are new, by gateway.
#[derive(Default)]
struct News {
    scans: HashMap<i32, i64>,
    readings: HashMap<i32, i64>,
}

/// Stores everything of these batches in one transaction; the outcomes are in the batches' order.
pub(super) async fn store(pool: &PgPool, group: &[Incoming]) -> sqlx::Result<Vec<Outcome>> {
    let mut tx = pool.begin().await?;
    let (mut outcomes, news) = keep_records(&mut tx, group).await?;
    find_forks(&mut tx, group).await?;
    hold(&mut tx, group, &mut outcomes).await?;
    hear(&mut tx, group, &news).await?;
    count_carried(&mut tx, group, &news).await?;
    raise(&mut tx, group, &mut outcomes).await?;
    tx.commit().await?;
    Ok(outcomes)
}

/// Keeps records that come from the quarantine, in the caller's transaction; they say nothing new of their
/// gateway.
pub(super) async fn keep_again(tx: &mut PgConnection, again: &Incoming) -> sqlx::Result<Outcome> {
    let (mut outcomes, news) = keep_records(tx, std::slice::from_ref(again)).await?;
    let new = |of: &HashMap<i32, i64>| of.get(&again.gateway_id).copied().unwrap_or(0);
    sqlx::query!(
        "update gateway_state set scans = scans + $2, readings = readings + $3 where gateway_id = $1",
        again.gateway_id,
        new(&news.scans),
        new(&news.readings)
    )
    .execute(tx)
    .await?;
    Ok(outcomes.pop().unwrap_or_default())
}

/// Runs, anchors, records and quarantine of a group; answers what became of them and what is new.
async fn keep_records(tx: &mut PgConnection, group: &[Incoming]) -> sqlx::Result<(Vec<Outcome>, News)> {
    let mut outcomes: Vec<Outcome> = group.iter().map(|_| Outcome::default()).collect();
    let introduced = add_runs(tx, group).await?;
    let runs = known_runs(tx, group).await?;
    let anchors = Anchors::of(group, &runs);
    anchors.improve(tx, &introduced).await?;
    let mut refused = Vec::new();
    let mut news = News::default();

    let placed = place::<Event>(group, &runs, &anchors);
    let new: Vec<NewEvent<'_>> = placed.iter().map(Into::into).collect();
    let kept = events::keep(tx, &new).await?;
    tell(&placed, &kept, &mut outcomes, &mut refused);

    let mut placed = place::<Scan>(group, &runs, &anchors);
    turn_away_foreign(&mut placed, &mut outcomes, &mut refused);
    let new: Vec<NewScan<'_>> = placed.iter().map(Into::into).collect();
    let kept = record::keep(tx, &new).await?;
    news.scans = tell(&placed, &kept, &mut outcomes, &mut refused);
    let arrived = new.iter().zip(&kept).filter(|(_, kept)| **kept == Kept::New).map(|(scan, _)| scan.name());
    live::announce(tx, arrived).await?;

    let mut placed = place::<Reading>(group, &runs, &anchors);
    turn_away_foreign(&mut placed, &mut outcomes, &mut refused);
    let new: Vec<NewReading<'_>> = placed.iter().map(Into::into).collect();
    let mut series = telemetry::record::series_of(tx, &new).await?;
    // Not claimed: a number that is held in quarantine must still be takable when it is replayed.
    let mut known = series.iter().map(Option::is_some);
    for flood in placed.extract_if(.., |_| !known.next().unwrap_or(true)) {
        let outcome = outcomes[flood.from].quarantined.entry((flood.epoch, Reading::NAME.to_owned()));
        let seq = flood.of.seq();
        outcome.or_default().push((seq, seq, TOO_MANY_SERIES.to_owned()));
        refused.push(flood_of_series(&flood));
    }
    series.retain(Option::is_some);
    let kept: Vec<Kept> = claim::claim(tx, &placed)
        .await?
        .into_iter()
        .map(|new| if new { Kept::New } else { Kept::Duplicate })
        .collect();
    let fresh = placed.iter().zip(series.iter().flatten()).zip(&kept).filter(|(_, kept)| **kept == Kept::New);
    let new: Vec<(NewReading<'_>, i64)> =
        fresh.map(|((placed, series_id), _)| (placed.into(), *series_id)).collect();
    telemetry::record::keep(tx, &new).await?;
    news.readings = tell(&placed, &kept, &mut outcomes, &mut refused);

    refuse(group, &mut outcomes, &mut refused);
    quarantine(tx, refused).await?;
    Ok((outcomes, news))
}

/// Puts records of places where their gateway never stood to what goes to quarantine. Events are the gateway's own,
/// wherever it is.
fn turn_away_foreign<T: Stream>(
    placed: &mut Vec<Placed<'_, T>>,
    outcomes: &mut [Outcome],
    refused: &mut Vec<Quarantined>,
) {
    for record in placed.extract_if(.., |record| record.foreign().is_some()) {
        let Some(site) = record.foreign() else { continue };
        let told = outcomes[record.from].quarantined.entry((record.epoch, T::NAME.to_owned()));
        let seq = record.of.seq();
        told.or_default().push((seq, seq, FOREIGN_SITE.to_owned()));
        refused.push(of_another_place(&record, site));
    }
}

/// Tells each batch what became of its records of a stream; answers how many are new by gateway.
fn tell<T: Stream>(
    placed: &[Placed<'_, T>],
    kept: &[Kept],
    outcomes: &mut [Outcome],
    refused: &mut Vec<Quarantined>,
) -> HashMap<i32, i64> {
    let mut new = HashMap::new();
    for (record, kept) in placed.iter().zip(kept) {
        let outcome = &mut outcomes[record.from];
        let key = || (record.epoch, T::NAME.to_owned());
        let seq = record.of.seq();
        match kept {
            Kept::New => *new.entry(record.gateway_id).or_default() += 1,
            Kept::Duplicate => outcome.duplicates.entry(key()).or_default().push(seq),
            Kept::Conflict => {
                refused.push(conflict(record));
                outcome.quarantined.entry(key()).or_default().push((seq, seq, "conflict".to_owned()));
            }
        }
    }
    new
}

/// Tells each batch of its records that could not be read, and puts them to what goes to quarantine.
fn refuse(group: &[Incoming], outcomes: &mut [Outcome], refused: &mut Vec<Quarantined>) {
    for (incoming, outcome) in group.iter().zip(outcomes) {
        for unread in &incoming.refusals {
            let refusal = &unread.refusal;
            let key = (unread.epoch, unread.stream.clone());
            outcome.quarantined.entry(key).or_default().push((
                refusal.seq,
                refusal.through,
                refusal.reason.to_owned(),
            ));
            refused.push(Quarantined {
                gateway_id: incoming.gateway_id,
                epoch: unread.epoch.to_db(),
                stream: unread.stream.clone(),
                seq: refusal.seq,
                through: refusal.through,
                reason: refusal.reason,
                detail: refusal.detail.clone(),
                raw: refusal.raw.clone(),
                received_at: incoming.received_at,
            });
        }
    }
}
