//! The programs the demo runs: started in process groups of their own, so that Ctrl-C reaches only the
//! demo and it can stop them in order; their output goes to log files.

use super::place::{Place, write_whole};
use anyhow::{Context, Result, anyhow, bail};
use lumbung_tests::programs::{append, binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// A log is started anew when it has grown beyond this.
const LOG_BYTES: u64 = 8 << 20;
const TAIL_LINES: usize = 12;
const STEP: Duration = Duration::from_millis(100);

/// A program that runs until the demo stops it.
pub(crate) struct Supervised {
    pub(crate) name: &'static str,
    child: Child,
    log: PathBuf,
    /// Where this run begins in its log.
    log_start: u64,
}

/// How to call a program of ours, with everything of the caller's environment that could change what
/// it does taken away.
pub(crate) fn command(program: &str, config: &Path) -> Result<Command> {
    let mut command = Command::new(binary(program)?);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("LUMBUNG_") || text == "DATABASE_URL" || text == "MAIN_SERVER_API_URL" {
            command.env_remove(&name);
        }
    }
    command.arg("--config").arg(config).stdin(Stdio::null());
    Ok(command)
}

/// Runs a command line to its end and gives its output. Ending with 3 says that nothing had to change.
pub(crate) async fn finish(mut command: Command, what: &str) -> Result<String> {
    let output = command.kill_on_drop(true).output().await.with_context(|| format!("starting {what}"))?;
    if !output.status.success() && output.status.code() != Some(3) {
        bail!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Supervised {
    pub(crate) fn start(name: &'static str, mut command: Command, place: &Place) -> Result<Self> {
        let log = place.log(name);
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LOG_BYTES) {
            fs::rename(&log, log.with_extension("log.old"))?;
        }
        let out = append(&log)?;
        let log_start = out.metadata()?.len();
        let child = command
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child, log, log_start })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends by itself, which it never should.
    pub(crate) async fn died(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => self.obituary(status),
            Err(error) => anyhow!("{}: {error}", self.name),
        }
    }

    fn obituary(&self, status: ExitStatus) -> anyhow::Error {
        anyhow!(
            "{name} berhenti sendiri · {name} stopped by itself ({status}). Akhir log · the end of {log}:\n\n{tail}",
            name = self.name,
            log = self.log.display(),
            tail = self.tail()
        )
    }

    /// The last lines of this run's log.
    fn tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = fs::File::open(&self.log)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.log_start.max(end.saturating_sub(16 << 10))))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// SIGTERM and a wait; SIGKILL for one that does not listen.
    pub(crate) async fn stop(mut self, patience: Duration) -> Result<()> {
        if let Ok(Some(_)) = self.child.try_wait() {
            return Ok(());
        }
        if let Some(pid) = self.pid() {
            signal(pid, Signal::SIGTERM);
        }
        match timeout(patience, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.obituary(status)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                self.child.kill().await?;
                bail!("{} did not stop within {patience:?} and was killed", self.name)
            }
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // Gone already is as good.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// A child as the next start can recognise it: a number alone may have been given to somebody else since.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    name: String,
    pid: u32,
    /// Clock ticks after boot.
    started: u64,
}

/// Writes down what runs, for the day the demo itself is killed.
pub(crate) fn remember(place: &Place, running: &[&Supervised]) -> Result<()> {
    let left: Vec<Left> = running
        .iter()
        .filter_map(|child| {
            let pid = child.pid()?;
            Some(Left { name: child.name.to_owned(), pid, started: started(pid)? })
        })
        .collect();
    write_whole(&place.dir("running.json"), &serde_json::to_vec_pretty(&left)?, 0o600)
}

/// Stops what a killed demo left running, newest first. Answers how many there were.
pub(crate) async fn stop_leftovers(place: &Place, patience: Duration) -> Result<usize> {
    let path = place.dir("running.json");
    let left: Vec<Left> =
        fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let alive = |one: &Left| started(one.pid) == Some(one.started);
    let mut stopped = 0;
    for one in left.iter().rev().filter(|one| alive(one)) {
        signal(one.pid, Signal::SIGTERM);
        let gone = async {
            while alive(one) {
                sleep(STEP).await;
            }
        };
        if timeout(patience, gone).await.is_err() {
            bail!("{} (process {}), left by an earlier demo, does not stop", one.name, one.pid);
        }
        stopped += 1;
    }
    let _ = fs::remove_file(path);
    Ok(stopped)
}

/// When a process began, as /proc tells it; `None` when there is none, or only its grave.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses itself.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dir: &Path) -> Place {
        Place::open(&dir.join("demo")).unwrap()
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    #[tokio::test]
    async fn a_program_that_dies_is_reported_with_the_end_of_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        fs::write(place.log("x"), "from an earlier run\n").unwrap();
        let mut child = Supervised::start("x", shell("echo no room left >&2; exit 7"), &place).unwrap();
        let told = child.died().await.to_string();
        assert!(told.contains("no room left") && told.contains('7'), "{told}");
        assert!(!told.contains("earlier"), "{told}");
    }

    #[tokio::test]
    async fn what_a_killed_demo_left_behind_is_stopped_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let mut ours = Supervised::start("x", shell("exec sleep 600"), &place).unwrap();
        remember(&place, &[&ours]).unwrap();
        let waiting = tokio::spawn(async move { ours.died().await.to_string() });
        assert_eq!(stop_leftovers(&place, Duration::from_secs(10)).await.unwrap(), 1);
        assert!(waiting.await.unwrap().contains("15"));
        // The same number with another beginning is somebody else.
        let mine = std::process::id();
        let left = [Left { name: "x".to_owned(), pid: mine, started: started(mine).unwrap() + 1 }];
        fs::write(place.dir("running.json"), serde_json::to_vec(&left).unwrap()).unwrap();
        assert_eq!(stop_leftovers(&place, Duration::from_secs(10)).await.unwrap(), 0);
    }
}
