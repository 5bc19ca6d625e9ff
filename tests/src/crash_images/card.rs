//! What a card may hold after the power went: for each file what was synced, and of what was not, none,
//! all, some, or some with one write torn at a sector.

use super::trace::{Event, FILES};
use fastrand::Rng;
use std::path::Path;

const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { len: usize },
}

/// One file as the card holds it for sure, and what else was asked of it.
#[derive(Debug, Clone, Default)]
struct OneFile {
    /// `None` until it was synced once: a file that nobody synced may not be there at all.
    safe: Option<Vec<u8>>,
    pending: Vec<Change>,
}

/// The card while the recording is played.
#[derive(Debug, Default)]
pub(super) struct Card {
    files: [OneFile; FILES.len()],
    /// Files that were removed, until the next sync of anything writes the folder out.
    removed: [Option<OneFile>; FILES.len()],
}

/// How unsynced writes fare.
#[derive(Debug, Clone, Copy)]
enum Luck {
    None,
    All,
    Some,
    Torn,
}

impl Card {
    pub(super) fn play(&mut self, event: &Event) {
        match event {
            Event::Write { file, at, bytes } => {
                let at = usize::try_from(*at).unwrap_or(usize::MAX);
                let bytes = bytes.clone();
                self.files[*file].pending.push(Change::Write { at, bytes });
            }
            Event::Truncate { file, len } => {
                let len = usize::try_from(*len).unwrap_or(usize::MAX);
                self.files[*file].pending.push(Change::Truncate { len });
            }
            Event::Synced { file } => {
                self.files[*file].sync();
                self.removed = Default::default();
            }
            Event::Unlink { file } => {
                self.removed[*file] = Some(std::mem::take(&mut self.files[*file]));
            }
            Event::Acked { .. } => {}
        }
    }

    /// Writes one possible state of the card into `dir`; what it is, in words.
    pub(super) fn cut(&self, dir: &Path, rng: &mut Rng) -> std::io::Result<String> {
        let luck = [Luck::None, Luck::All, Luck::Some, Luck::Torn][rng.usize(..4)];
        for (n, name) in FILES.iter().enumerate() {
            let path = dir.join(name);
            // A removal that was not written out may be undone by the cut.
            let file = match &self.removed[n] {
                Some(old) if self.files[n].safe.is_none() && rng.bool() => old,
                _ => &self.files[n],
            };
            match file.after(luck, rng) {
                Some(bytes) => std::fs::write(&path, bytes)?,
                None if path.exists() => std::fs::remove_file(&path)?,
                None => {}
            }
        }
        let unsynced: usize = self.files.iter().map(|file| file.pending.len()).sum();
        Ok(format!("{luck:?} of {unsynced} unsynced changes"))
    }
}

impl OneFile {
    fn sync(&mut self) {
        let mut safe = self.safe.take().unwrap_or_default();
        for change in self.pending.drain(..) {
            change.apply(&mut safe);
        }
        self.safe = Some(safe);
    }

    fn after(&self, luck: Luck, rng: &mut Rng) -> Option<Vec<u8>> {
        let mut bytes = match (&self.safe, luck) {
            (Some(safe), _) => safe.clone(),
            (None, Luck::None) => return None,
            (None, _) if self.pending.is_empty() => return None,
            (None, _) => Vec::new(),
        };
        let torn = rng.usize(..self.pending.len().max(1));
        for (n, change) in self.pending.iter().enumerate() {
            match luck {
                Luck::None => {}
                Luck::All => change.apply(&mut bytes),
                Luck::Torn if n == torn => change.tear(&mut bytes, rng),
                Luck::Some | Luck::Torn if rng.bool() => change.apply(&mut bytes),
                Luck::Some | Luck::Torn => {}
            }
        }
        Some(bytes)
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => put(file, *at, bytes),
            Self::Truncate { len } => file.resize(*len, 0),
        }
    }

    /// Only some of its sectors arrive.
    fn tear(&self, file: &mut Vec<u8>, rng: &mut Rng) {
        let Self::Write { at, bytes } = self else {
            return self.apply(file);
        };
        let mut from = 0;
        while from < bytes.len() {
            // Up to the next boundary of the card, not of the write.
            let to = (from + SECTOR - (at + from) % SECTOR).min(bytes.len());
            if rng.bool() {
                put(file, at + from, &bytes[from..to]);
            }
            from = to;
        }
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: u64, bytes: &[u8]) -> Event {
        Event::Write { file: 0, at, bytes: bytes.to_vec() }
    }

    /// Every content the first file can have after a cut.
    fn outcomes(events: &[Event]) -> std::collections::BTreeSet<Option<Vec<u8>>> {
        let mut card = Card::default();
        events.iter().for_each(|event| card.play(event));
        let dir = tempfile::tempdir().unwrap();
        let mut rng = Rng::with_seed(1);
        let path = dir.path().join(FILES[0]);
        let one = |rng: &mut Rng| {
            card.cut(dir.path(), rng).unwrap();
            std::fs::read(&path).ok()
        };
        (0..200).map(|_| one(&mut rng)).collect()
    }

    #[test]
    fn what_was_synced_is_there_and_what_was_not_may_be() {
        let synced = [write(0, b"a"), Event::Synced { file: 0 }, write(1, b"b")];
        let expected = [Some(b"a".to_vec()), Some(b"ab".to_vec())];
        assert_eq!(outcomes(&synced), expected.into());
        let never = [write(0, b"a")];
        assert!(outcomes(&never).contains(&None));
    }

    #[test]
    fn a_long_write_is_torn_between_sectors_only() {
        let long = [write(0, b""), Event::Synced { file: 0 }, write(0, &[7u8; 1024])];
        let seen = outcomes(&long);
        assert!(seen.contains(&Some(vec![7; 512])), "the first sector alone");
        let whole = |half: &[u8]| half.iter().all(|b| *b == half[0]);
        assert!(seen.iter().flatten().all(|file| file.chunks(512).all(whole)));
    }

    #[test]
    fn a_removal_is_certain_only_after_the_next_sync() {
        let mut events = vec![write(0, b"a"), Event::Synced { file: 0 }, Event::Unlink { file: 0 }];
        assert_eq!(outcomes(&events), [None, Some(b"a".to_vec())].into());
        events.push(Event::Synced { file: 1 });
        assert_eq!(outcomes(&events), [None].into());
    }
}
