//! The quick road for many new scans: COPY, in PostgreSQL's binary format.
//!
//! COPY knows no `on conflict`, so it is tried under a savepoint; the unique key says when a scan was
//! there already, and then the caller takes the ordinary road. Duplicates are rare, and for thousands of
//! scans COPY takes about two thirds of the time of `insert … select from unnest` (docs/benchmarks.md).

use super::new::NewScan;
use crate::database::copy::Rows;
use lumbung_shared::time::from_ms;
use sqlx::PgConnection;

/// Below this many the extra round trips cost more than COPY saves.
pub(super) const WORTH_IT: usize = 400;

const STATEMENT: &str = r#"copy scan_event (gateway_id, epoch, seq, site_id, nfc_tag_id, status_scan, "timestamp",
    event_time, received_at, local_day, mono_ms, time_basis, clock_state, source, note, officer, quantity, client_ref,
    uncertainty_ms) from stdin with (format binary)"#;
const COLUMNS: i16 = 19;

/// Stores all of the scans, or none of them and answers false because one was there already.
pub(super) async fn try_copy(tx: &mut PgConnection, scans: &[&NewScan<'_>]) -> sqlx::Result<bool> {
    sqlx::query!("savepoint before_copy").execute(&mut *tx).await?;
    let rows = encode(scans);
    let outcome = async {
        let mut copy = tx.copy_in_raw(STATEMENT).await?;
        copy.send(rows).await?;
        copy.finish().await
    }
    .await;
    match outcome {
        Ok(_) => {
            sqlx::query!("release savepoint before_copy").execute(tx).await?;
            Ok(true)
        }
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            sqlx::query!("rollback to savepoint before_copy").execute(tx).await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn encode(scans: &[&NewScan<'_>]) -> Vec<u8> {
    let mut rows = Rows::new(COLUMNS, scans.len() * 220);
    for new in scans {
        let (gateway_id, epoch, seq) = new.name();
        let content = &new.scan.content;
        rows.row();
        rows.field(&gateway_id.to_be_bytes());
        rows.field(&epoch.to_be_bytes());
        rows.field(&seq.to_be_bytes());
        rows.field(&new.site_id.to_be_bytes());
        rows.field(content.tag.as_str().as_bytes());
        rows.field(content.status.as_bytes());
        rows.moment(from_ms(new.scan.timestamp_ms()));
        rows.moment(new.when.at);
        rows.moment(new.received_at);
        rows.day(new.local_day);
        rows.field(&new.scan.mono_ms.to_be_bytes());
        rows.field(&new.when.basis.code().to_be_bytes());
        rows.field(&new.scan.clock.code().to_be_bytes());
        rows.field(&new.scan.source.code().to_be_bytes());
        rows.optional(content.note.as_ref().map(String::as_bytes));
        rows.optional(content.officer.as_ref().map(String::as_bytes));
        rows.optional(content.quantity.map(f64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
        rows.optional(content.client_ref.as_ref().map(|key| key.as_bytes().as_slice()));
        rows.optional(new.when.uncertainty_ms.map(i32::to_be_bytes).as_ref().map(<[u8; 4]>::as_slice));
    }
    rows.into_bytes()
}
