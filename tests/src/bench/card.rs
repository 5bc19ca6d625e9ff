//! Bytes written to the card for each scan: on a file system of its own where root can make one (the
//! journal counts too), else what the kernel charges the process with.

use super::Line;
use super::capture::{INSERT, open};
use super::clients::Client;
use super::line::Goal;
use crate::programs::{Gateway, run, tool};
use crate::stand::Stand;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const SCANS: usize = 1_000;

/// A card made of a file.
struct Card {
    mount: PathBuf,
    device: String,
}

impl Card {
    fn insert(stand: &Stand) -> Result<Self> {
        let image = stand.path().join("card.img");
        let mount = stand.path().join("card");
        std::fs::create_dir_all(&mount)?;
        std::fs::File::create(&image)?.set_len(512 << 20)?;
        run(Command::new(tool("mkfs.ext4").or_else(|_| sbin("mkfs.ext4"))?).arg("-q").arg(&image))?.ok()?;
        run(Command::new(tool("mount")?).args(["-o", "loop,noatime"]).arg(&image).arg(&mount))?.ok()?;
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let at = mount.to_string_lossy().into_owned();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&at));
        let device = line.and_then(|line| line.split(' ').next()).context("the card is not mounted")?;
        let device = device.trim_start_matches("/dev/").to_owned();
        Ok(Self { mount, device })
    }

    /// Bytes written to the device so far, everything flushed.
    fn written(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/sys/block/{}/stat", self.device))?;
        let sectors: f64 = stat.split_whitespace().nth(6).context("no sectors")?.parse()?;
        Ok(sectors * 512.0)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(&self.mount));
    }
}

fn sbin(name: &str) -> Result<PathBuf> {
    let path = Path::new("/usr/sbin").join(name);
    anyhow::ensure!(path.is_file(), "{name} is not installed");
    Ok(path)
}

/// Where bytes are counted.
enum Meter {
    Card(Card),
    Process,
}

impl Meter {
    fn read(&self, pid: u32) -> Result<f64> {
        match self {
            Self::Card(card) => card.written(),
            Self::Process => {
                let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
                let line = io.lines().find(|line| line.starts_with("write_bytes:"));
                let bytes = line.and_then(|line| line.split(' ').nth(1)).context("no write_bytes")?;
                Ok(bytes.parse()?)
            }
        }
    }
}

/// Scans alone, ten at once, and their settling.
pub(super) async fn bytes_written(stand: &Stand) -> Result<Vec<Line>> {
    let (meter, dir, how) = match Card::insert(stand) {
        Ok(card) => {
            let dir = card.mount.join("gateway");
            (Meter::Card(card), dir, "ext4_of_its_own")
        }
        Err(_) => (Meter::Process, stand.path().join("gateway"), "process_write_bytes"),
    };
    let cloud = stand.cloud().await?;
    // Not enrolled yet: capture alone, and nothing that sends.
    let mut gateway = Gateway::new("GW-CARD", &dir, &stand.log("GW-CARD"))?;
    gateway.start().await?;
    let pid = gateway.pid().context("the gateway is not running")?;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Client::connect(&gateway.address()).await?);
    }
    // Past the growing of a new log.
    alone(&mut clients[0], SCANS).await?;
    let start = meter.read(pid)?;
    alone(&mut clients[0], SCANS).await?;
    let after_alone = meter.read(pid)?;
    for n in 0..SCANS / 10 {
        let taps = clients
            .iter_mut()
            .enumerate()
            .map(|(c, client)| async move { client.tap(&format!("04AABBCC{c:02X}{n:04X}")).await });
        for result in futures_util::future::join_all(taps).await {
            result?;
        }
    }
    let after_ten = meter.read(pid)?;
    let unsent = gateway.unsent()? as f64;
    gateway.stop().await?;
    gateway.enrol(&cloud.base(), &cloud.claim("GW-CARD").await?.claim).await?;
    let before_settling = meter.read(pid).unwrap_or(0.0);
    gateway.start().await?;
    gateway.drained().await?;
    let after_settling = meter.read(gateway.pid().context("the gateway is not running")?)?;
    gateway.stop().await?;
    let bare = bare_insert(&meter, &dir)?;
    let scans = SCANS as f64;
    let name = |what: &str| format!("card_bytes_per_scan_{what}({how})");
    Ok(vec![
        Line::new(&name("alone"), "B", (after_alone - start) / scans, bare, Goal::ValueAtMost(13_000.0)),
        Line::new(
            &name("ten_at_once"),
            "B",
            (after_ten - after_alone) / scans,
            None,
            Goal::ValueAtMost(3_500.0),
        ),
        Line::new(&name("settling"), "B", (after_settling - before_settling) / unsent, None, Goal::None),
    ])
}

async fn alone(client: &mut Client, count: usize) -> Result<()> {
    for n in 0..count {
        client.tap(&format!("04AABBCCDD{n:04X}")).await?;
    }
    Ok(())
}

/// The same for a bare SQLite that commits each row by itself.
fn bare_insert(meter: &Meter, dir: &Path) -> Result<Option<f64>> {
    let Meter::Card(card) = meter else {
        return Ok(None);
    };
    let store = open(&dir.join("bare.db"))?;
    let mut insert = store.prepare(INSERT)?;
    for n in 0..SCANS {
        insert.execute([format!("04AABBCCDD{n:04X}")])?;
    }
    let before = card.written()?;
    for n in 0..SCANS {
        insert.execute([format!("04AABBCCDD{n:04X}")])?;
    }
    Ok(Some((card.written()? - before) / SCANS as f64))
}
