//! The session with the broker, as this side remembers it.
//!
//! The broker numbers what it sends (1 to 65,535, then anew), and keeps a message's number when it brings the
//! message again. Numbers mean something only within one session, so each has a name here.

use crate::durable;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;

const FILE: &str = "mqtt_session.json";

/// Survives a restart, as the broker's side does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// Who we are to the broker when the configuration does not say.
    pub(super) client_id: String,
    /// Random; another one when the broker has forgotten the session.
    pub(super) name: String,
    /// What the broker was asked for in this session.
    pub(super) filters: Vec<String>,
}

impl Session {
    /// The remembered one, else the first. One that cannot be read costs at most a message kept twice.
    pub(super) fn load(dir: &Path) -> io::Result<Self> {
        match std::fs::read(dir.join(FILE)) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(session) => return Ok(session),
                Err(error) => tracing::warn!(%error, file = FILE, "the session with the broker begins anew"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let client_id = format!("lumbung-gateway-{}", random());
        let session = Self { client_id, name: random(), filters: Vec::new() };
        session.keep(dir)?;
        Ok(session)
    }

    /// The broker has forgotten everything: its numbers begin anew.
    pub(super) fn renew(&mut self) {
        self.name = random();
        self.filters.clear();
    }

    pub(super) fn keep(&self, dir: &Path) -> io::Result<()> {
        durable::replace(dir, FILE, serde_json::to_string(self)?.as_bytes())
    }

    /// What a message is told apart by, from all other messages of all sessions.
    pub(super) fn digest(&self, number: u16, topic: &[u8], payload: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update(number.to_be_bytes());
        hash.update((topic.len() as u64).to_be_bytes());
        hash.update(topic);
        hash.update(payload);
        hash.finalize().into()
    }
}

fn random() -> String {
    format!("{:016x}", fastrand::u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_remembered_until_the_broker_forgets_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut session = Session::load(dir.path()).unwrap();
        assert_eq!(Session::load(dir.path()).unwrap(), session);
        let before = session.clone();
        session.renew();
        session.keep(dir.path()).unwrap();
        let after = Session::load(dir.path()).unwrap();
        assert_eq!(after.client_id, before.client_id);
        assert_ne!(after.digest(7, b"a", b"b"), before.digest(7, b"a", b"b"));
    }

    #[test]
    fn an_unreadable_session_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        Session::load(dir.path()).unwrap();
    }

    #[test]
    fn messages_are_told_apart_by_number_topic_and_payload() {
        let dir = tempfile::tempdir().unwrap();
        let session = Session::load(dir.path()).unwrap();
        let all: [(u16, &[u8], &[u8]); 4] =
            [(1, b"a", b"bc"), (2, b"a", b"bc"), (1, b"ab", b"c"), (1, b"a", b"")];
        let all = all.map(|(number, topic, payload)| session.digest(number, topic, payload));
        for (n, one) in all.iter().enumerate() {
            assert!(all.iter().skip(n + 1).all(|other| other != one));
        }
    }
}
