//! The audit's entries of what people do with their own accounts.

use super::throttle;
use crate::audit::{self, Action, Actor, Entry, Object, Origin, Outcome};
use crate::error::Result;
use actix_web::HttpRequest;
use sqlx::PgConnection;

/// Somebody did something with their own account.
pub(super) async fn did(
    conn: &mut PgConnection,
    request: &HttpRequest,
    user_id: i64,
    action: Action,
) -> Result<()> {
    let (object, origin) = (Some(Object::new("user", &user_id)), Some(Origin::of(request)));
    audit::record(conn, &Entry { object, origin, ..Entry::of(Actor::Person(user_id), action) }).await
}

/// Somebody who showed no right to it tried; with whose account, if it is anyone's.
pub(super) async fn tried(
    conn: &mut PgConnection,
    request: &HttpRequest,
    user_id: Option<i64>,
    action: Action,
    reason: &str,
) -> Result<()> {
    let entry = Entry {
        object: user_id.map(|user_id| Object::new("user", &user_id)),
        origin: Some(Origin::of(request)),
        outcome: Outcome::Refused,
        reason: Some(reason),
        ..Entry::of(Actor::Nobody, action)
    };
    audit::record_capped(conn, &entry).await
}

/// A wrong password or code; `failures` is what the throttle counted.
pub(super) async fn wrong(
    conn: &mut PgConnection,
    request: &HttpRequest,
    user_id: Option<i64>,
    failures: i32,
    reason: &str,
) -> Result<()> {
    tried(conn, request, user_id, Action::LoginFail, reason).await?;
    if throttle::locks(failures) {
        tried(conn, request, user_id, Action::LoginLock, reason).await?;
    }
    Ok(())
}
