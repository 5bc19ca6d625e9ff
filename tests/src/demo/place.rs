//! Where the demo keeps its data, and what must be true before anything is started there.

use super::say;
use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Uid, User};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where root's demo goes when PostgreSQL's user may not enter the folder that was asked for.
const REACHABLE: &str = "/var/lib/lumbung-demo";
/// A fresh PostgreSQL cluster with its log ahead takes about 100 MB; the rest is room to work.
const ROOM_BYTES: u64 = 400 << 20;

pub(crate) struct Place {
    pub(crate) root: PathBuf,
    /// Held for life: one demo per folder.
    _lock: File,
}

impl Place {
    /// Makes and locks the data folder.
    pub(crate) fn open(wanted: &Path) -> Result<Self> {
        make_dir(wanted, 0o755)?;
        let root = fs::canonicalize(wanted).with_context(|| format!("finding {}", wanted.display()))?;
        for dir in ["cloud", "gateway", "log"] {
            make_dir(&root.join(dir), 0o755)?;
        }
        make_dir(&root.join("fleet"), 0o700)?;
        let lock = lock(&root.join("demo.lock"), &root)?;
        let place = Self { root, _lock: lock };
        place.check_room()?;
        Ok(place)
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    fn check_room(&self) -> Result<()> {
        let disk =
            statvfs(&self.root).with_context(|| format!("looking at the disk of {}", self.root.display()))?;
        // Block counts are 32 bits wide on some systems.
        #[allow(clippy::useless_conversion)]
        let free = u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size()));
        if free < ROOM_BYTES {
            bail!(
                "ruang disk kurang: {} MB tersisa di {}, perlu {} MB.\n\
                 Not enough disk space: {} MB left there, {} MB needed.\n\
                 Kosongkan disk, atau pilih tempat lain · free some, or choose another place: make run DATA=/path",
                free >> 20,
                self.root.display(),
                ROOM_BYTES >> 20,
                free >> 20,
                ROOM_BYTES >> 20
            );
        }
        Ok(())
    }
}

/// The folder itself, or one that PostgreSQL's user can reach: PostgreSQL refuses to run as root, and
/// the user it runs as instead cannot pass through, say, `/root`.
pub(crate) fn reachable(wanted: &Path) -> Result<PathBuf> {
    let wanted = std::path::absolute(wanted)?;
    if !Uid::effective().is_root() {
        return Ok(wanted);
    }
    let postgres = User::from_name("postgres").ok().flatten();
    let blocked = wanted.ancestors().find(|folder| {
        fs::metadata(folder).is_ok_and(|metadata| {
            let bit = match &postgres {
                Some(user) if user.uid.as_raw() == metadata.uid() => 0o100,
                Some(user) if user.gid.as_raw() == metadata.gid() => 0o010,
                _ => 0o001,
            };
            metadata.mode() & bit == 0
        })
    });
    Ok(match blocked {
        None => wanted,
        Some(blocked) => {
            let blocked = blocked.display();
            say::step(
                &format!("PostgreSQL tidak boleh masuk ke {blocked}; data disimpan di {REACHABLE}"),
                &format!("PostgreSQL may not enter {blocked}; the data goes to {REACHABLE}"),
            );
            PathBuf::from(REACHABLE)
        }
    })
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    match made {
        Err(error) if error.kind() == ErrorKind::StorageFull => {
            bail!("disk penuh · the disk is full: {}", path.display())
        }
        made => made.with_context(|| format!("making the folder {}", path.display())),
    }
}

fn lock(path: &Path, root: &Path) -> Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            bail!(
                "demo lain (proses {holder}) sudah memakai {root}.\n\
                 Another demo (process {holder}) is using that folder already. Stop it, or choose another place \
                 and other ports:\n  make run DATA=data/other CLOUD_PORT=8001 GATEWAY_PORT=5001",
                holder = holder.trim(),
                root = root.display()
            );
        }
        Err(TryLockError::Error(error)) => return Err(error).context("locking the data folder"),
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Says plainly when somebody else listens where we want to.
pub(crate) fn check_port(port: u16, whose: &str, variable: &str) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "port {port} untuk {whose} sudah dipakai program lain.\n\
             Port {port}, wanted for the {whose}, is taken by another program (see: ss -ltnp 'sport = :{port}').\n\
             Pilih yang lain · choose another: make run {variable}={}",
            port.checked_add(1).unwrap_or(port - 1)
        ),
        Err(error) => Err(error).with_context(|| format!("port {port} for the {whose} cannot be used")),
    }
}

/// Writes a file whole or not at all; `mode` from its first moment.
pub(crate) fn write_whole(path: &Path, text: &[u8], mode: u32) -> Result<()> {
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_the_way_out() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let message = check_port(port, "cloud", "CLOUD_PORT").unwrap_err().to_string();
        assert!(message.contains(&port.to_string()) && message.contains("CLOUD_PORT="), "{message}");
    }

    #[test]
    fn a_second_demo_in_the_same_folder_is_turned_away() {
        let dir = tempfile::tempdir().unwrap();
        let first = Place::open(&dir.path().join("demo")).unwrap();
        let message = Place::open(&first.root).err().unwrap().to_string();
        assert!(message.contains(&std::process::id().to_string()), "{message}");
    }

    #[test]
    fn a_private_file_is_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.json");
        for text in ["long text", "short"] {
            write_whole(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        }
    }
}
