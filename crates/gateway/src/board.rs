//! What the board says of itself: how much was written to its card, and whether its power sags.
//!
//! A card lasts for so many bytes. The kernel counts those since boot, so the total over all boots is kept in
//! a small file, which is itself written rarely: a power cut costs the count of what came after its last time.

use crate::durable;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const FILE: &str = "card_wear.json";
/// The count is kept again when so much more was written, and at the end of the program.
const KEEP_EVERY_BYTES: u64 = 256 << 20;
const SECTOR: u64 = 512;

/// A look at the board.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BoardLook {
    /// Bytes written to the device that holds the store, over all boots since the gateway was installed.
    pub card_written_bytes: Option<u64>,
    /// `None` on a board that does not say.
    pub undervoltage: Option<bool>,
    pub undervoltage_since_boot: Option<bool>,
    /// The store's file system takes no writes, or did not in this process's time.
    pub read_only: bool,
}

/// The board; one per program.
#[derive(Debug, Default)]
pub struct Board {
    /// Where `/sys` stands.
    root: PathBuf,
    dir: PathBuf,
    boot: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    latest: BoardLook,
    wear: Wear,
    /// The total that the file has.
    kept: u64,
}

/// Bytes written, as of `counter` in `boot`.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Wear {
    total: u64,
    boot: String,
    counter: u64,
}

impl Wear {
    /// Takes up what the kernel counts now, which begins at nothing with each boot.
    fn count(&mut self, boot: &str, counter: u64) {
        let same = self.boot == boot && counter >= self.counter;
        let more = if same { counter - self.counter } else { counter };
        *self = Self { total: self.total.saturating_add(more), boot: boot.to_owned(), counter };
    }
}

impl Board {
    /// The board whose store is in `dir`. Blocks.
    pub fn new(dir: &Path, boot: String) -> Self {
        Self::under(Path::new("/"), dir, boot)
    }

    fn under(root: &Path, dir: &Path, boot: String) -> Self {
        let wear = fs::read(dir.join(FILE)).ok().and_then(|text| serde_json::from_slice::<Wear>(&text).ok());
        let wear = wear.unwrap_or_default();
        let state = State { kept: wear.total, wear, latest: BoardLook::default() };
        Self { root: root.to_owned(), dir: dir.to_owned(), boot, state: Mutex::new(state) }
    }

    /// What the last look saw.
    pub fn latest(&self) -> BoardLook {
        self.locked().latest
    }

    /// Looks anew. Blocks.
    pub fn look(&self, last: bool) -> BoardLook {
        let (undervoltage, undervoltage_since_boot) = self.power();
        let mut state = self.locked();
        let written = self.written();
        if let Some(counter) = written {
            state.wear.count(&self.boot, counter);
        }
        let unkept = state.wear.total - state.kept.min(state.wear.total);
        if unkept >= KEEP_EVERY_BYTES || (last && unkept > 0) {
            match self.keep(&state.wear) {
                Ok(()) => state.kept = state.wear.total,
                Err(error) => tracing::debug!(%error, "what was written to the card could not be kept"),
            }
        }
        state.latest = BoardLook {
            card_written_bytes: written.map(|_| state.wear.total),
            undervoltage,
            undervoltage_since_boot,
            read_only: state.latest.read_only || self.is_read_only(),
        };
        state.latest
    }

    fn keep(&self, wear: &Wear) -> io::Result<()> {
        durable::replace(&self.dir, FILE, &serde_json::to_vec(wear)?)
    }

    /// Bytes written to the device that holds the store since boot; a partition counts as its whole card.
    #[allow(clippy::useless_conversion, reason = "device numbers are narrower on 32-bit boards")]
    fn written(&self) -> Option<u64> {
        let device = u64::from(fs::metadata(&self.dir).ok()?.dev());
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let device = fs::canonicalize(self.root.join(format!("sys/dev/block/{major}:{minor}"))).ok()?;
        let device = if device.join("partition").exists() { device.parent()? } else { &device };
        let stat = fs::read_to_string(device.join("stat")).ok()?;
        let sectors: u64 = stat.split_ascii_whitespace().nth(6)?.parse().ok()?;
        sectors.checked_mul(SECTOR)
    }

    /// Whether the power sags now, and whether it did since boot.
    fn power(&self) -> (Option<bool>, Option<bool>) {
        let firmware = self.root.join("sys/devices/platform/soc/soc:firmware/get_throttled");
        if let Ok(text) = fs::read_to_string(firmware)
            && let Ok(bits) = u64::from_str_radix(text.trim().trim_start_matches("0x"), 16)
        {
            return (Some(bits & 1 != 0), Some(bits & (1 << 16) != 0));
        }
        let monitors = fs::read_dir(self.root.join("sys/class/hwmon")).into_iter().flatten().flatten();
        let volt = monitors
            .map(|entry| entry.path())
            .find(|path| fs::read_to_string(path.join("name")).is_ok_and(|name| name.trim() == "rpi_volt"));
        let alarm = volt.and_then(|path| fs::read_to_string(path.join("in0_lcrit_alarm")).ok());
        (alarm.map(|alarm| alarm.trim() == "1"), None)
    }

    fn is_read_only(&self) -> bool {
        nix::sys::statvfs::statvfs(&self.dir)
            .is_ok_and(|stat| stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing done under this lock leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/sys` with one card that has one partition, which holds `dir`.
    fn card(root: &Path, dir: &Path, sectors: u64) {
        let device = fs::metadata(dir).unwrap().dev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let partition = root.join("sys/devices/mmcblk0/mmcblk0p2");
        fs::create_dir_all(&partition).unwrap();
        fs::write(partition.join("partition"), "2\n").unwrap();
        fs::write(partition.join("stat"), "0 0 0 0 0 0 1 0 0 0 0\n").unwrap();
        let stat = format!("     100       2     300    4     50    6    {sectors}    8 0 9 10\n");
        fs::write(root.join("sys/devices/mmcblk0/stat"), stat).unwrap();
        let blocks = root.join("sys/dev/block");
        fs::create_dir_all(&blocks).unwrap();
        let link = blocks.join(format!("{major}:{minor}"));
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink("../../devices/mmcblk0/mmcblk0p2", link).unwrap();
    }

    #[test]
    fn what_was_written_is_counted_over_boots_and_the_count_is_rarely_kept() {
        let (root, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = dir.path().join(FILE);
        let board = |boot: &str| Board::under(root.path(), dir.path(), boot.to_owned());
        assert_eq!(board("a").look(true).card_written_bytes, None, "a board that does not say");
        card(root.path(), dir.path(), 1_000);
        let first = board("a");
        assert_eq!(first.look(false).card_written_bytes, Some(512_000));
        assert!(!file.exists(), "not for so little");
        card(root.path(), dir.path(), 2_000_000);
        assert_eq!(first.look(false).card_written_bytes, Some(1_024_000_000));
        let kept = fs::read(&file).unwrap();
        card(root.path(), dir.path(), 2_000_010);
        assert_eq!(first.look(false).card_written_bytes, Some(1_024_005_120));
        assert_eq!(fs::read(&file).unwrap(), kept);
        first.look(true);
        // The program starts again in the same boot, then the board does.
        assert_eq!(board("a").look(false).card_written_bytes, Some(1_024_005_120));
        card(root.path(), dir.path(), 10);
        assert_eq!(board("b").look(false).card_written_bytes, Some(1_024_010_240));
        assert_eq!(first.latest().card_written_bytes, Some(1_024_005_120));
    }

    #[test]
    fn undervoltage_is_heard_from_the_firmware_or_the_voltage_monitor() {
        let (root, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let look = || {
            let look = Board::under(root.path(), dir.path(), "a".to_owned()).look(false);
            assert!(!look.read_only);
            (look.undervoltage, look.undervoltage_since_boot)
        };
        assert_eq!(look(), (None, None));
        let monitor = root.path().join("sys/class/hwmon/hwmon1");
        fs::create_dir_all(&monitor).unwrap();
        fs::write(monitor.join("name"), "rpi_volt\n").unwrap();
        for (alarm, now) in [("0\n", false), ("1\n", true)] {
            fs::write(monitor.join("in0_lcrit_alarm"), alarm).unwrap();
            assert_eq!(look(), (Some(now), None));
        }
        let firmware = root.path().join("sys/devices/platform/soc/soc:firmware");
        fs::create_dir_all(&firmware).unwrap();
        for (bits, now, since) in [("0\n", false, false), ("50005\n", true, true), ("0x50000\n", false, true)]
        {
            fs::write(firmware.join("get_throttled"), bits).unwrap();
            assert_eq!(look(), (Some(now), Some(since)));
        }
    }
}
