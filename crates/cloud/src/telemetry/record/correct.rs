//! Readings whose time becomes known (better) after they came.

use super::{Row, latest, store};
use crate::moment::{TimeBasis, Told, When};
use chrono::{DateTime, Utc};
use lumbung_shared::time::ClockState;
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// Readings moved by one statement.
const PAGE: i64 = 5_000;

/// Gives the readings of these runs (gateway, epoch) whose time is a guess or came from an anchor the time that
/// `rule` finds, and lets those go that waited for one. Answers how many were moved.
pub(crate) async fn correct(
    tx: &mut PgConnection,
    runs: &[(i32, i64)],
    rule: impl Fn((i32, i64), Told) -> When,
) -> sqlx::Result<usize> {
    let (mut released, mut moved) = (0, 0);
    // A run at a time: for several at once the planner walks the tables from their beginning to the first.
    for &run in runs {
        let rule = |told| rule(run, told);
        released += release(tx, run, &rule).await?;
        moved += move_stored(tx, run, &rule).await?;
    }
    Ok(released + moved)
}

/// Had the source's own time been believable, the reading would not be here.
fn told(mono_ms: i64, timestamp: DateTime<Utc>, clock_state: i16, received_at: DateTime<Utc>) -> Told {
    Told {
        mono_ms,
        wall_ms: timestamp.timestamp_millis(),
        clock: ClockState::from_code(clock_state),
        at_ms: None,
        received_ms: received_at.timestamp_millis(),
    }
}

async fn release(
    tx: &mut PgConnection,
    (gateway_id, epoch): (i32, i64),
    rule: &impl Fn(Told) -> When,
) -> sqlx::Result<usize> {
    let mut after = i64::MIN;
    let mut released = 0;
    loop {
        let waiting = sqlx::query!(
            "select * from waiting_reading where gateway_id = $1 and epoch = $2 and seq > $3 order by seq limit $4",
            gateway_id,
            epoch,
            after,
            PAGE
        )
        .fetch_all(&mut *tx)
        .await?;
        let Some(last) = waiting.last() else { return Ok(released) };
        after = last.seq;
        let (mut rows, mut gone) = (Vec::new(), (Vec::new(), Vec::new(), Vec::new()));
        for row in waiting {
            let told = told(row.mono_ms, row.timestamp, row.clock_state, row.received_at);
            let when = rule(told);
            if when.basis == TimeBasis::Uncertain {
                continue;
            }
            gone.0.push(row.gateway_id);
            gone.1.push(row.epoch);
            gone.2.push(row.seq);
            rows.push(Row {
                series_id: row.series_id,
                when,
                epoch: row.epoch,
                seq: row.seq,
                value: row.value,
                quality: row.quality,
                clock_state: row.clock_state,
                timestamp: row.timestamp,
                received_at: row.received_at,
                mono_ms: row.mono_ms,
            });
        }
        released += rows.len();
        sqlx::query!(
            "delete from waiting_reading w using unnest($1::int[], $2::bigint[], $3::bigint[])
                 as k (gateway_id, epoch, seq)
             where (w.gateway_id, w.epoch, w.seq) = (k.gateway_id, k.epoch, k.seq)",
            &gone.0,
            &gone.1,
            &gone.2
        )
        .execute(&mut *tx)
        .await?;
        store(tx, &mut rows).await?;
    }
}

async fn move_stored(
    tx: &mut PgConnection,
    (gateway_id, epoch): (i32, i64),
    rule: &impl Fn(Told) -> When,
) -> sqlx::Result<usize> {
    let mut after = i64::MIN;
    let mut moved = 0;
    let mut touched = BTreeSet::new();
    loop {
        // Found through reading_doubtful. An epoch is as good as unique, but nobody may rely on that.
        let rows = sqlx::query!(
            r#"select r.series_id, r.reading_time, r.seq, r.time_basis, r.uncertainty_ms, r."timestamp",
                   r.clock_state, r.received_at, r.mono_ms
               from reading r join series s using (series_id)
               where r.time_basis in (1, 3) and r.epoch = $2 and r.seq > $3 and s.gateway_id = $1
               order by r.seq limit $4"#,
            gateway_id,
            epoch,
            after,
            PAGE
        )
        .fetch_all(&mut *tx)
        .await?;
        let Some(last) = rows.last() else { break };
        after = last.seq;
        let (mut keys, mut whens) = ((Vec::new(), Vec::new(), Vec::new(), Vec::new()), Vec::new());
        for row in rows {
            let told = told(row.mono_ms, row.timestamp, row.clock_state, row.received_at);
            let when = rule(told);
            if !when.replaces((row.reading_time, row.time_basis, row.uncertainty_ms)) {
                continue;
            }
            keys.0.push(row.series_id);
            keys.1.push(row.reading_time);
            keys.2.push(epoch);
            keys.3.push(row.seq);
            whens.push(when);
        }
        sqlx::query!(
            "update reading r set reading_time = c.at, time_basis = c.time_basis, uncertainty_ms = c.uncertainty_ms
             from unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::timestamptz[],
                 $6::smallint[], $7::int[]) as c (series_id, reading_time, epoch, seq, at, time_basis, uncertainty_ms)
             where (r.series_id, r.reading_time, r.epoch, r.seq) = (c.series_id, c.reading_time, c.epoch, c.seq)",
            &keys.0,
            &keys.1,
            &keys.2,
            &keys.3,
            &whens.iter().map(|when| when.at).collect::<Vec<_>>(),
            &whens.iter().map(|when| when.basis.code()).collect::<Vec<_>>(),
            &whens.iter().map(|when| when.uncertainty_ms).collect::<Vec<_>>() as &[Option<i32>],
        )
        .execute(&mut *tx)
        .await?;
        moved += whens.len();
        touched.extend(keys.0);
    }
    if !touched.is_empty() {
        latest::renew(tx, &touched.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(moved)
}
