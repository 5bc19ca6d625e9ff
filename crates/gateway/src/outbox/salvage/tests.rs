use super::*;
use crate::clock::Clock;
use crate::outbox::tests::{close, open, scan, settings};
use crate::outbox::{Ended, Outbox, SeqRange, Settlement, Stream};
use lumbung_shared::wire::Epoch;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

const ROWS: i64 = 3_000;

/// A store with two runs and many scans, every third of them sent.
async fn filled(dir: &Path) -> BTreeMap<i64, (String, bool)> {
    let settings = settings(dir);
    for _ in 0..2 {
        let (outbox, ended) = open(&settings);
        let tasks: Vec<_> = (0..ROWS / 2)
            .map(|i| {
                let outbox = outbox.clone();
                tokio::spawn(async move { outbox.store(scan(&format!("TAG-{i:05}"))).await.unwrap().seq })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        close(outbox, ended).await;
    }
    let (outbox, ended) = open(&settings);
    let ranges = (1..=ROWS).step_by(3).map(|seq| SeqRange { stream: Stream::Scan, first: seq, through: seq });
    let settlement = Settlement { ranges: ranges.collect(), ..Settlement::default() };
    outbox.settle(settlement).await.unwrap();
    close(outbox, ended).await;
    contents(dir)
}

fn contents(dir: &Path) -> BTreeMap<i64, (String, bool)> {
    let conn = crate::outbox::read::connect(&dir.join(DATABASE)).unwrap();
    let mut statement = conn
        .prepare(
            "select s.id, r.epoch || ' ' || s.nfc_tag_id || ' ' || s.timestamp, s.synced_to_main_server
             from scan_event s join run r using (run_id)",
        )
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))));
    rows.unwrap().map(Result::unwrap).collect()
}

fn runs(dir: &Path) -> Vec<(String, Option<String>)> {
    let conn = crate::outbox::read::connect(&dir.join(DATABASE)).unwrap();
    let mut statement = conn.prepare("select epoch, previous from run order by run_id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

async fn reopened(dir: &Path) -> (u64, Epoch) {
    let (outbox, ended): (Outbox, Ended) = open(&settings(dir));
    let salvaged = outbox.salvaged().expect("the damage was not noticed");
    let previous = outbox.run().previous.unwrap();
    // It is a working store again.
    assert!(outbox.store(scan("AFTER")).await.unwrap().seq > ROWS);
    close(outbox, ended).await;
    (salvaged, previous)
}

#[tokio::test]
async fn a_destroyed_header_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let before = filled(dir.path()).await;
    let runs_before = runs(dir.path());
    overwrite(&dir.path().join(DATABASE), 0, &[0xAA; 4096]);
    let (salvaged, previous) = reopened(dir.path()).await;
    assert_eq!(salvaged, ROWS as u64);
    let mut after = contents(dir.path());
    assert!(after.pop_last().unwrap().1.0.contains("AFTER"));
    assert_eq!(after, before, "rows keep number, run and flag");
    assert_eq!(runs(dir.path())[..3], runs_before[..], "runs keep epoch and predecessor");
    assert_eq!(Some(previous.to_string()), runs_before.last().map(|run| run.0.clone()));
    let aside = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(PREFIX))
        .unwrap();
    assert!(fs::read(aside.join(DATABASE)).unwrap().starts_with(&[0xAA; 4096]));
    assert!(!aside.join(UNFINISHED).exists() && !aside.join("work").exists());
}

#[tokio::test]
async fn a_destroyed_page_costs_only_what_was_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let before = filled(dir.path()).await;
    let path = dir.path().join(DATABASE);
    let pages = fs::metadata(&path).unwrap().len() / 4096;
    // Somewhere in the middle: a leaf of the scans.
    overwrite(&path, pages / 2 * 4096, &[0x5A; 4096]);
    let (salvaged, _) = reopened(dir.path()).await;
    assert!(salvaged >= ROWS as u64 - 100 && salvaged < ROWS as u64, "{salvaged}");
    let mut after = contents(dir.path());
    after.pop_last();
    assert!(after.iter().all(|(seq, row)| before.get(seq) == Some(row)));
}

#[tokio::test]
async fn the_root_of_the_scans_destroyed_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let path = dir.path().join(DATABASE);
    let root: u64 = {
        let conn = crate::outbox::read::connect(&path).unwrap();
        conn.query_row("select rootpage from sqlite_schema where name = 'scan_event'", [], |row| {
            row.get::<_, i64>(0)
        })
        .unwrap() as u64
    };
    overwrite(&path, (root - 1) * 4096, &[0x5A; 4096]);
    let (outbox, ended) = open(&settings(dir.path()));
    assert!(outbox.salvaged().is_some());
    // Whatever could be read: the numbers go on behind the last one given.
    assert_eq!(outbox.store(scan("AFTER")).await.unwrap().seq, ROWS + 1);
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_lost_page_of_runs_leaves_every_scan_its_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let before = filled(dir.path()).await;
    let path = dir.path().join(DATABASE);
    let root: u64 = {
        let conn = crate::outbox::read::connect(&path).unwrap();
        conn.query_row("select rootpage from sqlite_schema where name = 'run'", [], |row| {
            row.get::<_, i64>(0)
        })
        .unwrap() as u64
    };
    overwrite(&path, (root - 1) * 4096, &[0x5A; 4096]);
    let (salvaged, _) = reopened(dir.path()).await;
    assert_eq!(salvaged, ROWS as u64);
    let mut after = contents(dir.path());
    after.pop_last();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_truncated_file_gives_what_is_left_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let before = filled(dir.path()).await;
    let path = dir.path().join(DATABASE);
    let length = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(length * 2 / 3).unwrap();
    let (salvaged, _) = reopened(dir.path()).await;
    assert!(salvaged > ROWS as u64 / 2 && salvaged < ROWS as u64, "{salvaged}");
    let mut after = contents(dir.path());
    after.pop_last();
    assert!(after.iter().all(|(seq, row)| before.get(seq) == Some(row)));
}

#[tokio::test]
async fn an_emptied_database_is_read_from_its_wal() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    for i in 0..10 {
        outbox.store(scan(&format!("T{i}"))).await.unwrap();
    }
    // As a power cut leaves it: everything still in the WAL.
    let copy = tempfile::tempdir().unwrap();
    for name in [DATABASE, "local_gateway.db-wal"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    close(outbox, ended).await;
    fs::File::create(copy.path().join(DATABASE)).unwrap();
    let (outbox, ended) = open(&settings(copy.path()));
    assert_eq!(outbox.salvaged(), Some(10));
    close(outbox, ended).await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_read_from_its_wal_and_a_damaged_note_is_done_without() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    outbox.store(scan("A")).await.unwrap();
    {
        let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
        conn.execute_batch(
            "insert into quarantine values ('scan', 9, cast(x'ff' as text), ''), ('scan', 1, 'ok', '')",
        )
        .unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    let wal = "local_gateway.db-wal";
    fs::copy(dir.path().join(wal), copy.path().join(wal)).unwrap();
    close(outbox, ended).await;
    let (outbox, ended) = open(&settings(copy.path()));
    assert_eq!((outbox.salvaged(), outbox.gauges().quarantined()), (Some(1), 1));
    close(outbox, ended).await;
}

#[tokio::test]
async fn looking_at_a_damaged_database_leaves_its_files_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    for i in 0..50 {
        outbox.store(scan(&format!("T{i}"))).await.unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    let names = [DATABASE, "local_gateway.db-wal"];
    for name in names {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    close(outbox, ended).await;
    let conn = Connection::open(copy.path().join(DATABASE)).unwrap();
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    conn.execute_batch("pragma foreign_keys = off; update run set epoch = 'x'").unwrap();
    drop(conn);
    let before = names.map(|name| fs::read(copy.path().join(name)).unwrap());
    let (outbox, ended) = open(&settings(copy.path()));
    assert!(outbox.salvaged().is_some());
    close(outbox, ended).await;
    let aside = fs::read_dir(copy.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside = aside.into_iter().find(|path| path.is_dir()).unwrap();
    let after = names.map(|name| fs::read(aside.join(name)).unwrap());
    assert!(before == after, "the damaged files were written");
}

#[test]
fn a_page_the_disk_does_not_give_back_is_copied_as_zeros() {
    let file = [[1u8; 4096], [2; 4096], [3; 4096]].concat();
    let read = |page: &mut [u8], at: u64| {
        if at == 4096 {
            return Err(io::Error::other("bad sector"));
        }
        page.copy_from_slice(&file[at as usize..at as usize + page.len()]);
        Ok(())
    };
    let mut copied = Vec::new();
    assert_eq!(copy::copy_readable(read, file.len() as u64 - 96, &mut copied).unwrap(), 1);
    let mut expected = [[1u8; 4096], [0; 4096], [3; 4096]].concat();
    expected.truncate(file.len() - 96);
    assert!(copied == expected);
}

#[tokio::test]
async fn a_salvage_that_was_interrupted_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let before = filled(dir.path()).await;
    let now = Clock::default().now();
    let aside = new_directory(dir.path(), now).unwrap();
    fs::write(aside.join(UNFINISHED), b"").unwrap();
    // Died after the move, before anything new stood in place.
    fs::rename(dir.path().join(DATABASE), aside.join(DATABASE)).unwrap();
    fs::write(dir.path().join(FRESH), b"half a file").unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    assert_eq!(outbox.salvaged(), Some(ROWS as u64));
    assert!(!aside.join(UNFINISHED).exists());
    close(outbox, ended).await;
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn salvage_knows_the_tables_of_this_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blank.db");
    blank(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap()[100], 13, "the schema fits into the page that is grafted");
    let conn = Connection::open(&path).unwrap();
    for (table, columns) in rows::TABLES {
        let found: Vec<String> = conn
            .prepare(&format!("select name from pragma_table_info('{table}')"))
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(&found, columns, "{table}");
    }
}
