//! A gateway that was restarted very many times offline.

use anyhow::Result;
use lumbung_tests::backlog::restart_often;
use lumbung_tests::proxy::Line;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually_within, when};
use std::time::Duration;

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
