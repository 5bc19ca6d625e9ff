//! The records of a group with what the cloud knows of each: its run's site, and when it happened.

use super::anchors::Anchors;
use super::runs::{KnownRun, RunKey};
use crate::distribution::record::NewScan;
use crate::ingest::clock::when;
use crate::ingest::events::NewEvent;
use crate::ingest::parse::Incoming;
use crate::ingest::streams::Stream;
use crate::moment::When;
use crate::telemetry::record::NewReading;
use chrono::{DateTime, Utc};
use lumbung_shared::event::Event;
use lumbung_shared::reading::Reading;
use lumbung_shared::scan::Scan;
use lumbung_shared::wire::Epoch;
use std::collections::HashMap;

/// A record of a group.
pub(super) struct Placed<'a, T> {
    pub(super) gateway_id: i32,
    pub(super) epoch: Epoch,
    pub(super) of: &'a T,
    /// The batch of the group that brought it.
    pub(super) from: usize,
    run: &'a KnownRun,
    when: When,
    pub(super) received_at: DateTime<Utc>,
}

/// All records of a stream in the order of their names.
pub(super) fn place<'a, T: Stream>(
    group: &'a [Incoming],
    runs: &'a HashMap<RunKey, KnownRun>,
    anchors: &Anchors<'_>,
) -> Vec<Placed<'a, T>> {
    let mut placed = Vec::with_capacity(group.iter().map(|incoming| T::all(&incoming.records).len()).sum());
    for (from, incoming) in group.iter().enumerate() {
        // What ties a run to the time of day is looked for once.
        let mut known = HashMap::new();
        for record in T::all(&incoming.records) {
            let key = (incoming.gateway_id, record.epoch.to_db());
            let run = known.entry(record.epoch).or_insert_with(|| {
                let ties = [anchors.best(key), anchors.own(incoming, record.epoch)];
                runs.get(&key).map(|run| (run, ties))
            });
            // add_runs put every run of the batch there in this transaction.
            let Some((run, ties)) = *run else { continue };
            placed.push(Placed {
                gateway_id: incoming.gateway_id,
                epoch: record.epoch,
                of: &record.of,
                from,
                run,
                when: when(record.of.told(incoming.received_at), ties.into_iter().flatten()),
                received_at: incoming.received_at,
            });
        }
    }
    placed.sort_by_key(Placed::name);
    placed
}

impl<T: Stream> Placed<'_, T> {
    /// The site that its run names, where its gateway never stood.
    pub(super) fn foreign(&self) -> Option<&str> {
        self.run.foreign.as_deref()
    }

    /// (gateway, epoch, seq)
    pub(super) fn name(&self) -> (i32, i64, i64) {
        (self.gateway_id, self.epoch.to_db(), self.of.seq())
    }
}

impl<'a> From<&Placed<'a, Scan>> for NewScan<'a> {
    fn from(placed: &Placed<'a, Scan>) -> Self {
        Self {
            gateway_id: placed.gateway_id,
            epoch: placed.epoch,
            scan: placed.of,
            site_id: placed.run.site_id,
            when: placed.when,
            local_day: placed.when.at.with_timezone(&placed.run.zone).date_naive(),
            received_at: placed.received_at,
        }
    }
}

impl<'a> From<&Placed<'a, Reading>> for NewReading<'a> {
    fn from(placed: &Placed<'a, Reading>) -> Self {
        Self {
            gateway_id: placed.gateway_id,
            epoch: placed.epoch.to_db(),
            site_id: placed.run.site_id,
            reading: placed.of,
            when: placed.when,
            received_at: placed.received_at,
            may_be_anchored: placed.run.boot().is_some(),
        }
    }
}

impl<'a> From<&Placed<'a, Event>> for NewEvent<'a> {
    fn from(placed: &Placed<'a, Event>) -> Self {
        Self {
            gateway_id: placed.gateway_id,
            epoch: placed.epoch.to_db(),
            event: placed.of,
            when: placed.when,
            received_at: placed.received_at,
        }
    }
}
