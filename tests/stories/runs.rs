//! A gateway that was restarted very many times offline.

use anyhow::{Context, Result};
use lumbung_shared::wire::Epoch;
use lumbung_tests::proxy::Line;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually_within, when};
use rusqlite::{Connection, params_from_iter, types::Value};
use std::time::Duration;

/// The columns of a table and the values of one of its rows.
fn template(store: &Connection, table: &str, order: &str) -> Result<(Vec<String>, Vec<Value>)> {
    let sql = format!("select * from {table} order by {order} desc limit 1");
    let mut statement = store.prepare(&sql)?;
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let count = columns.len();
    let row = statement.query_row([], |row| (0..count).map(|i| row.get::<_, Value>(i)).collect())?;
    Ok((columns, row))
}

fn put(columns: &[String], row: &mut [Value], column: &str, value: Value) -> Result<()> {
    let at = columns.iter().position(|name| name == column).with_context(|| format!("no column {column}"))?;
    row[at] = value;
    Ok(())
}

fn insert(table: &str, columns: &[String]) -> String {
    let marks = vec!["?"; columns.len()].join(",");
    format!("insert into {table} ({}) values ({marks})", columns.join(","))
}

/// Writes `count` restarts with one scan each into a stopped gateway's store, as it would have itself.
fn restart_often(path: &std::path::Path, count: i64) -> Result<()> {
    let mut store = Connection::open(path)?;
    let transaction = store.transaction()?;
    let (run_columns, mut run) = template(&transaction, "run", "run_id")?;
    let (scan_columns, mut scan) = template(&transaction, "scan_event", "id")?;
    let last = |table: &str, key: &str| -> Result<i64> {
        Ok(transaction.query_row(&format!("select max({key}) from {table}"), [], |row| row.get(0))?)
    };
    let (last_run, last_scan) = (last("run", "run_id")?, last("scan_event", "id")?);
    let epoch_at = run_columns.iter().position(|name| name == "epoch").context("no epoch")?;
    let mut previous = run[epoch_at].clone();
    {
        let mut add_run = transaction.prepare(&insert("run", &run_columns))?;
        let mut add_scan = transaction.prepare(&insert("scan_event", &scan_columns))?;
        for n in 1..=count {
            let epoch = Value::Text(Epoch(fastrand::u64(1..)).to_string());
            put(&run_columns, &mut run, "run_id", Value::Integer(last_run + n))?;
            put(&run_columns, &mut run, "previous", previous)?;
            put(&run_columns, &mut run, "epoch", epoch.clone())?;
            put(&run_columns, &mut run, "synced", Value::Integer(0))?;
            add_run.execute(params_from_iter(run.iter()))?;
            put(&scan_columns, &mut scan, "id", Value::Integer(last_scan + n))?;
            put(&scan_columns, &mut scan, "run_id", Value::Integer(last_run + n))?;
            put(&scan_columns, &mut scan, "nfc_tag_id", Value::Text(format!("NYALA-{n}")))?;
            put(&scan_columns, &mut scan, "synced_to_main_server", Value::Integer(0))?;
            add_scan.execute(params_from_iter(scan.iter()))?;
            previous = epoch;
        }
    }
    transaction.commit()?;
    Ok(())
}

#[test]
fn ten_thousand_restarts_offline_drain_in_few_requests() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        gateway.scan("PERTAMA", "makanan_keluar").await?;
        gateway.stop().await?;
        restart_often(&gateway.database(), 10_000)?;
        let before = proxy.syncs();
        proxy.line(Line::Up);
        gateway.start().await?;
        eventually_within(Duration::from_secs(120), "ten thousand runs have drained", || async {
            Ok(when(gateway.unsent()? == 0))
        })
        .await?;
        let requests = proxy.syncs() - before;
        assert!(requests <= 20, "{requests} requests for 10,000 runs");
        let database = cloud.database().await?;
        let (scans, runs, forks): (i64, i64, i64) = sqlx::query_as(
            "select (select count(*) from scan_event), (select count(*) from gateway_run), \
             (select count(*) from gateway_incident)",
        )
        .fetch_one(&database)
        .await?;
        assert_eq!(scans, 10_001);
        assert!(runs >= 10_001, "{runs}");
        assert_eq!(forks, 0, "an honest chain of runs is no fork");
        Ok(())
    })
}

#[test]
fn real_restarts_offline_keep_every_scan_and_make_one_chain() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let mut tags = Vec::new();
        for n in 0..12 {
            let tag = format!("ULANG-{n}");
            gateway.scan(&tag, "makanan_keluar").await?;
            tags.push(tag);
            if n % 2 == 0 {
                gateway.kill();
            } else {
                gateway.stop().await?;
            }
            gateway.start().await?;
        }
        let before = proxy.syncs();
        proxy.line(Line::Up);
        gateway.drained().await?;
        assert!(proxy.syncs() - before <= 4, "{} requests", proxy.syncs() - before);
        let database = cloud.database().await?;
        lumbung_tests::stand::cloud_holds(&database, &tags).await?;
        let forks: i64 =
            sqlx::query_scalar("select count(*) from gateway_incident").fetch_one(&database).await?;
        assert_eq!(forks, 0);
        Ok(())
    })
}
