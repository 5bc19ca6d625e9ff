//! The server as a child process of ours: started from a thread of its own that lives as long as it does.
//!
//! The thread matters: "tell me when my parent dies" (PR_SET_PDEATHSIG) is about the *thread* that made
//! the child. It is asked for through `setpriv`, which also becomes the other user and asks last, because
//! a change of user clears the request. Where `setpriv` is missing the server outlives a killed cloud, and
//! the next start finds and stops it (leftovers.rs).

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::account::Account;
use super::log::Log;

/// A command that runs `program` as the account, with `signal` sent to it when the calling thread ends.
pub(super) fn as_account(program: &Path, account: &Account, signal: &str) -> Command {
    let mut command = match setpriv() {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            if account.switch {
                command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid));
                command.arg("--clear-groups");
            }
            command.args(["--pdeathsig", signal, "--"]).arg(program);
            command
        }
        None => {
            let mut command = Command::new(program);
            if account.switch {
                // The standard library clears the supplementary groups when root sets a user.
                command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
            }
            command
        }
    };
    // PGDATA, PGPORT, PGOPTIONS … of whoever starts us are about another server.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    // A folder the account may be in; and a group of its own, so that Ctrl-C reaches us alone and
    // PostgreSQL stops last.
    command.current_dir("/").process_group(0);
    command
}

/// util-linux has `--pdeathsig`; the one of busybox has not.
fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().map(PathBuf::from).find(|path| {
                Command::new(path)
                    .arg("--help")
                    .stdin(Stdio::null())
                    .output()
                    .is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--pdeathsig"))
            })
        })
        .as_deref()
}

/// A running (or ended) server. Dropped while running, it is told to stop.
pub(super) struct Child {
    pid: Pid,
    state: Arc<Mutex<bool>>,
    ended: watch::Receiver<Option<String>>,
}

impl Child {
    pub(super) fn start(mut command: Command, log: Log) -> std::io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let (born, birth) = std::sync::mpsc::channel();
        let (ending, ended) = watch::channel(None);
        let running = Arc::new(Mutex::new(true));
        let state = Arc::clone(&running);
        thread::Builder::new().name("postgres".to_owned()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let _ = born.send(Err(error));
                    return;
                }
            };
            let pid = pid_of(child.id());
            let reader = child.stderr.take().and_then(|stderr| {
                thread::Builder::new().name("postgres-log".to_owned()).spawn(move || log.follow(stderr)).ok()
            });
            let _ = born.send(Ok(pid));
            // Wait without reaping first: until `state` says so, the number is surely still this process's.
            while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                == Err(nix::errno::Errno::EINTR)
            {}
            let status = {
                let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
                *running = false;
                child.wait()
            };
            // The last words are read before the end is told, unless a left-behind process still holds the pipe.
            if let Some(reader) = reader {
                let patience = std::time::Instant::now() + std::time::Duration::from_secs(1);
                while !reader.is_finished() && std::time::Instant::now() < patience {
                    thread::sleep(std::time::Duration::from_millis(5));
                }
            }
            ending.send_replace(Some(status.map_or_else(|e| e.to_string(), describe)));
        })?;
        let pid = birth.recv().map_err(std::io::Error::other)??;
        Ok(Self { pid, state, ended })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn is_running(&self) -> bool {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes `Some(how it ended)`.
    pub(super) fn ended(&self) -> watch::Receiver<Option<String>> {
        self.ended.clone()
    }

    /// Sends a signal, never to a process that took over the number.
    pub(super) fn signal(&self, signal: Signal) {
        let running = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *running {
            let _ = kill(self.pid, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::SIGINT);
    }
}

fn pid_of(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX))
}

fn describe(status: ExitStatus) -> String {
    status.to_string()
}
