//! Secrets that stand in no configuration file: a folder with a file for each key, named like it.

use anyhow::{Context, ensure};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The folder beside the configuration file, which the service and every command find alike; none where there is none.
///
/// # Errors
/// It stands open to everybody.
pub(super) fn beside(file: &Path) -> anyhow::Result<Option<PathBuf>> {
    let dir = file.parent().unwrap_or(Path::new("")).join("credentials");
    let Ok(metadata) = std::fs::metadata(&dir) else { return Ok(None) };
    ensure!(
        metadata.permissions().mode() & 0o007 == 0,
        "everybody may look into {}: chmod 750 it",
        dir.display()
    );
    Ok(Some(dir))
}

/// What a folder holds: that one, or what systemd handed over (`LoadCredential=database.url:/path`).
///
/// # Errors
/// What cannot be read there.
pub(super) fn read(dir: &Path) -> anyhow::Result<config::Config> {
    let unreadable = |path: &Path| {
        format!("cannot read {}; does this run as the cloud's user (sudo -u lumbung)?", path.display())
    };
    let mut keys = config::Config::builder();
    for entry in std::fs::read_dir(dir).with_context(|| unreadable(dir))? {
        let path = entry?.path();
        let value = std::fs::read_to_string(&path).with_context(|| unreadable(&path))?;
        let key = path.file_name().unwrap_or_default().to_string_lossy();
        keys = keys.set_default(key, value.trim_end())?;
    }
    Ok(keys.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_credential_sets_the_key_it_is_named_after() {
        let etc = tempfile::tempdir().unwrap();
        let (file, dir) = (etc.path().join("cloud.toml"), etc.path().join("credentials"));
        std::fs::write(&file, "[http]\npublic_url = \"https://mbg.example.id\"\n").unwrap();
        assert!(Config::load(Some(&file)).unwrap().database.url.is_empty(), "no folder, no secret");

        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o750)).unwrap();
        std::fs::write(dir.join("database.url"), "postgresql://u:s@db.example/lumbung\n").unwrap();
        let url = || Config::load(Some(&file)).unwrap().database.url;
        assert_eq!(url(), "postgresql://u:s@db.example/lumbung");
        std::fs::write(&file, "[database]\nurl = \"postgresql://lama@db.example/lumbung\"\n").unwrap();
        assert_eq!(url(), "postgresql://u:s@db.example/lumbung", "what was forgotten in the file won");

        // What cannot be read is a secret that would be missed.
        std::fs::create_dir(dir.join("people.totp_key")).unwrap();
        let error = Config::load(Some(&file)).unwrap_err();
        assert!(format!("{error:#}").contains("people.totp_key"), "{error:#}");
        std::fs::remove_dir(dir.join("people.totp_key")).unwrap();

        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
        let error = Config::load(Some(&file)).unwrap_err();
        assert!(format!("{error:#}").contains("chmod 750"), "{error:#}");
    }
}
