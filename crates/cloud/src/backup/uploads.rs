//! People's uploads beside the dump. They never change once written and have random names: what the backup before
//! holds is linked from there instead of being copied each night.

use super::manifest::{Manifest, Part};
use crate::config::{Config, Store};
use anyhow::Context;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

/// The folder in the data folder and in a backup. Storage elsewhere (S3) has copies of its own.
const FOLDER: &str = "files";

/// Copies of people's data in it, which are gone in a week and made anew at any time.
const EXPORTS: &str = "files/exports";

/// Where the cloud looks for uploads, for people.
pub(super) fn place(config: &Config) -> String {
    match config.files.store {
        Store::Local => config.data_dir.join(FOLDER).display().to_string(),
        Store::S3 => format!("the bucket {}", config.files.bucket),
    }
}

/// Copies every upload into the backup `to`; `before` is the one made last.
pub(super) fn save(config: &Config, to: &Path, before: Option<&Path>) -> anyhow::Result<Vec<Part>> {
    let held = before.and_then(|folder| Some((folder, Manifest::read(folder).ok()?)));
    let held: BTreeMap<String, (PathBuf, Part)> = held
        .map(|(folder, manifest)| {
            manifest
                .parts
                .into_iter()
                .map(|part| (part.name.clone(), (folder.join(&part.name), part)))
                .collect()
        })
        .unwrap_or_default();
    let mut parts = Vec::new();
    for name in walk(&config.data_dir, Path::new(FOLDER))? {
        let (source, target) = (config.data_dir.join(&name), to.join(&name));
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        match held.get(&name) {
            Some((held, part)) if fs::hard_link(held, &target).is_ok() => {
                parts.push(Part { name, bytes: part.bytes, sha256: part.sha256.clone() });
            }
            _ => match fs::copy(&source, &target) {
                Ok(_) => parts.push(Part::of(to, &name)?),
                // Deleted meanwhile: no row of the dump's moment may need it much longer.
                Err(error) if error.kind() == ErrorKind::NotFound && !source.exists() => {}
                Err(error) => return Err(error).with_context(|| source.display().to_string()),
            },
        }
    }
    Ok(parts)
}

/// Puts the uploads of a backup where the cloud looks for them; what is there stays.
pub(super) fn bring_back(config: &Config, manifest: &Manifest, from: &Path) -> anyhow::Result<()> {
    let mut parts = manifest.parts.iter().filter(|part| Path::new(&part.name).starts_with(FOLDER)).peekable();
    if parts.peek().is_none() {
        return Ok(());
    }
    let owner = fs::metadata(&config.data_dir).with_context(|| config.data_dir.display().to_string())?;
    let give = |path: &Path| match nix::unistd::Uid::effective().is_root() && owner.uid() != 0 {
        true => lchown(path, Some(owner.uid()), Some(owner.gid())),
        false => Ok(()),
    };
    for part in parts {
        let target = config.data_dir.join(&part.name);
        if target.exists() {
            continue;
        }
        let folder = target.parent().unwrap_or(&config.data_dir);
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            let ours = folder.ancestors().take_while(|path| *path != config.data_dir);
            ours.into_iter().try_for_each(give)?;
        }
        let making = target.with_extension("restoring");
        fs::copy(from.join(&part.name), &making).with_context(|| target.display().to_string())?;
        give(&making)?;
        File::open(&making)?.sync_all()?;
        fs::rename(&making, &target)?;
    }
    Ok(())
}

/// Every file below `root/folder`, by its path from `root`.
fn walk(root: &Path, folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(root.join(folder)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        entries => entries.with_context(|| root.join(folder).display().to_string())?,
    };
    for entry in entries {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if path == Path::new(EXPORTS) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            found.extend(walk(root, &path)?);
        } else if let Some(name) = path.to_str().filter(|name| !name.contains('#')) {
            // With a # it is still being written.
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_copied_once_linked_after_that_and_brought_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::load(None).unwrap();
        config.data_dir = dir.path().join("data");
        fs::create_dir_all(config.data_dir.join("files/ab")).unwrap();
        fs::write(config.data_dir.join("files/ab/one.webp"), "one").unwrap();
        fs::write(config.data_dir.join("files/half.webp#1"), "ha").unwrap();
        fs::create_dir(config.data_dir.join("files/exports")).unwrap();
        fs::write(config.data_dir.join("files/exports/x.zip"), "somebody's").unwrap();
        let backup = |name: &str, before: Option<&Path>| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            let mut manifest = Manifest::new(chrono::Utc::now(), 1, 15);
            manifest.parts = save(&config, &folder, before).unwrap();
            fs::write(folder.join("manifest.json"), serde_json::to_string(&manifest).unwrap()).unwrap();
            (folder, manifest)
        };
        let (first, of_first) = backup("first", None);
        assert_eq!(of_first.parts.len(), 1, "{:?}", of_first.parts);
        fs::write(config.data_dir.join("files/two.webp"), "two").unwrap();
        let (second, of_second) = backup("second", Some(&first));
        assert_eq!(of_second.parts.len(), 2);
        assert_eq!(fs::metadata(second.join("files/ab/one.webp")).unwrap().nlink(), 2, "it was copied again");
        of_second.check_parts(&second).unwrap();

        fs::remove_dir_all(config.data_dir.join("files")).unwrap();
        bring_back(&config, &of_second, &second).unwrap();
        assert_eq!(fs::read_to_string(config.data_dir.join("files/ab/one.webp")).unwrap(), "one");
        assert_eq!(fs::read_dir(config.data_dir.join("files")).unwrap().count(), 2);

        fs::write(second.join("files/two.webp"), "tvo").unwrap();
        let error = of_second.check_parts(&second).unwrap_err().to_string();
        assert!(error.contains("files/two.webp") && error.contains("damaged"), "{error}");
    }
}
