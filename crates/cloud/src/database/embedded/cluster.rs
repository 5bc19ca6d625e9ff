//! Making the cluster, and the configuration it is started with.
//!
//! `initdb` works in a folder beside the final one, which is renamed when complete: a cluster that has
//! its name is whole. The configuration is ours and written anew at every start; an operator tunes with
//! `ALTER SYSTEM`, which PostgreSQL reads after it. What must never change stands on the command line.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::statvfs::statvfs;
use nix::unistd::{Uid, User};

use super::account::Account;
use super::binaries::Binaries;
use super::child::as_account;
use super::error::{EmbeddedError, says_no_space};
use super::place::{PORT, Place};

pub(super) const SUPERUSER: &str = "postgres";
pub(super) const ROLE: &str = "lumbung";
const MAKING: &str = "postgres.making-";
/// A new cluster takes about 40 MB and its first write-ahead log as much again.
const ROOM_FOR_A_CLUSTER: u64 = 128 << 20;

/// Makes the cluster if there is none, and sees to it that the one there is belongs to the account.
pub(super) fn ensure(place: &Place, binaries: &Binaries, account: &Account) -> Result<(), EmbeddedError> {
    account.check_reaches(&place.data_dir)?;
    sweep(&place.data_dir);
    if place.cluster_major()?.is_none() {
        return make(place, binaries, account);
    }
    let metadata =
        fs::metadata(&place.cluster).map_err(|e| EmbeddedError::io("look at", &place.cluster, e))?;
    if metadata.uid() == account.uid.as_raw() {
        Ok(())
    } else if account.switch {
        // Copied or restored by root: PostgreSQL insists on owning its folder.
        account.give_tree(&place.cluster)
    } else {
        Err(EmbeddedError::NotOurs { path: place.cluster.clone(), user: account.name.clone() })
    }
}

/// Removes what an interrupted `initdb` left behind.
fn sweep(data_dir: &Path) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(MAKING)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "could not remove a half-made database");
        }
    }
}

fn make(place: &Place, binaries: &Binaries, account: &Account) -> Result<(), EmbeddedError> {
    check_room(&place.data_dir)?;
    let making = place.data_dir.join(format!("{MAKING}{}", std::process::id()));
    DirBuilder::new()
        .mode(0o700)
        .create(&making)
        .map_err(|e| EmbeddedError::io("make the folder", &making, e))?;
    account.give(&making)?;
    tracing::info!(path = %place.cluster.display(), version = binaries.major, "making a new PostgreSQL database");
    let made = initdb(&making, binaries, account)
        .and_then(|()| {
            fs::rename(&making, &place.cluster).map_err(|e| EmbeddedError::io("make", &place.cluster, e))
        })
        .and_then(|()| sync_dir(&place.data_dir));
    if made.is_err() {
        let _ = fs::remove_dir_all(&making);
    }
    made
}

fn initdb(dir: &Path, binaries: &Binaries, account: &Account) -> Result<(), EmbeddedError> {
    let failed = |detail: String| EmbeddedError::InitFailed { cluster: dir.to_path_buf(), detail };
    // KILL: when this program is killed meanwhile, the half-made folder is thrown away anyway.
    let output = as_account(&binaries.program("initdb"), account, "KILL")
        .arg("--pgdata")
        .arg(dir)
        .args(["--username", SUPERUSER, "--encoding=UTF8", "--locale=C.UTF-8", "--lc-messages=C"])
        .args(["--auth-local=peer", "--auth-host=reject", "--data-checksums", "--no-instructions"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    if says_no_space(&words) || check_room(dir).is_err() {
        return Err(EmbeddedError::NoSpace { dir: dir.to_path_buf(), detail: words });
    }
    Err(failed(format!("initdb ended with {}: {words}", output.status)))
}

fn check_room(dir: &Path) -> Result<(), EmbeddedError> {
    let Ok(disk) = statvfs(dir) else { return Ok(()) };
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    if free >= ROOM_FOR_A_CLUSTER {
        return Ok(());
    }
    let detail = format!("{} MB are free, a new database needs {} MB", free >> 20, ROOM_FOR_A_CLUSTER >> 20);
    Err(EmbeddedError::NoSpace { dir: dir.to_path_buf(), detail })
}

fn sync_dir(dir: &Path) -> Result<(), EmbeddedError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|e| EmbeddedError::io("flush", dir, e))
}

/// What the server is started with.
pub(super) struct Configuration {
    files: [(&'static str, PathBuf); 3],
    socket_dir: PathBuf,
    tag: String,
}

impl Configuration {
    pub(super) fn write(place: &Place, account: &Account, socket_dir: &Path) -> Result<Self, EmbeddedError> {
        let mode = if account.switch { 0o644 } else { 0o600 };
        let files = [
            ("config_file", place.write("postgresql.conf", POSTGRESQL_CONF, mode)?),
            ("hba_file", place.write("pg_hba.conf", PG_HBA, mode)?),
            ("ident_file", place.write("pg_ident.conf", &pg_ident(place, account), mode)?),
        ];
        Ok(Self { files, socket_dir: socket_dir.to_path_buf(), tag: place.tag() })
    }

    /// The command line: where things are, and what an `ALTER SYSTEM` must not undo.
    pub(super) fn arguments(&self, cluster: &Path) -> Vec<OsString> {
        let mut arguments = vec![OsString::from("-D"), cluster.as_os_str().to_owned()];
        let mut set = |name: &str, value: &std::ffi::OsStr| {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(value);
            arguments.extend([OsString::from("-c"), setting]);
        };
        for (name, path) in &self.files {
            set(name, path.as_os_str());
        }
        // A list of folders to PostgreSQL: quoted, so that a comma or a space stays part of the name.
        let quoted = format!("\"{}\"", self.socket_dir.to_string_lossy().replace('"', "\"\""));
        set("unix_socket_directories", quoted.as_ref());
        set("unix_socket_permissions", "0700".as_ref());
        set("listen_addresses", "".as_ref());
        set("port", PORT.to_string().as_ref());
        set("cluster_name", self.tag.as_ref());
        set("fsync", "on".as_ref());
        set("full_page_writes", "on".as_ref());
        set("logging_collector", "off".as_ref());
        arguments
    }
}

const POSTGRESQL_CONF: &str = "\
# Written by lumbung-cloud at every start: changes here are lost. Tune with ALTER SYSTEM SET ... instead.
synchronous_commit = on
max_connections = 100
shared_buffers = 64MB
work_mem = 8MB
maintenance_work_mem = 64MB
effective_cache_size = 512MB
min_wal_size = 80MB
max_wal_size = 1GB
random_page_cost = 1.1          # small servers have solid-state disks
jit = off                       # our queries are short
timezone = 'UTC'
datestyle = 'iso, ymd'
client_encoding = 'UTF8'
log_destination = 'stderr'      # lumbung-cloud writes and rotates postgres-run/postgres.log
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_checkpoints = off
lc_messages = 'C'
";

/// Only the socket exists, its folder is private, and the kernel says who is at the other end.
const PG_HBA: &str = "\
# Written by lumbung-cloud at every start.
local all all peer map=lumbung
";

/// Operating system users who may be our two database users: the one the cloud runs as, root, the one
/// PostgreSQL runs as, and the owner of the data folder.
fn pg_ident(place: &Place, account: &Account) -> String {
    let mut names = vec!["root".to_owned(), account.name.clone()];
    let owner = fs::metadata(&place.data_dir).map(|metadata| Uid::from_raw(metadata.uid()));
    for uid in [Some(Uid::effective()), owner.ok()].into_iter().flatten() {
        if let Ok(Some(user)) = User::from_uid(uid) {
            names.push(user.name);
        }
    }
    names.sort();
    names.dedup();
    let mut text = "# Written by lumbung-cloud at every start.\n".to_owned();
    for name in names {
        let name = name.replace('"', "\"\"");
        for role in [SUPERUSER, ROLE] {
            text.push_str(&format!("lumbung \"{name}\" {role}\n"));
        }
    }
    text
}
