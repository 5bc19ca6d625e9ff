//! A gateway's clock is wrong in every way a Pi's can be; no scan is refused, dropped or reordered for it.

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use lumbung_shared::scan::Scan;
use lumbung_shared::time::ClockState;
use lumbung_shared::wire::{Batch, RunStart, Statuses, write_scans};
use lumbung_tests::programs::faults::TurnedClock;
use lumbung_tests::programs::{Cloud, Gateway};
use lumbung_tests::proxy::{Fate, Gate, Line, Proxy};
use lumbung_tests::stand::{Stand, cloud_holds};
use lumbung_tests::story::story;
use lumbung_tests::tls::Authority;
use lumbung_tests::wait::{eventually, when};
use lumbung_tests::wire::{now_ms, scan, start, whole};
use serde_json::{Value, json};

/// A gateway whose clock is turned before its first start, offline.
async fn offline_with_clock(stand: &Stand, setting: &str) -> Result<(Cloud, Proxy, Gateway, TurnedClock)> {
    let cloud = stand.cloud().await?;
    let proxy = Proxy::start(&cloud.address())?;
    let mut gateway = stand.gateway_not_started("GW-1", &cloud, &proxy.base()).await?;
    let clock = TurnedClock::on(&mut gateway, setting)?;
    proxy.line(Line::Refused);
    gateway.start().await?;
    Ok((cloud, proxy, gateway, clock))
}

async fn scans_of(cloud: &Cloud) -> Result<Vec<Value>> {
    let body = cloud.get("/api/scans?limit=500").await?.expect(200)?;
    let mut scans = body["scans"].as_array().cloned().unwrap_or_default();
    scans.sort_by_key(|scan| scan["seq"].as_i64());
    Ok(scans)
}

fn time(scan: &Value, field: &str) -> DateTime<Utc> {
    scan[field].as_str().unwrap_or_default().parse().unwrap_or_default()
}

#[test]
fn scans_made_by_a_clock_in_1970_in_2016_or_a_month_ahead_arrive_with_the_right_time() -> Result<()> {
    // What cannot be is told as the floor, a day before the build.
    for (setting, ahead_of_us) in
        [("@1970-01-01 00:00:10", false), ("@2016-11-03 17:16:43", false), ("+30d", true)]
    {
        story(async |stand| {
            let before = Utc::now();
            let (cloud, proxy, gateway, _clock) = offline_with_clock(stand, setting).await?;
            let tags = gateway.scan_many("JAM", 12).await?;
            let after = Utc::now();
            proxy.line(Line::Up);
            gateway.drained().await?;
            cloud_holds(&cloud.database().await?, &tags).await?;
            let scans = scans_of(&cloud).await?;
            let order: Vec<&str> = scans.iter().filter_map(|scan| scan["nfc_tag_id"].as_str()).collect();
            assert_eq!(order, tags, "the order is the order of the taps");
            for scan in &scans {
                let ahead = time(scan, "timestamp") - before;
                let turned =
                    if ahead_of_us { ahead > TimeDelta::days(20) } else { ahead < -TimeDelta::hours(20) };
                assert!(turned, "the clock was not turned: {scan}");
                let event = time(scan, "event_time");
                let slack = TimeDelta::seconds(2);
                assert!(
                    event > before - slack && event < after + slack,
                    "{setting}: not corrected, between {before} and {after}: {scan}"
                );
                assert_eq!(scan["time_basis"], "anchored", "{scan}");
            }
            // Having heard the time from the cloud, the gateway goes on with it.
            let status = gateway.get("/api/status").await?.expect(200)?;
            assert_eq!(
                (&status["clock"]["state"], &status["clock"]["source"]),
                (&json!("held"), &json!("cloud"))
            );
            let now: DateTime<Utc> = status["clock"]["now"].as_str().unwrap_or_default().parse()?;
            assert!((now - Utc::now()).abs() < TimeDelta::seconds(2), "{status}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_clock_set_back_an_hour_while_a_batch_is_open_loses_and_reorders_nothing() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway, clock) = offline_with_clock(stand, "+0").await?;
        let mut tags = gateway.scan_many("SEBELUM", 10).await?;
        let gate = Gate::default();
        proxy.next([Fate::AnswerWaits(gate.clone())]);
        proxy.line(Line::Up);
        gate.reached().await;
        clock.turn("-1h")?;
        tags.extend(gateway.scan_many("SESUDAH", 10).await?);
        gate.open();
        gateway.drained().await?;
        clock.turn("+0")?;
        tags.extend(gateway.scan_many("KEMBALI", 5).await?);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        let scans = scans_of(&cloud).await?;
        let order: Vec<&str> = scans.iter().filter_map(|scan| scan["nfc_tag_id"].as_str()).collect();
        assert_eq!(order, tags);
        for pair in scans.windows(2) {
            let step = time(&pair[1], "event_time") - time(&pair[0], "event_time");
            assert!(step > TimeDelta::seconds(-2) && step < TimeDelta::minutes(5), "{pair:?}");
        }
        Ok(())
    })
}

#[test]
fn hours_offline_keep_the_hours_of_their_scans() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway, clock) = offline_with_clock(stand, "-5h").await?;
        let mut tags = Vec::new();
        for (hour, setting) in ["-5h", "-4h", "-3h", "-2h", "-1h"].iter().enumerate() {
            clock.turn(setting)?;
            // The box was switched off and on again at noon.
            if hour == 2 {
                gateway.restart().await?;
            }
            tags.extend(gateway.scan_many(&format!("JAM{hour}"), 6).await?);
        }
        clock.turn("+0")?;
        proxy.line(Line::Up);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        let scans = scans_of(&cloud).await?;
        let now = Utc::now();
        for (n, scan) in scans.iter().enumerate() {
            let age = (now - time(scan, "timestamp")).num_minutes();
            let expected = 60 * (5 - i64::try_from(n / 6)?);
            assert!((age - expected).abs() <= 5, "{age} minutes instead of {expected}: {scan}");
        }
        let oldest = scans.first().map(|scan| time(scan, "received_at")).unwrap_or_default();
        assert!((now - oldest).num_minutes() < 5, "received_at is the cloud's own time");
        Ok(())
    })
}

#[test]
fn a_clock_in_1970_does_not_keep_a_gateway_from_enrolling_and_syncing() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let mut gateway = stand.bare_gateway("GW-1")?;
        let _clock = TurnedClock::on(&mut gateway, "@1970-01-01 00:00:10")?;
        let claim = cloud.claim("GW-1").await?;
        gateway.enrol(&cloud.base(), &claim.claim).await?;
        gateway.start().await?;
        gateway.scan("PERTAMA-1", "makanan_keluar").await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &["PERTAMA-1".to_owned()]).await
    })
}

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// A scan at a moment of its boot, by a clock that stands `behind_ms` behind and knows it or not.
fn at_boot(seq: i64, mono_ms: i64, behind_ms: i64, clock: ClockState) -> Result<Scan> {
    let wall_ms = now_ms() - behind_ms;
    Ok(Scan { mono_ms, wall_ms, clock, ..scan(seq, &format!("BOOT-{seq}"), "makanan_keluar")? })
}

/// What run 3 sends in a boot of its own: scans that an earlier run in `boot` made.
fn left_over(boot: &str, epoch: u64, scans: Vec<Scan>) -> Result<Batch> {
    let mut statuses = Statuses::default();
    let segments = write_scans(scans, &mut statuses)?.into_iter().collect();
    let mut batch = whole(3, None, Vec::new(), statuses.into_codes());
    let mut section = whole(epoch, None, segments, Vec::new()).runs.remove(0);
    section.start = Some(RunStart { boot: boot.to_owned(), ..start(None) });
    batch.runs.push(section);
    batch.runs.sort_by_key(|section| section.epoch);
    Ok(batch)
}

/// Scans per local day and in all, as the summary's rollup has them.
async fn days(cloud: &Cloud) -> Result<Vec<(chrono::NaiveDate, i64)>> {
    let database = cloud.database().await?;
    Ok(sqlx::query_as("select local_day, sum(scans)::bigint from scan_day group by 1 order by 1")
        .fetch_all(&database)
        .await?)
}

#[test]
fn a_boot_that_never_sent_is_corrected_when_an_anchor_of_it_comes_at_last() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let gateway = cloud.hand_made("GW-1").await?;
        // Three days ago a boot scanned twice with a clock in 1970; another boot sends what it left.
        let in_1970 = now_ms() - 10_000;
        let scans = vec![
            at_boot(1, 10_000, in_1970, ClockState::Unset)?,
            at_boot(2, 20_000, in_1970, ClockState::Unset)?,
        ];
        let first = left_over("boot-one", 1, scans)?;
        gateway.send(&first).await?;
        let before = scans_of(&cloud).await?;
        for scan in &before {
            assert_eq!((&scan["time_basis"], &scan["uncertainty_ms"]), (&"uncertain".into(), &Value::Null));
        }
        let today = days(&cloud).await?;
        assert_eq!(today.iter().map(|day| day.1).collect::<Vec<_>>(), [2]);
        // A later run of that first boot knew the time: its scan came an hour after the others.
        let synced = at_boot(3, HOUR, 3 * DAY, ClockState::Synced)?;
        let known_ms = synced.wall_ms;
        gateway.send(&left_over("boot-one", 2, vec![synced])?).await?;
        let after = scans_of(&cloud).await?;
        for (scan, mono_ms) in after.iter().zip([10_000, 20_000]) {
            let event = time(scan, "event_time").timestamp_millis();
            assert_eq!(event, known_ms - HOUR + mono_ms, "{scan}");
            assert_eq!(scan["time_basis"], "anchored");
            let uncertainty = scan["uncertainty_ms"].as_i64().unwrap_or_default();
            assert!((1_000..2_000).contains(&uncertainty), "{scan}");
        }
        assert_eq!(
            (&after[2]["time_basis"], &after[2]["uncertainty_ms"]),
            (&"gateway".into(), &1_000.into())
        );
        for field in ["seq", "nfc_tag_id", "timestamp", "received_at"] {
            for (old, new) in before.iter().zip(&after) {
                assert_eq!(old[field], new[field], "{field} never changes");
            }
        }
        let moved = days(&cloud).await?;
        assert!(moved.iter().all(|(day, _)| *day < today[0].0), "{moved:?}: nothing happened today");
        assert_eq!(moved.iter().map(|day| day.1).sum::<i64>(), 3);
        // The first batch again: duplicates, and what is known of their times stays.
        gateway.send(&first).await?;
        assert_eq!(scans_of(&cloud).await?, after);
        assert_eq!(days(&cloud).await?, moved);
        Ok(())
    })
}

#[test]
fn boots_that_only_share_a_name_do_not_share_their_time() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let first = cloud.hand_made("GW-1").await?;
        let second = cloud.hand_made("GW-2").await?;
        let unset = || at_boot(1, 10_000, now_ms(), ClockState::Unset);
        let synced = || at_boot(2, HOUR, 3 * DAY, ClockState::Synced);
        // Two gateways made from one image, and two boots of one gateway that could not name themselves.
        first.send(&left_over("the-same", 1, vec![unset()?])?).await?;
        second.send(&left_over("the-same", 1, vec![synced()?])?).await?;
        first.send(&left_over("unknown", 5, vec![Scan { seq: 7, ..unset()? }])?).await?;
        first.send(&left_over("unknown", 6, vec![Scan { seq: 8, ..synced()? }])?).await?;
        let scans = scans_of(&cloud).await?;
        let basis = |gateway: &str, seq: i64| {
            let of = scans.iter().find(|scan| scan["gateway_id"] == gateway && scan["seq"] == seq);
            of.map(|scan| scan["time_basis"].clone())
        };
        assert_eq!(basis("GW-1", 1), Some("uncertain".into()));
        assert_eq!(basis("GW-1", 7), Some("uncertain".into()));
        assert_eq!((basis("GW-2", 2), basis("GW-1", 8)), (Some("gateway".into()), Some("gateway".into())));
        Ok(())
    })
}

#[test]
fn a_gateway_that_woke_up_in_1970_syncs_over_tls_and_still_tells_a_dead_certificate() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let mut gateway = stand.gateway_not_started("GW-1", &cloud, &cloud.base()).await?;
        let authority = Authority::new(stand.path())?;
        let (now, day) = (Utc::now(), TimeDelta::days(1));
        let _clock = TurnedClock::on(&mut gateway, "@1970-01-01 00:00:10")?;
        gateway.set("cloud.ca_file", authority.file.display());

        // Nothing proves that it is later than the day before the build; this ended long before that.
        let dead = authority.door(&cloud.base(), now - day * 400, now - day * 30)?;
        gateway.env("MAIN_SERVER_API_URL", dead);
        gateway.start().await?;
        let tags = gateway.scan_many("TLS", 3).await?;
        eventually("the refusal is shown", || async {
            let answer = gateway.status().await?["last_answer"]["message"].to_string();
            Ok(when(answer.contains("expired") || answer.contains("certificate")))
        })
        .await?;
        assert_eq!(gateway.unsent()?, 3);
        gateway.stop().await?;

        let alive = authority.door(&cloud.base(), now - day, now + day * 90)?;
        gateway.env("MAIN_SERVER_API_URL", alive);
        gateway.start().await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        let clock = gateway.status().await?["clock"].clone();
        assert_eq!(clock["source"], "cloud", "{clock}");
        let told: DateTime<Utc> = clock["now"].as_str().unwrap_or_default().parse()?;
        assert!((told - Utc::now()).abs() < TimeDelta::minutes(1), "{clock}");
        Ok(())
    })
}
