//! What an earlier run may have left behind, cleared before a new server starts on the cluster.
//!
//! The caller holds the data folder's lock, so no other lumbung-cloud is at work here. Processes are
//! recognised by three independent signs, so that a number in a stale file never decides alone whom we
//! signal: a program called postgres whose command line names our cluster folder, or whose title carries
//! our cluster's name, or whose working folder is our cluster.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::EmbeddedError;
use super::place::{PORT, Place};

const STEP: Duration = Duration::from_millis(50);
/// How long a shutdown that began by itself (or that we ask for) may take before we press harder.
const PATIENCE: Duration = Duration::from_secs(30);
const LAST_PATIENCE: Duration = Duration::from_secs(20);

struct Found {
    pid: Pid,
    postmaster: bool,
}

/// Waits for, or ends, every PostgreSQL process on our cluster; then removes files that would only
/// mislead the new server.
pub(super) fn clear(place: &Place, socket_dir: &Path) -> Result<(), EmbeddedError> {
    let began = Instant::now();
    let mut asked = false;
    let mut pressed = false;
    loop {
        let found = processes(place)?;
        let Some(first) = found.iter().find(|found| found.postmaster).or(found.first()) else {
            break;
        };
        if !asked {
            asked = true;
            tracing::warn!(pid = first.pid.as_raw(), "an earlier PostgreSQL is still there; stopping it");
            signal(&found, Signal::SIGINT);
        } else if !pressed && began.elapsed() > PATIENCE {
            pressed = true;
            signal(&found, Signal::SIGQUIT);
        } else if began.elapsed() > PATIENCE + LAST_PATIENCE {
            return Err(EmbeddedError::StillRunning {
                pid: first.pid.as_raw(),
                cluster: place.cluster.clone(),
            });
        }
        sleep(STEP);
    }
    remove_misleading(place, socket_dir)
}

/// The postmaster when there is one: it takes its children along. Else the children themselves, which
/// end on their own when they notice that they are orphans, but may be busy.
fn signal(found: &[Found], signal: Signal) {
    let postmasters = found.iter().any(|found| found.postmaster);
    for process in found.iter().filter(|found| found.postmaster || !postmasters) {
        let _ = kill(process.pid, signal);
    }
}

fn processes(place: &Place) -> Result<Vec<Found>, EmbeddedError> {
    let title = format!("postgres: {}: ", place.tag());
    let cluster = fs::metadata(&place.cluster).ok().map(|m| (m.dev(), m.ino()));
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).map_err(|e| EmbeddedError::io("read", proc, e))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // Empty for kernel threads and for zombies, which hold nothing any more.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let arguments: Vec<String> =
            line.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        let Some(program) = arguments.first() else {
            continue;
        };
        let called_postgres = Path::new(program).file_name().is_some_and(|name| name == "postgres");
        if !called_postgres && !program.starts_with("postgres: ") {
            continue;
        }
        let postmaster = called_postgres
            && arguments.windows(2).any(|pair| pair[0] == "-D" && Path::new(&pair[1]) == place.cluster);
        let by_cwd = || {
            let cwd = fs::metadata(entry.path().join("cwd")).ok().map(|m| (m.dev(), m.ino()));
            cwd.is_some() && cwd == cluster
        };
        if postmaster || program.starts_with(&title) || by_cwd() {
            found.push(Found { pid: Pid::from_raw(pid), postmaster: called_postgres });
        }
    }
    Ok(found)
}

/// No process of the cluster is left (zombies aside), and we hold the lock. A file that names a dead
/// process is PostgreSQL's own business; it trips only over a number that somebody else has now, over a
/// zombie nobody reaps, and over a file it cannot read.
fn remove_misleading(place: &Place, socket_dir: &Path) -> Result<(), EmbeddedError> {
    let pid_file = place.cluster.join("postmaster.pid");
    let misleading = match fs::read(&pid_file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => return Err(EmbeddedError::io("read", &pid_file, e)),
        Ok(text) => {
            let first = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned();
            match first.parse::<i32>() {
                Ok(pid) if pid > 1 => Path::new(&format!("/proc/{pid}")).exists(),
                _ => true,
            }
        }
    };
    let name = format!(".s.PGSQL.{PORT}");
    let stale = [socket_dir.join(&name), socket_dir.join(format!("{name}.lock"))];
    for path in misleading.then_some(pid_file).iter().chain(&stale) {
        match fs::remove_file(path) {
            Ok(()) => {
                tracing::info!(path = %path.display(), "removed what an earlier PostgreSQL left behind");
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(EmbeddedError::io("remove", path, e)),
        }
    }
    Ok(())
}

/// Whether a server that ended while starting lost against one that was still going away.
pub(super) fn says_busy(words: &str) -> bool {
    words.contains("lock file") && words.contains("already exists")
        || words.contains("pre-existing shared memory block")
}
