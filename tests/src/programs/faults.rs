//! What is done to the programs from outside: a clock turned, system calls failed, PostgreSQL killed.

use super::{Cloud, Gateway, tool};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A wall clock that a story can turn while the gateway runs; the count since boot goes on untouched.
#[derive(Debug)]
pub struct TurnedClock {
    file: PathBuf,
}

impl TurnedClock {
    /// Puts the gateway's next start under this clock. `setting` is libfaketime's: `-1h`, `+30d` or
    /// `@1970-01-01 00:00:10`.
    pub fn on(gateway: &mut Gateway, setting: &str) -> Result<Self> {
        let clock = Self { file: gateway.dir.with_extension("clock") };
        clock.turn(setting)?;
        gateway
            .env("LD_PRELOAD", library()?.display())
            .env("FAKETIME_TIMESTAMP_FILE", clock.file.display())
            .env("FAKETIME_NO_CACHE", "1")
            .env("TZ", "UTC")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        Ok(clock)
    }

    /// Turns it.
    pub fn turn(&self, setting: &str) -> Result<()> {
        // Replaced whole, so that the gateway never reads half a setting.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{setting}\n"))?;
        std::fs::rename(&new, &self.file)?;
        Ok(())
    }
}

fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
    std::iter::once(PathBuf::from("/usr/lib"))
        .chain(folders)
        .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
        .context("libfaketime is not installed; on Debian: apt-get install faketime")
}

/// The gateway's database files, as system calls name them.
pub fn database_files(dir: &Path) -> [PathBuf; 2] {
    ["local_gateway.db", "local_gateway.db-wal"].map(|name| dir.join(name))
}

/// An strace around the gateway that fails its system calls on the database files. The gateway takes
/// strace's place (`-D`), so signals and exit codes are its own.
pub fn failing(gateway: &Gateway, injections: &[&str]) -> Result<Vec<OsString>> {
    let mut wrapper: Vec<OsString> = vec![tool("strace")?.into()];
    for argument in ["-D", "-f", "-qq", "-o"] {
        wrapper.push(argument.into());
    }
    wrapper.push(gateway.dir.with_extension("strace").into());
    for file in database_files(&gateway.dir) {
        wrapper.push("-P".into());
        wrapper.push(file.into());
    }
    for injection in injections {
        wrapper.push("-e".into());
        wrapper.push(format!("inject={injection}").into());
    }
    Ok(wrapper)
}

/// The postmaster of a cloud's embedded PostgreSQL, while it runs.
pub fn postmaster(cloud: &Cloud) -> Option<i32> {
    let cluster = cloud.settings.dir.join("postgres");
    let file = std::fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let pid: i32 = file.lines().next()?.trim().parse().ok()?;
    // The file may be older than the process that has the number now.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    line.contains(&*cluster.to_string_lossy()).then_some(pid)
}

/// SIGKILL to the postmaster; its number when there was one.
pub fn kill_postmaster(cloud: &Cloud) -> Option<i32> {
    let pid = postmaster(cloud)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL).ok()?;
    Some(pid)
}

/// An strace around the gateway that makes each of its writes to the database take 4 ms.
pub fn slow_card(gateway: &Gateway) -> Result<Vec<OsString>> {
    failing(gateway, &["write,pwrite64:delay_enter=4000"])
}

/// Whether a program can be given a card of its own here: root can, but not inside a plain chroot, whose
/// root cannot be made private.
pub fn can_have_a_card_of_its_own() -> Result<bool> {
    if !nix::unistd::Uid::effective().is_root() {
        return Ok(false);
    }
    let alone = ["-m", "--propagation", "private", "true"];
    Ok(std::process::Command::new(tool("unshare")?).args(alone).output()?.status.success())
}

/// Puts the gateway's next start on a card of its own of so many bytes, seen by nobody else. Needs root.
/// What lies in its directory so far comes along.
pub fn on_a_small_card(gateway: &Gateway, bytes: u64) -> Result<Vec<OsString>> {
    let kept = gateway.dir.with_extension("kept");
    let script = format!(
        "cp -a \"$1\" \"$2\" && mount -t tmpfs -o size={bytes} card \"$1\" && cp -a \"$2\"/. \"$1\" && shift 2 && exec \"$@\""
    );
    let words = [tool("unshare")?.into(), "-m".into(), "--propagation".into(), "private".into()];
    let mut wrapper: Vec<OsString> = words.into();
    wrapper.extend(["sh".into(), "-c".into(), script.into(), "sh".into()]);
    wrapper.push(gateway.dir.clone().into());
    wrapper.push(kept.into());
    Ok(wrapper)
}

/// The running gateway's own view of its directory.
pub fn own_view(gateway: &Gateway) -> Result<PathBuf> {
    let pid = gateway.pid().context("the gateway is not running")?;
    Ok(PathBuf::from(format!("/proc/{pid}/root{}", gateway.dir.display())))
}
