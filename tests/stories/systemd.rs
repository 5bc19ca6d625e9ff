//! What the programs tell systemd, heard as systemd hears it, and the units they run under.

use anyhow::{Context, Result, ensure};
use lumbung_tests::programs::{Cloud, Program, faults, settings, tool};
use lumbung_tests::story::story;
use lumbung_tests::wait::PATIENCE;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tokio::net::UnixDatagram;

/// As `WatchdogSec=` would say it.
const WATCHDOG: Duration = Duration::from_millis(1_500);

/// The other end of `NOTIFY_SOCKET`.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    fn listen(folder: &Path) -> Result<Self> {
        let path = folder.join("notify");
        Ok(Self { socket: UnixDatagram::bind(&path)?, path })
    }

    /// What the program is started with.
    fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("NOTIFY_SOCKET", self.path.display().to_string()),
            ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string()),
        ]
    }

    async fn hear(&self) -> Result<String> {
        let mut message = vec![0; 4_096];
        let length = self.socket.recv(&mut message).await?;
        Ok(String::from_utf8(message[..length].to_vec())?)
    }

    /// Waits until it is told `line`; gives back the whole message.
    async fn until(&self, line: &str) -> Result<String> {
        let heard = async {
            loop {
                let message = self.hear().await?;
                if message.lines().any(|told| told == line) {
                    return Ok(message);
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.with_context(|| format!("never told {line}"))?
    }

    /// Waits until no ping has come for as long as systemd waits before it kills.
    async fn until_silence(&self) -> Result<()> {
        let begun = Instant::now();
        while tokio::time::timeout(WATCHDOG, self.until("WATCHDOG=1")).await.is_ok() {
            ensure!(begun.elapsed() < PATIENCE, "the pings do not stop");
        }
        Ok(())
    }
}

/// One thread of another process that does nothing until this is dropped.
struct Stopped {
    go_on: Option<Sender<()>>,
    holder: Option<std::thread::JoinHandle<nix::Result<()>>>,
}

fn stop_thread(process: u32, name: &str) -> Result<Stopped> {
    let mut found = None;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == name {
            found = task.file_name().and_then(|id| id.to_str()?.parse().ok()).map(Pid::from_raw);
        }
    }
    let thread = found.with_context(|| format!("there is no thread {name}"))?;
    let (go_on, told) = channel();
    let (stopped, is_stopped) = channel();
    // Who holds a thread must also be the one that lets it go.
    let holder = std::thread::spawn(move || {
        let held = ptrace::seize(thread, ptrace::Options::empty())
            .and_then(|()| ptrace::interrupt(thread))
            .and_then(|()| waitpid(thread, Some(WaitPidFlag::__WALL)).map(drop));
        let _ = stopped.send(held);
        held?;
        let _ = told.recv();
        ptrace::detach(thread, None)
    });
    is_stopped.recv()?.with_context(|| format!("{name} could not be stopped"))?;
    Ok(Stopped { go_on: Some(go_on), holder: Some(holder) })
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.go_on.take());
        let _ = self.holder.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn the_gateway_is_ready_when_it_listens_and_says_how_it_is_and_that_it_stops() -> Result<()> {
    story(async |stand| {
        let systemd = Systemd::listen(stand.path())?;
        let mut gateway = stand.bare_gateway("GW-1")?;
        for (name, value) in systemd.environment() {
            gateway.env(name, value);
        }
        gateway.env("LANG", "id_ID.UTF-8");
        gateway.spawn()?;
        systemd.until("READY=1").await?;
        ensure!(gateway.get("/livez").await?.status == 200, "it does not listen");
        gateway.scan_many("SIAP", 2).await?;
        systemd.until("STATUS=Belum terkirim: 2; pembaca tag: none").await?;
        gateway.stop().await?;
        systemd.until("STOPPING=1").await?;
        Ok(())
    })
}

#[test]
fn a_thread_that_hangs_stops_the_gateways_pings_until_it_goes_on() -> Result<()> {
    story(async |stand| {
        let systemd = Systemd::listen(stand.path())?;
        let mut gateway = stand.bare_gateway("GW-1")?;
        for (name, value) in systemd.environment() {
            gateway.env(name, value);
        }
        gateway.set("reader.kind", "simulated").set("reader.simulated.interval", "1h");
        gateway.spawn()?;
        let process = gateway.pid().context("the gateway does not run")?;
        for thread in ["outbox-writer", "outbox-reader", "tag-reader"] {
            systemd.until("WATCHDOG=1").await?;
            let stopped = stop_thread(process, thread)?;
            systemd.until_silence().await.with_context(|| format!("with {thread} stopped"))?;
            drop(stopped);
        }
        systemd.until("WATCHDOG=1").await?;
        gateway.stop().await
    })
}

#[test]
fn the_cloud_is_ready_when_it_serves_and_a_database_that_hangs_stops_its_pings() -> Result<()> {
    story(async |stand| {
        let systemd = Systemd::listen(stand.path())?;
        let cloud = Cloud::new(settings("cloud", stand.path(), None))?;
        let mut command = cloud.command(&["serve"])?;
        command.envs(systemd.environment());
        let mut program = Program::start("cloud", &mut command, &cloud.settings.log)?;
        systemd.until("READY=1").await?;
        ensure!(cloud.get("/readyz").await?.status == 200, "it does not serve");
        systemd.until("WATCHDOG=1").await?;
        let postgres = Pid::from_raw(faults::postmaster(&cloud).context("PostgreSQL does not run")?);
        kill(postgres, Signal::SIGSTOP)?;
        let silence = systemd.until_silence().await;
        kill(postgres, Signal::SIGCONT)?;
        silence?;
        systemd.until("WATCHDOG=1").await?;
        tokio::task::spawn_blocking(move || program.stop()).await??;
        systemd.until("STOPPING=1").await?;
        Ok(())
    })
}

#[test]
fn the_units_are_well_formed_and_let_the_programs_do_little_else() -> Result<()> {
    let Ok(analyze) = tool("systemd-analyze") else {
        println!("the units are NOT checked: systemd-analyze is missing (apt-get install systemd)");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let timer = "lumbung-cloud-backup.timer";
    std::fs::copy(deployed.join(timer), folder.path().join(timer))?;
    for (name, program, most) in [
        ("lumbung-gateway", "lumbung-gateway", "20"),
        ("lumbung-cloud", "lumbung-cloud", "25"),
        ("lumbung-cloud-backup", "lumbung-cloud", "25"),
    ] {
        let unit = format!("{name}.service");
        // The program is not installed here.
        let text = std::fs::read_to_string(deployed.join(&unit))?;
        let text = text.replace(&format!("=/usr/bin/{program} "), "=/bin/true ");
        let path = folder.path().join(&unit);
        std::fs::write(&path, text)?;
        let path = path.to_str().context("a path that is no text")?;
        for arguments in [
            &["verify", "--man=no", path][..],
            &["security", "--offline=true", "--no-pager", "--threshold", most, path],
        ] {
            let output = Command::new(&analyze).args(arguments).output()?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            ensure!(output.status.success(), "{unit}: {arguments:?}: {said}");
            ensure!(arguments[0] != "verify" || said.trim().is_empty(), "{unit}: {said}");
        }
    }
    // After its service is there, which it names.
    let timer = folder.path().join(timer);
    let output = Command::new(&analyze).args(["verify", "--man=no"]).arg(&timer).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.trim().is_empty(), "{}: {said}", timer.display());
    Ok(())
}
