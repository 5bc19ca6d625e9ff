//! Scans whose time becomes known better after they were stored.

use super::add_to_days;
use super::new::Name;
use crate::moment::{Told, When};
use crate::places;
use chrono::{DateTime, NaiveDate, Utc};
use lumbung_shared::time::ClockState;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// Scans corrected by one statement.
const PAGE: i64 = 5_000;

/// Gives every stored scan of these runs (gateway, epoch) whose time is a guess or came from an anchor the
/// time that `rule` finds for it. What the gateway or phone told and the order of the records stay as
/// they are; the counts per day move along. Answers how many scans have another time now.
pub(crate) async fn correct(
    tx: &mut PgConnection,
    runs: &[(i32, i64)],
    rule: impl Fn((i32, i64), Told) -> When,
) -> sqlx::Result<usize> {
    let mut corrected = 0;
    // A run at a time: for several at once the planner walks the big table from its beginning to the first.
    for &run in runs {
        corrected += correct_run(tx, run, |told| rule(run, told)).await?;
    }
    Ok(corrected)
}

async fn correct_run(
    tx: &mut PgConnection,
    (gateway_id, epoch): (i32, i64),
    rule: impl Fn(Told) -> When,
) -> sqlx::Result<usize> {
    let mut after = i64::MIN;
    let mut corrected = 0;
    loop {
        // 1 and 3: anchored and uncertain.
        let rows = sqlx::query!(
            r#"select e.seq, e.site_id, s.time_zone, e.status_scan, e."timestamp", e.event_time, e.time_basis,
                   e.uncertainty_ms, e.received_at, e.local_day, e.mono_ms, e.clock_state
               from scan_event e join site s using (site_id)
               where e.gateway_id = $1 and e.epoch = $2 and e.seq > $3 and e.time_basis in (1, 3)
               order by e.seq limit $4"#,
            gateway_id,
            epoch,
            after,
            PAGE
        )
        .fetch_all(&mut *tx)
        .await?;
        let Some(last) = rows.last() else { return Ok(corrected) };
        after = last.seq;
        let mut moved = Vec::new();
        let mut days: BTreeMap<_, i64> = BTreeMap::new();
        for row in &rows {
            let told = Told {
                mono_ms: row.mono_ms,
                wall_ms: row.timestamp.timestamp_millis(),
                clock: ClockState::from_code(row.clock_state),
                // Had the phone's own time been believable, the scan would not be here.
                at_ms: None,
                received_ms: row.received_at.timestamp_millis(),
            };
            let when = rule(told);
            if !when.replaces((row.event_time, row.time_basis, row.uncertainty_ms)) {
                continue;
            }
            let day = when.at.with_timezone(&places::zone(&row.time_zone)).date_naive();
            *days.entry((gateway_id, row.site_id, row.local_day, row.status_scan.as_str())).or_default() -= 1;
            *days.entry((gateway_id, row.site_id, day, row.status_scan.as_str())).or_default() += 1;
            moved.push(((gateway_id, epoch, row.seq), when, day));
        }
        write(tx, &moved).await?;
        add_to_days(tx, days).await?;
        corrected += moved.len();
    }
}

async fn write(tx: &mut PgConnection, moved: &[(Name, When, NaiveDate)]) -> sqlx::Result<()> {
    if moved.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update scan_event e set event_time = c.event_time, time_basis = c.time_basis,
             uncertainty_ms = c.uncertainty_ms, local_day = c.local_day
         from unnest($1::int[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::smallint[], $6::int[], $7::date[])
             as c (gateway_id, epoch, seq, event_time, time_basis, uncertainty_ms, local_day)
         where (e.gateway_id, e.epoch, e.seq) = (c.gateway_id, c.epoch, c.seq)",
        &moved.iter().map(|(name, ..)| name.0).collect::<Vec<_>>(),
        &moved.iter().map(|(name, ..)| name.1).collect::<Vec<_>>(),
        &moved.iter().map(|(name, ..)| name.2).collect::<Vec<_>>(),
        &moved.iter().map(|(_, when, _)| when.at).collect::<Vec<DateTime<Utc>>>(),
        &moved.iter().map(|(_, when, _)| when.basis.code()).collect::<Vec<_>>(),
        &moved.iter().map(|(_, when, _)| when.uncertainty_ms).collect::<Vec<_>>() as &[Option<i32>],
        &moved.iter().map(|(.., day)| *day).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}
