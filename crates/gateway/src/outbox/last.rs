//! The moment of the last stored record, read before the store is opened: no clock may go back before it.

use super::{DATABASE, OpenError, Stream, read};
use crate::clock::{Moment, Stored};
use lumbung_shared::time::{ClockState, parse_rfc3339};
use rusqlite::{Connection, OptionalExtension, Row};
use std::path::Path;

/// The moment of the youngest record or run in a data directory's store. A store that cannot be read now is
/// for the opening to mend; there is no moment in it then.
pub fn last_moment(dir: &Path) -> Option<Stored> {
    let path = dir.join(DATABASE);
    if !path.exists() {
        return None;
    }
    match moment_in(&path) {
        Ok(last) => last,
        Err(error) => {
            tracing::warn!(%error, "the store cannot tell when its last record was made");
            None
        }
    }
}

fn moment_in(path: &Path) -> Result<Option<Stored>, OpenError> {
    let conn = read::connect(path)?;
    let mut last = youngest_run(&conn)?;
    for stream in Stream::ALL {
        let record = youngest_record(&conn, stream)?;
        let age = |stored: &Stored| (stored.run, stored.moment.mono_ms);
        if record.as_ref().map(age) > last.as_ref().map(age) {
            last = record;
        }
    }
    Ok(last)
}

fn youngest_run(conn: &Connection) -> rusqlite::Result<Option<Stored>> {
    let sql = "select run_id, boot, mono_ms, clock_state, started_at from run order by run_id desc limit 1";
    conn.query_row(sql, [], |row| {
        let started_at: String = row.get(4)?;
        parse_rfc3339(&started_at).map(|wall_ms| stored(row, wall_ms)).transpose()
    })
    .optional()
    .map(Option::flatten)
}

fn youngest_record(conn: &Connection, stream: Stream) -> rusqlite::Result<Option<Stored>> {
    let sql = format!(
        "select r.run_id, r.boot, e.mono_ms, e.clock_state, e.wall_ms
         from {} e join run r using (run_id) order by e.id desc limit 1",
        stream.table()
    );
    conn.query_row(&sql, [], |row| stored(row, row.get(4)?)).optional()
}

fn stored(row: &Row<'_>, wall_ms: i64) -> rusqlite::Result<Stored> {
    let (mono_ms, state) = (row.get(2)?, ClockState::from_code(row.get(3)?));
    Ok(Stored { run: row.get(0)?, boot: row.get(1)?, moment: Moment { mono_ms, wall_ms, state } })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{close, scan, settings};
    use super::*;
    use crate::outbox::{NewScan, Outbox};

    #[tokio::test]
    async fn the_youngest_of_all_records_and_runs_is_the_last() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_moment(dir.path()), None);
        let at = |mono_ms, wall_ms| Moment { mono_ms, wall_ms, state: ClockState::Held };
        for (begun, scanned) in
            [(at(50_000, 9_000_000), Some(at(60_000, 8_000_000))), (at(10, 7_000_000), None)]
        {
            let (outbox, ended) = Outbox::open(&settings(dir.path()), begun).unwrap();
            if let Some(moment) = scanned {
                outbox.store(NewScan { moment, ..scan("A") }).await.unwrap();
            }
            close(outbox, ended).await;
            let last = last_moment(dir.path()).unwrap();
            assert_eq!(last.moment, scanned.unwrap_or(begun), "the youngest, not the largest");
        }
        std::fs::write(dir.path().join(DATABASE), "not a database").unwrap();
        assert_eq!(last_moment(dir.path()), None);
    }
}
