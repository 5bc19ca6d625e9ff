//! Keeping readings, in the transaction of whoever brings them.

mod correct;
mod known;
mod latest;

pub(crate) use correct::correct;
pub(crate) use known::{MOST_SERIES, series_of};

use crate::database::copy::Rows;
use crate::moment::{TimeBasis, When};
use chrono::{DateTime, Utc};
use lumbung_shared::reading::Reading;
use lumbung_shared::time::{ClockState, from_ms};
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// A reading with all that the cloud adds to it.
pub(crate) struct NewReading<'a> {
    pub(crate) gateway_id: i32,
    pub(crate) epoch: i64,
    pub(crate) site_id: i32,
    pub(crate) reading: &'a Reading,
    pub(crate) when: When,
    pub(crate) received_at: DateTime<Utc>,
    /// Its boot can still be tied to the time of day.
    pub(crate) may_be_anchored: bool,
}

impl NewReading<'_> {
    fn waits(&self) -> bool {
        self.when.basis == TimeBasis::Uncertain
            && self.reading.clock == ClockState::Unset
            && self.may_be_anchored
    }
}

/// A row of `reading`.
struct Row {
    series_id: i64,
    when: When,
    epoch: i64,
    seq: i64,
    value: f64,
    quality: i16,
    clock_state: i16,
    timestamp: DateTime<Utc>,
    received_at: DateTime<Utc>,
    mono_ms: i64,
}

const STATEMENT: &str = r#"copy reading (series_id, reading_time, epoch, seq, value, quality, time_basis, clock_state,
    uncertainty_ms, "timestamp", received_at, mono_ms) from stdin with (format binary)"#;
const COLUMNS: i16 = 12;

/// Stores readings whose numbers the caller has claimed in their series ([`series_of`]), and the latest of each.
pub(crate) async fn keep(tx: &mut PgConnection, readings: &[(NewReading<'_>, i64)]) -> sqlx::Result<()> {
    if readings.is_empty() {
        return Ok(());
    }
    let (mut rows, mut waiting) = (Vec::with_capacity(readings.len()), Vec::new());
    for &(ref new, series_id) in readings {
        let Reading { seq, mono_ms, clock, content, .. } = new.reading;
        let row = Row {
            series_id,
            when: new.when,
            epoch: new.epoch,
            seq: *seq,
            value: content.value,
            quality: content.quality.code(),
            clock_state: clock.code(),
            timestamp: from_ms(new.reading.timestamp_ms()),
            received_at: new.received_at,
            mono_ms: *mono_ms,
        };
        if new.waits() {
            waiting.push((new.gateway_id, row));
        } else {
            rows.push(row);
        }
    }
    store(tx, &mut rows).await?;
    wait(tx, &waiting).await
}

/// In the order of their keys, which is the cheapest for the index.
async fn store(tx: &mut PgConnection, readings: &mut [Row]) -> sqlx::Result<()> {
    if readings.is_empty() {
        return Ok(());
    }
    readings.sort_unstable_by_key(|row| (row.series_id, row.when.at, row.epoch, row.seq));
    latest::note(tx, readings).await?;
    let mut rows = Rows::new(COLUMNS, readings.len() * 140);
    for row in readings.iter() {
        rows.row();
        rows.field(&row.series_id.to_be_bytes());
        rows.moment(row.when.at);
        rows.field(&row.epoch.to_be_bytes());
        rows.field(&row.seq.to_be_bytes());
        rows.field(&row.value.to_be_bytes());
        rows.field(&row.quality.to_be_bytes());
        rows.field(&row.when.basis.code().to_be_bytes());
        rows.field(&row.clock_state.to_be_bytes());
        rows.optional(row.when.uncertainty_ms.map(i32::to_be_bytes).as_ref().map(<[u8; 4]>::as_slice));
        rows.moment(row.timestamp);
        rows.moment(row.received_at);
        rows.field(&row.mono_ms.to_be_bytes());
    }
    let mut copy = tx.copy_in_raw(STATEMENT).await?;
    copy.send(rows.into_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

async fn wait(tx: &mut PgConnection, waiting: &[(i32, Row)]) -> sqlx::Result<()> {
    if waiting.is_empty() {
        return Ok(());
    }
    let each = || waiting.iter().map(|(_, row)| row);
    sqlx::query!(
        r#"insert into waiting_reading (gateway_id, epoch, seq, series_id, value, quality, clock_state, "timestamp",
               received_at, mono_ms)
           select * from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::float8[], $6::smallint[],
               $7::smallint[], $8::timestamptz[], $9::timestamptz[], $10::bigint[])"#,
        &waiting.iter().map(|(gateway_id, _)| *gateway_id).collect::<Vec<_>>(),
        &each().map(|row| row.epoch).collect::<Vec<_>>(),
        &each().map(|row| row.seq).collect::<Vec<_>>(),
        &each().map(|row| row.series_id).collect::<Vec<_>>(),
        &each().map(|row| row.value).collect::<Vec<_>>(),
        &each().map(|row| row.quality).collect::<Vec<_>>(),
        &each().map(|row| row.clock_state).collect::<Vec<_>>(),
        &each().map(|row| row.timestamp).collect::<Vec<_>>(),
        &each().map(|row| row.received_at).collect::<Vec<_>>(),
        &each().map(|row| row.mono_ms).collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The newest of each series, of rows in the order of their keys.
fn newest(readings: &[Row]) -> impl Iterator<Item = &Row> {
    let newest: BTreeMap<i64, &Row> = readings.iter().map(|row| (row.series_id, row)).collect();
    newest.into_values()
}
