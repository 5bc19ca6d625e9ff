//! Backlogs that would take days to tap: written into a stopped gateway's store the way it writes them
//! itself, by repeating its own rows with other values.

use anyhow::{Context, Result};
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::Epoch;
use rusqlite::types::Value;
use rusqlite::{Connection, Transaction, params_from_iter};
use std::path::Path;

/// A table's columns and the values of its newest row.
struct Template {
    table: &'static str,
    key: &'static str,
    columns: Vec<String>,
    row: Vec<Value>,
}

impl Template {
    fn of(store: &Connection, table: &'static str, key: &'static str) -> Result<Self> {
        let mut statement = store.prepare(&format!("select * from {table} order by {key} desc limit 1"))?;
        let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let count = columns.len();
        let row = statement
            .query_row([], |row| (0..count).map(|i| row.get(i)).collect())
            .with_context(|| format!("{table} needs a row to go by"))?;
        Ok(Self { table, key, columns, row })
    }

    fn get(&self, column: &str) -> Result<&Value> {
        let at = self.columns.iter().position(|name| name == column);
        at.and_then(|at| self.row.get(at)).with_context(|| format!("{} has no column {column}", self.table))
    }

    fn number(&self, column: &str) -> Result<i64> {
        match self.get(column)? {
            Value::Integer(number) => Ok(*number),
            other => anyhow::bail!("{column} is {other:?}"),
        }
    }

    fn set(&mut self, column: &str, value: impl Into<Value>) -> Result<&mut Self> {
        self.get(column)?;
        for (name, slot) in self.columns.iter().zip(&mut self.row) {
            if name == column {
                *slot = value.into();
                break;
            }
        }
        Ok(self)
    }

    /// Adds the row as it now is, with the next number.
    fn add(&mut self, transaction: &Transaction<'_>) -> Result<i64> {
        let next = self.number(self.key)? + 1;
        self.set(self.key, next)?;
        let marks = vec!["?"; self.columns.len()].join(",");
        let sql = format!("insert into {} ({}) values ({marks})", self.table, self.columns.join(","));
        transaction.prepare_cached(&sql)?.execute(params_from_iter(self.row.iter()))?;
        Ok(next)
    }
}

/// `count` restarts with one unsent scan `NYALA-<n>` each.
pub fn restart_often(store: &Path, count: usize) -> Result<()> {
    let mut store = Connection::open(store)?;
    let transaction = store.transaction()?;
    let mut run = Template::of(&transaction, "run", "run_id")?;
    let mut scan = Template::of(&transaction, "scan_event", "id")?;
    for n in 1..=count {
        let previous = run.get("epoch")?.clone();
        let epoch = Epoch(fastrand::u64(1..)).to_string();
        run.set("previous", previous)?.set("epoch", epoch)?.set("synced", 0)?;
        let run_id = run.add(&transaction)?;
        scan.set("run_id", run_id)?
            .set("nfc_tag_id", format!("NYALA-{n}"))?
            .set("synced_to_main_server", 0)?;
        scan.add(&transaction)?;
    }
    transaction.commit()?;
    Ok(())
}

/// `count` unsent scans as a kitchen makes them: 2,000 tags, three actions, a tap every 8 s on average.
pub fn days_of_scans(store: &Path, count: usize, seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let tags: Vec<String> = (0..2_000).map(|_| format!("04{:012X}", rng.u64(..1 << 48))).collect();
    let actions = ["makanan_keluar", "makanan_masuk", "makanan_dibagikan"];
    let mut store = Connection::open(store)?;
    let transaction = store.transaction()?;
    let mut scan = Template::of(&transaction, "scan_event", "id")?;
    let (mono, wall) = (scan.number("mono_ms")?, scan.number("wall_ms")?);
    let mut gaps: Vec<i64> = (0..count).map(|_| (-8_000.0 * (1.0 - rng.f64()).ln()) as i64).collect();
    // The newest lies at the template's own time; the others before it.
    let mut ago: i64 = gaps.iter().sum();
    for gap in gaps.drain(..) {
        ago -= gap;
        scan.set("nfc_tag_id", tags[rng.usize(..tags.len())].clone())?
            .set("status_scan", actions[rng.usize(..actions.len())].to_owned())?
            .set("mono_ms", mono - ago)?
            .set("wall_ms", wall - ago)?
            .set("timestamp", rfc3339(wall - ago))?
            .set("synced_to_main_server", 0)?;
        scan.add(&transaction)?;
    }
    transaction.commit()?;
    store.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
    Ok(())
}
