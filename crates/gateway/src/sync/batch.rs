//! Writing a batch: records into columns, JSON, zstd.

use super::verdicts::SentRun;
use crate::clock::Moment;
use crate::outbox::PendingRun;
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::{Batch, Epoch, Health, PROTOCOL, RunSection, SCAN_STREAM, Statuses, write_scans};
use std::collections::BTreeMap;
use std::io;

/// About the most JSON in one batch, before compression: what a slow link carries within its time, and
/// what keeps memory flat whatever waits.
pub(super) const MOST_BYTES: usize = 1 << 20;
/// Small batches are worth every effort (links are billed by the byte), large ones are worth speed.
const BEST_LEVEL: i32 = 19;
const QUICK_LEVEL: i32 = 9;
const QUICK_FROM_BYTES: usize = 64 << 10;

/// A batch ready to travel.
#[derive(Debug)]
pub(super) struct Written {
    /// JSON, zstd.
    pub(super) body: Vec<u8>,
    pub(super) json_bytes: usize,
    pub(super) sent: Vec<SentRun>,
}

/// Writes the batch of `runs`.
pub(super) fn write(run: Epoch, now: Moment, runs: Vec<PendingRun>, health: Health) -> io::Result<Written> {
    let mut statuses = Statuses::default();
    let mut sent = Vec::with_capacity(runs.len());
    let mut sections = Vec::with_capacity(runs.len());
    for pending in runs {
        sent.push(SentRun {
            epoch: pending.epoch,
            seqs: pending.scans.iter().map(|scan| scan.seq).collect(),
        });
        let segment = write_scans(pending.scans, &mut statuses)?;
        let streams = segment.map(|segment| (SCAN_STREAM.to_owned(), vec![segment]));
        sections.push(RunSection {
            epoch: pending.epoch,
            start: pending.start,
            streams: BTreeMap::from_iter(streams),
        });
    }
    let batch = Batch {
        protocol: PROTOCOL,
        run,
        sent_at: rfc3339(now.wall_ms),
        mono_ms: now.mono_ms,
        clock: now.state,
        statuses: statuses.into_codes(),
        runs: sections,
        health: Some(health),
    };
    let json = serde_json::to_vec(&batch)?;
    let level = if json.len() < QUICK_FROM_BYTES { BEST_LEVEL } else { QUICK_LEVEL };
    Ok(Written { body: zstd::bulk::compress(&json, level)?, json_bytes: json.len(), sent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumbung_shared::scan::{Scan, ScanContent, Source};
    use lumbung_shared::tag::TagId;
    use lumbung_shared::time::ClockState;

    /// A day at a checkpoint: 2,000 tags, 8 s between taps on average, three statuses.
    fn day(count: i64) -> PendingRun {
        let mut dice = fastrand::Rng::with_seed(7);
        let tags: Vec<String> =
            (0..2_000).map(|_| format!("04{:012X}", dice.u64(..) & 0xFFFF_FFFF_FFFF)).collect();
        let mut mono_ms = 3_600_000;
        let scans = (1..=count).map(|seq| {
            mono_ms += (-(1.0 - dice.f64()).ln() * 8_000.0) as i64;
            Scan {
                seq,
                mono_ms,
                wall_ms: mono_ms + 1_795_000_000_000,
                clock: ClockState::Synced,
                source: Source::Reader,
                content: ScanContent {
                    tag: TagId::parse(dice.choice(&tags).unwrap()).unwrap(),
                    status: ["makanan_keluar", "makanan_masuk", "wadah_kembali"][dice.usize(..3)].to_owned(),
                    at_ms: None,
                    note: None,
                    officer: None,
                    quantity: None,
                    client_ref: None,
                },
            }
        });
        PendingRun { id: 1, epoch: Epoch(0x0123_4567_89ab_cdef), start: None, scans: scans.collect() }
    }

    #[test]
    fn five_hundred_scans_take_at_most_twelve_bytes_each() {
        let now = crate::clock::Clock::default().now();
        for count in [500, 5_000] {
            let health = Health {
                unsent: [(SCAN_STREAM.to_owned(), 500)].into(),
                oldest_unsent_at: Some(rfc3339(now.wall_ms)),
                disk_free_bytes: Some(12_345_678_901),
                reader: Some("ok".into()),
                version: "0.1.0".into(),
                ..Health::default()
            };
            let written = write(Epoch(1), now, vec![day(count)], health).unwrap();
            let each = written.body.len() as f64 / count as f64;
            println!("{count} scans: {each:.2} bytes each, {} of JSON", written.json_bytes);
            assert!(each <= 12.0, "{count} scans take {each:.2} bytes each");
        }
    }

    #[test]
    fn what_is_written_can_be_read_by_the_cloud() {
        let now = crate::clock::Clock::default().now();
        let pending = day(50);
        let scans = pending.scans.clone();
        let written = write(Epoch(1), now, vec![pending], Health::default()).unwrap();
        let json = zstd::bulk::decompress(&written.body, 1 << 20).unwrap();
        assert_eq!(json.len(), written.json_bytes);
        let batch: Batch = serde_json::from_slice(&json).unwrap();
        let segment = &batch.runs[0].streams[SCAN_STREAM][0];
        let read = lumbung_shared::wire::read_scans(segment, &batch.statuses).unwrap();
        assert_eq!(read.into_iter().map(Result::unwrap).collect::<Vec<_>>(), scans);
        assert_eq!(written.sent[0].seqs, (1..=50).collect::<Vec<i64>>());
    }
}
