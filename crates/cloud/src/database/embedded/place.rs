//! Where the embedded PostgreSQL lives below the cloud's data folder.
//!
//! ```text
//! postgres/            the cluster, 0700, owned by the user PostgreSQL runs as
//! postgres-run/        ours: lock, postgres.log, the configuration written at every start
//! postgres-run/socket/ 0700, owned by the user PostgreSQL runs as
//! ```
//!
//! Root never writes inside a folder that the unprivileged user owns, so that user cannot lead root's
//! writes elsewhere with a link.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::Uid;
use sha2::{Digest, Sha256};

use super::account::Account;
use super::error::EmbeddedError;

/// The number is only part of the socket's name; there is no TCP port.
pub(super) const PORT: u16 = 5432;
const LONGEST_SOCKET_PATH: usize = 107;
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) data_dir: PathBuf,
    pub(super) cluster: PathBuf,
    pub(super) run_dir: PathBuf,
}

impl Place {
    /// Makes the data folder when it is missing; nothing in it yet.
    pub(super) fn open(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let root = Uid::effective().is_root();
        // Root's own folder must let the PostgreSQL user pass through, without showing what is in it.
        let mode = if root { 0o711 } else { 0o700 };
        make_dirs(data_dir, mode)?;
        let place = Self::at(data_dir)?;
        if root {
            let metadata = fs::metadata(&place.data_dir)
                .map_err(|e| EmbeddedError::io("look at", &place.data_dir, e))?;
            if metadata.uid() == 0 && metadata.mode() & 0o001 == 0 {
                let opened = fs::Permissions::from_mode((metadata.mode() & 0o7777) | 0o011);
                fs::set_permissions(&place.data_dir, opened).map_err(|e| {
                    EmbeddedError::io("let the PostgreSQL user pass through", &place.data_dir, e)
                })?;
            }
        }
        Ok(place)
    }

    /// The same names, making nothing. Absolute and without links, so that everybody names it alike.
    pub(super) fn at(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let data_dir = fs::canonicalize(data_dir).map_err(|e| EmbeddedError::io("find", data_dir, e))?;
        Ok(Self { cluster: data_dir.join("postgres"), run_dir: data_dir.join("postgres-run"), data_dir })
    }

    pub(super) fn log(&self) -> PathBuf {
        self.run_dir.join("postgres.log")
    }

    /// Short and the same at every start: it names the cluster's processes and the fallback socket folder.
    pub(super) fn tag(&self) -> String {
        let digest = Sha256::digest(self.data_dir.as_os_str().as_bytes());
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("lumbung-{hex}")
    }

    /// The major version of the cluster that is there, `None` when there is none yet.
    pub(super) fn cluster_major(&self) -> Result<Option<u32>, EmbeddedError> {
        let entries = match fs::read_dir(&self.cluster) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(EmbeddedError::io("read", &self.cluster, e)),
        };
        match fs::read_to_string(self.cluster.join("PG_VERSION")) {
            Ok(text) => match text.trim().parse() {
                Ok(major) => Ok(Some(major)),
                Err(_) => Err(EmbeddedError::NotACluster { cluster: self.cluster.clone() }),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !entries => Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(EmbeddedError::io("read", &self.cluster, e))
            }
            Err(_) => Err(EmbeddedError::NotACluster { cluster: self.cluster.clone() }),
        }
    }

    /// One cloud for one data folder, held for life. A CLI command may hold it for a moment, hence the
    /// short patience. The kernel drops the lock with its holder, however that one ends.
    pub(super) fn lock(&self, account: &Account) -> Result<File, EmbeddedError> {
        let mode = if account.switch { 0o711 } else { 0o700 };
        make_dirs(&self.run_dir, mode)?;
        let path = self.lock_path();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .map_err(|e| EmbeddedError::io("open", &path, e))?;
        let patience = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    let holder = match holder.trim().parse::<u32>() {
                        Ok(pid) => format!("process {pid}"),
                        Err(_) => "a process that has not said its number yet".to_owned(),
                    };
                    return Err(EmbeddedError::InUse { dir: self.data_dir.clone(), holder });
                }
                Err(TryLockError::Error(e)) => return Err(EmbeddedError::io("lock", &path, e)),
            }
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(|e| EmbeddedError::io("write", &path, e))?;
        self.keep_owner(&path)?;
        self.keep_owner(&self.run_dir)?;
        Ok(file)
    }

    /// Whether some process holds the lock just now.
    pub(super) fn is_locked(&self) -> bool {
        File::open(self.lock_path())
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    fn lock_path(&self) -> PathBuf {
        self.run_dir.join("lock")
    }

    /// Writes a file of ours whole (a new file renamed over the old one), unless it is there as it should be.
    pub(super) fn write(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf, EmbeddedError> {
        let path = self.run_dir.join(name);
        let as_is = |metadata: fs::Metadata| metadata.is_file() && metadata.mode() & 0o7777 == mode;
        if fs::symlink_metadata(&path).is_ok_and(as_is)
            && fs::read(&path).is_ok_and(|old| old == text.as_bytes())
        {
            return Ok(path);
        }
        let new = self.run_dir.join(format!("{name}.new"));
        let _ = fs::remove_file(&new);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
            file.write_all(text.as_bytes())?;
            // The umask must not hide the configuration from the PostgreSQL user.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            fs::rename(&new, &path)
        };
        write().map_err(|e| EmbeddedError::io("write", &path, e))?;
        self.keep_owner(&path)?;
        Ok(path)
    }

    /// When root works in the data folder of a service, what it makes there stays the service's.
    pub(super) fn keep_owner(&self, path: &Path) -> Result<(), EmbeddedError> {
        if !Uid::effective().is_root() {
            return Ok(());
        }
        let owner =
            fs::metadata(&self.data_dir).map_err(|e| EmbeddedError::io("look at", &self.data_dir, e))?;
        if owner.uid() == 0 {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))
            .map_err(|e| EmbeddedError::io("change the owner of", path, e))
    }

    /// The socket's folder: below the data folder when the path fits into a socket address, else a
    /// short one named after the data folder. Written down, so that CLI commands find it.
    pub(super) fn make_socket_dir(&self, account: &Account) -> Result<PathBuf, EmbeddedError> {
        let near = self.run_dir.join("socket");
        let dir = if fits(&near) {
            private_dir(&near, account).map(|()| near)
        } else {
            self.short_socket_dir(account)
        }?;
        self.write("socket-dir", &dir.to_string_lossy(), 0o644)?;
        Ok(dir)
    }

    fn short_socket_dir(&self, account: &Account) -> Result<PathBuf, EmbeddedError> {
        let mut parents: Vec<PathBuf> = Vec::new();
        if account.switch {
            parents.push(PathBuf::from("/run"));
        } else if let Some(own) = std::env::var_os("XDG_RUNTIME_DIR") {
            parents.push(PathBuf::from(own));
        }
        parents.push(PathBuf::from("/tmp"));
        let mut tried = Vec::new();
        for dir in parents.into_iter().map(|parent| parent.join(self.tag())).filter(|dir| fits(dir)) {
            match private_dir(&dir, account) {
                Ok(()) => return Ok(dir),
                Err(error) => tried.push(error.to_string()),
            }
        }
        Err(EmbeddedError::NoSocketDir { detail: tried.join("; ") })
    }

    /// The folder written down by the running server.
    pub(super) fn known_socket_dir(&self) -> Option<PathBuf> {
        fs::read_to_string(self.run_dir.join("socket-dir")).ok().map(|text| PathBuf::from(text.trim_end()))
    }
}

fn fits(socket_dir: &Path) -> bool {
    let socket = socket_dir.join(format!(".s.PGSQL.{PORT}"));
    socket.as_os_str().len() <= LONGEST_SOCKET_PATH && socket.to_str().is_some()
}

fn make_dirs(path: &Path, mode: u32) -> Result<(), EmbeddedError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|e| EmbeddedError::io("make the folder", path, e))
}

/// A folder that only the PostgreSQL user (and root) may enter. In a shared parent such as /tmp somebody
/// else may have taken the name: then it is not ours and is not used.
fn private_dir(path: &Path, account: &Account) -> Result<(), EmbeddedError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => account.give(path)?,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(EmbeddedError::io("make the folder", path, e)),
    }
    let metadata = fs::symlink_metadata(path).map_err(|e| EmbeddedError::io("look at", path, e))?;
    let ours = metadata.uid() == account.uid.as_raw() || metadata.uid() == Uid::effective().as_raw();
    if !metadata.is_dir() || !ours {
        return Err(EmbeddedError::NotOurs { path: path.to_path_buf(), user: account.name.clone() });
    }
    account.give(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(|e| EmbeddedError::io("make private", path, e))
}
