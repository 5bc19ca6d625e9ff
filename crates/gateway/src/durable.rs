//! Small files that are either the old or the new one, whatever happens to the power.
//!
//! They belong to whoever the directory belongs to: a command that an operator runs as root must not leave a key
//! behind that the service cannot read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Puts a new content in place, readable by its owner alone: all of it or none, and durably.
pub fn replace(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let fresh = dir.join(format!("{name}.new"));
    // A leftover may have another mode; the mode below holds for new files only.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let (ours, theirs) = (file.metadata()?, fs::metadata(dir)?);
    if ours.uid() == 0 && theirs.uid() != 0 {
        // Where even root may not, as in some containers, the file is as useful as it was.
        let _ = fchown(&file, Some(theirs.uid()), Some(theirs.gid()));
    }
    file.write_all(content)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_its_directorys_owners_alone_also_when_root_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        // Another owner can be had by root only; for anybody else the file is its own in any case.
        let owner = if nix::unistd::geteuid().is_root() { 12_345 } else { nix::unistd::geteuid().as_raw() };
        std::os::unix::fs::chown(dir.path(), Some(owner), None).unwrap();
        for content in ["one", "two"] {
            replace(dir.path(), "x.json", content.as_bytes()).unwrap();
            let file = fs::metadata(dir.path().join("x.json")).unwrap();
            assert_eq!((file.uid(), file.permissions().mode() & 0o777), (owner, 0o600));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
