//! Whether the log's end is whole and sealed: soon enough for `doctor`, whoever wants all of it asks `audit verify`.

use super::verify::verify_end;
use crate::finding::Finding;
use sqlx::PgPool;

/// Entries from the end.
const LAST: i64 = 5_000;
/// A sealer goes every second.
const WAITED_SECONDS: i64 = 300;

pub async fn check(pool: &PgPool) -> Finding {
    let found = match verify_end(pool, LAST).await {
        Ok(found) => found,
        Err(error) => return Finding::fail("audit", error.to_string(), "see the database"),
    };
    if let Some(broken) = found.broken {
        let advice = "somebody changed the database by hand: keep a backup of it, and see `lumbung-cloud audit verify`";
        return Finding::fail("audit", broken, advice);
    }
    if found.oldest_seconds > WAITED_SECONDS {
        let waiting =
            format!("{} entries wait to be sealed, the oldest for {} s", found.waiting, found.oldest_seconds);
        return Finding::warn("audit", waiting, "no cloud runs, or its log says why it cannot seal");
    }
    Finding::ok("audit", format!("the chain is whole over its last {} entries", found.sealed))
}
