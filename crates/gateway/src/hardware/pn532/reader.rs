//! The PN532 as a tag reader: polls, tells taps from tags that lie there, and repairs itself.

use super::chip::{Chip, ChipError, Target};
use super::debounce::Debounce;
use super::link::{Link, OpenError};
use super::tag::{self, Content};
use crate::hardware::{ReaderError, Rung, Seen, TagReader};
use lumbung_shared::tag::TagId;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

/// Polls in a row that may fail while the chip itself answers.
const MISSES: u32 = 3;
/// Looks at a tag that cannot be read before the officer is told.
const READS: u32 = 3;
/// Soft resets before stronger means.
const SOFT: u32 = 2;
/// All random UIDs count as one tag: a phone draws a new one each time it is looked at.
const RANDOM: &str = "random";

/// What names a tag in a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    Uid,
    /// The text written on it, and the UID of a tag that has none.
    NdefOrUid,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub naming: Naming,
    /// A tag that comes back within this time has not been away.
    pub debounce: Duration,
    /// Pause between two looks for tags.
    pub poll_interval: Duration,
    /// Longest that one look may take.
    pub poll_deadline: Duration,
    /// How often the chip is asked whether it is there.
    pub probe_interval: Duration,
}

type Opener = Box<dyn FnMut() -> Result<Link, OpenError> + Send>;
type Pulse = Box<dyn FnMut() + Send>;

/// A PN532 that is found, kept and found again.
pub struct Pn532Reader {
    settings: Settings,
    open: Opener,
    /// Pulses the chip's reset pin, if it is wired.
    reset: Option<Pulse>,
    chip: Option<Chip>,
    debounce: Debounce,
    waiting: VecDeque<(Seen, String)>,
    /// The tag that was handed out last, as the debounce knows it.
    handed: Option<String>,
    unread: HashMap<String, u32>,
    misses: u32,
    probed: Instant,
}

impl fmt::Debug for Pn532Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pn532Reader").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Pn532Reader {
    /// A reader whose device is opened when it is first asked for a tag.
    pub fn new(
        settings: Settings,
        open: impl FnMut() -> Result<Link, OpenError> + Send + 'static,
        reset: Option<Pulse>,
    ) -> Self {
        Self {
            debounce: Debounce::new(settings.debounce),
            settings,
            open: Box::new(open),
            reset,
            chip: None,
            waiting: VecDeque::new(),
            handed: None,
            unread: HashMap::new(),
            misses: 0,
            probed: Instant::now(),
        }
    }

    fn reopen(&mut self) -> Result<(), ReaderError> {
        // The device is locked as long as the old link lives.
        self.chip = None;
        let link = (self.open)().map_err(down)?;
        let mut chip = Chip::new(link, self.settings.poll_deadline);
        let firmware = chip.prepare().map_err(down)?;
        tracing::info!(version = firmware.version, revision = firmware.revision, "the PN532 is ready");
        self.chip = Some(chip);
        self.probed = Instant::now();
        Ok(())
    }

    fn look(&mut self) -> Result<(), ReaderError> {
        if self.chip.is_none() {
            self.reopen()?;
        }
        let Some(chip) = &mut self.chip else { return Ok(()) };
        if self.probed.elapsed() >= self.settings.probe_interval {
            chip.firmware().map_err(down)?;
            self.probed = Instant::now();
        }
        match chip.targets() {
            Ok(targets) => {
                self.misses = 0;
                self.sort(&targets);
                Ok(())
            }
            Err(error) => {
                self.misses += 1;
                if self.misses >= MISSES {
                    return Err(down(error));
                }
                tracing::debug!(%error, "a look for tags failed");
                chip.firmware().map_err(down)?;
                self.probed = Instant::now();
                Ok(())
            }
        }
    }

    /// Of the tags in the field, puts those that are a tap among the waiting.
    fn sort(&mut self, targets: &[Target]) {
        let keys: Vec<String> = targets.iter().map(key).collect();
        let taps = self.debounce.look(Instant::now(), &keys);
        self.unread.retain(|key, _| keys.contains(key));
        for (target, key) in targets.iter().zip(keys) {
            if !taps.contains(&key) {
                continue;
            }
            match self.name(target) {
                Ok(seen) => self.waiting.push_back((seen, key)),
                Err(error) => {
                    let reads = self.unread.entry(key.clone()).or_default();
                    *reads += 1;
                    if *reads < READS {
                        self.debounce.retry(&key);
                    } else {
                        tracing::warn!(%error, "a tag cannot be read");
                        self.waiting.push_back((Seen::Unreadable, key));
                    }
                }
            }
        }
    }

    fn name(&mut self, target: &Target) -> Result<Seen, ChipError> {
        if is_random(target) {
            return Ok(Seen::Unreadable);
        }
        if let (Naming::NdefOrUid, Some(chip)) = (self.settings.naming, &mut self.chip)
            && let Content::Text(text) = tag::read(chip, target)?
        {
            match TagId::parse(text.trim()) {
                Ok(tag) => return Ok(Seen::Tag(tag)),
                Err(error) => tracing::warn!(%error, "what is written on a tag is no name; its UID is taken"),
            }
        }
        // Hex of 4, 7 or 10 bytes is always a tag's name.
        Ok(TagId::parse(&target.hex()).map_or(Seen::Unreadable, Seen::Tag))
    }
}

fn key(target: &Target) -> String {
    if is_random(target) { RANDOM.to_owned() } else { target.hex() }
}

/// ISO 14443-3: four bytes that begin with 08 are drawn anew each time, as phones and cards do that
/// want to stay unknown. They name nothing.
fn is_random(target: &Target) -> bool {
    matches!(target.uid[..], [0x08, _, _, _])
}

fn down(error: impl fmt::Display) -> ReaderError {
    ReaderError(error.to_string())
}

impl TagReader for Pn532Reader {
    fn next(&mut self, patience: Duration) -> Result<Option<Seen>, ReaderError> {
        let until = Instant::now() + patience;
        loop {
            if self.waiting.is_empty() {
                self.look()?;
            }
            if let Some((seen, key)) = self.waiting.pop_front() {
                if seen == Seen::Unreadable {
                    self.debounce.forgive(&key);
                }
                self.handed = Some(key);
                return Ok(Some(seen));
            }
            if Instant::now() + self.settings.poll_interval >= until {
                return Ok(None);
            }
            std::thread::sleep(self.settings.poll_interval);
        }
    }

    fn refused(&mut self) {
        if let Some(key) = self.handed.take() {
            self.debounce.forgive(&key);
        }
    }

    fn repair(&mut self, attempt: u32) -> Rung {
        self.misses = 0;
        let soft = attempt <= SOFT || attempt % 2 == 1;
        // How it went shows when the reader is asked for the next tag.
        let rung = match (&mut self.chip, &mut self.reset) {
            (Some(_), _) if attempt <= SOFT => Rung::Soft,
            (Some(_), Some(reset)) if soft => {
                reset();
                Rung::ResetPin
            }
            (_, reset) => {
                if attempt > SOFT
                    && let Some(reset) = reset
                {
                    reset();
                }
                Rung::Reopen
            }
        };
        let outcome = match (&mut self.chip, rung) {
            (Some(chip), Rung::Soft | Rung::ResetPin) => chip.prepare().map(drop).map_err(down),
            _ => self.reopen(),
        };
        match outcome {
            Ok(()) => tracing::info!(attempt, rung = rung.name(), "the tag reader was repaired"),
            Err(error) => tracing::debug!(attempt, rung = rung.name(), %error, "a repair did not help"),
        }
        rung
    }
}
