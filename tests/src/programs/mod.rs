//! The real binaries as children: found beside the test, logged to files, killed when dropped.

mod broker;
mod cloud;
pub mod faults;
mod gateway;
mod mail;
mod nginx;

pub use broker::{Broker, Published, Publisher, lets_in};
pub use cloud::{Claim, Cloud, CloudSettings, connect, settings};
pub use gateway::{Gateway, Stored, look, stored};
pub use mail::{MailServer, Taken};
pub use nginx::Nginx;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running program.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
}

impl Program {
    /// Starts `command` with its output appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = append(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status once it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal; a program that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Pulls the plug: SIGKILL, and it is gone when this returns.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {patience:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM and a clean end, or an error.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM);
        let status = self.wait(Duration::from_secs(30))?;
        if !status.success() {
            bail!("{} did not stop cleanly: {status}", self.name);
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// Opens a log for appending, so that a restarted program continues it.
pub fn append(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))
}

/// Runs a command to its end; the output is text.
pub fn run(command: &mut Command) -> Result<Finished> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))?;
    Ok(Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The output when it went well.
    pub fn ok(self) -> Result<String> {
        if !self.status.success() {
            bail!("{}: {}{}", self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// `target/<profile>`, where cargo puts the binaries of one build.
pub fn profile_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let mut dir = exe.parent().context("the test has no folder")?;
    if dir.ends_with("deps") {
        dir = dir.parent().context("deps has no parent")?;
    }
    Ok(dir.to_owned())
}

/// A program built beside this one.
pub fn binary(name: &str) -> Result<PathBuf> {
    existing(profile_dir()?.join(name), "cargo build --workspace")
}

/// The gateway that can be told to misbehave.
pub fn mutant_gateway() -> Result<PathBuf> {
    let target = profile_dir()?;
    let target = target.parent().context("the profile has no parent")?;
    existing(target.join("mutants/lumbung-gateway"), "make mutants (the gateway with --features mutants)")
}

fn existing(path: PathBuf, how: &str) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{} is not there; build it first: {how}", path.display());
    }
    Ok(path)
}

/// Finds a tool of the system on PATH.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed; on Debian: apt-get install {name}"))
}

/// A port of the loopback that nobody listens on. The ports lie below the range the kernel hands to
/// outgoing connections, and each is given out once per process, so that a program that restarts
/// finds its port free.
pub fn free_port() -> Result<u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..2_000 {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        // Test processes that run side by side start far from each other.
        let start = std::process::id().wrapping_mul(977);
        let port = FIRST + start.wrapping_add(n) % COUNT;
        let port = u16::try_from(port).context("port out of range")?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on the loopback")
}

/// Keeps what the tester's own shell says away from the programs.
pub fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("LUMBUNG_") || name.starts_with("PG") {
            command.env_remove(name);
        }
    }
    for name in ["DATABASE_URL", "MAIN_SERVER_API_URL", "RUST_LOG"] {
        command.env_remove(name);
    }
}

/// `sync.interval` as the environment spells it.
fn variable(prefix: &str, key: &str) -> String {
    format!("{prefix}__{}", key.to_ascii_uppercase().replace('.', "__"))
}
