//! Damage that no check of pages sees.

use super::*;

/// Changes the closed store as a disk might: no constraint is asked.
fn damage(dir: &std::path::Path, sql: &str) {
    let conn = Connection::open(dir.join(DATABASE)).unwrap();
    conn.execute_batch(&format!("pragma foreign_keys = off; {sql}")).unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_of_a_runs_start_is_unknown_and_its_scans_travel() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    outbox.store(scan("A")).await.unwrap();
    close(outbox, ended).await;
    damage(
        dir.path(),
        "update run set boot = cast(x'ff41' as text), version = char(7), site = '',
         started_at = 'long ago', previous = 'nobody', clock_state = 70000",
    );
    let (outbox, ended) = open(&settings(dir.path()));
    let pending = outbox.pending(ALL).await.unwrap();
    let start = pending.runs[0].start.as_ref().unwrap();
    assert_eq!((start.boot.as_str(), start.version.as_str()), ("unknown", "unknown"));
    assert_eq!((start.site.as_deref(), start.started_at.as_str()), (None, rfc3339(0).as_str()));
    assert_eq!((start.previous, pending.runs[0].scans.len()), (None, 1));
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_run_without_an_epoch_is_mended_by_the_next_start() {
    for broken in ["'not an epoch'", "'0000000000000000'", "cast(x'ff' as text)"] {
        let dir = tempfile::tempdir().unwrap();
        let (outbox, ended) = open(&settings(dir.path()));
        outbox.store(scan("A")).await.unwrap();
        close(outbox, ended).await;
        damage(dir.path(), &format!("update run set epoch = {broken}"));
        let (outbox, ended) = open(&settings(dir.path()));
        assert_eq!(outbox.salvaged(), Some(1), "{broken}");
        assert_eq!(pending_seqs(&outbox).await, [1]);
        close(outbox, ended).await;
    }
}

#[tokio::test]
async fn scans_of_a_run_that_is_gone_get_one_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    outbox.store(scan("A")).await.unwrap();
    close(outbox, ended).await;
    damage(dir.path(), "delete from run");
    let (outbox, ended) = open(&settings(dir.path()));
    assert_eq!(outbox.salvaged(), Some(1));
    assert_eq!(pending_seqs(&outbox).await, [1]);
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_run_damaged_while_running_ends_the_store_which_the_next_start_mends() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    outbox.store(scan("A")).await.unwrap();
    damage(dir.path(), "update run set epoch = 'x'");
    assert!(outbox.pending(ALL).await.is_err());
    assert!(matches!(ended.wait().await, Err(Trouble::Corrupt(_))));
    drop(outbox);
    let (outbox, ended) = open(&settings(dir.path()));
    assert_eq!(pending_seqs(&outbox).await, [1]);
    close(outbox, ended).await;
}

#[tokio::test]
async fn more_is_waiting_is_said_even_when_a_row_could_not_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    for tag in ["A", "B", "C"] {
        outbox.store(scan(tag)).await.unwrap();
    }
    close(outbox, ended).await;
    damage(dir.path(), "update scan_event set nfc_tag_id = '' where id = 1");
    let (outbox, ended) = open(&settings(dir.path()));
    let pending = outbox.pending(Limits { records: 2, ..ALL }).await.unwrap();
    assert_eq!((pending.records, pending.unreadable.len(), pending.more), (1, 1, true));
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_foreign_database_is_not_even_given_another_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("create table theirs (id integer)").unwrap();
    drop(conn);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(
        Outbox::open(&settings(dir.path()), Clock::default().now()),
        Err(OpenError::NotOurs { .. })
    ));
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn a_bad_sector_is_told_from_a_disk_that_fails() {
    let of = |code| {
        let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        Trouble::of(&error)
    };
    assert!(matches!(of(rusqlite::ffi::SQLITE_IOERR_READ), Trouble::Unreadable(_)));
    assert!(matches!(of(rusqlite::ffi::SQLITE_IOERR_SHORT_READ), Trouble::Unreadable(_)));
    assert!(matches!(of(rusqlite::ffi::SQLITE_IOERR_FSYNC), Trouble::Disk(_)));
}
