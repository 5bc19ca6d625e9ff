//! What people read in the terminal, in Indonesian and English.

use std::io::Write;

/// A line on standard output. A reader that went away is no reason to stop the system.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// A step on the way, in both languages.
pub(crate) fn step(indonesian: &str, english: &str) {
    line(&format!("  {indonesian} · {english}"));
}

/// Why it cannot go on.
pub(crate) fn problem(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "\nlumbung demo: {text}");
}
