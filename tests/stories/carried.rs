//! Records that people carry where no network goes: signed on the gateway, receipted by the cloud.

use anyhow::{Context, Result};
use lumbung_tests::programs::{Cloud, Gateway};
use lumbung_tests::proxy::{Fate, Proxy};
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

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
