//! The cloud, or something before it, says no: 401, 413, 429, 503, 400.

use anyhow::Result;
use lumbung_tests::proxy::Fate;
use lumbung_tests::stand::cloud_holds;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[test]
fn a_401_stops_the_pushing_keeps_everything_and_heals_by_a_probe() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        proxy.rule(|_| Fate::refuse(401));
        let mut tags = gateway.scan_many("KUNCI", 10).await?;
        gateway.until_state("unauthorised").await?;
        let sent = proxy.records();
        tags.extend(gateway.scan_many("TETAP", 10).await?);
        let before = proxy.syncs();
        eventually("two empty probes were sent", || async { Ok(when(proxy.syncs() >= before + 2)) }).await?;
        assert_eq!(proxy.records(), sent, "records were pushed against a 401");
        assert_eq!(gateway.unsent()?, 20);
        // The same after a restart.
        gateway.restart().await?;
        gateway.until_state("unauthorised").await?;
        proxy.heal();
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await
    })
}

#[test]
fn a_413_halves_the_batch_until_it_fits() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        proxy.rule(|_| Fate::refuse(503));
        let tags = gateway.scan_many("BESAR", 100).await?;
        proxy.rule(|request| match request.records() {
            0..=7 => Fate::Pass,
            _ => Fate::refuse(413),
        });
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        assert_eq!(gateway.status().await?["parked"], 0);
        Ok(())
    })
}

#[test]
fn a_single_scan_refused_as_too_large_is_parked_and_delays_no_other() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        proxy.rule(|_| Fate::refuse(503));
        let mut tags = gateway.scan_many("MUAT", 20).await?;
        gateway.scan("TERLALU-BESAR", "makanan_keluar").await?;
        tags.extend(gateway.scan_many("MUAT-LAGI", 20).await?);
        proxy.rule(|request| match request.text().contains("TERLALU-BESAR") {
            true => Fate::refuse(413),
            false => Fate::Pass,
        });
        let database = cloud.database().await?;
        cloud_holds(&database, &tags).await?;
        eventually("the scan is counted as parked", || async {
            Ok(when(gateway.status().await?["parked"] == 1))
        })
        .await?;
        // What the cloud holds may be unsettled here a moment longer.
        eventually("only the parked scan is unsent", || async { Ok(when(gateway.unsent()? == 1)) }).await?;
        proxy.heal();
        gateway.post("/api/quarantine/retry", &json!({})).await?;
        tags.push("TERLALU-BESAR".to_owned());
        cloud_holds(&database, &tags).await
    })
}

#[test]
fn a_429_is_left_alone_for_as_long_as_it_says() -> Result<()> {
    retry_after(429)
}

#[test]
fn a_503_is_left_alone_for_as_long_as_it_says() -> Result<()> {
    retry_after(503)
}

fn retry_after(status: u16) -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        let times = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&times);
        proxy.rule(move |request| {
            if request.records() == 0 {
                return Fate::Pass;
            }
            let mut seen = seen.lock().unwrap();
            seen.push(Instant::now());
            match seen.len() {
                1 => Fate::refuse_for(status, 2),
                _ => Fate::Pass,
            }
        });
        gateway.scan("SABAR-1", "makanan_keluar").await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &["SABAR-1".to_owned()]).await?;
        let times = times.lock().unwrap();
        let waited = times[1] - times[0];
        assert!(waited >= Duration::from_millis(1_950), "came back after {waited:?}");
        Ok(())
    })
}

#[test]
fn errors_of_every_other_kind_are_backed_off_from_and_cost_no_record() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        let mut codes = [500, 502, 504, 408, 404, 405, 418, 301].into_iter();
        proxy.rule(move |_| codes.next().map_or(Fate::Pass, Fate::refuse));
        let tags = gateway.scan_many("RIBUT", 12).await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        assert_eq!(gateway.status().await?["parked"], 0);
        Ok(())
    })
}

#[test]
fn a_batch_refused_as_unreadable_is_split_until_only_the_bad_record_is_parked() -> Result<()> {
    for status in [400, 422] {
        story(async |stand| {
            let (cloud, proxy, mut gateway) = stand.trio().await?;
            proxy.rule(|_| Fate::refuse(503));
            let mut tags = gateway.scan_many("BAIK", 40).await?;
            gateway.scan("RACUN-1", "makanan_keluar").await?;
            tags.extend(gateway.scan_many("JUGA-BAIK", 23).await?);
            let asked = Arc::new(Mutex::new(0));
            let count = Arc::clone(&asked);
            proxy.rule(move |request| {
                *count.lock().unwrap() += 1;
                match request.text().contains("RACUN-1") {
                    true => Fate::refuse(status),
                    false => Fate::Pass,
                }
            });
            let database = cloud.database().await?;
            cloud_holds(&database, &tags).await?;
            let listed = eventually("the record is parked and shown", || async {
                let parked = gateway.status().await?["parked"] == 1;
                Ok(parked.then_some(gateway.get("/api/quarantine").await?.expect(200)?))
            })
            .await?;
            assert!(listed.to_string().contains("RACUN-1"), "{listed}");
            // log2(64) splits and as many good halves, and some rounds of nothing.
            let rounds = *asked.lock().unwrap();
            assert!(rounds <= 40, "{rounds} requests for one bad record among 64");
            eventually("all but the parked one are settled", || async { Ok(when(gateway.unsent()? == 1)) })
                .await?;
            // It stays parked over a restart, and others still pass.
            gateway.restart().await?;
            gateway.scan("BAIK-LAGI", "makanan_keluar").await?;
            tags.push("BAIK-LAGI".to_owned());
            cloud_holds(&database, &tags).await?;
            // The cloud learnt to read it; a person asks again.
            proxy.heal();
            gateway.cli(&["quarantine", "retry"]).await?.ok()?;
            tags.push("RACUN-1".to_owned());
            cloud_holds(&database, &tags).await?;
            eventually("nothing is parked any more", || async {
                Ok(when(gateway.status().await?["parked"] == 0))
            })
            .await?;
            gateway.drained().await
        })?;
    }
    Ok(())
}
