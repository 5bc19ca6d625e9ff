//! The log: a line per event on the standard error, which is systemd's journal where systemd started us.
//!
//! What must stay true: no line holds a password, a token, a key, an address of a person or a body.

use crate::config::{Log, LogFormat};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub(super) fn start(config: &Log, serving: bool) {
    // A command's own words are its output; its log only speaks of trouble.
    let default = if serving { config.filter.as_str() } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = io::stderr().is_terminal();
    let lines = Lines { prioritised: is_journal() };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).with_ansi(colours);
    // A second subscriber is refused; then the first one goes on.
    let _ = match config.format {
        LogFormat::Text => log.try_init(),
        // The request that an event belongs to is its `span`.
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
    };
}

/// Whether the standard error is the journal: it says by which device and inode that is known.
fn is_journal() -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|ours| journal == format!("{}:{}", ours.dev(), ours.ino()))
}

/// The journal takes a line's PRIORITY from its beginning (sd-daemon(3)), so that `journalctl -p err` finds errors.
struct Lines {
    prioritised: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { priority: "" }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        Line { priority: if self.prioritised { priority(*event.level()) } else { "" } }
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

struct Line {
    priority: &'static str,
}

impl Write for Line {
    /// Called once with all of a line; written at once, so that lines of threads stay whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(&[self.priority.as_bytes(), line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_hears_how_grave_a_line_is() {
        assert_eq!(
            [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG].map(priority),
            ["<3>", "<4>", "<6>", "<7>"]
        );
    }
}
