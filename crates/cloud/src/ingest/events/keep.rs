//! Keeping events: once each, in the transaction of whoever brings them.

use super::parts;
use crate::distribution::record::Kept;
use crate::moment::{Told, When};
use chrono::{DateTime, Utc};
use lumbung_shared::event::Event;
use lumbung_shared::time::{ClockState, from_ms};
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};

/// An event with all that the cloud adds to it.
pub(in crate::ingest) struct NewEvent<'a> {
    pub(in crate::ingest) gateway_id: i32,
    pub(in crate::ingest) epoch: i64,
    pub(in crate::ingest) event: &'a Event,
    pub(in crate::ingest) when: When,
    pub(in crate::ingest) received_at: DateTime<Utc>,
}

impl NewEvent<'_> {
    fn name(&self) -> (i32, i64, i64) {
        (self.gateway_id, self.epoch, self.event.seq)
    }
}

/// Stores events that are not stored yet and answers for each, in order. Events must be sorted by name.
pub(in crate::ingest) async fn keep(
    tx: &mut PgConnection,
    events: &[NewEvent<'_>],
) -> sqlx::Result<Vec<Kept>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"insert into gateway_event (gateway_id, epoch, seq, kind, body, "timestamp", event_time, time_basis,
               uncertainty_ms, received_at, mono_ms, clock_state)
           select * from unnest($1::int[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[],
               $7::timestamptz[], $8::smallint[], $9::int[], $10::timestamptz[], $11::bigint[], $12::smallint[])
           on conflict on constraint gateway_event_pk do nothing
           returning gateway_id, epoch, seq"#,
        &events.iter().map(|new| new.gateway_id).collect::<Vec<_>>(),
        &events.iter().map(|new| new.epoch).collect::<Vec<_>>(),
        &events.iter().map(|new| new.event.seq).collect::<Vec<_>>(),
        &events.iter().map(|new| new.event.kind.as_str()).collect::<Vec<_>>() as &[&str],
        &events.iter().map(|new| new.event.body.as_str()).collect::<Vec<_>>() as &[&str],
        &events.iter().map(|new| from_ms(new.event.wall_ms)).collect::<Vec<_>>(),
        &events.iter().map(|new| new.when.at).collect::<Vec<_>>(),
        &events.iter().map(|new| new.when.basis.code()).collect::<Vec<_>>(),
        &events.iter().map(|new| new.when.uncertainty_ms).collect::<Vec<_>>() as &[Option<i32>],
        &events.iter().map(|new| new.received_at).collect::<Vec<_>>(),
        &events.iter().map(|new| new.event.mono_ms).collect::<Vec<_>>(),
        &events.iter().map(|new| new.event.clock.code()).collect::<Vec<_>>(),
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut fresh: HashSet<_> = rows.into_iter().map(|row| (row.gateway_id, row.epoch, row.seq)).collect();
    let mut kept: Vec<Kept> = events
        .iter()
        .map(|new| if fresh.remove(&new.name()) { Kept::New } else { Kept::Duplicate })
        .collect();
    if kept.contains(&Kept::Duplicate) {
        let stored = contents(tx, events).await?;
        for (new, kept) in events.iter().zip(&mut kept).filter(|(_, kept)| **kept == Kept::Duplicate) {
            let told = (new.event.kind.as_str(), new.event.body.as_str(), from_ms(new.event.wall_ms));
            let same = stored.get(&new.name()).is_some_and(|(k, b, t)| (k.as_str(), b.as_str(), *t) == told);
            if !same {
                *kept = Kept::Conflict;
            }
        }
    }
    let arrived = events.iter().zip(&kept).filter(|(_, kept)| **kept == Kept::New);
    parts::note(tx, arrived.map(|(new, _)| new)).await?;
    Ok(kept)
}

/// (gateway, epoch, seq) and what is stored under it, as far as two tellings of an event must agree.
type Contents = HashMap<(i32, i64, i64), (String, String, DateTime<Utc>)>;

async fn contents(tx: &mut PgConnection, events: &[NewEvent<'_>]) -> sqlx::Result<Contents> {
    let rows = sqlx::query!(
        r#"select e.gateway_id, e.epoch, e.seq, e.kind, e.body, e."timestamp"
           from unnest($1::int[], $2::bigint[], $3::bigint[]) as k (gateway_id, epoch, seq)
           join gateway_event e on (e.gateway_id, e.epoch, e.seq) = (k.gateway_id, k.epoch, k.seq)"#,
        &events.iter().map(|new| new.gateway_id).collect::<Vec<_>>(),
        &events.iter().map(|new| new.epoch).collect::<Vec<_>>(),
        &events.iter().map(|new| new.event.seq).collect::<Vec<_>>(),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.gateway_id, row.epoch, row.seq), (row.kind, row.body, row.timestamp)))
        .collect())
}

/// Gives every stored event of these runs (gateway, epoch) whose time is a guess or came from an anchor the
/// time that `rule` finds for it. Answers how many have another time now.
pub(in crate::ingest) async fn correct(
    tx: &mut PgConnection,
    runs: &[(i32, i64)],
    rule: impl Fn((i32, i64), Told) -> When,
) -> sqlx::Result<usize> {
    let (gateways, epochs): (Vec<i32>, Vec<i64>) = runs.iter().copied().unzip();
    // 1 and 3: anchored and uncertain. Events are few.
    let rows = sqlx::query!(
        r#"select e.gateway_id, e.epoch, e.seq, e."timestamp", e.event_time, e.time_basis, e.uncertainty_ms,
               e.received_at, e.mono_ms, e.clock_state
           from unnest($1::int[], $2::bigint[]) as k (gateway_id, epoch)
           join gateway_event e on e.gateway_id = k.gateway_id and e.epoch = k.epoch
           where e.time_basis in (1, 3)"#,
        &gateways,
        &epochs
    )
    .fetch_all(&mut *tx)
    .await?;
    let (mut names, mut whens) = ((Vec::new(), Vec::new(), Vec::new()), Vec::new());
    for row in rows {
        let told = Told {
            mono_ms: row.mono_ms,
            wall_ms: row.timestamp.timestamp_millis(),
            clock: ClockState::from_code(row.clock_state),
            at_ms: None,
            received_ms: row.received_at.timestamp_millis(),
        };
        let when = rule((row.gateway_id, row.epoch), told);
        if when.replaces((row.event_time, row.time_basis, row.uncertainty_ms)) {
            names.0.push(row.gateway_id);
            names.1.push(row.epoch);
            names.2.push(row.seq);
            whens.push(when);
        }
    }
    sqlx::query!(
        "update gateway_event e set event_time = c.event_time, time_basis = c.time_basis,
             uncertainty_ms = c.uncertainty_ms
         from unnest($1::int[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::smallint[], $6::int[])
             as c (gateway_id, epoch, seq, event_time, time_basis, uncertainty_ms)
         where (e.gateway_id, e.epoch, e.seq) = (c.gateway_id, c.epoch, c.seq)",
        &names.0,
        &names.1,
        &names.2,
        &whens.iter().map(|when| when.at).collect::<Vec<_>>(),
        &whens.iter().map(|when| when.basis.code()).collect::<Vec<_>>(),
        &whens.iter().map(|when| when.uncertainty_ms).collect::<Vec<_>>() as &[Option<i32>],
    )
    .execute(&mut *tx)
    .await?;
    parts::renew(tx, &names.0, &names.1, &names.2).await?;
    Ok(whens.len())
}
