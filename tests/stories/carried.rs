//! Records that people carry where no network goes: signed on the gateway, receipted by the cloud.

use anyhow::{Context, Result};
use lumbung_tests::ledger::held;
use lumbung_tests::programs::{Cloud, Finished, Gateway};
use lumbung_tests::proxy::{Fate, Line, Proxy};
use lumbung_tests::stand::cloud_holds;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use lumbung_tests::wire::{HandMade, new_key};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn signing(gateway: &Gateway) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(gateway.dir.join("signing.json"))?)?)
}

/// Signing keys that the cloud has of a gateway: all of them, and those that are still in use.
async fn keys(cloud: &Cloud, gateway: &str) -> Result<(i64, i64)> {
    Ok(sqlx::query_as(
        "select count(*), count(*) filter (where k.retired_at is null and k.revoked_at is null)
         from gateway_signing_key k join gateway using (gateway_id) where code = $1",
    )
    .bind(gateway)
    .fetch_one(&cloud.database().await?)
    .await?)
}

#[test]
fn an_enrolment_brings_a_signing_key_and_pins_the_clouds_even_when_its_answer_is_lost() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let proxy = Proxy::start(&cloud.address())?;
        let claim = cloud.claim("GW-1").await?;
        let gateway = stand.bare_gateway("GW-1")?;
        proxy.rule_for_all(|_| Fate::LoseAnswer);
        let lost = gateway.cli(&["enrol", "--cloud", &proxy.base(), "--claim", &claim.claim]).await?;
        assert!(!lost.status.success(), "{}", lost.stdout);
        let before = signing(&gateway)?;
        assert!(before["registered"].is_null(), "{before}");
        proxy.heal();
        gateway.enrol(&proxy.base(), &claim.claim).await?;
        let after = signing(&gateway)?;
        assert_eq!(before["seed"], after["seed"]);
        assert_eq!(keys(&cloud, "GW-1").await?, (1, 1));
        let mode = std::fs::metadata(gateway.dir.join("signing.json"))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Another replica and another gateway are told the same key of the cloud.
        let replica = stand.replica_of(&cloud).await?;
        let second = stand.gateway_not_started("GW-2", &cloud, &replica.base()).await?;
        let told = |of: &Value| of["registered"]["receipt_key"].as_str().map(str::to_owned);
        assert!(told(&after).is_some());
        assert_eq!(told(&signing(&second)?), told(&after));
        assert!(!stand.logs().contains(before["seed"].as_str().context("no seed")?), "a log holds a secret");
        Ok(())
    })
}

#[test]
fn a_gateway_that_was_enrolled_before_there_were_signing_keys_registers_one_with_its_next_sync() -> Result<()>
{
    story(async |stand| {
        let (cloud, _proxy, mut gateway) = stand.trio().await?;
        gateway.stop().await?;
        // As an older program left it.
        std::fs::remove_file(gateway.dir.join("signing.json"))?;
        sqlx::query("delete from gateway_signing_key").execute(&cloud.database().await?).await?;
        gateway.start().await?;
        gateway.scan("LAMA-1", "makanan_keluar").await?;
        eventually("the signing key is registered", || async {
            Ok(when(keys(&cloud, "GW-1").await? == (1, 1) && signing(&gateway)?["registered"].is_object()))
        })
        .await
    })
}

#[test]
fn the_key_of_receipts_is_sealed_and_stays_the_one_that_gateways_believe() -> Result<()> {
    story(async |stand| {
        let (mut cloud, proxy, gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let tags = gateway.scan_many("BAWA", 3).await?;
        let (bundle, receipt) = (stand.path().join("GW-1.lumbung"), stand.path().join("GW-1.receipt"));
        export(&gateway, &bundle).await?;
        let doctor = async |cloud: &Cloud| -> Result<Value> {
            let found: Value = serde_json::from_str(&cloud.cli(&["doctor", "--json"]).await?.stdout)?;
            let receipts =
                found["checks"].as_array().into_iter().flatten().find(|c| c["check"] == "receipts");
            Ok(receipts.context("no receipts")?["state"].clone())
        };
        assert_eq!(doctor(&cloud).await?, "warn", "it lies there in clear");
        let drawn: Vec<u8> =
            sqlx::query_scalar("select seed from receipt_key").fetch_one(&cloud.database().await?).await?;
        // Set since then, it is sealed when it is next used.
        let seal = "what the key of receipts is sealed with";
        cloud.stop().await?;
        cloud.set("receipts.seal_key", seal).start().await?;
        let told = |of: &Value| of["registered"]["receipt_key"].as_str().map(str::to_owned);
        let second = stand.gateway_not_started("GW-2", &cloud, &cloud.base()).await?;
        assert_eq!(told(&signing(&second)?), told(&signing(&gateway)?));
        let (clear, kept): (Option<Vec<u8>>, Vec<u8>) =
            sqlx::query_as("select seed, sealed_seed from receipt_key")
                .fetch_one(&cloud.database().await?)
                .await?;
        assert!(clear.is_none() && !kept.windows(8).any(|part| part == &drawn[..8]), "it can be read");
        assert_eq!(doctor(&cloud).await?, "ok");
        // While it cannot be opened nothing is taken, and nobody is told of another.
        for wrong in ["", "another key than that it was sealed with"] {
            cloud.stop().await?;
            cloud.set("receipts.seal_key", wrong).start().await?;
            assert_eq!(doctor(&cloud).await?, "fail", "{wrong}");
            let refused = import(&cloud, &bundle, &receipt).await?;
            assert!(refused.code() == 1 && refused.stderr.contains("receipts.seal_key"), "{refused:?}");
            assert!(!receipt.exists());
            cloud_holds(&cloud.database().await?, &[]).await?;
            let claim = cloud.claim(&format!("GW-3{}", wrong.len())).await?;
            let made = HandMade::with_key("GW-3", &cloud.base(), &new_key())?;
            let enrolled = made.redeem(&claim.claim).await?.expect(200)?;
            assert_eq!(enrolled["receipt_key"], Value::Null, "{enrolled}");
        }
        cloud.stop().await?;
        cloud.set("receipts.seal_key", seal).start().await?;
        import(&cloud, &bundle, &receipt).await?.ok()?;
        settle(&gateway, &receipt).await?.ok()?;
        assert_eq!(gateway.unsent()?, 0);
        cloud_holds(&cloud.database().await?, &tags).await?;
        assert!(!stand.logs().contains(seal), "a log holds the key");
        Ok(())
    })
}

/// Exports what a gateway holds; the bundle's path.
async fn export(gateway: &Gateway, out: &Path) -> Result<Value> {
    let out = out.to_str().context("a path that is no text")?;
    let printed = gateway.cli(&["export", "--out", out, "--json"]).await?.ok().context("export")?;
    Ok(serde_json::from_str(&printed)?)
}

async fn import(cloud: &Cloud, bundle: &Path, receipt: &Path) -> Result<Finished> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    cloud.cli(&["import", "bundle", &path(bundle), "--receipt", &path(receipt)]).await
}

async fn settle(gateway: &Gateway, receipt: &Path) -> Result<Finished> {
    gateway.cli(&["settle", &receipt.to_string_lossy()]).await
}

async fn count(cloud: &Cloud, sql: &'static str) -> Result<i64> {
    Ok(sqlx::query_scalar(sql).fetch_one(&cloud.database().await?).await?)
}

const INCIDENTS: &str = "select count(*) from gateway_incident";

#[test]
fn what_never_saw_a_network_is_carried_there_and_back_and_nothing_doubles_when_one_comes() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let mut tags = gateway.scan_many("BAWA", 12).await?;
        // A second run on the same card.
        gateway.restart().await?;
        tags.extend(gateway.scan_many("BAWA-LAGI", 8).await?);
        let (bundle, receipt) = (stand.path().join("GW-1.lumbung"), stand.path().join("GW-1.receipt"));
        let written = export(&gateway, &bundle).await?;
        assert_eq!(
            (&written["counts"]["scan"], &written["registered"]),
            (&json!(20), &json!(true)),
            "{written}"
        );
        assert_eq!(gateway.unsent()?, 20, "an export marks nothing");
        assert!(
            !std::fs::read(&bundle)?.windows(4).any(|part| part == b"BAWA"),
            "tags can be read in the bundle"
        );
        let again = gateway.cli(&["export", "--out", &bundle.to_string_lossy()]).await?;
        assert_eq!(again.code(), 2, "a bundle was written over another: {}", again.stdout);
        // Stored while the stick is on its way.
        let later = gateway.scan_many("KEMUDIAN", 3).await?;

        let said = import(&cloud, &bundle, &receipt).await?.ok()?;
        assert!(said.contains("20 records, of them 0 known before"), "{said}");
        cloud_holds(&cloud.database().await?, &tags).await?;
        let said = import(&cloud, &bundle, &receipt).await?.ok()?;
        assert!(said.contains("20 records, of them 20 known before"), "{said}");

        settle(&gateway, &receipt).await?.ok()?;
        assert_eq!(gateway.unsent()?, 3, "what came after the export is not settled by it");
        let status = gateway.status().await?;
        assert_eq!(status["unsent"]["scan"], 3, "{status}");
        assert_eq!(settle(&gateway, &receipt).await?.code(), 3, "the same receipt again does nothing");

        proxy.line(Line::Up);
        tags.extend(later);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        assert_eq!(count(&cloud, INCIDENTS).await?, 0);
        // An event of the gateway's own may still be on its way.
        let none = stand.path().join("none");
        eventually("an export finds nothing unsent", || async {
            let exported = gateway.cli(&["export", "--out", &none.to_string_lossy()]).await?.code();
            if exported == 0 {
                std::fs::remove_file(&none)?;
            }
            Ok((exported == 3).then_some(()))
        })
        .await
    })
}

#[test]
fn a_stopped_gateways_store_is_exported_and_settled_too() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        let tags = gateway.scan_many("MATI", 5).await?;
        gateway.stop().await?;
        let (bundle, receipt) = (stand.path().join("b"), stand.path().join("r"));
        export(&gateway, &bundle).await?;
        // It goes on, and its next run is heard of before the stick arrives: no fork.
        proxy.line(Line::Up);
        gateway.start().await?;
        gateway.drained().await?;
        gateway.stop().await?;
        import(&cloud, &bundle, &receipt).await?.ok()?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        assert_eq!(count(&cloud, INCIDENTS).await?, 0);
        // As if its answer had been lost.
        rusqlite::Connection::open(gateway.database())?.execute_batch(
            "update scan_event set synced_to_main_server = 0; update cursor set through = 0",
        )?;
        settle(&gateway, &receipt).await?.ok()?;
        assert_eq!(gateway.unsent()?, 0);
        Ok(())
    })
}

#[test]
fn a_bundle_that_was_touched_or_is_of_a_stranger_is_refused_and_changes_nothing() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        gateway.scan_many("UTUH", 5).await?;
        let (bundle, receipt) = (stand.path().join("b"), stand.path().join("r"));
        export(&gateway, &bundle).await?;
        let whole = std::fs::read(&bundle)?;
        let touched = stand.path().join("touched");
        for at in [0, 9, 40, whole.len() / 2, whole.len() - 70, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&touched, bytes)?;
            let refused = import(&cloud, &touched, &receipt).await?;
            assert_eq!(refused.code(), 1, "byte {at}: {}", refused.stdout);
            assert!(refused.stderr.contains("was not imported"), "{}", refused.stderr);
        }
        for end in [0, 8, whole.len() - 1] {
            std::fs::write(&touched, &whole[..end])?;
            assert_eq!(import(&cloud, &touched, &receipt).await?.code(), 1, "{end} bytes");
        }
        // Another gateway's key under this gateway's name, and a gateway that nobody enrolled.
        let other = stand.gateway_not_started("GW-2", &cloud, &cloud.base()).await?;
        let copy = copied(&gateway, &stand.path().join("copy"))?;
        std::fs::copy(other.dir.join("signing.json"), copy.dir.join("signing.json"))?;
        std::fs::remove_file(&bundle)?;
        export(&copy, &bundle).await?;
        let refused = import(&cloud, &bundle, &receipt).await?;
        assert!(refused.code() == 1 && refused.stderr.contains("GW-2 signed it"), "{}", refused.stderr);
        std::fs::remove_file(copy.dir.join("signing.json"))?;
        std::fs::remove_file(&bundle)?;
        assert_eq!(export(&copy, &bundle).await?["registered"], false);
        let refused = import(&cloud, &bundle, &receipt).await?;
        assert_eq!(refused.code(), 3, "{}", refused.stderr);
        // Shut out.
        std::fs::write(&bundle, &whole)?;
        cloud.must(&["gateway", "revoke", "GW-1"]).await?;
        let refused = import(&cloud, &bundle, &receipt).await?;
        assert!(refused.code() == 1 && refused.stderr.contains("revoked"), "{}", refused.stderr);
        assert!(!receipt.exists(), "a receipt was given");
        assert!(held(&cloud.database().await?).await?.is_empty());
        Ok(())
    })
}

/// Another gateway process on a copy of a data directory.
fn copied(gateway: &Gateway, to: &Path) -> Result<Gateway> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(&gateway.dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && !entry.file_name().to_string_lossy().contains("reserve") {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Gateway::new(&gateway.code, to, &to.with_extension("log"))
}

#[test]
fn a_receipt_that_is_forged_or_another_gateways_settles_nothing() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        gateway.scan_many("KWITANSI", 4).await?;
        let other = stand.gateway("GW-2", &cloud, &proxy.base()).await;
        assert!(other.is_err(), "there is no line to enrol on");
        proxy.line(Line::Up);
        let mut other = stand.gateway_not_started("GW-2", &cloud, &proxy.base()).await?;
        proxy.line(Line::Refused);
        other.start().await?;
        other.scan_many("LAIN", 4).await?;
        gateway.restart().await?;
        gateway.scan("KWITANSI-5", "makanan_keluar").await?;
        let (bundle, receipt) = (stand.path().join("b"), stand.path().join("r"));
        export(&other, &bundle).await?;
        import(&cloud, &bundle, &receipt).await?.ok()?;
        let unsent = gateway.unsent()?;
        let foreign = settle(&gateway, &receipt).await?;
        assert!(foreign.code() == 1 && foreign.stderr.contains("receipt_foreign"), "{}", foreign.stderr);
        let text = std::fs::read_to_string(&receipt)?;
        let forged = stand.path().join("forged");
        for (text, code) in [
            (text.replace("GW-2", "GW-1"), "receipt_forged"),
            (text.replacen("[1,4]", "[1,9]", 1), "receipt_forged"),
            ("{}".to_owned(), "receipt_unreadable"),
            (String::new(), "receipt_unreadable"),
        ] {
            std::fs::write(&forged, &text)?;
            for by in [&gateway, &other] {
                let refused = settle(by, &forged).await?;
                assert!(refused.code() == 1 && refused.stderr.contains(code), "{code}: {}", refused.stderr);
            }
        }
        gateway.stop().await?;
        let refused = settle(&gateway, &receipt).await?;
        assert!(refused.code() == 1 && refused.stderr.contains("GW-2"), "{}", refused.stderr);
        assert_eq!((gateway.unsent()?, other.unsent()?), (unsent, 4));
        settle(&other, &receipt).await?.ok()?;
        assert_eq!(other.unsent()?, 0);
        Ok(())
    })
}

#[test]
fn a_dead_card_is_replaced_and_what_it_still_held_is_brought_from_its_image() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        let mut tags = gateway.scan_many("LAMA", 5).await?;
        gateway.drained().await?;
        proxy.line(Line::Refused);
        tags.extend(gateway.scan_many("LAMA-TERTAHAN", 4).await?);
        gateway.kill();
        let old = copied(&gateway, &stand.path().join("old-card"))?;
        let old_key = key_of(&old)?;

        // A new card in the same box: a claim for the same gateway, and it goes on.
        std::fs::remove_dir_all(&gateway.dir)?;
        proxy.line(Line::Up);
        let claim = cloud.claim("GW-1").await?;
        gateway.enrol(&proxy.base(), &claim.claim).await?;
        assert_eq!(keys(&cloud, "GW-1").await?, (2, 2), "the old card may speak until the new one does");
        gateway.start().await?;
        tags.extend(gateway.scan_many("BARU", 6).await?);
        gateway.drained().await?;
        assert_eq!(keys(&cloud, "GW-1").await?, (2, 1));
        assert_eq!(HandMade::with_key("GW-1", &cloud.base(), &old_key)?.post("[]").await?.status, 401);
        assert_eq!(count(&cloud, INCIDENTS).await?, 0, "a new card is no fork");

        // The image of the old card turns up.
        proxy.line(Line::Refused);
        let waiting = gateway.scan_many("BARU-TERTAHAN", 4).await?;
        let (bundle, receipt) = (stand.path().join("b"), stand.path().join("r"));
        assert_eq!(export(&old, &bundle).await?["counts"]["scan"], 4);
        import(&cloud, &bundle, &receipt).await?.ok()?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        let said = import(&cloud, &bundle, &receipt).await?.ok()?;
        assert!(said.contains("4 known before"), "{said}");
        // The new card's records of the same numbers are others: the receipt is not for them.
        assert_eq!(settle(&gateway, &receipt).await?.code(), 3);
        assert_eq!(gateway.unsent()?, 4);
        settle(&old, &receipt).await?.ok()?;
        assert_eq!(old.unsent()?, 0);

        // The old key speaks for no run of the new card.
        let thief = copied(&gateway, &stand.path().join("thief"))?;
        std::fs::copy(old.dir.join("signing.json"), thief.dir.join("signing.json"))?;
        std::fs::remove_file(&bundle)?;
        export(&thief, &bundle).await?;
        let refused = import(&cloud, &bundle, &receipt).await?;
        assert!(refused.code() == 1 && refused.stderr.contains("newer card"), "{}", refused.stderr);

        proxy.line(Line::Up);
        gateway.drained().await?;
        tags.extend(waiting);
        cloud_holds(&cloud.database().await?, &tags).await?;
        assert_eq!(count(&cloud, INCIDENTS).await?, 0);
        // An operator shuts the gateway out and lets the new card in again: the old card is out for good.
        cloud.must(&["gateway", "revoke", "GW-1"]).await?;
        let claim = cloud.claim("GW-1").await?;
        gateway.enrol(&proxy.base(), &claim.claim).await?;
        rusqlite::Connection::open(old.database())?.execute_batch(
            "update scan_event set synced_to_main_server = 0; update cursor set through = 0",
        )?;
        std::fs::remove_file(&bundle)?;
        export(&old, &bundle).await?;
        let refused = import(&cloud, &bundle, &receipt).await?;
        assert!(refused.code() == 1 && refused.stderr.contains("revoked"), "{}", refused.stderr);
        Ok(())
    })
}

fn key_of(gateway: &Gateway) -> Result<String> {
    let identity: Value = serde_json::from_slice(&std::fs::read(gateway.dir.join("identity.json"))?)?;
    Ok(identity["key"].as_str().context("no key")?.to_owned())
}

#[test]
fn how_long_a_bundle_was_carried_ties_no_clock() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let mut gateway = stand.gateway_not_started("GW-1", &cloud, &cloud.base()).await?;
        gateway.start().await?;
        gateway.drained().await?;
        gateway.stop().await?;
        // Another boot, which the cloud will only ever hear of by the bundle.
        gateway.set("cloud.url", "http://127.0.0.1:9");
        gateway.start().await?;
        gateway.scan("TANPA-JAM", "makanan_keluar").await?;
        gateway.stop().await?;
        rusqlite::Connection::open(gateway.database())?.execute_batch(
            "update run set boot = 'another-boot' where synced = 0;
             update scan_event set clock_state = 0, wall_ms = 1000",
        )?;
        let (bundle, receipt) = (stand.path().join("b"), stand.path().join("r"));
        export(&gateway, &bundle).await?;
        import(&cloud, &bundle, &receipt).await?.ok()?;
        let basis: i16 = sqlx::query_scalar("select time_basis from scan_event")
            .fetch_one(&cloud.database().await?)
            .await?;
        assert_eq!(basis, 3, "uncertain, not anchored by its arrival");
        Ok(())
    })
}

#[test]
fn readings_and_events_are_carried_too_and_the_next_live_batch_gives_them_their_time() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        proxy.line(Line::Refused);
        for n in 0..30 {
            let reading = json!({ "series": "kulkas-1/suhu", "unit": "Cel", "value": n });
            gateway.post("/api/readings", &json!({ "readings": [reading] })).await?.expect(201)?;
        }
        gateway.scan_many("BERSAMA", 3).await?;
        let (bundle, receipt) = (stand.path().join("b"), stand.path().join("r"));
        let counts = export(&gateway, &bundle).await?["counts"].clone();
        assert_eq!((&counts["scan"], &counts["reading"]), (&json!(3), &json!(30)), "{counts}");
        let noted = gateway.events("clock_anchor")?.len() + gateway.events("clock_step")?.len();
        assert!(counts["event"].as_u64().unwrap_or_default() >= u64::try_from(noted)?, "{counts}");
        import(&cloud, &bundle, &receipt).await?.ok()?;
        import(&cloud, &bundle, &receipt).await?.ok()?;
        let here = "select (select count(*) from reading) + (select count(*) from waiting_reading)";
        assert_eq!(count(&cloud, here).await?, 30);
        assert_eq!(count(&cloud, "select readings from gateway_state").await?, 30);
        settle(&gateway, &receipt).await?.ok()?;
        assert_eq!(gateway.status().await?["unsent"]["reading"], 0);
        proxy.line(Line::Up);
        gateway.scan("HIDUP-LAGI", "makanan_keluar").await?;
        gateway.drained().await?;
        assert_eq!(count(&cloud, here).await?, 30, "each once, by whichever way");
        let doubtful = "select (select count(*) from reading where time_basis = 3)
            + (select count(*) from scan_event where time_basis = 3) + (select count(*) from waiting_reading)";
        assert_eq!(count(&cloud, doubtful).await?, 0, "its boot is tied to the time of day now");
        assert_eq!(count(&cloud, "select count(*) from quarantine").await?, 0);
        Ok(())
    })
}
