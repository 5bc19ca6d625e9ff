//! Finds PostgreSQL's server programs: the configured folder, else PATH, else where Debian and its kin
//! keep them, highest version first. A cluster that exists decides the major version.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::error::EmbeddedError;

/// Older servers are out of support and lack what our migrations use.
pub(in crate::database) const OLDEST_MAJOR: u32 = 14;

#[derive(Debug, Clone)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn find(
        configured: Option<&Path>,
        cluster: &Path,
        cluster_major: Option<u32>,
        account: &Account,
    ) -> Result<Self, EmbeddedError> {
        let found = match configured {
            Some(dir) => vec![
                Self::probe(dir, account)
                    .map_err(|reason| EmbeddedError::BadBinDir { dir: dir.to_path_buf(), reason })?,
            ],
            None => candidates("postgres").iter().filter_map(|dir| Self::probe(dir, account).ok()).collect(),
        };
        choose(found, cluster, cluster_major)
    }

    /// Looks at one folder. The programs are often links (/usr/local/bin/postgres); initdb may be
    /// linked or not, so the folder behind the link is the one that counts.
    fn probe(dir: &Path, account: &Account) -> Result<Self, String> {
        let postgres = fs::canonicalize(dir.join("postgres")).map_err(|e| format!("postgres: {e}"))?;
        let real = postgres.parent().ok_or_else(|| "postgres has no folder".to_owned())?;
        if !real.join("initdb").is_file() {
            return Err("initdb is missing (a client package alone is not enough)".to_owned());
        }
        if let Some(blocked) = account.blocked_at(real) {
            return Err(format!("user `{}` may not enter {}", account.name, blocked.display()));
        }
        let output = Command::new(&postgres)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("postgres --version: {e}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let major = major_of(&said).ok_or_else(|| format!("`postgres --version` said {:?}", said.trim()))?;
        Ok(Self { dir: real.to_path_buf(), major })
    }
}

fn choose(
    found: Vec<Binaries>,
    cluster: &Path,
    cluster_major: Option<u32>,
) -> Result<Binaries, EmbeddedError> {
    if found.is_empty() {
        return Err(EmbeddedError::NoBinaries {
            searched: "in PATH and /usr/lib/postgresql/*/bin".to_owned(),
        });
    }
    if let Some(wanted) = cluster_major {
        let majors: Vec<String> = found.iter().map(|b| b.major.to_string()).collect();
        return found.into_iter().find(|b| b.major == wanted).ok_or_else(|| EmbeddedError::OtherMajor {
            cluster: cluster.to_path_buf(),
            wanted,
            found: majors.join(", "),
        });
    }
    let mut too_old = None;
    for binaries in found {
        if binaries.major >= OLDEST_MAJOR {
            return Ok(binaries);
        }
        too_old.get_or_insert(binaries);
    }
    Err(match too_old {
        Some(old) => EmbeddedError::TooOld { dir: old.dir, found: old.major, needed: OLDEST_MAJOR },
        None => EmbeddedError::NoBinaries { searched: String::new() },
    })
}

/// Where a client program is, and of which major version each is.
pub(in crate::database) fn programs(configured: Option<&Path>, name: &str) -> Vec<(u32, PathBuf)> {
    let folders = configured.map_or_else(|| candidates(name), |dir| vec![dir.to_path_buf()]);
    let version = |dir: &PathBuf| {
        let output = Command::new(dir.join(name)).arg("--version").stdin(Stdio::null()).output().ok()?;
        major_of(&String::from_utf8_lossy(&output.stdout))
    };
    folders.into_iter().filter_map(|dir| Some((version(&dir)?, dir))).collect()
}

/// Folders to look for a program in, best first, each once.
fn candidates(program: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).filter(|p| p.is_absolute()).collect())
        .unwrap_or_default();
    let mut versioned: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-"), ("/usr/libexec", "postgresql")]
    {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|n| n.strip_prefix(prefix)).and_then(|v| v.parse().ok());
            if let Some(version) = version {
                let path = entry.path();
                let bin = path.join("bin");
                versioned.push((version, if bin.is_dir() { bin } else { path }));
            }
        }
    }
    versioned.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    folders.extend(versioned.into_iter().map(|(_, path)| path));
    let mut seen = HashSet::new();
    folders.retain(|folder| fs::canonicalize(folder.join(program)).is_ok_and(|found| seen.insert(found)));
    folders
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → 15; `18beta1` → 18.
fn major_of(version_line: &str) -> Option<u32> {
    let version = version_line.split_once("(PostgreSQL)")?.1.trim_start();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(major: u32) -> Binaries {
        Binaries { dir: PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")), major }
    }

    #[test]
    fn the_version_line_is_understood() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("postgres: not found"), None);
    }

    #[test]
    fn an_existing_cluster_decides_the_version() {
        let cluster = Path::new("/data/postgres");
        assert_eq!(choose(vec![binaries(17), binaries(15)], cluster, None).unwrap().major, 17);
        assert_eq!(choose(vec![binaries(17), binaries(15)], cluster, Some(15)).unwrap().major, 15);
        let error = choose(vec![binaries(15)], cluster, Some(17)).unwrap_err().to_string();
        assert!(error.contains("postgresql-17") && error.contains("found: 15"), "{error}");
    }

    #[test]
    fn an_unsupported_server_is_refused_by_name() {
        let error = choose(vec![binaries(12)], Path::new("/d"), None).unwrap_err();
        assert!(matches!(error, EmbeddedError::TooOld { found: 12, .. }), "{error}");
        let error = choose(Vec::new(), Path::new("/d"), None).unwrap_err().to_string();
        assert!(error.contains("apt-get install postgresql"), "{error}");
    }
}
