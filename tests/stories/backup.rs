//! A backup is made while the cloud works, and brings everything back; gateways that send again double nothing.

use anyhow::{Context, Result};
use lumbung_tests::programs::{Cloud, settings, tool};
use lumbung_tests::proxy::Line;
use lumbung_tests::stand::{cloud_holds, embedded_database};
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use lumbung_tests::wire::{batch, scans};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The backups in a folder, oldest first.
fn backups(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    found.sort();
    Ok(found)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

fn tags(prefix: &str, first: i64, count: i64) -> Result<Vec<String>> {
    Ok(scans(first, count, prefix)?.iter().map(|scan| scan.content.tag.as_str().to_owned()).collect())
}

#[test]
fn after_a_restore_everything_that_gateways_send_again_is_kept_once() -> Result<()> {
    story(async |stand| {
        let (mut cloud, _proxy, mut gateway) = stand.trio().await?;
        let hand_made = cloud.hand_made("GW-H").await?;
        let (first, second) = (batch(7, None, scans(1, 20, "A")?)?, batch(7, None, scans(21, 20, "B")?)?);
        hand_made.send(&first).await?;
        gateway.scan_many("C", 5).await?;
        let before: Vec<String> = [tags("A", 1, 20)?, (0..5).map(|n| format!("C-{n}")).collect()].concat();
        let database = cloud.database().await?;
        let scans_of = "select nfc_tag_id from scan_event where nfc_tag_id like 'C%' order by 1";
        lumbung_tests::wait::eventually("the gateway's scans are there", || async {
            let found: Vec<String> = sqlx::query_scalar(scans_of).fetch_all(&database).await?;
            Ok((found.len() == 5).then_some(()))
        })
        .await?;
        let held: Vec<String> =
            sqlx::query_scalar("select nfc_tag_id from scan_event").fetch_all(&database).await?;
        assert_eq!(held.len(), before.len());

        let dir = stand.path().join("backups");
        let said = cloud.must(&["backup", text(&dir)?, "--verify"]).await?;
        assert!(said.contains("verified"), "{said}");
        let folder = backups(&dir)?.pop().context("no backup")?;
        assert_eq!(fs::metadata(&folder)?.permissions().mode() & 0o777, 0o700, "others may look into it");

        // The rest of the day, which the disaster takes away.
        hand_made.send(&second).await?;
        let refused = cloud.cli(&["restore", text(&folder)?, "--replace"]).await?;
        assert!(refused.code() == 1 && refused.stderr.contains("stop it"), "{refused:?}");
        assert!(refused.stdout.contains("waiting 10 s"), "{refused:?}");
        // One whose connections are seen a moment longer than it runs, as PostgreSQL is told late that it is gone.
        let url = cloud.settings.database_url.clone().context("no URL")?;
        let options = url.parse::<PgConnectOptions>()?.application_name("lumbung-cloud");
        let late = PgConnection::connect_with(&options).await?;
        cloud.stop().await?;
        let restore = ["restore", text(&folder)?];
        let (refused, ()) = tokio::try_join!(cloud.cli(&restore), async {
            eventually("it waits", || async {
                let asking = "select count(*) from pg_stat_activity where application_name = 'lumbung-cloud'
                              and datname = current_database()";
                let there: i64 = sqlx::query_scalar(asking).fetch_one(&database).await?;
                Ok(when(there > 1))
            })
            .await?;
            late.close().await?;
            anyhow::Ok(())
        })?;
        assert!(refused.code() == 1 && refused.stderr.contains("not empty"), "{refused:?}");
        cloud.must(&["restore", text(&folder)?, "--replace"]).await?;
        cloud_holds(&database, &held).await?;

        // Gateways know nothing of it: one sends everything again, one goes on with what is new.
        cloud.start().await?;
        for batch in [&second, &first, &second] {
            hand_made.send(batch).await?;
        }
        gateway.scan_many("D", 3).await?;
        let rows = "select count(*) from scan_event";
        let everything = i64::try_from(held.len())? + 20 + 3;
        lumbung_tests::wait::eventually("all of it is there once", || async {
            let count: i64 = sqlx::query_scalar(rows).fetch_one(&database).await?;
            Ok((count == everything).then_some(()))
        })
        .await?;
        let doubled: i64 = sqlx::query_scalar("select count(*) - count(distinct nfc_tag_id) from scan_event")
            .fetch_one(&database)
            .await?;
        assert_eq!(doubled, 0);
        let counted: i64 =
            sqlx::query_scalar("select sum(scans)::bigint from scan_day").fetch_one(&database).await?;
        assert_eq!(counted, everything, "the counts per day are another story");

        // And once more from what was restored.
        cloud.must(&["backup", text(&dir)?, "--verify", "--keep", "1"]).await?;
        assert_eq!(backups(&dir)?.len(), 1, "the older one was to go");
        gateway.stop().await?;
        cloud.stop().await
    })
}

#[test]
fn what_a_gateway_had_sent_since_the_backup_it_sends_again_when_it_is_asked_to() -> Result<()> {
    story(async |stand| {
        let (mut cloud, proxy, gateway) = stand.trio().await?;
        let database = cloud.database().await?;
        let mut all = gateway.scan_many("A", 5).await?;
        gateway.drained().await?;
        // Made before the backup, and sent after it.
        proxy.line(Line::Refused);
        all.extend(gateway.scan_many("B", 5).await?);
        let dir = stand.path().join("backups");
        cloud.must(&["backup", text(&dir)?]).await?;
        let since = chrono::Utc::now().to_rfc3339();
        proxy.heal();
        gateway.nudge().await?;
        gateway.drained().await?;
        all.extend(gateway.scan_many("C", 5).await?);
        let readings = json!({ "readings": [{ "series": "suhu", "unit": "Cel", "value": 4.5 }] });
        gateway.post("/api/readings", &readings).await?.expect(201)?;
        gateway.drained().await?;
        cloud_holds(&database, &all).await?;

        cloud.stop().await?;
        let folder = backups(&dir)?.pop().context("no backup")?;
        cloud.must(&["restore", text(&folder)?, "--replace"]).await?;
        cloud_holds(&database, &all[..5]).await?;
        cloud.start().await?;

        for wrong in ["kemarin", "2026-11-21T09:30:00"] {
            assert_eq!(gateway.cli(&["resend", "--since", wrong]).await?.code(), 2, "{wrong}");
        }
        let said = gateway.cli(&["resend", "--since", &since]).await?.ok()?;
        assert!(said.contains("catatan akan dikirim ulang"), "{said}");
        // At least what was stored since; everything where nobody vouches for this machine's clock.
        let since_then = "select count(*) from scan_event where nfc_tag_id like 'C%'";
        eventually("what was stored since is there", || async {
            Ok(when(sqlx::query_scalar::<_, i64>(since_then).fetch_one(&database).await? == 5))
        })
        .await?;
        gateway.cli(&["resend"]).await?.ok()?;
        gateway.drained().await?;
        eventually("the rest came too", || async { Ok(when(gateway.unsent_of_all()? == 0)) }).await?;
        cloud_holds(&database, &all).await?;
        let counts: Vec<i64> = sqlx::query_scalar(
            "select count(*) from scan_event union all select sum(scans)::bigint from scan_day
             union all select count(*) from reading",
        )
        .fetch_all(&database)
        .await?;
        assert_eq!(counts, [15, 15, 1], "something is doubled");
        Ok(())
    })
}

#[test]
fn a_damaged_backup_and_one_of_a_newer_program_leave_the_database_as_it_was() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud().await?;
        cloud.hand_made("GW-H").await?.send(&batch(7, None, scans(1, 4, "A")?)?).await?;
        cloud.stop().await?;
        let dir = stand.path().join("backups");
        cloud.must(&["backup", text(&dir)?]).await?;
        let folder = backups(&dir)?.pop().context("no backup")?;
        let (dump, manifest) = (folder.join("database.dump"), folder.join("manifest.json"));
        let (whole, words) = (fs::read(&dump)?, fs::read_to_string(&manifest)?);

        let mut bent = whole.clone();
        let middle = bent.len() / 2;
        bent[middle] ^= 1;
        fs::write(&dump, bent)?;
        let mut newer: Value = serde_json::from_str(&words)?;
        newer["migration"] = 99_991_231_000_000_i64.into();
        let mut fewer: Value = serde_json::from_str(&words)?;
        fewer["rows"]["scan_event"] = 5.into();
        for (dump_is, manifest_says, why) in [
            (None, words.clone(), "damaged"),
            (Some(&whole), newer.to_string(), "newer schema"),
            (Some(&whole), fewer.to_string(), "scan_event has 4 rows instead of 5"),
        ] {
            if let Some(content) = dump_is {
                fs::write(&dump, content)?;
            }
            fs::write(&manifest, manifest_says)?;
            for arguments in
                [["restore", text(&folder)?, "--replace"], ["restore", text(&folder)?, "--verify"]]
            {
                let refused = cloud.cli(&arguments).await?;
                assert!(refused.code() == 1 && refused.stderr.contains(why), "{arguments:?}: {refused:?}");
            }
            cloud_holds(&cloud.database().await?, &tags("A", 1, 4)?).await?;
        }
        // A manifest that leads elsewhere reads nothing there.
        fs::write(&manifest, words.replace("database.dump", "../../database.dump"))?;
        let refused = cloud.cli(&["restore", text(&folder)?, "--verify"]).await?;
        assert!(refused.stderr.contains("leads out"), "{refused:?}");
        fs::write(&manifest, words)?;
        cloud.must(&["restore", text(&folder)?, "--verify"]).await?;
        Ok(())
    })
}

#[test]
fn a_cloud_with_its_own_database_moves_to_a_new_machine() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_embedded().await?;
        cloud.hand_made("GW-H").await?.send(&batch(7, None, scans(1, 9, "A")?)?).await?;
        let dir = stand.path().join("backups");
        cloud.must(&["backup", text(&dir)?]).await?;
        cloud.stop().await?;
        let folder = backups(&dir)?.pop().context("no backup")?;
        let mut other = Cloud::new(settings("other", stand.path(), None))?;
        other.must(&["restore", text(&folder)?]).await?;
        other.start().await?;
        cloud_holds(&embedded_database(&other).await?, &tags("A", 1, 9)?).await?;
        other.stop().await
    })
}

#[test]
fn the_databases_password_is_on_no_command_line() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.must(&["migrate"]).await?;
        let url = cloud.settings.database_url.take().context("no URL")?;
        cloud.settings.database_url = Some(url.replace("lumbung@", "lumbung:kata%20sandi@"));
        let bin = stand.path().join("bin");
        fs::create_dir(&bin)?;
        let (program, heard) = (bin.join("pg_dump"), stand.path().join("heard"));
        let script = format!(
            "#!/bin/sh\necho \"$@\" >>{heard}\necho \"password=$PGPASSWORD\" >>{heard}\nexec {real} \"$@\"\n",
            heard = heard.display(),
            real = tool("pg_dump")?.display()
        );
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        cloud.set("database.bin_dir", text(&bin)?);
        cloud.must(&["backup", text(&stand.path().join("backups"))?]).await?;
        let heard = fs::read_to_string(heard)?;
        assert!(heard.contains("password=kata sandi"), "{heard}");
        assert_eq!(heard.matches("sandi").count(), 1, "{heard}");
        Ok(())
    })
}
