//! The runs behind a group of batches, and the forks between them.

use crate::ingest::clock::{Anchor, Witness};
use crate::ingest::parse::Incoming;
use crate::places;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use lumbung_shared::time::{from_ms, parse_rfc3339};
use lumbung_shared::wire::Epoch;
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};

pub(super) type RunKey = (i32, i64);

/// What the store knows of a run.
pub(super) struct KnownRun {
    pub(super) boot_id: Option<String>,
    pub(super) site_id: i32,
    pub(super) zone: Tz,
    /// The code of its site, where its gateway is not known to have ever stood.
    pub(super) foreign: Option<String>,
    /// What is known so far of its boot's time.
    pub(super) anchor: Option<Anchor>,
}

impl KnownRun {
    /// Its boot. One that could not be named is not the same as another such boot.
    pub(super) fn boot(&self) -> Option<&str> {
        self.boot_id.as_deref().filter(|boot| *boot != "unknown")
    }
}

/// Every run is known before its records are. The gateway is locked until the transaction ends: batches of
/// one gateway are stored one after the other, whichever replica they came to. Answers the runs that had been
/// heard of before and are introduced only now.
pub(super) async fn add_runs(tx: &mut PgConnection, group: &[Incoming]) -> sqlx::Result<Vec<RunKey>> {
    // By key, so that two transactions take their locks in the same order; what tells more wins.
    let mut runs = BTreeMap::new();
    for incoming in group {
        let sender = incoming.sender.iter().map(|sender| (sender.epoch, None));
        for (epoch, start) in sender.chain(incoming.runs.iter().map(|run| (run.epoch, run.start.as_ref()))) {
            let entry =
                runs.entry((incoming.gateway_id, epoch.to_db())).or_insert((incoming.received_at, None));
            entry.1 = entry.1.or(start);
        }
    }
    let starts = || runs.values().map(|(_, start)| *start);
    let told = sqlx::query!(
        "insert into gateway_run (gateway_id, epoch, previous_epoch, boot_id, site_id, started_at, mono_ms,
             clock_state, version, introduced, first_heard_at)
         select n.gateway_id, n.epoch, n.previous_epoch, n.boot_id, coalesce(s.site_id, g.site_id), n.started_at,
             n.mono_ms, n.clock_state, n.version, n.introduced, n.first_heard_at
         from unnest($1::int[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[],
                 $8::smallint[], $9::text[], $10::bool[], $11::timestamptz[])
             as n (gateway_id, epoch, previous_epoch, boot_id, site, started_at, mono_ms, clock_state, version,
                 introduced, first_heard_at)
         join gateway g on g.gateway_id = n.gateway_id
         left join site s on s.code = n.site
         order by n.gateway_id, n.epoch
         for no key update of g
         on conflict on constraint gateway_run_pk do update
             set previous_epoch = excluded.previous_epoch, boot_id = excluded.boot_id, site_id = excluded.site_id,
                 started_at = excluded.started_at, mono_ms = excluded.mono_ms, clock_state = excluded.clock_state,
                 version = excluded.version, introduced = excluded.introduced
             -- The run of clients that know no runs goes where the gateway goes.
             where (excluded.introduced and not gateway_run.introduced)
                 or (gateway_run.epoch = 0 and gateway_run.site_id <> excluded.site_id)
         returning gateway_id, epoch, first_heard_at",
        &runs.keys().map(|key| key.0).collect::<Vec<_>>(),
        &runs.keys().map(|key| key.1).collect::<Vec<_>>(),
        &starts().map(|s| s?.previous.map(Epoch::to_db)).collect::<Vec<_>>() as &[Option<i64>],
        &starts().map(|s| Some(s?.boot.as_str())).collect::<Vec<_>>() as &[Option<&str>],
        &starts().map(|s| s?.site.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &starts().map(|s| parse_rfc3339(&s?.started_at).map(from_ms)).collect::<Vec<_>>()
            as &[Option<DateTime<Utc>>],
        &starts().map(|s| Some(s?.mono_ms)).collect::<Vec<_>>() as &[Option<i64>],
        &starts().map(|s| Some(s?.clock.code())).collect::<Vec<_>>() as &[Option<i16>],
        &starts().map(|s| Some(s?.version.as_str())).collect::<Vec<_>>() as &[Option<&str>],
        &starts().map(|s| s.is_some()).collect::<Vec<_>>(),
        &runs.values().map(|(at, _)| *at).collect::<Vec<_>>(),
    )
    .fetch_all(tx)
    .await?;
    let before = |run: &RunKey, heard_at: DateTime<Utc>| {
        runs.get(run).is_some_and(|(at, _)| at.timestamp_micros() != heard_at.timestamp_micros())
    };
    let known = told.into_iter().map(|row| ((row.gateway_id, row.epoch), row.first_heard_at));
    Ok(known.filter(|(run, heard_at)| before(run, *heard_at)).map(|(run, _)| run).collect())
}

pub(super) async fn known_runs(
    tx: &mut PgConnection,
    group: &[Incoming],
) -> sqlx::Result<HashMap<RunKey, KnownRun>> {
    let (mut gateways, mut epochs) = (Vec::new(), Vec::new());
    for incoming in group {
        let sender = incoming.sender.iter().map(|sender| sender.epoch);
        for epoch in sender.chain(incoming.runs.iter().map(|run| run.epoch)) {
            gateways.push(incoming.gateway_id);
            epochs.push(epoch.to_db());
        }
    }
    let rows = sqlx::query!(
        r#"select r.gateway_id, r.epoch, r.boot_id, r.site_id, s.time_zone,
               case when h.gateway_id is null then s.code end as "foreign", a.offset_ms as "offset_ms?",
               a.uncertainty_ms as "uncertainty_ms?", a.mono_ms as "mono_ms?", a.source as "source?"
           from unnest($1::int[], $2::bigint[]) as k (gateway_id, epoch)
           join gateway_run r on (r.gateway_id, r.epoch) = (k.gateway_id, k.epoch)
           join site s on s.site_id = r.site_id
           left join gateway_site h on (h.gateway_id, h.site_id) = (r.gateway_id, r.site_id)
           left join boot_anchor a on (a.gateway_id, a.boot_id) = (r.gateway_id, r.boot_id)"#,
        &gateways,
        &epochs
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let anchor = || {
                Some(Anchor {
                    offset_ms: row.offset_ms?,
                    uncertainty_ms: row.uncertainty_ms?,
                    mono_ms: row.mono_ms?,
                    witness: Witness::of_word(row.source.as_deref()?),
                })
            };
            let run = KnownRun {
                foreign: row.foreign,
                anchor: anchor(),
                boot_id: row.boot_id,
                site_id: row.site_id,
                zone: places::zone(&row.time_zone),
            };
            ((row.gateway_id, row.epoch), run)
        })
        .collect())
}

/// Two runs with one predecessor, or a run that still speaks after its successor was heard: one store was
/// copied, and both copies live. Both are kept; an operator must look.
pub(super) async fn find_forks(tx: &mut PgConnection, group: &[Incoming]) -> sqlx::Result<()> {
    let mut started: Vec<RunKey> = Vec::new();
    let mut speaking: Vec<RunKey> = Vec::new();
    for incoming in group {
        let told = incoming.runs.iter().filter(|run| run.start.is_some());
        started.extend(told.map(|run| (incoming.gateway_id, run.epoch.to_db())));
        speaking.extend(incoming.sender.iter().map(|sender| (incoming.gateway_id, sender.epoch.to_db())));
    }
    let split = |keys: &[RunKey]| -> (Vec<i32>, Vec<i64>) { keys.iter().copied().unzip() };
    if !started.is_empty() {
        let (gateways, epochs) = split(&started);
        sqlx::query!(
            "insert into gateway_incident (gateway_id, kind, epoch, other_epoch, detail, raised_at)
             select distinct on (r.gateway_id, r.epoch) r.gateway_id, 'fork', r.epoch, o.epoch,
                 'two runs follow the same run: the store was copied or an old backup was restored', now()
             from unnest($1::int[], $2::bigint[]) as k (gateway_id, epoch)
             join gateway_run r on (r.gateway_id, r.epoch) = (k.gateway_id, k.epoch)
             join gateway_run o on o.gateway_id = r.gateway_id and o.previous_epoch = r.previous_epoch
                 and o.epoch <> r.epoch
             order by r.gateway_id, r.epoch, o.first_heard_at
             on conflict on constraint gateway_incident_once do nothing",
            &gateways,
            &epochs
        )
        .execute(&mut *tx)
        .await?;
    }
    let (gateways, epochs) = split(&speaking);
    let monos: Vec<i64> =
        group.iter().filter_map(|incoming| Some(incoming.sender.as_ref()?.mono_ms)).collect();
    // In the same boot a batch that was held up on its way is no sign of life.
    sqlx::query!(
        "insert into gateway_incident (gateway_id, kind, epoch, other_epoch, detail, raised_at)
         select distinct on (o.gateway_id, k.epoch) o.gateway_id, 'fork', k.epoch, o.epoch,
             'a run still sends although its successor was heard: two copies of one store are alive', now()
         from unnest($1::int[], $2::bigint[], $3::bigint[]) as k (gateway_id, epoch, mono_ms)
         join gateway_run r on (r.gateway_id, r.epoch) = (k.gateway_id, k.epoch)
         join gateway_run o on o.gateway_id = k.gateway_id and o.previous_epoch = k.epoch
         where o.boot_id is distinct from r.boot_id or k.mono_ms > o.mono_ms
         order by o.gateway_id, k.epoch, o.first_heard_at
         on conflict on constraint gateway_incident_once do nothing",
        &gateways,
        &epochs,
        &monos
    )
    .execute(tx)
    .await?;
    Ok(())
}
