//! A simulated gateway: a small outbox in one file, the real enrolment, the real wire. As in a real one,
//! a scan is on disk with its number before it is sent and leaves only when the cloud has answered for
//! it, so a demo that is killed anywhere neither loses nor doubles one.

use super::morning::{MINUTE, Tap};
use super::place::write_whole;
use anyhow::{Context, Result, bail};
use lumbung_shared::enrol::{EnrolRequest, KEY_BODY_CHARS, KEY_PREFIX};
use lumbung_shared::scan::{Scan, ScanContent, Source};
use lumbung_shared::tag::TagId;
use lumbung_shared::time::{ClockState, rfc3339};
use lumbung_shared::wire::{
    Answer, Batch, Epoch, Health, PROTOCOL, RunSection, RunStart, SCAN_STREAM, Statuses, write_scans,
};
use lumbung_tests::http::{Reply, send};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use uuid::Uuid;

/// The pretended boot lies this long before the first scan of a run.
const WARM_UP_MS: i64 = 5 * MINUTE;
const BATCH_RECORDS: usize = 1_000;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a simulated gateway keeps between two starts.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    key: String,
    enrolled: bool,
    /// Oldest first; the last one is now, the others still have scans to send.
    runs: Vec<Run>,
    next_seq: i64,
    /// Every tap of the day's plan up to here has been made.
    planned_through_ms: i64,
    unsent: Vec<Unsent>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    epoch: Epoch,
    previous: Option<Epoch>,
    boot: Uuid,
    boot_wall_ms: i64,
    /// The cloud has answered for this run.
    introduced: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Unsent {
    epoch: Epoch,
    seq: i64,
    wall_ms: i64,
    tag: String,
    status: String,
    quantity: Option<f64>,
    note: Option<String>,
}

/// How a push ended when the cloud could be reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Taken,
    /// The key is not known: a claim is needed.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Simulated {
    pub(crate) code: String,
    site: &'static str,
    file: PathBuf,
    kept: Kept,
    /// So many of the newest scans stay here: the line is too thin for them.
    held_back: usize,
}

impl Simulated {
    /// Opens the gateway's file, or makes it with a key of its own; either way a new run begins.
    pub(crate) fn open(
        code: String,
        site: &'static str,
        file: PathBuf,
        held_back: usize,
        first_ms: i64,
    ) -> Result<Self> {
        let mut kept = match std::fs::read(&file) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Kept {
                key: new_key()?,
                enrolled: false,
                runs: Vec::new(),
                next_seq: 1,
                planned_through_ms: first_ms,
                unsent: Vec::new(),
            },
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        };
        // After weeks of rest only the recent past is played.
        kept.planned_through_ms = kept.planned_through_ms.max(first_ms);
        kept.begin_run();
        let gateway = Self { code, site, file, kept, held_back };
        gateway.save()?;
        Ok(gateway)
    }

    pub(crate) fn enrolled(&self) -> bool {
        self.kept.enrolled
    }

    pub(crate) fn planned_through_ms(&self) -> i64 {
        self.kept.planned_through_ms
    }

    /// Scans that the next push would carry.
    pub(crate) fn ready(&self) -> usize {
        self.kept.unsent.len().saturating_sub(self.held_back)
    }

    /// Gives taps their numbers and keeps them.
    pub(crate) fn record(&mut self, taps: Vec<Tap>, planned_through_ms: Option<i64>) -> Result<()> {
        if let Some(through) = planned_through_ms {
            self.kept.planned_through_ms = through;
        }
        if taps.is_empty() {
            return Ok(());
        }
        let epoch = self.run()?.epoch;
        for tap in taps {
            self.kept.unsent.push(Unsent {
                epoch,
                seq: self.kept.next_seq,
                wall_ms: tap.at_ms,
                tag: tap.tag,
                status: tap.status.to_owned(),
                quantity: tap.quantity,
                note: tap.note.map(str::to_owned),
            });
            self.kept.next_seq += 1;
        }
        self.save()
    }

    /// Redeems an operator's claim.
    pub(crate) async fn enrol(&mut self, http: &Client, cloud: &str, claim: &str) -> Result<()> {
        let request = EnrolRequest {
            claim: claim.to_owned(),
            key: self.kept.key.clone(),
            hardware: Some("simulated".to_owned()),
            signing: None,
        };
        let reply = post(http, format!("{cloud}/api/gateways/enrol"), None, &request).await?;
        reply.expect(200).with_context(|| format!("enrolling {}", self.code))?;
        self.kept.enrolled = true;
        self.save()
    }

    /// Sends what is ready, or a sign of life, and settles what the cloud answered for.
    pub(crate) async fn push(&mut self, http: &Client, cloud: &str, now_ms: i64) -> Result<Pushed> {
        let batch = self.batch(now_ms)?;
        let url = format!("{cloud}/api/sync_gateway_data");
        let reply = post(http, url, Some(&self.kept.key), &batch).await?;
        match reply.status {
            200 => {
                let answer: Answer = serde_json::from_str(&reply.text).context("the answer to a batch")?;
                self.settle(&answer)?;
                Ok(Pushed::Taken)
            }
            401 => {
                self.kept.enrolled = false;
                // A key that was retired cannot be enrolled again.
                self.kept.key = new_key()?;
                self.save()?;
                Ok(Pushed::Unknown)
            }
            status => bail!("the cloud answered {status}: {}", reply.text),
        }
    }

    fn batch(&self, now_ms: i64) -> Result<Batch> {
        let run = self.run()?;
        let mut statuses = Statuses::default();
        let sending = &self.kept.unsent[..self.ready().min(BATCH_RECORDS)];
        let mut sections = Vec::new();
        for one in &self.kept.runs {
            let scans: Vec<Scan> = sending
                .iter()
                .filter(|scan| scan.epoch == one.epoch)
                .map(|scan| scan.to_scan(one))
                .collect::<Result<_>>()?;
            let segment = write_scans(scans, &mut statuses)?;
            let start = (!one.introduced).then(|| one.start(self.site));
            if segment.is_none() && start.is_none() {
                continue;
            }
            let streams = segment.map(|segment| (SCAN_STREAM.to_owned(), vec![segment]));
            sections.push(RunSection { epoch: one.epoch, start, streams: streams.into_iter().collect() });
        }
        let unsent = &self.kept.unsent;
        Ok(Batch {
            protocol: PROTOCOL,
            run: run.epoch,
            sent_at: rfc3339(now_ms),
            mono_ms: now_ms - run.boot_wall_ms,
            clock: ClockState::Synced,
            statuses: statuses.into_codes(),
            runs: sections,
            health: Some(Health {
                unsent: BTreeMap::from([(SCAN_STREAM.to_owned(), unsent.len() as u64)]),
                oldest_unsent_at: unsent.first().map(|scan| rfc3339(scan.wall_ms)),
                reader: Some("ok".to_owned()),
                version: VERSION.to_owned(),
                ..Health::default()
            }),
        })
    }

    fn settle(&mut self, answer: &Answer) -> Result<()> {
        for told in &answer.runs {
            let Some(run) = self.kept.runs.iter_mut().find(|run| run.epoch == told.epoch) else {
                continue;
            };
            run.introduced = true;
            let acked = told.streams.get(SCAN_STREAM).map_or(0, |stream| stream.acked_through);
            self.kept.unsent.retain(|scan| scan.epoch != told.epoch || scan.seq > acked);
        }
        self.kept.forget_empty_runs();
        self.save()
    }

    fn run(&self) -> Result<&Run> {
        self.kept.runs.last().context("a gateway always has a run")
    }

    fn save(&self) -> Result<()> {
        write_whole(&self.file, &serde_json::to_vec(&self.kept)?, 0o600)
    }
}

impl Kept {
    fn begin_run(&mut self) {
        let previous = self.runs.last().map(|run| run.epoch);
        self.runs.push(Run {
            epoch: Epoch(fastrand::u64(1..)),
            previous,
            boot: Uuid::new_v4(),
            boot_wall_ms: self.planned_through_ms - WARM_UP_MS,
            introduced: false,
        });
        self.forget_empty_runs();
    }

    /// A run that was told and has nothing left to send is history. One that was never told stays: the
    /// next run names it as its predecessor.
    fn forget_empty_runs(&mut self) {
        let newest = self.runs.last().map(|run| run.epoch);
        let unsent = &self.unsent;
        self.runs.retain(|run| {
            !run.introduced || Some(run.epoch) == newest || unsent.iter().any(|scan| scan.epoch == run.epoch)
        });
    }
}

impl Run {
    fn start(&self, site: &str) -> RunStart {
        RunStart {
            previous: self.previous,
            boot: self.boot.to_string(),
            site: Some(site.to_owned()),
            started_at: rfc3339(self.boot_wall_ms + MINUTE),
            mono_ms: MINUTE,
            clock: ClockState::Synced,
            version: VERSION.to_owned(),
        }
    }
}

impl Unsent {
    fn to_scan(&self, run: &Run) -> Result<Scan> {
        Ok(Scan {
            seq: self.seq,
            mono_ms: self.wall_ms - run.boot_wall_ms,
            wall_ms: self.wall_ms,
            clock: ClockState::Synced,
            source: Source::Reader,
            content: ScanContent {
                tag: TagId::parse(&self.tag)?,
                status: self.status.clone(),
                at_ms: None,
                note: self.note.clone(),
                officer: None,
                quantity: self.quantity,
                client_ref: None,
            },
        })
    }
}

async fn post(http: &Client, url: String, key: Option<&str>, body: &impl Serialize) -> Result<Reply> {
    let mut request =
        http.post(url).header("content-type", "application/json").body(serde_json::to_vec(body)?);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    send(request).await
}

/// 43 letters of base64url from the kernel's randomness, six bits each.
fn new_key() -> Result<String> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = [0u8; KEY_BODY_CHARS];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .context("drawing a key")?;
    let letter = |byte: &u8| char::from(LETTERS[usize::from(byte & 63)]);
    Ok(KEY_PREFIX.chars().chain(random.iter().map(letter)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumbung_shared::wire::{Held, RunAnswer, StreamAnswer, read_scans};

    const NOW: i64 = 1_795_228_200_000;

    fn taps(n: i64) -> Vec<Tap> {
        let tap = |i| Tap {
            at_ms: NOW - (n - i) * 1_000,
            tag: format!("04A22B1C5D{i:04X}"),
            status: "makanan_keluar",
            quantity: None,
            note: None,
        };
        (0..n).map(tap).collect()
    }

    fn open(dir: &std::path::Path, held_back: usize) -> Simulated {
        Simulated::open("GW-X".to_owned(), "X", dir.join("x.json"), held_back, NOW - 9_000_000).unwrap()
    }

    fn numbers(batch: &Batch) -> Vec<(Epoch, i64)> {
        let sections = batch.runs.iter();
        sections
            .flat_map(|section| {
                let segments = section.streams.values().flatten();
                segments.flat_map(|segment| {
                    let scans = read_scans(segment, &batch.statuses).unwrap();
                    scans.into_iter().map(|scan| (section.epoch, scan.unwrap().seq))
                })
            })
            .collect()
    }

    fn answer(epoch: Epoch, acked_through: i64) -> Answer {
        let stream = StreamAnswer { acked_through, exceptions: Vec::new(), held: Held::default() };
        Answer {
            protocol: PROTOCOL,
            server_time: rfc3339(NOW),
            gateway_id: "GW-X".to_owned(),
            runs: vec![RunAnswer { epoch, streams: BTreeMap::from([(SCAN_STREAM.to_owned(), stream)]) }],
            retry_after: None,
            alarms: Vec::new(),
        }
    }

    #[test]
    fn a_scan_keeps_its_run_and_number_until_the_cloud_has_answered_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = open(dir.path(), 0);
        first.record(taps(3), Some(NOW)).unwrap();
        let sent = numbers(&first.batch(NOW).unwrap());
        let epoch = sent[0].0;
        first.settle(&answer(epoch, 1)).unwrap();
        drop(first);

        let mut again = open(dir.path(), 0);
        assert_eq!(again.planned_through_ms(), NOW);
        again.record(taps(1), None).unwrap();
        let batch = again.batch(NOW).unwrap();
        let resent = numbers(&batch);
        assert_eq!(resent[..2], sent[1..]);
        assert_eq!(resent[2].1, 4);
        assert_ne!(resent[2].0, epoch);
        assert_eq!(batch.runs[1].start.as_ref().unwrap().previous, Some(epoch));
        again.settle(&answer(epoch, 3)).unwrap();
        assert_eq!(numbers(&again.batch(NOW).unwrap()), resent[2..]);
    }

    #[test]
    fn a_thin_line_carries_the_oldest_and_tells_of_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let mut gateway = open(dir.path(), 4);
        gateway.record(taps(6), None).unwrap();
        let batch = gateway.batch(NOW).unwrap();
        assert_eq!(numbers(&batch).iter().map(|n| n.1).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(batch.health.unwrap().unsent[SCAN_STREAM], 6);
    }

    #[test]
    fn a_key_has_the_form_of_one_and_is_nobody_elses() {
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        assert!(lumbung_shared::enrol::is_key(&one));
        assert_ne!(one, other);
    }
}
