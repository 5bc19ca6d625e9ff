//! The transaction that stores a group of batches: small tables first, then the scans, then what is
//! derived from them, and word of it to whoever listens.

use super::clock::{Anchor, event_time};
use super::parse::{Incoming, Outcome, Sender};
use crate::distribution::live;
use crate::distribution::record::{self, Kept, NewScan};
use crate::places;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use lumbung_shared::time::{ClockState, from_ms, parse_rfc3339};
use lumbung_shared::wire::{Epoch, Held, SCAN_STREAM, write_raw_scan};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use std::collections::{BTreeMap, HashMap};

type RunKey = (i32, i64);

/// What the store knows of a run.
struct KnownRun {
    boot_id: Option<String>,
    site_id: i32,
    zone: Tz,
}

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

/// Stores records that come from the quarantine: they say nothing new of their gateway.
pub(super) async fn store_records(pool: &PgPool, again: &Incoming) -> sqlx::Result<Outcome> {
    let mut tx = pool.begin().await?;
    let (mut outcomes, new_scans) = keep_records(&mut tx, std::slice::from_ref(again)).await?;
    sqlx::query!(
        "update gateway_state set scans = scans + $2 where gateway_id = $1",
        again.gateway_id,
        new_scans.get(&again.gateway_id).copied().unwrap_or(0)
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
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
    let (scans, origin) = order(group, &runs);
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
    let (scans, _) = order(group, &runs);
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

/// Every run is known before its records are.
async fn add_runs(tx: &mut PgConnection, group: &[Incoming]) -> sqlx::Result<()> {
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
    sqlx::query!(
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
         on conflict on constraint gateway_run_pk do update
             set previous_epoch = excluded.previous_epoch, boot_id = excluded.boot_id, site_id = excluded.site_id,
                 started_at = excluded.started_at, mono_ms = excluded.mono_ms, clock_state = excluded.clock_state,
                 version = excluded.version, introduced = true
             where excluded.introduced and not gateway_run.introduced",
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
    .execute(tx)
    .await?;
    Ok(())
}

async fn known_runs(tx: &mut PgConnection, group: &[Incoming]) -> sqlx::Result<HashMap<RunKey, KnownRun>> {
    let (mut gateways, mut epochs) = (Vec::new(), Vec::new());
    for incoming in group {
        let sender = incoming.sender.iter().map(|sender| sender.epoch);
        for epoch in sender.chain(incoming.runs.iter().map(|run| run.epoch)) {
            gateways.push(incoming.gateway_id);
            epochs.push(epoch.to_db());
        }
    }
    let rows = sqlx::query!(
        "select r.gateway_id, r.epoch, r.boot_id, r.site_id, s.time_zone
         from unnest($1::int[], $2::bigint[]) as k (gateway_id, epoch)
         join gateway_run r on (r.gateway_id, r.epoch) = (k.gateway_id, k.epoch)
         join site s on s.site_id = r.site_id",
        &gateways,
        &epochs
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let run =
                KnownRun { boot_id: row.boot_id, site_id: row.site_id, zone: places::zone(&row.time_zone) };
            ((row.gateway_id, row.epoch), run)
        })
        .collect())
}

/// Two runs with one predecessor, or a run that still speaks after its successor was heard: one store was
/// copied, and both copies live. Both are kept; an operator must look.
async fn find_forks(tx: &mut PgConnection, group: &[Incoming]) -> sqlx::Result<()> {
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

/// All scans of the group in the order of their names, each with the batch it came in.
fn order<'a>(group: &'a [Incoming], runs: &HashMap<RunKey, KnownRun>) -> (Vec<NewScan<'a>>, Vec<usize>) {
    let mut scans = Vec::new();
    for (from, incoming) in group.iter().enumerate() {
        let run = |epoch: Epoch| runs.get(&(incoming.gateway_id, epoch.to_db()));
        let received_ms = incoming.received_at.timestamp_millis();
        let sender = incoming.sender.as_ref();
        let boot = sender.and_then(|sender| run(sender.epoch)?.boot_id.as_deref());
        let anchor = sender.map(|sender| Anchor { mono_ms: sender.mono_ms, received_ms });
        for record in &incoming.scans {
            // add_runs put every run of the batch there in this transaction.
            let Some(known) = run(record.epoch) else { continue };
            let same_boot = boot.is_some() && known.boot_id.as_deref() == boot;
            let (at, basis) = event_time(&record.scan, anchor.filter(|_| same_boot), received_ms);
            let new = NewScan {
                gateway_id: incoming.gateway_id,
                epoch: record.epoch,
                scan: &record.scan,
                site_id: known.site_id,
                event_time: at,
                time_basis: basis,
                local_day: at.with_timezone(&known.zone).date_naive(),
                received_at: incoming.received_at,
            };
            scans.push((new, from));
        }
    }
    scans.sort_by_key(|(scan, _)| scan.name());
    scans.into_iter().unzip()
}

struct Quarantined {
    gateway_id: i32,
    epoch: i64,
    stream: String,
    seq: i64,
    through: i64,
    reason: &'static str,
    detail: String,
    raw: String,
    received_at: DateTime<Utc>,
}

/// A scan whose name is taken by another content, in the form that can be read again.
fn conflict(new: &NewScan<'_>) -> Quarantined {
    let (gateway_id, epoch, seq) = new.name();
    Quarantined {
        gateway_id,
        epoch,
        stream: SCAN_STREAM.to_owned(),
        seq,
        through: seq,
        reason: "conflict",
        detail: "another scan with this identity or client_ref has other content".to_owned(),
        raw: write_raw_scan(new.scan),
        received_at: new.received_at,
    }
}

async fn quarantine(tx: &mut PgConnection, mut refused: Vec<Quarantined>) -> sqlx::Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    refused.sort_by_key(|r| (r.gateway_id, r.epoch, r.seq));
    sqlx::query!(
        "insert into quarantine (gateway_id, epoch, stream, seq, through, reason, detail, raw, raw_hash, received_at)
         select * from unnest($1::int[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::text[],
             $7::text[], $8::text[], $9::bytea[], $10::timestamptz[])
         on conflict on constraint quarantine_once do nothing",
        &refused.iter().map(|r| r.gateway_id).collect::<Vec<_>>(),
        &refused.iter().map(|r| r.epoch).collect::<Vec<_>>(),
        &refused.iter().map(|r| r.stream.as_str()).collect::<Vec<_>>() as &[&str],
        &refused.iter().map(|r| r.seq).collect::<Vec<_>>(),
        &refused.iter().map(|r| r.through).collect::<Vec<_>>(),
        &refused.iter().map(|r| r.reason).collect::<Vec<_>>() as &[&str],
        &refused.iter().map(|r| r.detail.as_str()).collect::<Vec<_>>() as &[&str],
        &refused.iter().map(|r| r.raw.as_str()).collect::<Vec<_>>() as &[&str],
        &refused.iter().map(|r| Sha256::digest(r.raw.as_bytes()).to_vec()).collect::<Vec<_>>(),
        &refused.iter().map(|r| r.received_at).collect::<Vec<_>>(),
    )
    .execute(&mut *tx)
    .await?;
    let conflicts: Vec<&Quarantined> = refused.iter().filter(|r| r.reason == "conflict").collect();
    sqlx::query!(
        "insert into gateway_incident (gateway_id, kind, epoch, detail, raised_at)
         select distinct gateway_id, 'conflict', epoch,
             'a record came again with other content under the same number; see the quarantine', now()
         from unnest($1::int[], $2::bigint[]) as k (gateway_id, epoch) order by 1, 3
         on conflict on constraint gateway_incident_once do nothing",
        &conflicts.iter().map(|r| r.gateway_id).collect::<Vec<_>>(),
        &conflicts.iter().map(|r| r.epoch).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Marks every number of the group as held and answers what is held now.
async fn hold(tx: &mut PgConnection, group: &[Incoming], outcomes: &mut [Outcome]) -> sqlx::Result<()> {
    let mut ranges: Vec<(i32, i64, &str, i64, i64)> = Vec::new();
    for incoming in group {
        for run in &incoming.runs {
            for (stream, covered) in &run.ranges {
                ranges.extend(covered.iter().map(|&(first, last)| {
                    (incoming.gateway_id, run.epoch.to_db(), stream.as_str(), first, last)
                }));
            }
        }
    }
    if ranges.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        r#"with told as (
               select gateway_id, epoch, stream, range_agg(int8range(first, last, '[]')) as held
               from unnest($1::int[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[])
                   as k (gateway_id, epoch, stream, first, last)
               group by gateway_id, epoch, stream order by gateway_id, epoch, stream
           ), kept as (
               insert into run_stream (gateway_id, epoch, stream, held)
               select gateway_id, epoch, stream, held from told
               on conflict on constraint run_stream_pk do update set held = run_stream.held + excluded.held
               returning gateway_id, epoch, stream, held
           )
           select gateway_id as "gateway_id!", epoch as "epoch!", stream as "stream!",
               (select sum(upper(r) - lower(r)) from unnest(held) as r)::bigint as "count!",
               lower(held) as "first!", upper(held) - 1 as "last!"
           from kept"#,
        &ranges.iter().map(|r| r.0).collect::<Vec<_>>(),
        &ranges.iter().map(|r| r.1).collect::<Vec<_>>(),
        &ranges.iter().map(|r| r.2).collect::<Vec<_>>() as &[&str],
        &ranges.iter().map(|r| r.3).collect::<Vec<_>>(),
        &ranges.iter().map(|r| r.4).collect::<Vec<_>>(),
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        let held = Held { count: row.count, first: Some(row.first), last: Some(row.last) };
        for (incoming, outcome) in group.iter().zip(outcomes.iter_mut()) {
            if incoming.gateway_id == row.gateway_id {
                outcome.held.insert((Epoch::from_db(row.epoch), row.stream.clone()), held);
            }
        }
    }
    Ok(())
}

/// Keeps the latest that each gateway said of itself.
async fn hear(tx: &mut PgConnection, group: &[Incoming], new_scans: &HashMap<i32, i64>) -> sqlx::Result<()> {
    // The last batch of a gateway in the group speaks for it.
    let mut latest: BTreeMap<i32, (&Incoming, Sender)> = BTreeMap::new();
    for incoming in group {
        let sender = incoming.sender.clone().unwrap_or(Sender {
            epoch: Epoch::LEGACY,
            mono_ms: 0,
            clock: ClockState::Held,
            sent_ms: None,
            health: None,
        });
        latest.insert(incoming.gateway_id, (incoming, sender));
    }
    let heard: Vec<_> = latest.values().map(|(incoming, sender)| Heard::of(incoming, sender)).collect();
    let mut held = Vec::new();
    for incoming in group {
        let ranges = incoming.runs.iter().filter_map(|run| run.ranges.get(SCAN_STREAM)).flatten();
        held.extend(ranges.map(|&(first, last)| (incoming.gateway_id, first, last)));
    }
    let scans = |h: &Heard| new_scans.get(&h.gateway_id).copied().unwrap_or(0);
    sqlx::query!(
        "insert into gateway_state (gateway_id, last_heard_at, epoch, clock_state, clock_skew_ms, unsent,
             oldest_unsent_at, parked, disk_free_bytes, reader, undervoltage, version, salvaged, scans, held_scans)
         select h.*, coalesce(held.scans, '{}')
         from unnest($1::int[], $2::timestamptz[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[],
                 $7::timestamptz[], $8::bigint[], $9::bigint[], $10::text[], $11::bool[], $12::text[], $13::bigint[],
                 $14::bigint[]) as h (gateway_id)
         left join (
             select gateway_id, range_agg(int8range(first, last, '[]')) as scans
             from unnest($15::int[], $16::bigint[], $17::bigint[]) as k (gateway_id, first, last)
             group by gateway_id
         ) held using (gateway_id)
         order by h.gateway_id
         on conflict on constraint gateway_state_pk do update
             set last_heard_at = greatest(gateway_state.last_heard_at, excluded.last_heard_at),
                 epoch = excluded.epoch, clock_state = excluded.clock_state,
                 clock_skew_ms = excluded.clock_skew_ms, unsent = excluded.unsent,
                 oldest_unsent_at = excluded.oldest_unsent_at, parked = excluded.parked,
                 disk_free_bytes = excluded.disk_free_bytes, reader = excluded.reader,
                 undervoltage = excluded.undervoltage, version = excluded.version,
                 salvaged = coalesce(excluded.salvaged, gateway_state.salvaged),
                 scans = gateway_state.scans + excluded.scans,
                 held_scans = gateway_state.held_scans + excluded.held_scans",
        &heard.iter().map(|h| h.gateway_id).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.received_at).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.epoch).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.clock).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.skew_ms).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.unsent).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.oldest_unsent_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &heard.iter().map(|h| h.parked).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.disk_free_bytes).collect::<Vec<_>>() as &[Option<i64>],
        &heard.iter().map(|h| h.reader.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &heard.iter().map(|h| h.undervoltage).collect::<Vec<_>>() as &[Option<bool>],
        &heard.iter().map(|h| h.version.as_str()).collect::<Vec<_>>() as &[&str],
        &heard.iter().map(|h| h.salvaged).collect::<Vec<_>>() as &[Option<i64>],
        &heard.iter().map(scans).collect::<Vec<_>>(),
        &held.iter().map(|h| h.0).collect::<Vec<_>>(),
        &held.iter().map(|h| h.1).collect::<Vec<_>>(),
        &held.iter().map(|h| h.2).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

struct Heard {
    gateway_id: i32,
    received_at: DateTime<Utc>,
    epoch: i64,
    clock: i16,
    skew_ms: i64,
    unsent: i64,
    oldest_unsent_at: Option<DateTime<Utc>>,
    parked: i64,
    disk_free_bytes: Option<i64>,
    reader: Option<String>,
    undervoltage: Option<bool>,
    version: String,
    salvaged: Option<i64>,
}

impl Heard {
    fn of(incoming: &Incoming, sender: &Sender) -> Self {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let health = sender.health.clone().unwrap_or_default();
        // The gateway counts the batch's own scans as unsent; they no longer are.
        let told = number(health.unsent.get(SCAN_STREAM).copied().unwrap_or(0));
        let ranges = incoming.runs.iter().filter_map(|run| run.ranges.get(SCAN_STREAM)).flatten();
        let unsent = told.saturating_sub(ranges.map(|(first, last)| last - first + 1).sum()).max(0);
        let oldest = health.oldest_unsent_at.as_deref().and_then(parse_rfc3339).map(from_ms);
        let clean = |text: String| text.chars().filter(|c| !c.is_control()).take(64).collect::<String>();
        let received_ms = incoming.received_at.timestamp_millis();
        Self {
            gateway_id: incoming.gateway_id,
            received_at: incoming.received_at,
            epoch: sender.epoch.to_db(),
            clock: sender.clock.code(),
            skew_ms: sender.sent_ms.map_or(0, |sent| sent.saturating_sub(received_ms)),
            unsent,
            oldest_unsent_at: oldest.filter(|_| unsent > 0),
            parked: number(health.parked),
            disk_free_bytes: health.disk_free_bytes.map(number),
            reader: health.reader.map(clean),
            undervoltage: health.undervoltage,
            version: clean(health.version),
            salvaged: health.salvaged.map(number),
        }
    }
}

/// Tells each gateway what an operator has been told of it.
async fn raise(tx: &mut PgConnection, group: &[Incoming], outcomes: &mut [Outcome]) -> sqlx::Result<()> {
    let gateways: Vec<i32> = group.iter().map(|incoming| incoming.gateway_id).collect();
    let rows = sqlx::query!(
        "select distinct gateway_id, kind from gateway_incident where gateway_id = any($1) order by kind",
        &gateways
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        for (incoming, outcome) in group.iter().zip(outcomes.iter_mut()) {
            if incoming.gateway_id == row.gateway_id {
                outcome.alarms.push(row.kind.clone());
            }
        }
    }
    Ok(())
}
