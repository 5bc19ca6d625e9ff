//! Whom PostgreSQL runs as. It refuses root, so root hands it to an unprivileged user; anybody else
//! runs it as themselves.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, User};

use super::error::EmbeddedError;

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) name: String,
    /// Whether we are root and have to become this user for PostgreSQL's programs.
    pub(super) switch: bool,
}

impl Account {
    /// Root follows the owner of what is there already (so that `sudo lumbung-cloud site list` leaves a
    /// service's files to the service), then `postgres`, then `nobody`.
    pub(super) fn choose(data_dir: &Path, cluster: &Path) -> Result<Self, EmbeddedError> {
        let me = Uid::effective();
        if !me.is_root() {
            return Self::by_uid(me, String::new(), false);
        }
        for place in [cluster, data_dir] {
            if let Ok(metadata) = fs::symlink_metadata(place)
                && metadata.uid() != 0
            {
                let whose = format!(" (the owner of {})", place.display());
                return Self::by_uid(Uid::from_raw(metadata.uid()), whose, true);
            }
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name) {
                return Ok(Self { uid: user.uid, gid: user.gid, name: user.name, switch: true });
            }
        }
        Err(EmbeddedError::NobodyToRunAs)
    }

    fn by_uid(uid: Uid, whose: String, switch: bool) -> Result<Self, EmbeddedError> {
        match User::from_uid(uid) {
            Ok(Some(user)) => Ok(Self { uid, gid: user.gid, name: user.name, switch }),
            _ => Err(EmbeddedError::UnknownUser { uid: uid.as_raw(), whose }),
        }
    }

    /// The folder above or at `path` that this user may not pass through, if there is one. Judged by the
    /// permission bits: the switched-to user has no supplementary groups.
    pub(super) fn blocked_at<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        if !self.switch {
            return None;
        }
        let mut folders: Vec<&Path> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
        folders.reverse();
        folders.into_iter().find(|folder| {
            fs::metadata(folder).is_ok_and(|metadata| {
                let bit = if metadata.uid() == self.uid.as_raw() {
                    0o100
                } else if metadata.gid() == self.gid.as_raw() {
                    0o010
                } else {
                    0o001
                };
                metadata.is_dir() && metadata.mode() & bit == 0
            })
        })
    }

    pub(super) fn check_reaches(&self, path: &Path) -> Result<(), EmbeddedError> {
        match self.blocked_at(path) {
            None => Ok(()),
            Some(blocked) => Err(EmbeddedError::NotSearchable {
                user: self.name.clone(),
                blocked: blocked.to_path_buf(),
                path: path.to_path_buf(),
            }),
        }
    }

    /// Gives one path to this user. Links are not followed, so nobody can be given what a link points at.
    pub(super) fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        if !self.switch {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
            .map_err(|e| EmbeddedError::io("change the owner of", path, e))
    }

    /// Gives a whole tree to this user.
    pub(super) fn give_tree(&self, path: &Path) -> Result<(), EmbeddedError> {
        self.give(path)?;
        if fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
            let entries = fs::read_dir(path).map_err(|e| EmbeddedError::io("read", path, e))?;
            for entry in entries {
                self.give_tree(&entry.map_err(|e| EmbeddedError::io("read", path, e))?.path())?;
            }
        }
        Ok(())
    }
}
