//! Somebody who changes something, at the command line or by a request.

use super::{Action, Actor, Entry, Object, Origin, record};
use crate::error::Result;
use actix_web::HttpRequest;
use serde_json::Value;
use sqlx::PgConnection;

/// Handed to whatever makes a change, which tells what it did in its own transaction.
#[derive(Debug, Clone)]
pub struct By {
    actor: Actor<'static>,
    origin: Option<Origin>,
}

impl By {
    /// An operator at the command line.
    pub fn command() -> Self {
        Self { actor: Actor::Command, origin: None }
    }

    pub fn request(actor: Actor<'static>, request: &HttpRequest) -> Self {
        Self { actor, origin: Some(Origin::of(request)) }
    }

    /// An entry of theirs, to be filled in with `..`.
    pub fn entry(&self, action: Action) -> Entry<'_> {
        Entry { origin: self.origin.clone(), ..Entry::of(self.actor, action) }
    }

    /// The person, where it is one.
    pub fn person(&self) -> Option<i64> {
        match self.actor {
            Actor::Person(user_id) => Some(user_id),
            _ => None,
        }
    }

    /// Writes what was done to what.
    ///
    /// # Errors
    /// The database's.
    pub async fn did(
        &self,
        conn: &mut PgConnection,
        action: Action,
        object: Object,
        reason: Option<&str>,
        detail: Value,
    ) -> Result<()> {
        record(conn, &Entry { object: Some(object), reason, detail, ..self.entry(action) }).await
    }
}
