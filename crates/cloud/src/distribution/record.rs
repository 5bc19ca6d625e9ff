//! Keeping scans: once each, in the transaction of whoever brings them.

use super::copy;
use chrono::{DateTime, NaiveDate, Utc};
use lumbung_shared::scan::{Scan, ScanContent};
use lumbung_shared::time::from_ms;
use lumbung_shared::wire::Epoch;
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// How an event time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeBasis {
    /// The gateway's clock, synced or confirmed by the batch that brought the scan.
    Gateway,
    /// Milliseconds since boot, tied to the cloud's clock by a batch of the same boot.
    Anchored,
    /// The phone that scanned.
    Phone,
    /// The best guess there is.
    Uncertain,
}

impl TimeBasis {
    pub(super) fn code(self) -> i16 {
        match self {
            Self::Gateway => 0,
            Self::Anchored => 1,
            Self::Phone => 2,
            Self::Uncertain => 3,
        }
    }

    /// The word of a stored number.
    pub(crate) fn word(code: i16) -> &'static str {
        match code {
            0 => "gateway",
            1 => "anchored",
            2 => "phone",
            _ => "uncertain",
        }
    }
}

/// (gateway, epoch, seq): a scan's name for ever.
pub(crate) type Name = (i32, i64, i64);

/// A scan with all that the cloud adds to it.
pub(crate) struct NewScan<'a> {
    pub(crate) gateway_id: i32,
    pub(crate) epoch: Epoch,
    pub(crate) scan: &'a Scan,
    pub(crate) site_id: i32,
    pub(crate) event_time: DateTime<Utc>,
    pub(crate) time_basis: TimeBasis,
    pub(crate) local_day: NaiveDate,
    pub(crate) received_at: DateTime<Utc>,
}

impl NewScan<'_> {
    pub(crate) fn name(&self) -> Name {
        (self.gateway_id, self.epoch.to_db(), self.scan.seq)
    }
}

/// What became of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    New,
    /// It was here before, with the same content.
    Duplicate,
    /// Its name, or its phone's key, belongs to a scan with other content.
    Conflict,
}

/// Stores scans that are not stored yet and answers for each, in order. Scans must be sorted by name, so
/// that two transactions with the same scans wait for each other instead of locking each other out.
pub(crate) async fn keep(tx: &mut PgConnection, scans: &[NewScan<'_>]) -> sqlx::Result<Vec<Kept>> {
    let owners = claim_refs(tx, scans).await?;
    // A scan whose phone's key already belongs to another scan is not stored again.
    let belongs = |scan: &NewScan<'_>| {
        scan.scan
            .content
            .client_ref
            .is_none_or(|key| owners.get(&key).is_none_or(|owner| *owner == scan.name()))
    };
    let own: Vec<&NewScan<'_>> = scans.iter().filter(|scan| belongs(scan)).collect();
    let quick = own.len() == scans.len() && own.len() >= copy::WORTH_IT;
    if quick && copy::try_copy(tx, &own).await? {
        count_days(tx, scans.iter()).await?;
        return Ok(vec![Kept::New; scans.len()]);
    }
    let stored = insert(tx, &own).await?;
    if stored.len() == scans.len() {
        count_days(tx, scans.iter()).await?;
        return Ok(vec![Kept::New; scans.len()]);
    }
    let mut stored: HashSet<Name> = stored.into_iter().collect();
    let mut kept = Vec::with_capacity(scans.len());
    let mut again = Vec::new();
    for (i, scan) in scans.iter().enumerate() {
        if belongs(scan) && stored.remove(&scan.name()) {
            kept.push(Kept::New);
        } else {
            let key = scan.scan.content.client_ref.and_then(|key| owners.get(&key).copied());
            again.push((i, key.unwrap_or_else(|| scan.name())));
            kept.push(Kept::Duplicate);
        }
    }
    let before = contents(tx, again.iter().map(|(_, name)| *name)).await?;
    for (i, name) in again {
        if before.get(&name).is_none_or(|content| !same(content, scans[i].scan)) {
            kept[i] = Kept::Conflict;
        }
    }
    release_refs(tx, scans, &kept).await?;
    count_days(tx, scans.iter().zip(&kept).filter(|(_, kept)| **kept == Kept::New).map(|(scan, _)| scan))
        .await?;
    Ok(kept)
}

/// Claims each phone's key for its scan; answers who owns the keys now.
async fn claim_refs(tx: &mut PgConnection, scans: &[NewScan<'_>]) -> sqlx::Result<HashMap<Uuid, Name>> {
    let mut claims: Vec<(Uuid, Name)> =
        scans.iter().filter_map(|scan| Some((scan.scan.content.client_ref?, scan.name()))).collect();
    if claims.is_empty() {
        return Ok(HashMap::new());
    }
    claims.sort_unstable();
    claims.dedup_by_key(|(key, _)| *key);
    let keys: Vec<Uuid> = claims.iter().map(|(key, _)| *key).collect();
    let gateways: Vec<i32> = claims.iter().map(|(_, name)| name.0).collect();
    let epochs: Vec<i64> = claims.iter().map(|(_, name)| name.1).collect();
    let seqs: Vec<i64> = claims.iter().map(|(_, name)| name.2).collect();
    sqlx::query!(
        "insert into scan_client_ref (client_ref, gateway_id, epoch, seq)
         select * from unnest($1::uuid[], $2::int[], $3::bigint[], $4::bigint[])
         on conflict do nothing",
        &keys,
        &gateways,
        &epochs,
        &seqs
    )
    .execute(&mut *tx)
    .await?;
    let rows = sqlx::query!(
        "select client_ref, gateway_id, epoch, seq from scan_client_ref where client_ref = any($1)",
        &keys
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.client_ref, (row.gateway_id, row.epoch, row.seq))).collect())
}

/// Lets go of keys claimed for scans that turned out not to be stored under that name with that key.
async fn release_refs(tx: &mut PgConnection, scans: &[NewScan<'_>], kept: &[Kept]) -> sqlx::Result<()> {
    let refused: Vec<Uuid> = scans
        .iter()
        .zip(kept)
        .filter(|(_, kept)| **kept == Kept::Conflict)
        .filter_map(|(scan, _)| scan.scan.content.client_ref)
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "delete from scan_client_ref r where r.client_ref = any($1) and not exists (
             select from scan_event e where (e.gateway_id, e.epoch, e.seq) = (r.gateway_id, r.epoch, r.seq)
                 and e.client_ref = r.client_ref)",
        &refused
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Inserts what is not there; answers the names that were inserted.
async fn insert(tx: &mut PgConnection, scans: &[&NewScan<'_>]) -> sqlx::Result<Vec<Name>> {
    let n = scans.len();
    let mut names = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let mut texts = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut times =
        (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let mut codes = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let (mut sites, mut monos) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut extras =
        (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
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
        times.1.push(new.event_time);
        times.2.push(new.received_at);
        times.3.push(new.local_day);
        monos.push(new.scan.mono_ms);
        codes.0.push(new.time_basis.code());
        codes.1.push(new.scan.clock.code());
        codes.2.push(new.scan.source.code());
        extras.0.push(content.note.as_deref());
        extras.1.push(content.officer.as_deref());
        extras.2.push(content.quantity);
        extras.3.push(content.client_ref);
    }
    // No target behind `on conflict`: whatever key says that it is here already, it is.
    let rows = sqlx::query!(
        r#"insert into scan_event (gateway_id, epoch, seq, site_id, nfc_tag_id, status_scan, "timestamp", event_time,
               received_at, local_day, mono_ms, time_basis, clock_state, source, note, officer, quantity, client_ref)
           select * from unnest($1::int[], $2::bigint[], $3::bigint[], $4::int[], $5::text[], $6::text[],
               $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::date[], $11::bigint[], $12::smallint[],
               $13::smallint[], $14::smallint[], $15::text[], $16::text[], $17::float8[], $18::uuid[])
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
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.gateway_id, row.epoch, row.seq)).collect())
}

/// What is stored under these names, as far as two tellings of a scan must agree.
struct Stored {
    tag: String,
    status: String,
    timestamp: DateTime<Utc>,
    note: Option<String>,
    officer: Option<String>,
    quantity: Option<f64>,
    client_ref: Option<Uuid>,
}

async fn contents(
    tx: &mut PgConnection,
    names: impl Iterator<Item = Name>,
) -> sqlx::Result<HashMap<Name, Stored>> {
    let (mut gateways, mut epochs, mut seqs) = (Vec::new(), Vec::new(), Vec::new());
    for (gateway_id, epoch, seq) in names {
        gateways.push(gateway_id);
        epochs.push(epoch);
        seqs.push(seq);
    }
    let rows = sqlx::query!(
        r#"select e.gateway_id, e.epoch, e.seq, e.nfc_tag_id, e.status_scan, e."timestamp", e.note, e.officer,
               e.quantity, e.client_ref
           from unnest($1::int[], $2::bigint[], $3::bigint[]) as k (gateway_id, epoch, seq)
           join scan_event e on (e.gateway_id, e.epoch, e.seq) = (k.gateway_id, k.epoch, k.seq)"#,
        &gateways,
        &epochs,
        &seqs
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let stored = Stored {
                tag: row.nfc_tag_id,
                status: row.status_scan,
                timestamp: row.timestamp,
                note: row.note,
                officer: row.officer,
                quantity: row.quantity,
                client_ref: row.client_ref,
            };
            ((row.gateway_id, row.epoch, row.seq), stored)
        })
        .collect())
}

fn same(stored: &Stored, scan: &Scan) -> bool {
    let ScanContent { tag, status, at_ms: _, note, officer, quantity, client_ref } = &scan.content;
    // A phone's key may come by two gateways, whose own clocks differ; with a key only the phone's own
    // time counts.
    let same_time = stored.timestamp == from_ms(scan.timestamp_ms())
        || (client_ref.is_some() && scan.content.at_ms.is_none());
    stored.tag == tag.as_str()
        && stored.status == *status
        && same_time
        && stored.note == *note
        && stored.officer == *officer
        && stored.quantity == *quantity
        && stored.client_ref == *client_ref
}

/// Keeps the count per day in step with what was stored.
async fn count_days<'a>(
    tx: &mut PgConnection,
    new: impl Iterator<Item = &'a NewScan<'a>>,
) -> sqlx::Result<()> {
    let mut counts: BTreeMap<(i32, i32, NaiveDate, &str), i64> = BTreeMap::new();
    for scan in new {
        let status = scan.scan.content.status.as_str();
        *counts.entry((scan.gateway_id, scan.site_id, scan.local_day, status)).or_default() += 1;
    }
    if counts.is_empty() {
        return Ok(());
    }
    let gateways: Vec<i32> = counts.keys().map(|key| key.0).collect();
    let sites: Vec<i32> = counts.keys().map(|key| key.1).collect();
    let days: Vec<NaiveDate> = counts.keys().map(|key| key.2).collect();
    let statuses: Vec<&str> = counts.keys().map(|key| key.3).collect();
    let scans: Vec<i64> = counts.values().copied().collect();
    sqlx::query!(
        "insert into scan_day (gateway_id, site_id, local_day, status_scan, scans)
         select * from unnest($1::int[], $2::int[], $3::date[], $4::text[], $5::bigint[])
         on conflict on constraint scan_day_pk do update set scans = scan_day.scans + excluded.scans",
        &gateways,
        &sites,
        &days,
        &statuses as &[&str],
        &scans
    )
    .execute(tx)
    .await?;
    Ok(())
}
