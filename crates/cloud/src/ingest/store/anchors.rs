//! What ties each boot's milliseconds to the time of day, and the correction of what was stored before it
//! was known (or known so well). A gateway's batches are stored one after the other ([`super::runs`] locks
//! the gateway), so nothing is stored by an older anchor beside the correction.

use super::runs::{KnownRun, RunKey};
use crate::ingest::clock::{Anchor, when};
use crate::ingest::events;
use crate::ingest::parse::{Incoming, Sender};
use crate::ingest::streams::Stream;
use crate::moment::Told;
use crate::{distribution, telemetry};
use chrono::{DateTime, Utc};
use lumbung_shared::event::Event;
use lumbung_shared::reading::Reading;
use lumbung_shared::scan::Scan;
use lumbung_shared::wire::Epoch;
use sqlx::PgConnection;
use std::collections::HashMap;

/// A boot of a gateway.
type Boot<'a> = (i32, &'a str);

struct Tie {
    known: Option<Anchor>,
    best: Option<Anchor>,
    noted_at: DateTime<Utc>,
}

/// The best anchor of every boot that the group speaks of.
pub(super) struct Anchors<'a> {
    runs: &'a HashMap<RunKey, KnownRun>,
    ties: HashMap<Boot<'a>, Tie>,
}

impl<'a> Anchors<'a> {
    /// From what is stored and what the group tells.
    pub(super) fn of(group: &[Incoming], runs: &'a HashMap<RunKey, KnownRun>) -> Self {
        let mut anchors = Self { runs, ties: HashMap::new() };
        for incoming in group {
            let (gateway_id, noted_at) = (incoming.gateway_id, incoming.received_at);
            if let Some(sender) = &incoming.sender {
                // Its arrival first: what the gateway says is weighed against that.
                let said = Anchor::of_record(told_by_sender(sender, noted_at));
                for anchor in [arrival(incoming), said].into_iter().flatten() {
                    anchors.offer((gateway_id, sender.epoch.to_db()), anchor, noted_at);
                }
            }
            anchors.offer_records::<Scan>(incoming);
            anchors.offer_records::<Reading>(incoming);
            anchors.offer_records::<Event>(incoming);
            for event in &incoming.records.events {
                if let Some(anchor) = events::anchor(&event.of, noted_at.timestamp_millis()) {
                    anchors.offer((gateway_id, event.epoch.to_db()), anchor, noted_at);
                }
            }
        }
        anchors
    }

    fn boot(&self, run: RunKey) -> Option<(Boot<'a>, &'a KnownRun)> {
        let known = self.runs.get(&run)?;
        Some(((run.0, known.boot()?), known))
    }

    /// One synced record of a run is as good as the next: thousands of them cost one look.
    fn offer_records<T: Stream>(&mut self, incoming: &Incoming) {
        let mut offered = None;
        for record in T::all(&incoming.records) {
            if offered == Some(record.epoch) {
                continue;
            }
            if let Some(anchor) = Anchor::of_record(record.of.told(incoming.received_at)) {
                self.offer((incoming.gateway_id, record.epoch.to_db()), anchor, incoming.received_at);
                offered = Some(record.epoch);
            }
        }
    }

    fn offer(&mut self, run: RunKey, anchor: Anchor, noted_at: DateTime<Utc>) {
        let Some((boot, known)) = self.boot(run) else { return };
        let known = known.anchor;
        let tie = self.ties.entry(boot).or_insert(Tie { known, best: known, noted_at });
        if anchor.beats(tie.best) {
            *tie = Tie { known, best: Some(anchor), noted_at };
        }
    }

    /// What ties the records of a run to the time of day.
    pub(super) fn best(&self, run: RunKey) -> Option<Anchor> {
        let (boot, known) = self.boot(run)?;
        self.ties.get(&boot).map_or(known.anchor, |tie| tie.best)
    }

    /// The batch's own tie, if the run belongs to the boot that sent it.
    pub(super) fn own(&self, incoming: &Incoming, epoch: Epoch) -> Option<Anchor> {
        let sender = incoming.sender.as_ref()?;
        let boot = |epoch: Epoch| self.boot((incoming.gateway_id, epoch.to_db())).map(|(boot, _)| boot);
        (boot(sender.epoch)? == boot(epoch)?).then(|| arrival(incoming)).flatten()
    }

    /// Keeps the anchors that are better than what was known, and corrects what is stored of their boots, and of
    /// runs whose boot was not known when their records came. Costs nothing where nothing is better: that is
    /// every batch but a boot's first few.
    pub(super) async fn improve(&self, tx: &mut PgConnection, introduced: &[RunKey]) -> sqlx::Result<()> {
        let better: Vec<(&Boot<'_>, Anchor, &Tie)> = self
            .ties
            .iter()
            .filter(|(_, tie)| tie.best != tie.known)
            .filter_map(|(boot, tie)| Some((boot, tie.best?, tie)))
            .collect();
        if !better.is_empty() {
            keep(tx, &better).await?;
        }
        let moving = better.iter().filter(|(_, anchor, tie)| anchor.corrects(tie.known));
        let mut runs = runs_of(tx, moving).await?;
        runs.extend(introduced.iter().filter_map(|run| Some((*run, self.best(*run)?))));
        correct(tx, &runs).await
    }
}

async fn keep(tx: &mut PgConnection, better: &[(&Boot<'_>, Anchor, &Tie)]) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into boot_anchor (gateway_id, boot_id, offset_ms, uncertainty_ms, mono_ms, source, noted_at)
         select * from unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[],
             $7::timestamptz[])
         on conflict on constraint boot_anchor_pk do update
             set offset_ms = excluded.offset_ms, uncertainty_ms = excluded.uncertainty_ms,
                 mono_ms = excluded.mono_ms, source = excluded.source, noted_at = excluded.noted_at",
        &better.iter().map(|(boot, ..)| boot.0).collect::<Vec<_>>(),
        &better.iter().map(|(boot, ..)| boot.1).collect::<Vec<_>>() as &[&str],
        &better.iter().map(|(_, anchor, _)| anchor.offset_ms).collect::<Vec<_>>(),
        &better.iter().map(|(_, anchor, _)| anchor.uncertainty_ms).collect::<Vec<_>>(),
        &better.iter().map(|(_, anchor, _)| anchor.mono_ms).collect::<Vec<_>>(),
        &better.iter().map(|(_, anchor, _)| anchor.witness.word()).collect::<Vec<_>>() as &[&str],
        &better.iter().map(|(.., tie)| tie.noted_at).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Every run of these boots, with the anchor of its boot.
async fn runs_of<'b>(
    tx: &mut PgConnection,
    boots: impl Iterator<Item = &'b (&'b Boot<'b>, Anchor, &'b Tie)>,
) -> sqlx::Result<HashMap<RunKey, Anchor>> {
    let anchors: HashMap<Boot<'b>, Anchor> = boots.map(|(boot, anchor, _)| (**boot, *anchor)).collect();
    if anchors.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"select r.gateway_id, r.epoch, k.boot_id as "boot_id!"
           from unnest($1::int[], $2::text[]) as k (gateway_id, boot_id)
           join gateway_run r on (r.gateway_id, r.boot_id) = (k.gateway_id, k.boot_id)"#,
        &anchors.keys().map(|boot| boot.0).collect::<Vec<_>>(),
        &anchors.keys().map(|boot| boot.1).collect::<Vec<_>>() as &[&str],
    )
    .fetch_all(tx)
    .await?;
    let anchor = |boot: Boot<'_>| anchors.get(&boot).copied();
    Ok(rows
        .iter()
        .filter_map(|row| {
            Some(((row.gateway_id, row.epoch), anchor((row.gateway_id, row.boot_id.as_str()))?))
        })
        .collect())
}

async fn correct(tx: &mut PgConnection, anchors: &HashMap<RunKey, Anchor>) -> sqlx::Result<()> {
    if anchors.is_empty() {
        return Ok(());
    }
    let runs: Vec<RunKey> = anchors.keys().copied().collect();
    let rule = |run: RunKey, told: Told| when(told, anchors.get(&run).copied());
    let events = events::correct(tx, &runs, rule).await?;
    let scans = distribution::record::correct(tx, &runs, rule).await?;
    let readings = telemetry::record::correct(tx, &runs, rule).await?;
    if scans + readings + events > 0 {
        let runs = runs.len();
        tracing::info!(runs, scans, readings, events, "the times of stored records are known better now");
    }
    Ok(())
}

/// What the batch's arrival says, if it came straight from its gateway.
fn arrival(incoming: &Incoming) -> Option<Anchor> {
    let sender = incoming.sender.as_ref()?;
    Some(Anchor::of_arrival(sender.mono_ms, incoming.received_at.timestamp_millis()))
}

/// What the sender said of the moment when it sent.
fn told_by_sender(sender: &Sender, received_at: DateTime<Utc>) -> Told {
    Told {
        mono_ms: sender.mono_ms,
        wall_ms: sender.sent_ms.unwrap_or(i64::MIN),
        clock: sender.clock,
        at_ms: None,
        received_ms: received_at.timestamp_millis(),
    }
}
