//! The card is full, breaks or turns read-only; no ack without durability, and nothing acknowledged is lost.

use anyhow::Result;
use lumbung_tests::programs::faults::{can_have_a_card_of_its_own, failing, on_a_small_card, own_view};
use lumbung_tests::programs::{Cloud, Gateway};
use lumbung_tests::proxy::{Line, Proxy};
use lumbung_tests::stand::{Stand, cloud_holds};
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use serde_json::json;

/// An enrolled gateway without a line, ready to be started on a failing card.
async fn offline(stand: &Stand) -> Result<(Cloud, Proxy, Gateway)> {
    let cloud = stand.cloud().await?;
    let proxy = Proxy::start(&cloud.address())?;
    let gateway = stand.gateway_not_started("GW-1", &cloud, &proxy.base()).await?;
    proxy.line(Line::Refused);
    Ok((cloud, proxy, gateway))
}

/// Scans until one is refused or the gateway is gone; what was acknowledged.
async fn scan_until_trouble(gateway: &Gateway, prefix: &str, most: usize) -> (Vec<String>, Option<u16>) {
    let mut acked = Vec::new();
    for n in 0..most {
        let tag = format!("{prefix}-{n}");
        let body = json!({ "nfc_tag_id": tag, "status_scan": "makanan_keluar" });
        match gateway.log_scan(&body).await {
            Ok(reply) if reply.status == 201 => acked.push(tag),
            Ok(reply) => return (acked, Some(reply.status)),
            Err(_) => return (acked, None),
        }
    }
    (acked, Some(201))
}

/// The cloud has everything that was acknowledged, and nothing that was never asked for.
async fn all_acked_arrive(
    cloud: &Cloud,
    gateway: &Gateway,
    acked: &[String],
    prefixes: &[&str],
) -> Result<()> {
    // As the gateway says itself: its files may lie where only it can see them.
    eventually("everything is sent", || async { Ok(when(gateway.status().await?["unsent"]["scan"] == 0)) })
        .await?;
    let held = lumbung_tests::ledger::held(&cloud.database().await?).await?;
    let tags: Vec<&str> = held.iter().map(|row| row.tag.as_str()).collect();
    for tag in acked {
        let times = tags.iter().filter(|held| *held == tag).count();
        assert_eq!(times, 1, "{tag} was acknowledged and is {times} times in the cloud");
    }
    for tag in tags {
        assert!(prefixes.iter().any(|prefix| tag.starts_with(prefix)), "{tag}");
    }
    Ok(())
}

#[test]
fn a_full_disk_refuses_scans_plainly_and_takes_them_again_when_there_is_room() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = offline(stand).await?;
        gateway.start().await?;
        let mut acked = gateway.scan_many("AWAL", 5).await?;
        gateway.stop().await?;
        // Writes of the store's thread fail with "no space" for a while, then there is room again.
        let injections = ["write,pwrite64,fallocate:error=ENOSPC:when=150..400"];
        gateway.under(failing(&gateway, &injections)?);
        gateway.start().await?;
        let (taken, status) = scan_until_trouble(&gateway, "PENUH", 400).await;
        assert_eq!(status, Some(503), "{} taken, then {status:?}", taken.len());
        acked.extend(taken);
        let refused =
            gateway.log_scan(&json!({ "nfc_tag_id": "PENUH-X", "status_scan": "makanan_keluar" })).await?;
        assert_eq!(
            (refused.status, refused.error_code().as_str()),
            (503, "storage_full"),
            "{}",
            refused.text
        );
        assert_ne!(gateway.get("/readyz").await?.status, 200, "a gateway that takes nothing is not ready");
        acked.push(taken_again("there is room again", &gateway).await?);
        proxy.line(Line::Up);
        all_acked_arrive(&cloud, &gateway, &acked, &["AWAL", "PENUH", "LEGA"]).await
    })
}

/// The tag of the first scan that is taken again.
async fn taken_again(what: &str, gateway: &Gateway) -> Result<String> {
    eventually(what, || async {
        let tag = format!("LEGA-{}", fastrand::u32(..));
        let body = json!({ "nfc_tag_id": tag, "status_scan": "makanan_keluar" });
        Ok((gateway.log_scan(&body).await?.status == 201).then_some(tag))
    })
    .await
}

/// The card itself, not a pretended error: only root can make one, and where none can be made the story
/// above is the proof.
#[test]
fn a_really_full_card_refuses_scans_keeps_the_old_ones_and_works_again_when_something_is_removed()
-> Result<()> {
    if !can_have_a_card_of_its_own()? {
        return Ok(());
    }
    story(async |stand| {
        let (cloud, proxy, mut gateway) = offline(stand).await?;
        gateway.set("storage.reserve_bytes", 300_000);
        gateway.under(on_a_small_card(&gateway, 6 << 20)?);
        gateway.start().await?;
        let mut acked = gateway.scan_many("AWAL", 5).await?;
        let filler = own_view(&gateway)?.join("photos");
        // As much as there is room for; the last of it does not fit.
        let _ = std::fs::write(&filler, vec![1; 8 << 20]);
        let (taken, status) = scan_until_trouble(&gateway, "PENUH", 4_000).await;
        assert_eq!(status, Some(503), "{} taken, then {status:?}", taken.len());
        acked.extend(taken);
        // A full card does not keep the old scans from the cloud for long: there may be no room for the
        // flag, but the cloud has them.
        proxy.line(Line::Up);
        let database = cloud.database().await?;
        eventually("the cloud has what was acknowledged", || async {
            let held = lumbung_tests::ledger::held(&database).await?;
            Ok(when(held.len() >= acked.len()))
        })
        .await?;
        std::fs::remove_file(&filler)?;
        acked.push(taken_again("there is room again", &gateway).await?);
        all_acked_arrive(&cloud, &gateway, &acked, &["AWAL", "PENUH", "LEGA"]).await
    })
}

/// Nobody comes to remove anything: what the cloud has makes room.
#[test]
fn a_really_full_card_settles_what_the_cloud_has_and_takes_scans_in_its_room() -> Result<()> {
    if !can_have_a_card_of_its_own()? {
        return Ok(());
    }
    story(async |stand| {
        let (cloud, proxy, mut gateway) = offline(stand).await?;
        gateway.set("storage.reserve_bytes", 300_000);
        gateway.start().await?;
        let mut acked = gateway.scan_many("AWAL", 2_500).await?;
        gateway.stop().await?;
        gateway.under(on_a_small_card(&gateway, 6 << 20)?);
        gateway.start().await?;
        // As much as there is room for; the last of it does not fit.
        let _ = std::fs::write(own_view(&gateway)?.join("photos"), vec![1; 8 << 20]);
        let (taken, status) = scan_until_trouble(&gateway, "PENUH", 4_000).await;
        assert_eq!(status, Some(503), "{} taken, then {status:?}", taken.len());
        acked.extend(taken);
        proxy.line(Line::Up);
        all_acked_arrive(&cloud, &gateway, &acked, &["AWAL", "PENUH"]).await?;
        acked.push(taken_again("sent rows made room for new scans", &gateway).await?);
        all_acked_arrive(&cloud, &gateway, &acked, &["AWAL", "PENUH", "LEGA"]).await
    })
}

#[test]
fn a_disk_budget_that_is_used_up_refuses_new_scans_and_drains_the_old() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = offline(stand).await?;
        gateway.set("storage.max_bytes", 400_000);
        gateway.set("storage.reserve_bytes", 0);
        gateway.start().await?;
        let (acked, status) = scan_until_trouble(&gateway, "JATAH", 8_000).await;
        assert_eq!(status, Some(503), "{} taken, then {status:?}", acked.len());
        proxy.line(Line::Up);
        gateway.drained().await?;
        let mut all = acked;
        let tag = eventually("sent rows made room for new scans", || async {
            let tag = format!("JATAH-LAGI-{}", fastrand::u32(..));
            let body = json!({ "nfc_tag_id": tag, "status_scan": "makanan_keluar" });
            Ok((gateway.log_scan(&body).await?.status == 201).then_some(tag))
        })
        .await?;
        all.push(tag);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &all).await
    })
}

/// The card fails a call for good: the gateway must end by itself, and a new start lose nothing.
fn breaks(injection: &'static str) -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = offline(stand).await?;
        gateway.start().await?;
        let mut acked = gateway.scan_many("AWAL", 5).await?;
        gateway.stop().await?;
        gateway.under(failing(&gateway, &[injection])?);
        gateway.start().await?;
        let (taken, status) = scan_until_trouble(&gateway, "RUSAK", 500).await;
        assert_ne!(status, Some(201), "{injection} never happened");
        acked.extend(taken);
        let ended = gateway.wait_for_its_end().await?;
        assert!(!ended.success(), "{injection}: ended with {ended}");
        // The card is changed, or the cable; the gateway starts again.
        gateway.under(Vec::new());
        gateway.start().await?;
        acked.push({
            gateway.scan("PULIH-1", "makanan_keluar").await?;
            "PULIH-1".to_owned()
        });
        proxy.line(Line::Up);
        all_acked_arrive(&cloud, &gateway, &acked, &["AWAL", "RUSAK", "PULIH"]).await
    })
}

#[test]
fn a_failed_fdatasync_ends_the_gateway_and_nothing_acknowledged_is_lost() -> Result<()> {
    breaks("fdatasync,fsync:error=EIO:when=40+")
}

#[test]
fn one_failed_fdatasync_is_enough_even_if_the_next_would_succeed() -> Result<()> {
    breaks("fdatasync,fsync:error=EIO:when=40")
}

#[test]
fn a_write_error_ends_the_gateway_and_nothing_acknowledged_is_lost() -> Result<()> {
    breaks("write,pwrite64:error=EIO:when=150+")
}

#[test]
fn a_card_that_turns_read_only_ends_the_gateway_and_nothing_acknowledged_is_lost() -> Result<()> {
    breaks("write,pwrite64,fdatasync,fsync,fallocate:error=EROFS:when=150+")
}

#[test]
fn a_data_directory_that_cannot_be_written_is_said_plainly_at_start() -> Result<()> {
    story(async |stand| {
        let (_cloud, _proxy, mut gateway) = offline(stand).await?;
        gateway.under(failing(&gateway, &["write,pwrite64,fdatasync,fsync:error=EROFS"])?);
        gateway.spawn()?;
        let ended = gateway.wait_for_its_end().await?;
        assert!(!ended.success());
        let log = gateway.logged().to_lowercase();
        assert!(log.contains("read-only") || log.contains("readonly") || log.contains("i/o"), "{log}");
        Ok(())
    })
}

#[test]
fn an_error_while_settling_an_answer_ends_the_gateway_and_costs_no_scan() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = offline(stand).await?;
        gateway.start().await?;
        let acked = gateway.scan_many("LUNAS", 30).await?;
        gateway.stop().await?;
        // Past what the start itself writes, so it hits the settling of the first answer.
        gateway.under(failing(&gateway, &["fdatasync,fsync:error=EIO:when=12+"])?);
        gateway.start().await?;
        proxy.line(Line::Up);
        let ended = eventually("the gateway ended or everything is sent", || async {
            Ok(when(gateway.unsent()? == 0 || !alive(&gateway)))
        });
        ended.await?;
        gateway.kill();
        gateway.under(Vec::new());
        gateway.start().await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &acked).await
    })
}

fn alive(gateway: &Gateway) -> bool {
    gateway.pid().is_some_and(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    })
}
