//! Bundles that people carry from a gateway without a network.
//!
//! What must stay true:
//! - The gateway's signature is the authority; whoever carries the file is nobody.
//! - Its batches go the way of all batches: the same verdicts, and a repeated bundle is all duplicates.
//! - Everything is read before the first record is stored: a bundle that is refused changes nothing.
//! - The receipt is signed after the last record was committed.
//! - How long the file travelled is unknown: it ties no clock, and its sender is not heard of by it.

use super::body::Encoding;
use super::parse::{self, Incoming, Outcome};
use super::writers::Ingest;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity::receipts;
use crate::identity::signing::{self, Carried};
use chrono::Utc;
use lumbung_shared::bundle::{Bundle, BundleError, Opener};
use lumbung_shared::language::Words;
use lumbung_shared::receipt::{FORMAT, HeldRun, HeldStream, Receipt, Statement};
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::Epoch;
use sqlx::PgPool;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an import did.
pub struct Imported {
    pub gateway: String,
    pub records: u64,
    pub duplicates: u64,
    pub quarantined: u64,
    pub receipt: Receipt,
}

/// A bundle whose signature, sender and seal have been checked.
struct Checked {
    bundle: Bundle,
    opener: Opener,
    carried: Carried,
    most_decoded: usize,
}

impl Checked {
    /// One of its batches; runs on a blocking thread.
    fn batch(&self, place: usize) -> Result<Incoming> {
        let body = self.bundle.batch(&self.opener, place).map_err(|error| refusal(&error))?;
        let json = Encoding::Zstd.decode(&body, self.most_decoded)?;
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(Error::unreadable(
                "bundel hanya boleh berisi kiriman berbentuk objek",
                "a bundle holds batches of the object form only",
            ));
        }
        Ok(parse::parse(&self.carried.gateway, json, Utc::now())?.carried())
    }
}

/// Takes a bundle: checks all of it, stores what it holds, and signs for it.
///
/// # Errors
/// [`Error::Unreadable`] for a file that is damaged, forged or sealed for another cloud, the codes of
/// [`signing::signed_by`], `SIGNING_KEY_RETIRED`, or those of storing.
pub async fn import(pool: &PgPool, ingest: &Ingest, config: &Config, file: Vec<u8>) -> Result<Imported> {
    let bundle = aside(move || Bundle::read(file).map_err(|error| refusal(&error))).await?;
    let signer = receipts::signer(pool, &config.receipts.seal_key).await?;
    let carried = signing::signed_by(pool, bundle.manifest().signed_by).await?;
    if bundle.manifest().gateway_id != carried.gateway.code {
        let told = &bundle.manifest().gateway_id;
        let signer = &carried.gateway.code;
        return Err(Error::unreadable(
            format!("bundel itu mengaku dari {told}, tetapi ditandatangani {signer}"),
            format!("the bundle says it is of {told}, and {signer} signed it"),
        ));
    }
    let _place = ingest.admit(carried.gateway.id)?;
    let opener =
        bundle.opener(&signing::seals(pool, &carried.gateway).await?).map_err(|error| refusal(&error))?;
    let most_decoded = config.ingest.max_decoded_bytes;
    let checked = Arc::new(Checked { bundle, opener, carried, most_decoded });

    let mut epochs = Vec::new();
    for place in 0..checked.bundle.len() {
        let checked = Arc::clone(&checked);
        let incoming = aside(move || checked.batch(place)).await?;
        epochs.extend(incoming.runs.iter().map(|run| run.epoch));
    }
    epochs.sort_unstable();
    epochs.dedup();
    may_speak(pool, &checked.carried, &epochs).await?;

    let mut tally = Tally::default();
    for place in 0..checked.bundle.len() {
        let of = Arc::clone(&checked);
        let incoming = aside(move || of.batch(place)).await?;
        let ranges: Vec<_> = incoming.runs.iter().map(|run| (run.epoch, run.ranges.clone())).collect();
        let outcome = ingest.store(incoming).await?;
        tally.add(ranges, outcome);
    }
    let gateway = checked.carried.gateway.code.clone();
    let [records, duplicates, quarantined] = tally.counts();
    let statement = Statement {
        format: FORMAT,
        gateway_id: gateway.clone(),
        bundle: checked.bundle.name(),
        issued_at: rfc3339(Utc::now().timestamp_millis()),
        runs: tally.runs(),
    };
    let receipt = Receipt::sign(&statement, &signer).map_err(|error| Error::Unexpected(error.into()))?;
    tracing::info!(
        gateway,
        records,
        duplicates,
        quarantined,
        bundle = statement.bundle,
        "a bundle was carried here"
    );
    Ok(Imported { gateway, records, duplicates, quarantined, receipt })
}

fn refusal(error: &BundleError) -> Error {
    let english = error.to_string();
    let indonesian = match error {
        BundleError::TooLarge => {
            return Error::TooLarge(Words::new("bundel itu terlalu besar", english));
        }
        BundleError::NotABundle => "ini bukan bundel dari gateway Lumbung",
        BundleError::Damaged(_) => "bundel itu terpotong atau rusak; salin lagi, atau ekspor lagi",
        BundleError::Format(_) => "program ini belum mengenal format bundel itu; perbarui",
        BundleError::Signature => {
            "tanda tangannya tidak cocok: bundel itu diubah, atau bukan dari gateway tersebut"
        }
        BundleError::Sealed => "bundel itu tidak dapat dibuka dengan kunci mana pun milik gateway ini",
    };
    Error::unreadable(indonesian, english)
}

/// Hashing, opening and reading, away from the async threads.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Unexpected(error.into()))?
}

/// A key that a newer one has replaced speaks for its own card's runs and no other.
async fn may_speak(pool: &PgPool, carried: &Carried, epochs: &[Epoch]) -> Result<()> {
    let Some(retired_at) = carried.retired_at else { return Ok(()) };
    let epochs: Vec<i64> = epochs.iter().map(|epoch| epoch.to_db()).collect();
    let key = &carried.key.as_bytes()[..];
    let mut tx = pool.begin().await?;
    let newer = sqlx::query_scalar!(
        r#"select exists (
               select from unnest($2::bigint[]) as k (epoch)
               join gateway_run r on r.gateway_id = $1 and r.epoch = k.epoch
               left join carried_run c on c.gateway_id = $1 and c.epoch = k.epoch
               where r.first_heard_at >= $3 and c.public_key is distinct from $4
           ) as "newer!""#,
        carried.gateway.id,
        &epochs,
        retired_at,
        key
    )
    .fetch_one(&mut *tx)
    .await?;
    if newer {
        return Err(Error::Forbidden("SIGNING_KEY_RETIRED"));
    }
    sqlx::query!(
        "insert into carried_run (gateway_id, epoch, public_key)
         select $1, k.epoch, $3 from unnest($2::bigint[]) as k (epoch)
         where not exists (select from gateway_run r where r.gateway_id = $1 and r.epoch = k.epoch)
         on conflict on constraint carried_run_pk do nothing",
        carried.gateway.id,
        &epochs,
        key
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// What the receipt will say.
#[derive(Default)]
struct Tally(BTreeMap<Epoch, BTreeMap<String, HeldStream>>);

type Ranges = Vec<(Epoch, BTreeMap<String, Vec<(i64, i64)>>)>;

impl Tally {
    fn add(&mut self, sent: Ranges, mut outcome: Outcome) {
        for (epoch, streams) in sent {
            let run = self.0.entry(epoch).or_default();
            for (stream, ranges) in streams {
                let name = (epoch, stream.clone());
                let held = run.entry(stream).or_default();
                held.held.extend(ranges);
                held.duplicates += outcome.duplicates.remove(&name).unwrap_or_default().len() as u64;
                held.quarantined.extend(outcome.quarantined.remove(&name).unwrap_or_default());
            }
        }
    }

    fn counts(&self) -> [u64; 3] {
        let sum = |ranges: &mut dyn Iterator<Item = (i64, i64)>| -> u64 {
            ranges.map(|(first, last)| last.abs_diff(first) + 1).sum()
        };
        let mut counts = [0; 3];
        for stream in self.0.values().flat_map(BTreeMap::values) {
            counts[0] += sum(&mut stream.held.iter().copied());
            counts[1] += stream.duplicates;
            counts[2] += sum(&mut stream.quarantined.iter().map(|(first, last, _)| (*first, *last)));
        }
        counts
    }

    fn runs(self) -> Vec<HeldRun> {
        let runs = self.0.into_iter();
        runs.map(|(epoch, mut streams)| {
            streams.values_mut().for_each(|stream| join(&mut stream.held));
            HeldRun { epoch, streams }
        })
        .collect()
    }
}

/// Ranges that touch become one.
fn join(ranges: &mut Vec<(i64, i64)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let touches = next.0 <= last.1.saturating_add(1);
        if touches {
            last.1 = last.1.max(next.1);
        }
        touches
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_receipt_lists_is_joined_across_batches_and_counted_once() {
        let mut tally = Tally::default();
        let streams = |ranges: &[(i64, i64)]| BTreeMap::from([("scan".to_owned(), ranges.to_vec())]);
        let mut first = Outcome::default();
        first.duplicates.insert((Epoch(1), "scan".to_owned()), vec![2, 3]);
        first.quarantined.insert((Epoch(1), "scan".to_owned()), vec![(5, 5, "bad".to_owned())]);
        tally.add(vec![(Epoch(1), streams(&[(1, 5)]))], first);
        tally.add(
            vec![(Epoch(1), streams(&[(6, 9), (12, 12)])), (Epoch(2), streams(&[]))],
            Outcome::default(),
        );
        assert_eq!(tally.counts(), [10, 2, 1]);
        let runs = tally.runs();
        assert_eq!(runs[0].streams["scan"].held, [(1, 9), (12, 12)]);
        assert_eq!(runs[1].epoch, Epoch(2));
    }
}
