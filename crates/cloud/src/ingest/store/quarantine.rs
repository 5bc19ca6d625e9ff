//! Keeping what cannot be taken as it came.

use super::placed::Placed;
use crate::ingest::streams::Stream;
use crate::telemetry::record::MOST_SERIES;
use chrono::{DateTime, Utc};
use lumbung_shared::reading::Reading;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

pub(super) struct Quarantined {
    pub(super) gateway_id: i32,
    pub(super) epoch: i64,
    pub(super) stream: String,
    pub(super) seq: i64,
    pub(super) through: i64,
    pub(super) reason: &'static str,
    pub(super) detail: String,
    pub(super) raw: String,
    pub(super) received_at: DateTime<Utc>,
}

pub(super) const TOO_MANY_SERIES: &str = "too_many_series";

/// A record whose name is taken by another content.
pub(super) fn conflict<T: Stream>(new: &Placed<'_, T>) -> Quarantined {
    let detail = "another record with this identity or client_ref has other content";
    refused(new, "conflict", detail.to_owned())
}

/// A reading of a series more than a gateway may have: a topic with a counter in it, say.
pub(super) fn flood_of_series(new: &Placed<'_, Reading>) -> Quarantined {
    let detail = format!(
        "this gateway has {MOST_SERIES} series already: look for a name that changes with every reading"
    );
    refused(new, TOO_MANY_SERIES, detail)
}

pub(super) const FOREIGN_SITE: &str = "foreign_site";

/// A record of a place where its gateway never stood: a gateway that lies, or a move that nobody told the cloud.
pub(super) fn of_another_place<T: Stream>(new: &Placed<'_, T>, site: &str) -> Quarantined {
    let detail = format!(
        "its run names the site {site}, where this gateway never stood; if it did, say so with \
         `lumbung-cloud gateway stood` and replay"
    );
    refused(new, FOREIGN_SITE, detail)
}

/// In the form that can be read again.
fn refused<T: Stream>(new: &Placed<'_, T>, reason: &'static str, detail: String) -> Quarantined {
    let (gateway_id, epoch, seq) = new.name();
    Quarantined {
        gateway_id,
        epoch,
        stream: T::NAME.to_owned(),
        seq,
        through: seq,
        reason,
        detail,
        raw: new.of.write_raw(),
        received_at: new.received_at,
    }
}

pub(super) async fn quarantine(tx: &mut PgConnection, mut refused: Vec<Quarantined>) -> sqlx::Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    refused.sort_by(|a, b| {
        (a.gateway_id, a.epoch, &a.stream, a.seq).cmp(&(b.gateway_id, b.epoch, &b.stream, b.seq))
    });
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
        // A parser's own words may quote a NUL, which PostgreSQL cannot hold.
        &refused.iter().map(|r| r.detail.replace('\0', "\u{FFFD}")).collect::<Vec<_>>(),
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
