//! The kernel's own word on whether its clock is synchronised, for machines where another program than
//! systemd-timesyncd looks after it (chrony, ntpd). Asking costs a process, so it is done seldom.

use super::Clock;
use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// systemd's door to adjtimex: `yes` while the kernel's own bound of its error is below 16 s.
const ASK: (&str, [&str; 4]) = ("timedatectl", ["show", "--property", "NTPSynchronized", "--value"]);
const WHILE_UNSYNCED: Duration = Duration::from_secs(60);
/// A kernel takes hours to lose confidence after its last server went.
const WHILE_SYNCED: Duration = Duration::from_secs(900);
/// A bus that does not answer must not hold this thread for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// When to ask the kernel next.
#[derive(Debug, Default)]
pub struct KernelWatch {
    next: Option<Instant>,
    /// There is nobody to ask on this machine.
    absent: bool,
}

impl KernelWatch {
    /// Whether it is time to ask.
    pub fn is_due(&self) -> bool {
        !self.absent && self.next.is_none_or(|next| Instant::now() >= next)
    }

    /// Asks. Blocks.
    pub fn look(&mut self, clock: &Clock) {
        let now = Instant::now();
        if clock.sources.flag.exists() {
            // Nothing to ask for.
            self.next = Some(now + WHILE_UNSYNCED);
            return;
        }
        let synced = match ask() {
            Ok(synced) => synced,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.absent = true;
                false
            }
            Err(error) => {
                tracing::debug!(%error, "the kernel's clock cannot be asked about");
                false
            }
        };
        clock.kernel_said.store(synced, Relaxed);
        self.next = Some(now + if synced { WHILE_SYNCED } else { WHILE_UNSYNCED });
    }
}

fn ask() -> io::Result<bool> {
    let (program, arguments) = ASK;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(means_yes(&child.wait_with_output()?.stdout))
}

fn means_yes(answer: &[u8]) -> bool {
    answer.trim_ascii() == b"yes"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_is_one() {
        assert!(means_yes(b"yes\n"));
        for answer in [&b"no\n"[..], b"", b"System has not been booted with systemd", b"yes no"] {
            assert!(!means_yes(answer));
        }
    }
}
