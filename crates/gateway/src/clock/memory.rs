//! What is remembered of the time while the power is off: a small file, written once an hour, when a better
//! time was told and at the end, and the last stored record.

use super::belief::Donation;
use super::{Clock, Moment};
use crate::durable;
use lumbung_shared::time::ClockState;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "clock.json";

/// What the clock begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    pub(super) last: Option<Last>,
    pub(super) proven_ms: i64,
    /// Only of this boot.
    pub(super) donated: Option<Donation>,
    pub(super) ntp_told: bool,
}

/// A moment that has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    pub(super) wall_ms: i64,
    /// Of this boot; 0 when it was another's.
    pub(super) mono_ms: i64,
    /// Whether ntp or the cloud stood behind it.
    pub(super) trusted: bool,
}

/// The moment of the last stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Rises from run to run.
    pub run: i64,
    pub boot: String,
    pub moment: Moment,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    run: i64,
    boot: String,
    last: Last,
    proven_ms: i64,
    #[serde(default)]
    donated: Option<Donation>,
    #[serde(default)]
    ntp_told: bool,
}

/// The file in the data directory.
#[derive(Debug, Clone)]
pub struct ClockFile {
    dir: PathBuf,
    boot: String,
}

impl ClockFile {
    pub fn in_dir(dir: &Path, boot: &str) -> Self {
        Self { dir: dir.to_owned(), boot: boot.to_owned() }
    }

    /// What was known last: the file's, or the record's where that is younger. A file that cannot be read
    /// costs a floor, never a start.
    pub fn recall(&self, stored: Option<&Stored>) -> Known {
        let content = match std::fs::read(self.dir.join(FILE)) {
            Ok(text) => match serde_json::from_slice::<Content>(&text) {
                Ok(content) => Some(content),
                Err(error) => {
                    tracing::warn!(%error, "{FILE} cannot be read; the stored records tell the time");
                    None
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, "{FILE} cannot be read; the stored records tell the time");
                None
            }
        };
        let mut known = Known::default();
        let mut age = None;
        if let Some(content) = content {
            known.proven_ms = content.proven_ms;
            known.last = Some(self.of_this_boot(content.last, &content.boot));
            age = Some((content.run, content.last.mono_ms));
            if content.boot == self.boot {
                known.donated = content.donated;
                known.ntp_told = content.ntp_told;
            }
        }
        if let Some(Stored { run, boot, moment }) = stored
            && age.is_none_or(|age| (*run, moment.mono_ms) > age)
        {
            let trusted = moment.state == ClockState::Synced;
            let last = Last { wall_ms: moment.wall_ms, mono_ms: moment.mono_ms, trusted };
            known.last = Some(self.of_this_boot(last, boot));
        }
        known
    }

    fn of_this_boot(&self, last: Last, boot: &str) -> Last {
        if boot == self.boot { last } else { Last { mono_ms: 0, ..last } }
    }

    /// Writes down what the clock knows by now.
    pub fn write(&self, clock: &Clock, run: i64) -> io::Result<()> {
        let known = clock.known();
        let Some(last) = known.last else { return Ok(()) };
        let Known { proven_ms, donated, ntp_told, .. } = known;
        let content = Content { run, boot: self.boot.clone(), last, proven_ms, donated, ntp_told };
        durable::replace(&self.dir, FILE, &serde_json::to_vec(&content)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(run: i64, boot: &str, mono_ms: i64, wall_ms: i64, state: ClockState) -> Stored {
        Stored { run, boot: boot.into(), moment: Moment { mono_ms, wall_ms, state } }
    }

    #[test]
    fn the_last_record_counts_and_its_place_in_the_boot_only_within_that_boot() {
        let dir = tempfile::tempdir().unwrap();
        let file = ClockFile::in_dir(dir.path(), "now");
        assert_eq!(file.recall(None), Known::default());
        let same = file.recall(Some(&stored(3, "now", 50, 2_000, ClockState::Synced)));
        assert_eq!(same.last, Some(Last { wall_ms: 2_000, mono_ms: 50, trusted: true }));
        let other = file.recall(Some(&stored(3, "before", 50, 2_000, ClockState::Held)));
        assert_eq!(other.last, Some(Last { wall_ms: 2_000, mono_ms: 0, trusted: false }));
    }

    #[test]
    fn what_was_written_is_recalled_and_the_younger_of_file_and_record_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = ClockFile::in_dir(dir.path(), "now");
        let clock = Clock::default();
        let mono = clock.mono_ms();
        clock.hear_cloud(mono, mono, super::super::built_ms() + 5_000, true).unwrap();
        file.write(&clock, 3).unwrap();
        let known = file.recall(Some(&stored(2, "before", i64::MAX, 9, ClockState::Synced)));
        assert_eq!(known.donated, clock.known().donated);
        assert!(known.donated.is_some() && known.proven_ms == super::super::built_ms() + 5_000);
        assert!(known.last.unwrap().trusted);
        let later = file.recall(Some(&stored(4, "now", 1, 9, ClockState::Unset)));
        assert_eq!(later.last, Some(Last { wall_ms: 9, mono_ms: 1, trusted: false }));

        let next_boot = ClockFile::in_dir(dir.path(), "next").recall(None);
        assert_eq!((next_boot.donated, next_boot.last.unwrap().mono_ms), (None, 0));
        assert_eq!(next_boot.proven_ms, known.proven_ms, "what is proven stays so");
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(ClockFile::in_dir(dir.path(), "b").recall(None), Known::default());
    }
}
