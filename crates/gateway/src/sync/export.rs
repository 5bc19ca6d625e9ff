//! Writing everything unsent into a file that people carry to the cloud.
//!
//! What must stay true:
//! - Nothing is marked as sent: only the cloud's receipt does that.
//! - The file has its name when all of it is on the medium, and not before.

use super::batch;
use crate::clock::Moment;
use crate::identity::Enrolment;
use crate::outbox::{Limits, OpenError, Stream, Unsent};
use crate::signing::{SigningError, SigningFile};
use lumbung_shared::bundle::{Manifest, Seal, Writer};
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::{Health, MAX_BATCH_RUNS};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Records in one batch: what a cloud takes at once with room to spare.
const BATCH_RECORDS: usize = 5_000;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Nothing is overwritten: it may be a bundle that nobody has carried yet.
    #[error("{0} is there already; choose another name")]
    Exists(PathBuf),
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    #[error(
        "the store changed while it was read, or is damaged; try again, and restart the gateway if that fails"
    )]
    Stuck,
}

/// What was written.
#[derive(Debug)]
pub struct Exported {
    pub manifest: Manifest,
    pub bytes: u64,
    /// Records that could not be read and are not in it.
    pub unreadable: u64,
    /// Records set aside here, which are not in it.
    pub parked: u64,
    /// Whether more is waiting than fits into one bundle.
    pub more: bool,
    /// Whether the cloud knows the key that signed it.
    pub registered: bool,
}

/// Writes the bundle of what is unsent in `dir`; `None` when nothing is. `told` hears how many records are in
/// so far. Blocks.
pub fn export(
    dir: &Path,
    enrolment: &Enrolment,
    out: &Path,
    now: Moment,
    mut told: impl FnMut(u64),
) -> Result<Option<Exported>, ExportError> {
    let unsent = Unsent::at(dir)?;
    let Some(run) = unsent.newest_run() else { return Ok(None) };
    let (signer, registered) = SigningFile::in_dir(dir).read_or_make()?;
    let file = |error| ExportError::File { path: out.to_owned(), error };
    if out.try_exists().map_err(file)? {
        return Err(ExportError::Exists(out.to_owned()));
    }
    let mut salt = [0u8; 32];
    getrandom::fill(&mut salt).map_err(|error| ExportError::Random(error.to_string()))?;
    let part = Part::create(out).map_err(file)?;
    let to = BufWriter::new(part.file.try_clone().map_err(file)?);
    let seal = Seal::of_key(enrolment.key.reveal());
    let created = rfc3339(now.wall_ms);
    let public_key = signer.public_key();
    let mut writer =
        Writer::new(to, &enrolment.gateway_id, created, public_key, &seal, salt).map_err(file)?;

    let limits = Limits { records: BATCH_RECORDS, bytes: batch::MOST_BYTES, runs: MAX_BATCH_RUNS };
    let (mut written, mut unreadable, mut more) = (0, 0, true);
    while more {
        let pending = unsent.next(limits)?;
        more = pending.more;
        let mut through: BTreeMap<Stream, i64> = BTreeMap::new();
        for (stream, seq, why) in &pending.unreadable {
            tracing::error!(seq, why, "a stored record cannot be read and is not in the bundle");
            let reached = through.entry(*stream).or_default();
            *reached = (*reached).max(*seq);
            unreadable += 1;
        }
        let health = Health { version: env!("CARGO_PKG_VERSION").to_owned(), ..Health::default() };
        let batch = batch::write(run, now, pending.runs, health).map_err(file)?;
        let epochs: Vec<_> = batch.sent.iter().map(|sent| sent.epoch).collect();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for &(stream, seq) in batch.sent.iter().flat_map(|sent| &sent.seqs) {
            let reached = through.entry(stream).or_default();
            *reached = (*reached).max(seq);
            *counts.entry(stream.name().to_owned()).or_default() += 1;
        }
        if epochs.is_empty() && through.is_empty() {
            // Nothing more came, though more was promised.
            if more {
                return Err(ExportError::Stuck);
            }
            break;
        }
        if !writer.has_room_for(batch.body.len()) {
            more = true;
            break;
        }
        written += counts.values().sum::<u64>();
        writer.push(batch.body, counts).map_err(file)?;
        unsent.pass(&epochs, &through.into_iter().collect::<Vec<_>>())?;
        told(written);
    }
    if written == 0 {
        return Ok(None);
    }
    let (to, manifest) = writer.finish(&signer).map_err(file)?;
    to.into_inner().map_err(|error| file(error.into_error()))?;
    let bytes = part.keep(out).map_err(file)?;
    let parked = unsent.parked()?;
    let registered = registered.is_some_and(|known| known.gateway_id == enrolment.gateway_id);
    Ok(Some(Exported { manifest, bytes, unreadable, parked, more, registered }))
}

/// A file on its way to its name; gone when it does not get there.
struct Part {
    file: fs::File,
    path: PathBuf,
}

impl Part {
    fn create(out: &Path) -> io::Result<Self> {
        let mut name = OsString::from(out);
        name.push(".part");
        let path = PathBuf::from(name);
        // A leftover, or what somebody else put there, is not written through.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path })
    }

    fn keep(mut self, out: &Path) -> io::Result<u64> {
        self.file.sync_all()?;
        fs::rename(&self.path, out)?;
        self.path = PathBuf::new();
        let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(dir)?.sync_all()?;
        Ok(self.file.metadata()?.len())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // It is no bundle yet; what stays behind of it can be taken for none.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_lies_in_the_way_of_a_bundle_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (out, other) = (dir.path().join("GW-1.lumbung"), dir.path().join("other"));
        fs::write(&other, "mine").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join("GW-1.lumbung.part")).unwrap();
        let mut part = Part::create(&out).unwrap();
        part.file.write_all(b"sealed").unwrap();
        part.keep(&out).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"mine");
        assert_eq!(fs::read(&out).unwrap(), b"sealed");
    }
}
