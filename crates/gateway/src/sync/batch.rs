//! Writing a batch: records into columns, JSON, zstd.

use super::verdicts::SentRun;
use crate::clock::Moment;
use crate::outbox::PendingRun;
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::{
    Batch, EVENT_STREAM, Epoch, Health, PROTOCOL, READING_STREAM, RunSection, SCAN_STREAM, Statuses,
    write_events, write_readings, write_scans,
};
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
        sent.push(SentRun { epoch: pending.epoch, seqs: pending.seqs().collect() });
        let segments = [
            (SCAN_STREAM, write_scans(pending.scans, &mut statuses)?),
            (EVENT_STREAM, write_events(pending.events)?),
            (READING_STREAM, write_readings(pending.readings)?),
        ];
        let segments =
            segments.into_iter().filter_map(|(stream, segment)| Some((stream.to_owned(), vec![segment?])));
        let streams = BTreeMap::from_iter(segments);
        sections.push(RunSection { epoch: pending.epoch, start: pending.start, streams });
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
    use crate::outbox::Stream;
    use lumbung_shared::reading::{Quality, Reading, ReadingContent, SeriesName, Unit};
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
        let scans = scans.collect();
        PendingRun { scans, ..PendingRun::new(1, Epoch(0x0123_4567_89ab_cdef), None) }
    }

    /// Eight sensors of a kitchen, each every 10 s, with the digits that such sensors give.
    fn kitchen(minutes: i64) -> PendingRun {
        let sensors = [
            ("kulkas-1/temperature", "Cel", 4.0, 0.0625),
            ("kulkas-2/temperature", "Cel", 3.0, 0.0625),
            ("freezer/temperature", "Cel", -18.0, 0.0625),
            ("dapur/temperature", "Cel", 31.0, 0.01),
            ("dapur/humidity", "%RH", 74.0, 0.01),
            ("dapur/pressure", "Pa", 100_900.0, 1.0),
            ("meter/power", "W", 850.0, 0.1),
            ("meter/energy", "kW.h", 1_234.0, 0.001),
        ];
        let mut dice = fastrand::Rng::with_seed(7);
        let mut steps = sensors.map(|_| 0.0);
        let mut readings = Vec::new();
        for round in 0..minutes * 6 {
            for (i, (series, unit, base, step)) in sensors.iter().enumerate() {
                steps[i] += f64::from(dice.i32(-2..=2));
                let mono_ms = 3_600_000 + round * 10_000 + i as i64 * 3 + dice.i64(0..2);
                // As the sensor's driver writes it: no more digits than it has.
                let value = format!("{:.4}", base + steps[i] * step).parse().unwrap();
                readings.push(Reading {
                    seq: readings.len() as i64 + 1,
                    mono_ms,
                    wall_ms: mono_ms + 1_795_000_000_000,
                    clock: ClockState::Synced,
                    content: ReadingContent {
                        series: SeriesName::parse(series).unwrap(),
                        unit: Unit::parse(unit).unwrap(),
                        value,
                        quality: Quality::Good,
                        at_ms: None,
                    },
                });
            }
        }
        PendingRun { readings, ..PendingRun::new(1, Epoch(0x0123_4567_89ab_cdef), None) }
    }

    #[test]
    fn a_minute_of_eight_sensors_is_small_and_an_hour_smaller_still() {
        let now = crate::clock::Clock::default().now();
        for (minutes, most) in [(1, 14.0), (60, 5.0)] {
            let pending = kitchen(minutes);
            let count = pending.readings.len() as f64;
            let written = write(Epoch(1), now, vec![pending], Health::default()).unwrap();
            let each = written.body.len() as f64 / count;
            println!("{minutes} minutes: {each:.2} bytes each, {} of JSON", written.json_bytes);
            assert!(each <= most, "{minutes} minutes: {each:.2} bytes each");
        }
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
        assert_eq!(written.sent[0].seqs, (1..=50).map(|seq| (Stream::Scan, seq)).collect::<Vec<_>>());
    }
}
