//! What the cloud holds of each run, and the latest that each gateway said of itself.

use super::News;
use crate::ingest::parse::{Incoming, Outcome, Sender};
use chrono::{DateTime, Utc};
use lumbung_shared::time::{ClockState, from_ms, parse_rfc3339};
use lumbung_shared::wire::{EVENT_STREAM, Epoch, Held, READING_STREAM, SCAN_STREAM};
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};

/// Longest health report that is kept whole.
const HEALTH_BYTES: usize = 4 << 10;

/// Marks every number of the group as held and answers what is held now.
pub(super) async fn hold(
    tx: &mut PgConnection,
    group: &[Incoming],
    outcomes: &mut [Outcome],
) -> sqlx::Result<()> {
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
pub(super) async fn hear(tx: &mut PgConnection, group: &[Incoming], news: &News) -> sqlx::Result<()> {
    // The last batch of a gateway in the group speaks for it.
    let mut latest: BTreeMap<i32, (&Incoming, Sender)> = BTreeMap::new();
    for incoming in group.iter().filter(|incoming| !incoming.is_carried()) {
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
        for (stream, ranges) in incoming.runs.iter().flat_map(|run| &run.ranges) {
            held.extend(
                ranges.iter().map(|&(first, last)| (incoming.gateway_id, stream.as_str(), first, last)),
            );
        }
    }
    let new = |of: &HashMap<i32, i64>| -> Vec<i64> {
        heard.iter().map(|h| of.get(&h.gateway_id).copied().unwrap_or(0)).collect()
    };
    sqlx::query!(
        "insert into gateway_state (gateway_id, last_heard_at, epoch, clock_state, clock_skew_ms, unsent,
             oldest_unsent_at, parked, disk_free_bytes, reader, undervoltage, version, salvaged, scans, readings,
             unsent_readings, unsent_events, health, held_scans, held_readings, held_events)
         select h.*, coalesce(held.scans, '{}'), coalesce(held.readings, '{}'), coalesce(held.events, '{}')
         from unnest($1::int[], $2::timestamptz[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[],
                 $7::timestamptz[], $8::bigint[], $9::bigint[], $10::text[], $11::bool[], $12::text[], $13::bigint[],
                 $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::text[]) as h (gateway_id)
         left join (
             select gateway_id, range_agg(int8range(first, last, '[]')) filter (where stream = 'scan') as scans,
                 range_agg(int8range(first, last, '[]')) filter (where stream = 'reading') as readings,
                 range_agg(int8range(first, last, '[]')) filter (where stream = 'event') as events
             from unnest($19::int[], $20::text[], $21::bigint[], $22::bigint[]) as k (gateway_id, stream, first, last)
             group by gateway_id
         ) held using (gateway_id)
         order by h.gateway_id
         on conflict on constraint gateway_state_pk do update
             set last_heard_at = greatest(gateway_state.last_heard_at, excluded.last_heard_at),
                 epoch = excluded.epoch, clock_state = excluded.clock_state,
                 clock_skew_ms = excluded.clock_skew_ms, unsent = excluded.unsent,
                 unsent_readings = excluded.unsent_readings, unsent_events = excluded.unsent_events,
                 oldest_unsent_at = excluded.oldest_unsent_at, parked = excluded.parked,
                 disk_free_bytes = excluded.disk_free_bytes, reader = excluded.reader,
                 undervoltage = excluded.undervoltage, version = excluded.version, health = excluded.health,
                 salvaged = coalesce(excluded.salvaged, gateway_state.salvaged),
                 scans = gateway_state.scans + excluded.scans,
                 readings = gateway_state.readings + excluded.readings,
                 held_scans = gateway_state.held_scans + excluded.held_scans,
                 held_readings = gateway_state.held_readings + excluded.held_readings,
                 held_events = gateway_state.held_events + excluded.held_events",
        &heard.iter().map(|h| h.gateway_id).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.received_at).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.epoch).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.clock).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.skew_ms).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.unsent.scans).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.oldest_unsent_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &heard.iter().map(|h| h.parked).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.disk_free_bytes).collect::<Vec<_>>() as &[Option<i64>],
        &heard.iter().map(|h| h.reader.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &heard.iter().map(|h| h.undervoltage).collect::<Vec<_>>() as &[Option<bool>],
        &heard.iter().map(|h| h.version.as_str()).collect::<Vec<_>>() as &[&str],
        &heard.iter().map(|h| h.salvaged).collect::<Vec<_>>() as &[Option<i64>],
        &new(&news.scans),
        &new(&news.readings),
        &heard.iter().map(|h| h.unsent.readings).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.unsent.events).collect::<Vec<_>>(),
        &heard.iter().map(|h| h.health.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &held.iter().map(|h| h.0).collect::<Vec<_>>(),
        &held.iter().map(|h| h.1).collect::<Vec<_>>() as &[&str],
        &held.iter().map(|h| h.2).collect::<Vec<_>>(),
        &held.iter().map(|h| h.3).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Records that a gateway has still to send.
struct Unsent {
    scans: i64,
    readings: i64,
    events: i64,
}

impl Unsent {
    /// What it told of, less the batch's own: the gateway counts those too, and they no longer are.
    fn of(incoming: &Incoming, told: &BTreeMap<String, u64>) -> Self {
        let after = |stream: &str| {
            let told = told.get(stream).map_or(0, |n| i64::try_from(*n).unwrap_or(i64::MAX));
            let ranges = incoming.runs.iter().filter_map(|run| run.ranges.get(stream)).flatten();
            told.saturating_sub(ranges.map(|(first, last)| last - first + 1).sum()).max(0)
        };
        Self { scans: after(SCAN_STREAM), readings: after(READING_STREAM), events: after(EVENT_STREAM) }
    }

    fn any(&self) -> bool {
        self.scans > 0 || self.readings > 0 || self.events > 0
    }
}

/// Counts what was carried here from gateways that are not heard themselves. One that was never heard gets
/// its row, of which only the counts say anything.
pub(super) async fn count_carried(
    tx: &mut PgConnection,
    group: &[Incoming],
    news: &News,
) -> sqlx::Result<()> {
    for incoming in group.iter().filter(|incoming| incoming.is_carried()) {
        let gateway_id = incoming.gateway_id;
        if group.iter().any(|other| other.gateway_id == gateway_id && !other.is_carried()) {
            continue;
        }
        let (mut streams, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
        for (stream, ranges) in incoming.runs.iter().flat_map(|run| &run.ranges) {
            for (first, last) in ranges {
                streams.push(stream.as_str());
                firsts.push(*first);
                lasts.push(*last);
            }
        }
        let new = |of: &HashMap<i32, i64>| of.get(&gateway_id).copied().unwrap_or(0);
        sqlx::query!(
            "insert into gateway_state (gateway_id, last_heard_at, epoch, clock_state, clock_skew_ms, unsent, parked,
                 version, scans, readings, held_scans, held_readings, held_events)
             select $1, $2, 0, 0, 0, 0, 0, '', $3, $4,
                 coalesce(range_agg(int8range(first, last, '[]')) filter (where stream = 'scan'), '{}'),
                 coalesce(range_agg(int8range(first, last, '[]')) filter (where stream = 'reading'), '{}'),
                 coalesce(range_agg(int8range(first, last, '[]')) filter (where stream = 'event'), '{}')
             from unnest($5::text[], $6::bigint[], $7::bigint[]) as k (stream, first, last)
             on conflict on constraint gateway_state_pk do update
                 set scans = gateway_state.scans + excluded.scans,
                     readings = gateway_state.readings + excluded.readings,
                     held_scans = gateway_state.held_scans + excluded.held_scans,
                     held_readings = gateway_state.held_readings + excluded.held_readings,
                     held_events = gateway_state.held_events + excluded.held_events",
            gateway_id,
            incoming.received_at,
            new(&news.scans),
            new(&news.readings),
            &streams as &[&str],
            &firsts,
            &lasts
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

struct Heard {
    gateway_id: i32,
    received_at: DateTime<Utc>,
    epoch: i64,
    clock: i16,
    skew_ms: i64,
    unsent: Unsent,
    oldest_unsent_at: Option<DateTime<Utc>>,
    parked: i64,
    disk_free_bytes: Option<i64>,
    reader: Option<String>,
    undervoltage: Option<bool>,
    version: String,
    salvaged: Option<i64>,
    /// JSON, whole.
    health: Option<String>,
}

impl Heard {
    fn of(incoming: &Incoming, sender: &Sender) -> Self {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let whole = sender.health.as_ref().and_then(|health| serde_json::to_string(health).ok());
        let health = sender.health.clone().unwrap_or_default();
        let unsent = Unsent::of(incoming, &health.unsent);
        let oldest = health.oldest_unsent_at.as_deref().and_then(parse_rfc3339).map(from_ms);
        let clean = |text: String| text.chars().filter(|c| !c.is_control()).take(64).collect::<String>();
        let received_ms = incoming.received_at.timestamp_millis();
        Self {
            gateway_id: incoming.gateway_id,
            received_at: incoming.received_at,
            epoch: sender.epoch.to_db(),
            clock: sender.clock.code(),
            skew_ms: sender.sent_ms.map_or(0, |sent| sent.saturating_sub(received_ms)),
            oldest_unsent_at: oldest.filter(|_| unsent.any()),
            unsent,
            parked: number(health.parked),
            disk_free_bytes: health.disk_free_bytes.map(number),
            reader: health.reader.map(clean),
            undervoltage: health.undervoltage,
            version: clean(health.version),
            salvaged: health.salvaged.map(number),
            health: whole.filter(|text| text.len() <= HEALTH_BYTES),
        }
    }
}

/// Tells each gateway what an operator has been told of it.
pub(super) async fn raise(
    tx: &mut PgConnection,
    group: &[Incoming],
    outcomes: &mut [Outcome],
) -> sqlx::Result<()> {
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
