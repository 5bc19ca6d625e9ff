//! Reading everything unsent without sending it: for a bundle that people carry, also while the gateway runs.
//!
//! What must stay true:
//! - Nothing is written. The connection can only read; how far it has come stands in tables of its own that
//!   hide the store's `cursor` and `run`, so that the very reading that the sync does goes on behind it.
//! - No reading lasts longer than one batch: the writer's checkpoints wait for no bundle.

use super::pending::{Limits, Pending, pending};
use super::read::connect;
use super::store::epoch;
use super::trouble::OpenError;
use super::{DATABASE, Stream, schema};
use lumbung_shared::wire::Epoch;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;

/// The unsent records of a store, batch by batch.
#[derive(Debug)]
pub(crate) struct Unsent {
    conn: Connection,
    newest: Option<Epoch>,
}

impl Unsent {
    /// Of the store in a data directory, whether its gateway runs or not.
    pub(crate) fn at(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(DATABASE);
        let conn = connect(&path)?;
        schema::check_version(&conn, &path)?;
        if !schema::is_newest(&conn)? {
            return Err(OpenError::OlderVersion { path });
        }
        conn.pragma_update(None, "temp_store", "memory")?;
        conn.execute_batch(
            "begin;
             create temp table cursor as select * from main.cursor;
             create temp table run as select * from main.run;
             create unique index temp.run_at on run (run_id);
             create unique index temp.run_of on run (epoch);
             create index temp.run_waiting on run (run_id) where synced = 0;
             commit;",
        )?;
        let newest = conn
            .query_row("select epoch from run order by run_id desc limit 1", [], |row| epoch(row, 0))
            .optional()?;
        Ok(Self { conn, newest })
    }

    /// The store's last run; `None` for a store that was never used.
    pub(crate) fn newest_run(&self) -> Option<Epoch> {
        self.newest
    }

    /// Records that are set aside: they are in no batch.
    pub(crate) fn parked(&self) -> Result<u64, OpenError> {
        Ok(schema::count(&self.conn, "select count(*) from parked", [])?)
    }

    /// What comes next.
    pub(crate) fn next(&self, limits: Limits) -> Result<Pending, OpenError> {
        Ok(pending(&self.conn, limits)?)
    }

    /// Goes on behind these.
    pub(crate) fn pass(&self, runs: &[Epoch], through: &[(Stream, i64)]) -> Result<(), OpenError> {
        let transaction = self.conn.unchecked_transaction()?;
        for epoch in runs {
            transaction
                .prepare_cached("update temp.run set synced = 1 where epoch = ?1")?
                .execute([epoch.to_string()])?;
        }
        for (stream, seq) in through {
            transaction
                .prepare_cached("update temp.cursor set through = max(through, ?2) where stream = ?1")?
                .execute(params![stream.name(), seq])?;
        }
        transaction.commit()?;
        Ok(())
    }
}
