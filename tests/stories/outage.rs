//! The cloud or its PostgreSQL goes away in the middle of a batch.

use anyhow::{Context, Result};
use lumbung_tests::programs::faults::{kill_postmaster, postmaster};
use lumbung_tests::proxy::{Fate, Gate, Line};
use lumbung_tests::stand::{cloud_holds, embedded_database};
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};

#[test]
fn a_cloud_killed_in_the_middle_of_a_batch_gets_it_again() -> Result<()> {
    story(async |stand| {
        let (mut cloud, proxy, gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let mut tags = gateway.scan_many("TENGAH", 30).await?;
        // Once before it had read the batch, once after it had stored it.
        for half in [true, false] {
            let gate = Gate::default();
            proxy.next([match half {
                true => Fate::HalfThenWait(gate.clone()),
                false => Fate::AnswerWaits(gate.clone()),
            }]);
            proxy.line(Line::Up);
            gate.reached().await;
            cloud.kill();
            proxy.line(Line::Refused);
            gate.open();
            tags.extend(gateway.scan_many(if half { "LAGI" } else { "TERUS" }, 5).await?);
            cloud.start().await?;
        }
        proxy.line(Line::Up);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await
    })
}

#[test]
fn a_cloud_that_is_asked_to_stop_finishes_the_batch_it_holds() -> Result<()> {
    story(async |stand| {
        let (mut cloud, proxy, gateway) = stand.trio().await?;
        let tags = gateway.scan_many("RAPI", 20).await?;
        cloud.stop().await?;
        gateway.scan("RAPI-MALAM", "makanan_keluar").await?;
        cloud.start().await?;
        gateway.drained().await?;
        let mut all = tags;
        all.push("RAPI-MALAM".to_owned());
        cloud_holds(&cloud.database().await?, &all).await?;
        assert!(proxy.syncs() > 0);
        Ok(())
    })
}

#[test]
fn a_postgresql_killed_in_the_middle_of_a_batch_is_started_again_and_nothing_is_lost() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud_embedded().await?;
        let proxy = lumbung_tests::proxy::Proxy::start(&cloud.address())?;
        let gateway = stand.gateway("GW-1", &cloud, &proxy.base()).await?;
        let mut tags = gateway.scan_many("SEBELUM", 10).await?;
        gateway.drained().await?;
        let gate = Gate::default();
        proxy.next([Fate::HalfThenWait(gate.clone())]);
        tags.extend(gateway.scan_many("SAAT", 10).await?);
        gate.reached().await;
        let old = kill_postmaster(&cloud).context("PostgreSQL is not running")?;
        gate.open();
        tags.extend(gateway.scan_many("SESUDAH", 10).await?);
        gateway.drained().await?;
        assert_ne!(postmaster(&cloud), Some(old), "PostgreSQL was not started again");
        let database = embedded_database(&cloud).await?;
        cloud_holds(&database, &tags).await
    })
}

#[test]
fn people_are_told_503_while_postgresql_is_away_and_the_gateway_keeps_taking_scans() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud_embedded().await?;
        let gateway = stand.gateway("GW-1", &cloud, &cloud.base()).await?;
        kill_postmaster(&cloud).context("PostgreSQL is not running")?;
        let mut seen = Vec::new();
        let mut tags = Vec::new();
        eventually("the cloud is ready again", || async {
            let reply = cloud.get("/readyz").await?;
            Ok(when(reply.status == 200))
        })
        .await?;
        for n in 0..5 {
            // Two more kills among the five requests: five in a minute would rightly end the cloud.
            if n % 2 == 1 {
                kill_postmaster(&cloud);
            }
            let reply = cloud.get("/api/scans").await?;
            seen.push(reply.status);
            let tag = format!("TETAP-{n}");
            gateway.scan(&tag, "makanan_masuk").await?;
            tags.push(tag);
        }
        assert!(seen.iter().all(|status| matches!(status, 200 | 503)), "{seen:?}");
        gateway.drained().await?;
        let database = embedded_database(&cloud).await?;
        cloud_holds(&database, &tags).await
    })
}

#[test]
fn a_cloud_and_its_postgresql_killed_together_come_back_with_everything() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_embedded().await?;
        let gateway = stand.gateway("GW-1", &cloud, &cloud.base()).await?;
        let mut tags = gateway.scan_many("SATU", 20).await?;
        gateway.drained().await?;
        kill_postmaster(&cloud).context("PostgreSQL is not running")?;
        cloud.kill();
        tags.extend(gateway.scan_many("DUA", 20).await?);
        cloud.start().await?;
        gateway.drained().await?;
        // And the cloud alone: its PostgreSQL must not be left behind to be in the way.
        cloud.kill();
        tags.extend(gateway.scan_many("TIGA", 20).await?);
        cloud.start().await?;
        gateway.drained().await?;
        let database = embedded_database(&cloud).await?;
        cloud_holds(&database, &tags).await?;
        cloud.stop().await
    })
}
