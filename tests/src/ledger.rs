//! What was asked and what was answered, kept outside the programs; and what must follow from it.
//!
//! Every operation ends `ok` (the light was green), `failed` (refused, so it must not be anywhere
//! unless it says so) or stays unknown (the line broke: it may or may not be there, but once).

use anyhow::{Context, Result};
use sqlx::{PgPool, Row};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Failed,
    Unknown,
}

#[derive(Debug, Clone)]
struct Operation {
    outcome: Outcome,
    content: Content,
}

/// What must arrive as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub gateway: String,
    pub status: String,
    pub note: Option<String>,
}

/// The ledger: in memory for the checker, in a file for people.
#[derive(Debug)]
pub struct Ledger {
    operations: BTreeMap<String, Operation>,
    file: File,
}

/// What the checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Operations that ended ok.
    pub acked: usize,
    /// Acknowledged and not in the cloud, or there with other content.
    pub lost: Vec<String>,
    /// In the cloud more than once.
    pub duplicated: Vec<String>,
    /// In the cloud and never asked for, or asked for and refused.
    pub phantom: Vec<String>,
}

impl Findings {
    pub fn clean(&self) -> bool {
        self.lost.is_empty() && self.duplicated.is_empty() && self.phantom.is_empty()
    }

    /// The few first offenders of each kind.
    pub fn examples(&self) -> String {
        let few = |all: &[String]| all.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        format!(
            "lost [{}] duplicated [{}] phantom [{}]",
            few(&self.lost),
            few(&self.duplicated),
            few(&self.phantom)
        )
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acked={} lost={} duplicated={} phantom={}",
            self.acked,
            self.lost.len(),
            self.duplicated.len(),
            self.phantom.len()
        )
    }
}

impl Ledger {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { operations: BTreeMap::new(), file })
    }

    /// Before the request goes out. `tag` names the operation and is never used twice.
    pub fn invoke(&mut self, tag: &str, content: Content) -> Result<()> {
        writeln!(self.file, "invoke {tag} {} {} {:?}", content.gateway, content.status, content.note)?;
        let operation = Operation { outcome: Outcome::Unknown, content };
        self.operations.insert(tag.to_owned(), operation);
        Ok(())
    }

    /// After its answer came, or did not.
    pub fn complete(&mut self, tag: &str, outcome: Outcome) -> Result<()> {
        writeln!(self.file, "{outcome:?} {tag}")?;
        if let Some(operation) = self.operations.get_mut(tag) {
            operation.outcome = outcome;
        }
        Ok(())
    }

    pub fn acked(&self) -> usize {
        let ok = |operation: &&Operation| operation.outcome == Outcome::Ok;
        self.operations.values().filter(ok).count()
    }

    /// Compares with what the cloud holds.
    pub fn check(&self, held: &[Held]) -> Findings {
        let mut by_tag: BTreeMap<&str, Vec<&Content>> = BTreeMap::new();
        for row in held {
            by_tag.entry(&row.tag).or_default().push(&row.content);
        }
        let mut findings = Findings { acked: self.acked(), ..Findings::default() };
        for (tag, operation) in &self.operations {
            let rows = by_tag.remove(tag.as_str()).unwrap_or_default();
            let right = rows.iter().filter(|row| ***row == operation.content).count();
            match operation.outcome {
                Outcome::Ok if right == 0 => findings.lost.push(tag.clone()),
                Outcome::Failed if !rows.is_empty() => findings.phantom.push(tag.clone()),
                _ => {}
            }
            if rows.len() > 1 {
                findings.duplicated.push(tag.clone());
            }
            if rows.len() > right {
                findings.phantom.push(format!("{tag} with other content"));
            }
        }
        findings.phantom.extend(by_tag.into_keys().map(str::to_owned));
        findings
    }
}

/// A record of the cloud's: a scan by its tag, a reading by its name here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub tag: String,
    pub content: Content,
}

/// The name of a reading in the ledger: each value of a series is told once.
pub fn reading(series: &str, value: u64) -> String {
    format!("{series}#{value}")
}

/// Reads back the scans that the cloud holds.
pub async fn held(database: &PgPool) -> Result<Vec<Held>> {
    rows(
        database,
        "select e.nfc_tag_id, g.code, e.status_scan, e.note from scan_event e join gateway g using (gateway_id)",
    )
    .await
}

/// Reads back the readings that the cloud holds, with and without a time.
pub async fn held_readings(database: &PgPool) -> Result<Vec<Held>> {
    rows(
        database,
        "select s.name || '#' || r.value::bigint, g.code, s.unit, null \
         from (select series_id, value from reading union all select series_id, value from waiting_reading) r \
         join series s using (series_id) join gateway g using (gateway_id)",
    )
    .await
}

async fn rows(database: &PgPool, sql: &'static str) -> Result<Vec<Held>> {
    let rows = sqlx::query(sql).fetch_all(database).await?;
    rows.iter()
        .map(|row| {
            Ok(Held {
                tag: row.try_get(0)?,
                content: Content { gateway: row.try_get(1)?, status: row.try_get(2)?, note: row.try_get(3)? },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(status: &str) -> Content {
        Content { gateway: "GW".to_owned(), status: status.to_owned(), note: None }
    }

    fn row(tag: &str, status: &str) -> Held {
        Held { tag: tag.to_owned(), content: content(status) }
    }

    fn ledger(outcomes: &[(&str, Outcome)]) -> Ledger {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&dir.path().join("ledger")).unwrap();
        for (tag, outcome) in outcomes {
            ledger.invoke(tag, content("x")).unwrap();
            ledger.complete(tag, *outcome).unwrap();
        }
        ledger
    }

    #[test]
    fn what_is_acknowledged_must_be_there_and_what_is_unknown_may_be() {
        let ledger = ledger(&[("A", Outcome::Ok), ("B", Outcome::Unknown), ("C", Outcome::Unknown)]);
        assert!(ledger.check(&[row("A", "x"), row("B", "x")]).clean());
        assert_eq!(ledger.check(&[row("B", "x")]).lost, ["A"]);
    }

    #[test]
    fn twice_changed_refused_and_invented_are_seen() {
        let ledger = ledger(&[("A", Outcome::Ok), ("F", Outcome::Failed)]);
        assert_eq!(ledger.check(&[row("A", "x"), row("A", "x")]).duplicated, ["A"]);
        assert_eq!(ledger.check(&[row("A", "y")]).lost, ["A"]);
        assert_eq!(ledger.check(&[row("A", "x"), row("F", "x")]).phantom, ["F"]);
        assert_eq!(ledger.check(&[row("A", "x"), row("Z", "x")]).phantom, ["Z"]);
    }
}
