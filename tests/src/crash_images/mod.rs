//! Power cuts: the real gateway is recorded, and the card is rebuilt as it may be after a cut at any moment.
//!
//! A killed process loses nothing that the kernel has; a power cut does. So each image takes what was
//! synced by then, and of the rest nothing, everything, some, or some with a write torn at a sector. It is
//! opened as the gateway opens it, and every scan acknowledged before the cut must be there as it was told.

mod card;
mod record;
mod trace;

use crate::programs::{Gateway, look};
use crate::stand::Stand;
use anyhow::{Context, Result, ensure};
use card::Card;
use fastrand::Rng;
use rusqlite::Connection;
use std::collections::HashMap;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use trace::Event;

/// Images that are also given to the real gateway to start on.
const STARTED: usize = 12;

/// A known-bad gateway that the images must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Mutant {
    /// It does not wait for the card.
    SyncOff,
    /// It answers before the commit.
    EarlyAck,
}

impl Mutant {
    fn name(self) -> &'static str {
        match self {
            Self::SyncOff => "sync_off",
            Self::EarlyAck => "early_ack",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub images: usize,
    /// Acknowledged scans that an image does not hold, over all images.
    pub acked_lost: usize,
    /// Images that SQLite does not find whole.
    pub corrupt: usize,
    pub seed: u64,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.images > 0 && self.acked_lost == 0 && self.corrupt == 0
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "images={} acked_lost={} corrupt={} seed={}",
            self.images, self.acked_lost, self.corrupt, self.seed
        )
    }
}

/// The scans acknowledged so far: number → run and tag.
type Acked = HashMap<i64, (String, String)>;

/// Records a run and cuts the power `images` times.
pub async fn run(
    images: usize,
    seed: u64,
    mutant: Option<Mutant>,
    out: &mut (dyn Write + Send),
) -> Result<Report> {
    let stand = Stand::new()?;
    let events = record::record(&stand, mutant).await?;
    let acked = events.iter().filter(|event| matches!(event, Event::Acked { .. })).count();
    let syncs = events.iter().filter(|event| matches!(event, Event::Synced { .. })).count();
    writeln!(out, "recorded {acked} acknowledged scans, {syncs} syncs, {} events", events.len())?;
    ensure!(acked > 0, "no acknowledgement was seen in the recording");
    let mut rng = Rng::with_seed(seed);
    let mut cuts: Vec<usize> = (0..images).map(|_| rng.usize(..=events.len())).collect();
    cuts.sort_unstable();
    let images_dir = tempfile::Builder::new().prefix("lumbung-image-").tempdir_in(fast_place())?;
    let mut player = Player {
        card: Card::default(),
        acked: Acked::new(),
        report: Report { images, acked_lost: 0, corrupt: 0, seed },
    };
    let every = images.div_ceil(STARTED).max(1);
    let mut played = 0;
    for (n, cut) in cuts.into_iter().enumerate() {
        for event in &events[played..cut] {
            player.play(event);
        }
        played = cut;
        let dir = images_dir.path();
        let luck = player.card.cut(dir, &mut rng)?;
        // The gateway first, on a copy: looking at an image already repairs it.
        if n % every == every - 1 {
            player.start_on(&stand, dir, n).await.with_context(|| luck.clone())?;
        }
        player.check(dir, cut, &luck, out)?;
        if (n + 1) % 500 == 0 {
            writeln!(out, "cut {} of {images}", n + 1)?;
        }
    }
    Ok(player.report)
}

/// Memory where there is some: thousands of images are written and thrown away.
fn fast_place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    match memory.is_dir() {
        true => memory,
        false => std::env::temp_dir(),
    }
}

struct Player {
    card: Card,
    acked: Acked,
    report: Report,
}

impl Player {
    fn play(&mut self, event: &Event) {
        self.card.play(event);
        if let Event::Acked { id, run, tag } = event {
            self.acked.insert(*id, (run.clone(), tag.clone()));
        }
    }

    /// Opens the image as it is and looks for everything that was acknowledged.
    fn check(&mut self, dir: &Path, cut: usize, luck: &str, out: &mut (dyn Write + Send)) -> Result<()> {
        match open(&dir.join(trace::FILES[0])) {
            Ok(found) => {
                let lost = self.missing(&found);
                if lost > 0 && self.report.acked_lost == 0 {
                    writeln!(out, "first loss: {lost} of {} after event {cut}, {luck}", self.acked.len())?;
                }
                self.report.acked_lost += lost;
            }
            Err(error) => {
                if self.report.corrupt == 0 {
                    writeln!(out, "first corrupt image: event {cut}, {luck}: {error:#}")?;
                }
                self.report.corrupt += 1;
                self.report.acked_lost += self.acked.len();
            }
        }
        for name in [trace::FILES[0], trace::FILES[1], "local_gateway.db-shm"] {
            let _ = std::fs::remove_file(dir.join(name));
        }
        Ok(())
    }

    fn missing(&self, found: &Acked) -> usize {
        let missing = |(id, told): &(&i64, &(String, String))| found.get(id) != Some(told);
        self.acked.iter().filter(missing).count()
    }

    /// Starts the real gateway on a copy of the image: it must find nothing to repair and show all scans.
    async fn start_on(&mut self, stand: &Stand, image: &Path, n: usize) -> Result<()> {
        let code = format!("IMAGE-{n}");
        let mut gateway: Gateway = stand.bare_gateway(&code)?;
        for name in trace::FILES {
            if image.join(name).exists() {
                std::fs::copy(image.join(name), gateway.dir.join(name))?;
            }
        }
        gateway.start().await?;
        gateway.scan("AFTER-THE-CUT", "makanan_keluar").await?;
        let found = read_scans(&look(&gateway.database())?)?;
        self.report.acked_lost += self.missing(&found);
        gateway.stop().await?;
        let aside = std::fs::read_dir(&gateway.dir)?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("corrupt-"));
        if aside {
            self.report.corrupt += 1;
        }
        std::fs::remove_dir_all(&gateway.dir)?;
        Ok(())
    }
}

/// What a database holds after SQLite recovered it; an error when it is not whole.
fn open(path: &Path) -> Result<Acked> {
    if !path.exists() {
        return Ok(Acked::new());
    }
    let store = Connection::open(path)?;
    let verdict: String = store.query_row("pragma quick_check", [], |row| row.get(0))?;
    ensure!(verdict == "ok", "{verdict}");
    read_scans(&store)
}

fn read_scans(store: &Connection) -> Result<Acked> {
    let made: i64 =
        store.query_row("select count(*) from sqlite_schema where name = 'scan_event'", [], |row| {
            row.get(0)
        })?;
    if made == 0 {
        return Ok(Acked::new());
    }
    let mut statement =
        store.prepare("select s.id, r.epoch, s.nfc_tag_id from scan_event s join run r using (run_id)")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
