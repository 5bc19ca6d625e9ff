//! Finding the records of a batch that the database will not take, so that the others need not wait.

use super::anchors::Anchors;
use super::claim::claim;
use super::placed::{Placed, place};
use super::runs::{add_runs, known_runs};
use crate::distribution::record::{self, NewScan};
use crate::ingest::events::{self, NewEvent};
use crate::ingest::parse::Incoming;
use crate::telemetry::record::{self as readings, NewReading};
use lumbung_shared::event::Event;
use lumbung_shared::reading::Reading;
use lumbung_shared::scan::Scan;
use lumbung_shared::wire::{EVENT_STREAM, Epoch, READING_STREAM, SCAN_STREAM};
use sqlx::{PgConnection, PgPool};

/// A record that the database refuses, and why.
pub(in crate::ingest) struct Poison {
    pub(in crate::ingest) stream: &'static str,
    pub(in crate::ingest) epoch: Epoch,
    pub(in crate::ingest) seq: i64,
    pub(in crate::ingest) detail: String,
}

/// Neighbours of one stream.
enum Part<'b, 'a> {
    Scans(&'b [NewScan<'a>]),
    Readings(&'b [(NewReading<'a>, i64)]),
    Events(&'b [NewEvent<'a>]),
}

impl Part<'_, '_> {
    fn len(&self) -> usize {
        match self {
            Self::Scans(scans) => scans.len(),
            Self::Readings(readings) => readings.len(),
            Self::Events(events) => events.len(),
        }
    }

    fn halves(&self) -> [Self; 2] {
        let middle = self.len() / 2;
        match self {
            Self::Scans(scans) => <[_; 2]>::from(scans.split_at(middle)).map(Self::Scans),
            Self::Readings(readings) => <[_; 2]>::from(readings.split_at(middle)).map(Self::Readings),
            Self::Events(events) => <[_; 2]>::from(events.split_at(middle)).map(Self::Events),
        }
    }

    async fn keep(&self, tx: &mut PgConnection) -> sqlx::Result<()> {
        match self {
            Self::Scans(scans) => record::keep(tx, scans).await.map(drop),
            Self::Readings(readings) => readings::keep(tx, readings).await,
            Self::Events(events) => events::keep(tx, events).await.map(drop),
        }
    }

    /// The first record's stream, epoch and number.
    fn name(&self) -> Option<(&'static str, Epoch, i64)> {
        Some(match self {
            Self::Scans(scans) => scans.first().map(|new| (SCAN_STREAM, new.epoch, new.scan.seq))?,
            Self::Readings(readings) => readings
                .first()
                .map(|(new, _)| (READING_STREAM, Epoch::from_db(new.epoch), new.reading.seq))?,
            Self::Events(events) => {
                events.first().map(|new| (EVENT_STREAM, Epoch::from_db(new.epoch), new.event.seq))?
            }
        })
    }
}

/// Halves the batch until each record that the database refuses stands alone. Nothing is stored.
pub(in crate::ingest) async fn find_poison(pool: &PgPool, incoming: &Incoming) -> sqlx::Result<Vec<Poison>> {
    let mut tx = pool.begin().await?;
    let group = std::slice::from_ref(incoming);
    add_runs(&mut tx, group).await?;
    let runs = known_runs(&mut tx, group).await?;
    let anchors = Anchors::of(group, &runs);
    let scans: Vec<NewScan<'_>> = place::<Scan>(group, &runs, &anchors).iter().map(Into::into).collect();
    let readings = fresh_readings(&mut tx, &place::<Reading>(group, &runs, &anchors)).await?;
    let events: Vec<NewEvent<'_>> = place::<Event>(group, &runs, &anchors).iter().map(Into::into).collect();
    let mut suspects = vec![Part::Scans(&scans), Part::Readings(&readings), Part::Events(&events)];
    let mut poison = Vec::new();
    while let Some(part) = suspects.pop() {
        let Some((stream, epoch, seq)) = part.name() else { continue };
        sqlx::query!("savepoint part").execute(&mut *tx).await?;
        let kept = part.keep(&mut tx).await;
        sqlx::query!("rollback to savepoint part").execute(&mut *tx).await?;
        match kept {
            Ok(()) => {}
            Err(error) if crate::error::is_unreachable(&error) => return Err(error),
            Err(error) if part.len() == 1 => {
                poison.push(Poison { stream, epoch, seq, detail: error.to_string() });
            }
            Err(_) => suspects.extend(part.halves()),
        }
    }
    tx.rollback().await?;
    Ok(poison)
}

/// The readings that would be stored: their domain looks for duplicates nowhere, and must not be given any.
async fn fresh_readings<'a>(
    tx: &mut PgConnection,
    placed: &[Placed<'a, Reading>],
) -> sqlx::Result<Vec<(NewReading<'a>, i64)>> {
    let new: Vec<NewReading<'_>> = placed.iter().map(Into::into).collect();
    let series = readings::series_of(tx, &new).await?;
    let fresh = claim(tx, placed).await?;
    let known = new.into_iter().zip(series).zip(fresh);
    Ok(known.filter_map(|((new, series_id), fresh)| Some((new, series_id.filter(|_| fresh)?))).collect())
}
