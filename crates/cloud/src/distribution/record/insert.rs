//! The ordinary road: one statement that leaves out what is there already.

use super::new::{Name, NewScan};
use lumbung_shared::time::from_ms;
use sqlx::PgConnection;
use uuid::Uuid;

/// Inserts what is not there; answers the names that were inserted.
pub(super) async fn insert(tx: &mut PgConnection, scans: &[&NewScan<'_>]) -> sqlx::Result<Vec<Name>> {
    let n = scans.len();
    let mut names = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let mut texts = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut times =
        (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let mut codes = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let (mut sites, mut monos) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut extras =
        (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let mut uncertainties = Vec::with_capacity(n);
    for new in scans {
        let content = &new.scan.content;
        let (gateway_id, epoch, seq) = new.name();
        names.0.push(gateway_id);
        names.1.push(epoch);
        names.2.push(seq);
        sites.push(new.site_id);
        texts.0.push(content.tag.as_str());
        texts.1.push(content.status.as_str());
        times.0.push(from_ms(new.scan.timestamp_ms()));
        times.1.push(new.when.at);
        times.2.push(new.received_at);
        times.3.push(new.local_day);
        monos.push(new.scan.mono_ms);
        codes.0.push(new.when.basis.code());
        codes.1.push(new.scan.clock.code());
        codes.2.push(new.scan.source.code());
        extras.0.push(content.note.as_deref());
        extras.1.push(content.officer.as_deref());
        extras.2.push(content.quantity);
        extras.3.push(content.client_ref);
        uncertainties.push(new.when.uncertainty_ms);
    }
    // No target behind `on conflict`: whatever key says that it is here already, it is.
    let rows = sqlx::query!(
        r#"insert into scan_event (gateway_id, epoch, seq, site_id, nfc_tag_id, status_scan, "timestamp", event_time,
               received_at, local_day, mono_ms, time_basis, clock_state, source, note, officer, quantity, client_ref,
               uncertainty_ms)
           select * from unnest($1::int[], $2::bigint[], $3::bigint[], $4::int[], $5::text[], $6::text[],
               $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::date[], $11::bigint[], $12::smallint[],
               $13::smallint[], $14::smallint[], $15::text[], $16::text[], $17::float8[], $18::uuid[], $19::int[])
           on conflict do nothing
           returning gateway_id, epoch, seq"#,
        &names.0,
        &names.1,
        &names.2,
        &sites,
        &texts.0 as &[&str],
        &texts.1 as &[&str],
        &times.0,
        &times.1,
        &times.2,
        &times.3,
        &monos,
        &codes.0,
        &codes.1,
        &codes.2,
        &extras.0 as &[Option<&str>],
        &extras.1 as &[Option<&str>],
        &extras.2 as &[Option<f64>],
        &extras.3 as &[Option<Uuid>],
        &uncertainties as &[Option<i32>],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.gateway_id, row.epoch, row.seq)).collect())
}
