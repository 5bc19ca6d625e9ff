//! The machine below: room on its disks, and its clock.

use crate::finding::{Finding, bytes};
use nix::sys::statvfs::statvfs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Below this somebody should make room; below that the next busy day may fill it.
const LITTLE: u64 = 2 << 30;
const TOO_LITTLE: u64 = 256 << 20;
/// systemd-timesyncd makes this file when it has heard a time server in this boot.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// Room where `folder` lies, or where it will.
pub(super) fn disk(check: &'static str, folder: &Path) -> Finding {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match statvfs(there) {
        Ok(disk) => room(
            check,
            there,
            disk.blocks_available() * disk.fragment_size(),
            disk.blocks() * disk.fragment_size(),
        ),
        Err(error) => Finding::fail(
            check,
            format!("{}: {error}", there.display()),
            "let the user that the cloud runs as into data_dir",
        ),
    }
}

fn room(check: &'static str, folder: &Path, free: u64, all: u64) -> Finding {
    let found = format!("{} free of {} at {}", bytes(free), bytes(all), folder.display());
    let advice = "make room or enlarge the disk; a full disk stops every gateway's sync (nothing is lost: \
                  they keep their records)";
    if free < TOO_LITTLE {
        Finding::fail(check, found, advice)
    } else if free < LITTLE || free < all / 20 {
        Finding::warn(check, found, advice)
    } else {
        Finding::ok(check, found)
    }
}

/// Whether something keeps this machine's clock.
pub(super) fn clock() -> Finding {
    if Path::new(SYNCHRONISED).exists() {
        return Finding::ok("clock", "synchronised by systemd-timesyncd");
    }
    // The kernel's own word, whoever keeps its clock.
    let asked = Command::new("timedatectl")
        .args(["show", "--property", "NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let advice = "gateways without a time server take this cloud's time: install chrony or systemd-timesyncd";
    match asked {
        Ok(answer) if answer.stdout.trim_ascii() == b"yes" => Finding::ok("clock", "synchronised"),
        Ok(answer) if answer.stdout.trim_ascii() == b"no" => {
            Finding::warn("clock", "not synchronised with any time server", advice)
        }
        _ => Finding::warn("clock", "nothing here says whether it is synchronised", advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn a_disk_that_fills_is_a_warning_before_it_is_a_failure() {
        let state = |free, all| room("disk", Path::new("/"), free, all).state;
        assert_eq!(state(10 << 30, 40 << 30), State::Ok);
        assert_eq!(state(1 << 30, 40 << 30), State::Warn);
        assert_eq!(state(10 << 30, 1 << 40), State::Warn, "a hundredth of a large disk");
        assert_eq!(state(100 << 20, 40 << 30), State::Fail);
    }

    #[test]
    fn a_folder_that_is_still_to_be_made_is_judged_by_where_it_will_be() {
        let found = disk("disk", Path::new("/tmp/not/made/yet"));
        assert!(found.found.contains("/tmp"), "{found:?}");
    }
}
