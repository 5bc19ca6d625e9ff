//! PostgreSQL's log: what its processes say on stderr, kept in a file that cannot grow without bound.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;

const LARGEST: u64 = 8 << 20;
const KEPT: u32 = 3;
const REMEMBERED: usize = 12;
/// A line may hold a whole statement; what is longer is cut into pieces rather than gathered in memory.
const LONGEST_LINE: u64 = 64 << 10;

#[derive(Clone)]
pub(super) struct Log {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

struct State {
    file: Option<File>,
    size: u64,
    last: VecDeque<String>,
}

impl Log {
    pub(super) fn new(path: &Path) -> Self {
        let state = State { file: None, size: 0, last: VecDeque::new() };
        Self { path: path.to_path_buf(), state: Arc::new(Mutex::new(state)) }
    }

    /// Makes the file, so that its owner can be set; without space for it PostgreSQL runs all the same.
    pub(super) fn make(&self) -> bool {
        self.open().is_ok()
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Reads until every process of the server has closed its end. A full disk must not stop PostgreSQL
    /// by a blocked pipe, so what cannot be written is let go.
    pub(super) fn follow(&self, from: impl Read) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => self.keep(&line),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn keep(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.last.len() == REMEMBERED {
            state.last.pop_front();
        }
        state.last.push_back(String::from_utf8_lossy(line).trim_end().to_owned());
        if state.file.is_none() || state.size > LARGEST {
            if state.size > LARGEST {
                self.rotate();
            }
            state.file = self.open().ok();
            state.size = state.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |m| m.len());
        }
        if let Some(file) = &mut state.file
            && file.write_all(line).is_ok()
        {
            state.size += line.len() as u64;
        }
    }

    fn open(&self) -> std::io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&self.path)
    }

    fn rotate(&self) {
        let numbered = |n: u32| self.path.with_extension(format!("log.{n}"));
        for n in (1..KEPT).rev() {
            let _ = fs::rename(numbered(n), numbered(n + 1));
        }
        let _ = fs::rename(&self.path, numbered(1));
    }

    /// What PostgreSQL said last, for an error message.
    pub(super) fn last_words(&self) -> String {
        let state = self.lock();
        if state.last.is_empty() {
            return "(it said nothing)".to_owned();
        }
        state.last.iter().map(String::as_str).collect::<Vec<_>>().join(" / ")
    }

    /// Forgets them, so that a new start is judged by its own words.
    pub(super) fn forget(&self) {
        self.lock().last.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_remembers_the_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(&dir.path().join("postgres.log"));
        let line = format!("{}\n", "x".repeat(40 << 10));
        for _ in 0..1_100 {
            log.follow(line.as_bytes());
        }
        log.follow("FATAL:  the end\n".as_bytes());
        assert!(log.last_words().ends_with("FATAL:  the end"));
        let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        files.sort_by_key(|file| file.file_name());
        assert_eq!(files.len(), 1 + KEPT as usize);
        for file in files {
            assert!(file.metadata().unwrap().len() <= LARGEST + LONGEST_LINE);
        }
        log.forget();
        assert_eq!(log.last_words(), "(it said nothing)");
    }
}
