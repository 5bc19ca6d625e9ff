//! What a tap at this checkpoint means at the moment. Chosen here or on a phone, it outlives a restart.

use crate::durable;
use lumbung_shared::{FieldError, STATUS_MAX_CHARS, check_text};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const FILE: &str = "action.json";

/// The status that taps carry.
#[derive(Debug)]
pub struct Action {
    dir: PathBuf,
    configured: String,
    /// `None`: nobody chose, the configured one holds. Locked while the file is written, so that
    /// what is answered, what is kept and what taps carry is one thing.
    chosen: Mutex<Option<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    status_scan: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
}

impl Action {
    /// The action chosen last in this data directory, else the configured one.
    pub fn in_dir(dir: &Path, configured: &str) -> Result<Self, FieldError> {
        check_text("status", configured, STATUS_MAX_CHARS)?;
        let chosen = match std::fs::read(dir.join(FILE)) {
            Ok(bytes) => {
                let kept = serde_json::from_slice::<Kept>(&bytes).ok();
                let kept = kept.map(|kept| kept.status_scan).filter(|status| check(status).is_ok());
                if kept.is_none() {
                    tracing::warn!(file = FILE, "the chosen action cannot be read; the configured one holds");
                }
                kept
            }
            Err(_) => None,
        };
        Ok(Self { dir: dir.to_owned(), configured: configured.to_owned(), chosen: Mutex::new(chosen) })
    }

    pub fn current(&self) -> String {
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.clone().unwrap_or_else(|| self.configured.clone())
    }

    /// Chooses another action; it is kept before it holds. Writes a file: not for async threads.
    pub fn choose(&self, status: &str) -> Result<(), ActionError> {
        check(status)?;
        let file = |error| ActionError::File { path: self.dir.join(FILE), error };
        let kept = Kept { status_scan: status.to_owned() };
        let text = serde_json::to_vec(&kept).map_err(|error| file(error.into()))?;
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        durable::replace(&self.dir, FILE, &text).map_err(file)?;
        *chosen = Some(kept.status_scan);
        Ok(())
    }
}

fn check(status: &str) -> Result<(), FieldError> {
    check_text("status_scan", status, STATUS_MAX_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_action_outlives_a_restart_and_a_damaged_file_gives_way_to_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let action = Action::in_dir(dir.path(), "makanan_keluar").unwrap();
        assert_eq!(action.current(), "makanan_keluar");
        action.choose("wadah_kembali").unwrap();
        assert_eq!(action.current(), "wadah_kembali");
        assert_eq!(Action::in_dir(dir.path(), "makanan_keluar").unwrap().current(), "wadah_kembali");
        for damage in ["", "{", "{\"status_scan\":\"\"}", "[]"] {
            std::fs::write(dir.path().join(FILE), damage).unwrap();
            assert_eq!(Action::in_dir(dir.path(), "masuk").unwrap().current(), "masuk", "{damage}");
        }
    }

    #[test]
    fn an_action_that_is_no_status_or_cannot_be_kept_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let action = Action::in_dir(dir.path(), "masuk").unwrap();
        assert!(matches!(action.choose(""), Err(ActionError::Field(_))));
        drop(dir);
        assert!(matches!(action.choose("keluar"), Err(ActionError::File { .. })));
        assert_eq!(action.current(), "masuk");
    }
}
