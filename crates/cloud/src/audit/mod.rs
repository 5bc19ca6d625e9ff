//! Who did what, when and from where: an entry per action, written in the transaction of the action itself.
//!
//! What must stay true:
//! - What was done and its entry are stored together or not at all.
//! - An entry is never changed, and goes only by the way of `retention`: the database itself refuses the rest.
//! - Nobody waits for anybody to write one. The chain of hashes is made afterwards (`seal`), in an order of its
//!   own, so an entry that commits late is sealed late and never skipped.
//! - Nothing that opens an account, and no address of a person, is ever in an entry (`redact`).

mod by;
mod check;
mod flood;
mod origin;
pub mod personal;
mod redact;
pub mod retention;
mod seal;
mod search;
mod verify;
mod words;

pub use by::By;
pub use check::check;
pub use flood::record_capped;
pub use origin::Origin;
pub use seal::{Head, head};
pub use search::{ACTORS, Brief, Listed, Wanted, recent, search, tell_look, tell_search};
pub use verify::{Verified, verify};
pub use words::{ACTIONS, Action, Outcome};

use crate::error::Result;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Who acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor<'a> {
    Person(i64),
    /// By its code.
    Gateway(&'a str),
    /// An access key, by its id.
    Key(i32),
    /// An operator at the command line.
    Command,
    /// The program, of its own accord.
    Itself,
    /// A stranger.
    Nobody,
}

impl Actor<'_> {
    fn columns(self) -> (&'static str, Option<String>) {
        match self {
            Self::Person(id) => ("person", Some(id.to_string())),
            Self::Gateway(code) => ("gateway", Some(code.to_owned())),
            Self::Key(id) => ("key", Some(id.to_string())),
            Self::Command => ("command", None),
            Self::Itself => ("itself", None),
            Self::Nobody => ("nobody", None),
        }
    }
}

/// What was acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub kind: &'static str,
    pub id: String,
}

impl Object {
    pub fn new(kind: &'static str, id: &impl ToString) -> Self {
        Self { kind, id: id.to_string() }
    }
}

/// One entry. [`Entry::of`] gives a successful one to fill in with `..`.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    pub actor: Actor<'a>,
    pub action: Action,
    pub object: Option<Object>,
    pub outcome: Outcome,
    pub reason: Option<&'a str>,
    /// A small object; what must not be kept is taken out of it.
    pub detail: Value,
    pub origin: Option<Origin>,
}

impl Entry<'_> {
    pub fn of(actor: Actor<'_>, action: Action) -> Entry<'_> {
        Entry {
            actor,
            action,
            object: None,
            outcome: Outcome::Success,
            reason: None,
            detail: Value::Object(serde_json::Map::new()),
            origin: None,
        }
    }
}

/// Writes an entry; on a connection with an open transaction it becomes true together with that.
///
/// # Errors
/// The database's.
pub async fn record(conn: &mut PgConnection, entry: &Entry<'_>) -> Result<()> {
    let (actor_kind, actor_id) = entry.actor.columns();
    let origin = entry.origin.clone().unwrap_or_default();
    sqlx::query!(
        "insert into audit_entry (happened_at, request_id, actor_kind, actor_id, address, user_agent, action,
             object_kind, object_id, outcome, reason, detail, version)
         values (clock_timestamp(), $1, $2, left($3, 128), $4, $5, $6, $7, left($8, 128), $9, $10,
             ($11::text)::jsonb, $12)",
        origin.request_id,
        actor_kind,
        actor_id,
        origin.address,
        origin.user_agent,
        entry.action.word(),
        entry.object.as_ref().map(|object| object.kind),
        entry.object.as_ref().map(|object| object.id.as_str()),
        entry.outcome.word(),
        entry.reason.map(redact::text),
        redact::detail(&entry.detail).to_string(),
        env!("CARGO_PKG_VERSION")
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Tells what was only counted, and puts everything that waits into the chain.
///
/// # Errors
/// The database's.
pub async fn one_round(pool: &PgPool) -> Result<i64> {
    flood::one_round(pool).await?;
    seal::one_round(pool).await
}

/// Seals every second until `stop`; every replica may, and one at a time does. Once a day the head goes into the
/// program's log, out of reach of whoever can only write to the database.
pub async fn run(pool: PgPool, stop: CancellationToken) {
    let (mut second, mut day) = (tokio::time::interval(SECOND), tokio::time::interval(DAY));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        let of_day = tokio::select! {
            () = stop.cancelled() => return,
            _ = second.tick() => false,
            _ = day.tick() => true,
        };
        let round = if of_day { tell_head(&pool).await } else { one_round(&pool).await.map(|_| ()) };
        match round {
            Ok(()) => told = false,
            // Entries wait meanwhile, and nothing of them is lost.
            Err(error) if !told => {
                tracing::warn!("the audit log cannot be sealed for the moment: {error}");
                told = true;
            }
            Err(_) => {}
        }
    }
}

async fn tell_head(pool: &PgPool) -> Result<()> {
    let head = head(&mut *pool.acquire().await?).await?;
    tracing::info!(%head, "the audit log's head");
    Ok(())
}
