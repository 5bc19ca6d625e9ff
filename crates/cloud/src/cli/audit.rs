//! The audit log, read and verified.

use super::{say, say_json};
use crate::audit::{self, Action, Actor, Entry, Head, Outcome, Wanted};
use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::json;
use sqlx::PgPool;

/// Entries read at once.
const PAGE: i64 = 1_000;

#[derive(Subcommand)]
pub(super) enum Audit {
    /// Reckon the chain of hashes anew; exit code 1 and the first broken entry when it is broken
    #[command(
        after_help = "Keep the line that it prints somewhere else, and ask later whether that is still true:\n  lumbung-cloud audit verify --expect 8f…e1@1042"
    )]
    Verify {
        /// A head that was kept: HASH@NUMBER
        #[arg(long, value_name = "HASH@N")]
        expect: Option<Head>,
    },
    /// List the newest entries, a line of JSON each
    List {
        #[command(flatten)]
        which: Which,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
    },
    /// Print every entry that is asked for, the newest first, a line of JSON each
    #[command(
        after_help = "Example:\n  lumbung-cloud audit export --from 2026-11-01T00:00:00+07:00 --actor person:12 > audit.jsonl"
    )]
    Export {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Args)]
pub(super) struct Which {
    /// RFC 3339 with an offset
    #[arg(long)]
    from: Option<DateTime<Utc>>,
    #[arg(long)]
    to: Option<DateTime<Utc>>,
    /// Such as authn_login_fail
    #[arg(long)]
    action: Option<String>,
    /// person:ID, gateway:CODE, key:ID, command, itself or nobody
    #[arg(long)]
    actor: Option<String>,
    /// KIND:ID, or a kind alone
    #[arg(long)]
    object: Option<String>,
    /// success, refused or failed
    #[arg(long)]
    outcome: Option<String>,
}

impl From<Which> for Wanted {
    fn from(which: Which) -> Self {
        let Which { from, to, action, actor, object, outcome } = which;
        Self { from, to, action, actor, object, outcome }
    }
}

impl Audit {
    pub(super) async fn run(self, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::Verify { expect } => verify(pool, expect.as_ref()).await,
            Self::List { which, limit } => print(pool, which.into(), Some(limit)).await,
            Self::Export { which } => print(pool, which.into(), None).await,
        }
    }
}

async fn verify(pool: &PgPool, expect: Option<&Head>) -> anyhow::Result<()> {
    let found = audit::verify(pool, expect).await?;
    if found.given_up > 0 {
        say(format_args!("entries up to {} were given up by rule", found.given_up))?;
    }
    say(format_args!(
        "{} entries sealed, {} waiting (oldest {} s)",
        found.sealed, found.waiting, found.oldest_seconds
    ))?;
    if let Some(broken) = found.broken {
        bail!("the audit log is broken: {broken}");
    }
    say(format_args!("head {}", found.head))
}

async fn print(pool: &PgPool, wanted: Wanted, limit: Option<i64>) -> anyhow::Result<()> {
    let (mut before, mut printed) = (i64::MAX, 0);
    let mut conn = pool.acquire().await?;
    while limit.is_none_or(|limit| printed < limit) {
        let asked = limit.map_or(PAGE, |limit| limit - printed);
        let page = audit::search(&mut conn, &wanted, before, asked).await?;
        let Some(last) = page.last() else { break };
        before = last.id;
        printed += i64::try_from(page.len()).unwrap_or(i64::MAX);
        page.iter().try_for_each(say_json)?;
    }
    let read = Entry {
        object: Some(audit::Object::new("audit_entry", &"*")),
        outcome: Outcome::Success,
        detail: json!({ "entries": printed, "action": wanted.action, "actor": wanted.actor,
            "object": wanted.object, "from": wanted.from, "to": wanted.to }),
        ..Entry::of(Actor::Command, Action::SensitiveRead)
    };
    Ok(audit::record(&mut conn, &read).await?)
}
