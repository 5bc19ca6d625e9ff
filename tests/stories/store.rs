//! The gateway's store is damaged, restored from a backup or copied to a second box.

use anyhow::{Context, Result};
use lumbung_tests::ledger::held;
use lumbung_tests::programs::{Cloud, Gateway};
use lumbung_tests::proxy::{Fate, Gate, Line, Proxy};
use lumbung_tests::stand::{Stand, cloud_holds};
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const PAGE: u64 = 4096;

/// Overwrites `count` bytes of the stopped gateway's database.
fn damage(gateway: &Gateway, at: u64, count: usize) -> Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(gateway.database())?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&vec![0xA5; count])?;
    Ok(())
}

/// Moves everything from the log into the database file, so that damage to the file is damage to the data.
fn checkpoint(gateway: &Gateway) -> Result<()> {
    let store = rusqlite::Connection::open(gateway.database())?;
    store.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
    Ok(())
}

/// A page in the middle of the scans' own tree.
fn a_page_of_scans(gateway: &Gateway) -> Result<u64> {
    let store = gateway.look()?;
    let page: i64 = store.query_row(
        "select pageno from dbstat where name = 'scan_event' and pagetype = 'leaf' \
         order by path limit 1 offset (select count(*) / 2 from dbstat where name = 'scan_event' and pagetype = 'leaf')",
        [],
        |row| row.get(0),
    )?;
    Ok(u64::try_from(page)?)
}

fn set_aside(gateway: &Gateway) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&gateway.dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("corrupt-")
        })
        .collect()
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

async fn fork_is_raised(cloud: &Cloud) -> Result<()> {
    eventually("the fork is shown", || async {
        let summary = cloud.summary_of("GW-1").await?;
        Ok(when(summary["alarms"].to_string().contains("fork")))
    })
    .await
}

/// An offline gateway with `count` unsent scans, stopped, all of it in the database file.
async fn stopped_with(stand: &Stand, count: usize) -> Result<(Cloud, Proxy, Gateway, Vec<String>)> {
    let (cloud, proxy, mut gateway) = stand.trio().await?;
    proxy.line(Line::Refused);
    let tags = gateway.scan_many("SEMUA", count).await?;
    gateway.stop().await?;
    checkpoint(&gateway)?;
    Ok((cloud, proxy, gateway, tags))
}

#[test]
fn a_damaged_page_costs_at_most_its_own_scans_and_the_file_is_set_aside_whole() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway, tags) = stopped_with(stand, 600).await?;
        let page = a_page_of_scans(&gateway)?;
        damage(&gateway, (page - 1) * PAGE, 4096)?;
        let damaged = std::fs::read(gateway.database())?;
        gateway.start().await?;
        let aside = set_aside(&gateway);
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert_eq!(std::fs::read(aside[0].join("local_gateway.db"))?, damaged, "set aside as it was");
        gateway.scan("SESUDAH-1", "makanan_keluar").await?;
        proxy.line(Line::Up);
        gateway.drained().await?;
        let rows = held(&cloud.database().await?).await?;
        let arrived: Vec<&str> = rows.iter().map(|row| row.tag.as_str()).collect();
        assert!(arrived.contains(&"SESUDAH-1"));
        assert!(arrived.len() > tags.len() - 120, "only {} of {} were salvaged", arrived.len(), tags.len());
        let mut once = arrived.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), arrived.len(), "a salvaged scan is there twice");
        assert!(arrived.iter().all(|tag| *tag == "SESUDAH-1" || tags.iter().any(|known| known == tag)));
        // A second start finds nothing to salvage.
        gateway.restart().await?;
        assert_eq!(set_aside(&gateway).len(), 1);
        Ok(())
    })
}

#[test]
fn a_destroyed_header_does_not_keep_the_gateway_from_starting() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway, _tags) = stopped_with(stand, 20).await?;
        damage(&gateway, 0, 100)?;
        let damaged = std::fs::read(gateway.database())?;
        gateway.start().await?;
        let aside = set_aside(&gateway);
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert_eq!(std::fs::read(aside[0].join("local_gateway.db"))?, damaged);
        gateway.scan("BARU-1", "makanan_keluar").await?;
        proxy.line(Line::Up);
        gateway.drained().await?;
        let rows = held(&cloud.database().await?).await?;
        assert!(rows.iter().any(|row| row.tag == "BARU-1"));
        Ok(())
    })
}

#[test]
fn a_file_that_is_no_database_at_all_is_set_aside_too() -> Result<()> {
    for content in [&b"halo"[..], &[0u8; 9000][..], &[]] {
        story(async |stand| {
            let cloud = stand.cloud().await?;
            let mut gateway = stand.gateway_not_started("GW-1", &cloud, &cloud.base()).await?;
            std::fs::write(gateway.database(), content)?;
            gateway.start().await?;
            gateway.scan("BARU-1", "makanan_keluar").await?;
            gateway.drained().await?;
            cloud_holds(&cloud.database().await?, &["BARU-1".to_owned()]).await
        })?;
    }
    Ok(())
}

#[test]
fn a_salvage_after_a_lost_answer_makes_no_second_scan() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let mut tags = gateway.scan_many("DAHULU", 400).await?;
        // The cloud commits; the gateway dies before it hears of it.
        let gate = Gate::default();
        proxy.next([Fate::AnswerWaits(gate.clone())]);
        proxy.line(Line::Up);
        gate.reached().await;
        gateway.kill();
        proxy.line(Line::Refused);
        gate.open();
        checkpoint(&gateway)?;
        assert_eq!(gateway.unsent()?, 400);
        let page = a_page_of_scans(&gateway)?;
        damage(&gateway, (page - 1) * PAGE, 4096)?;
        gateway.start().await?;
        assert_eq!(set_aside(&gateway).len(), 1);
        tags.extend(gateway.scan_many("KEMUDIAN", 20).await?);
        proxy.heal();
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        assert_eq!(cloud.summary().await?["totals"]["quarantined"], 0);
        Ok(())
    })
}

#[test]
fn new_scans_after_an_old_backup_was_restored_are_not_swallowed_and_the_fork_is_raised() -> Result<()> {
    story(async |stand| {
        let (cloud, _proxy, mut gateway) = stand.trio().await?;
        let backup = stand.path().join("backup");
        let mut tags = gateway.scan_many("SEBELUM", 10).await?;
        gateway.drained().await?;
        gateway.stop().await?;
        copy_dir(&gateway.dir, &backup)?;
        gateway.start().await?;
        tags.extend(gateway.scan_many("SESUDAH", 10).await?);
        gateway.drained().await?;
        gateway.stop().await?;
        // The card died; the backup goes onto a new one. Its numbers start again at 11.
        std::fs::remove_dir_all(&gateway.dir)?;
        copy_dir(&backup, &gateway.dir)?;
        gateway.start().await?;
        tags.extend(gateway.scan_many("KARTU-BARU", 10).await?);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        fork_is_raised(&cloud).await
    })
}

#[test]
fn a_backup_with_unsent_scans_is_restored_and_they_are_kept_once() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let tags = gateway.scan_many("UTANG", 30).await?;
        gateway.stop().await?;
        let backup = stand.path().join("backup");
        copy_dir(&gateway.dir, &backup)?;
        proxy.line(Line::Up);
        gateway.start().await?;
        gateway.drained().await?;
        gateway.stop().await?;
        std::fs::remove_dir_all(&gateway.dir)?;
        copy_dir(&backup, &gateway.dir)?;
        assert_eq!(gateway.unsent()?, 30);
        gateway.start().await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        assert_eq!(cloud.summary().await?["totals"]["quarantined"], 0);
        Ok(())
    })
}

#[test]
fn the_same_card_in_two_gateways_keeps_both_histories_and_raises_the_fork() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut first) = stand.trio().await?;
        let mut tags = first.scan_many("BERSAMA", 10).await?;
        first.drained().await?;
        first.stop().await?;
        let second_dir = stand.path().join("GW-1-clone");
        copy_dir(&first.dir, &second_dir)?;
        let mut second = Gateway::new("GW-1", &second_dir, &stand.log("GW-1-clone"))?;
        first.start().await?;
        second.start().await?;
        // Both at once, and one of them over a line that loses answers.
        proxy.next([Fate::LoseAnswer, Fate::LoseAnswer]);
        let (a, b) = tokio::join!(first.scan_many("ASLI", 40), second.scan_many("SALINAN", 40));
        tags.extend(a?);
        tags.extend(b?);
        first.drained().await?;
        second.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        fork_is_raised(&cloud).await?;
        let list = cloud.must(&["gateway", "list"]).await?;
        assert!(list.contains("GW-1"), "{list}");
        // The gateways are told too, so that the officer can see it.
        let status = first.status().await.context("status of the first")?;
        assert!(status["sync"].is_object() || status["state"].is_string(), "{status}");
        Ok(())
    })
}

#[test]
fn a_store_of_a_newer_program_is_refused_loudly_and_left_untouched() -> Result<()> {
    story(async |stand| {
        let (_cloud, _proxy, mut gateway, tags) = stopped_with(stand, 5).await?;
        rusqlite::Connection::open(gateway.database())?.pragma_update(None, "user_version", 9_999)?;
        checkpoint(&gateway)?;
        let before = std::fs::read(gateway.database())?;
        gateway.spawn()?;
        let ended = gateway.wait_for_its_end().await?;
        assert!(!ended.success());
        assert_eq!(std::fs::read(gateway.database())?, before);
        assert!(set_aside(&gateway).is_empty(), "a newer store is not a corrupt one");
        assert_eq!(gateway.tags()?, tags);
        Ok(())
    })
}
