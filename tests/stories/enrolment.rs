//! A box becomes a gateway, changes its key, is shut out and let in again; no scan is lost on the way.

use anyhow::{Context, Result};
use lumbung_tests::http;
use lumbung_tests::ledger::held;
use lumbung_tests::proxy::{Fate, Proxy};
use lumbung_tests::stand::cloud_holds;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use lumbung_tests::wire::{HandMade, batch, new_key, scans};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

fn identity(gateway: &lumbung_tests::programs::Gateway) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(gateway.dir.join("identity.json"))?)?)
}

#[test]
fn a_claim_is_redeemed_once_and_the_key_stays_secret() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let claim = cloud.claim("GW-1").await?;
        assert_eq!((claim.gateway_id.as_str(), claim.site.as_str()), ("GW-1", "DAPUR-1"));
        assert!(claim.uri.starts_with("lumbung://enrol?cloud="), "{}", claim.uri);
        let gateway = stand.bare_gateway("GW-1")?;
        gateway.enrol(&cloud.base(), &claim.claim).await?;
        let file = gateway.dir.join("identity.json");
        assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
        let key = identity(&gateway)?["key"].as_str().context("no key")?.to_owned();
        assert!(lumbung_shared::enrol::is_key(&key), "not the form of a key");
        // A second box with the same claim is turned away.
        let thief = HandMade::with_key("GW-1", &cloud.base(), &new_key())?;
        assert_eq!(thief.redeem(&claim.claim).await?.status, 409);
        let second = stand.bare_gateway("GW-1-B")?;
        let refused = second.cli(&["enrol", "--cloud", &cloud.base(), "--claim", &claim.claim]).await?;
        assert_eq!(refused.code(), 1, "{}", refused.stderr);
        // Neither the database nor any log knows the key or the claim.
        let database = cloud.database().await?;
        for table in ["gateway_key", "gateway_claim"] {
            let sql =
                sqlx::AssertSqlSafe(format!("select coalesce(string_agg(t::text, ' '), '') from {table} t"));
            let text: String = sqlx::query_scalar(sql).fetch_one(&database).await?;
            assert!(!text.contains(&key) && !text.contains(&claim.claim), "{table} holds a secret");
        }
        let logs = stand.logs();
        assert!(!logs.contains(&key) && !logs.contains(&claim.claim), "a log holds a secret");
        Ok(())
    })
}

#[test]
fn a_gateway_is_not_named_like_what_gateways_call_and_one_that_is_can_still_be_shut_out() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        cloud.furnish().await?;
        let add = async |code: &str| cloud.cli(&["gateway", "add", code, "--site", "DAPUR-1"]).await;
        for code in ["enrol", "rotate", "signing_key"] {
            let refused = add(code).await?;
            assert!(refused.code() != 0 && refused.stderr.contains("choose another"), "{refused:?}");
        }
        assert_eq!(cloud.must(&["gateway", "list"]).await?, "");
        // One from a time when nobody looked.
        let made =
            "insert into gateway (code, site_id) select 'rotate', site_id from site where code = 'DAPUR-1'";
        sqlx::query(made).execute(&cloud.database().await?).await?;
        add("rotate").await?.ok()?;
        cloud.must(&["gateway", "revoke", "rotate"]).await?;
        assert!(cloud.must(&["gateway", "list"]).await?.contains("rotate\tDAPUR-1\trevoked"));
        Ok(())
    })
}

#[test]
fn the_uri_of_the_qr_code_enrols_however_the_claim_is_typed() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let claim = cloud.claim("GW-1").await?;
        let gateway = stand.bare_gateway("GW-1")?;
        gateway.cli(&["enrol", &claim.uri]).await?.ok()?;
        assert_eq!(identity(&gateway)?["gateway_id"], "GW-1");
        let claim = cloud.claim("GW-2").await?;
        let typed = claim.claim.replace('-', "").to_lowercase();
        let gateway = stand.bare_gateway("GW-2")?;
        gateway.enrol(&cloud.base(), &typed).await?;
        assert_eq!(identity(&gateway)?["gateway_id"], "GW-2");
        Ok(())
    })
}

#[test]
fn an_expired_or_unknown_claim_is_refused() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let claim = cloud.claim_with(&["GW-1", "--site", "DAPUR-1", "--valid", "1h"]).await?;
        sqlx::query("update gateway_claim set expires_at = now() - interval '1 second'")
            .execute(&cloud.database().await?)
            .await?;
        let late = HandMade::with_key("GW-1", &cloud.base(), &new_key())?;
        assert_eq!(late.redeem(&claim.claim).await?.status, 404);
        assert_eq!(late.redeem("TIDAK-ADA-SAMA-SEKALI").await?.status, 404);
        assert_eq!(late.post("[]").await?.status, 401, "the key became good all the same");
        let reply = HandMade::with_key("GW-1", &cloud.base(), "short")?.redeem(&claim.claim).await?;
        assert!(matches!(reply.status, 400 | 404), "{}", reply.text);
        Ok(())
    })
}

#[test]
fn a_lost_answer_to_an_enrolment_is_asked_for_again_with_the_same_key() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let proxy = Proxy::start(&cloud.address())?;
        let claim = cloud.claim("GW-1").await?;
        let gateway = stand.bare_gateway("GW-1")?;
        proxy.rule_for_all(|_| Fate::LoseAnswer);
        let lost = gateway.cli(&["enrol", "--cloud", &proxy.base(), "--claim", &claim.claim]).await?;
        assert!(!lost.status.success(), "{}", lost.stdout);
        proxy.heal();
        gateway.enrol(&proxy.base(), &claim.claim).await?;
        let mut gateway = gateway;
        gateway.start().await?;
        gateway.scan("SAMPAI-1", "makanan_keluar").await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &["SAMPAI-1".to_owned()]).await
    })
}

#[test]
fn a_gateway_takes_scans_before_it_is_enrolled_and_sends_them_after() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let mut gateway = stand.bare_gateway("GW-1")?;
        gateway.start().await?;
        let tags = gateway.scan_many("DULU", 10).await?;
        gateway.until_state("not_enrolled").await?;
        let claim = cloud.claim("GW-1").await?;
        gateway.enrol(&cloud.base(), &claim.claim).await?;
        gateway.restart().await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await
    })
}

#[test]
fn a_revoked_gateway_keeps_its_scans_and_continues_after_a_new_claim() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, mut gateway) = stand.trio().await?;
        let mut tags = gateway.scan_many("BOLEH", 5).await?;
        gateway.drained().await?;
        cloud.must(&["gateway", "revoke", "GW-1", "--reason", "hilang"]).await?;
        tags.extend(gateway.scan_many("DITOLAK", 10).await?);
        gateway.until_state("revoked").await?;
        assert_eq!(gateway.unsent()?, 10);
        assert!(proxy.statuses().contains(&403));
        assert_eq!(held(&cloud.database().await?).await?.len(), 5);
        assert_eq!(cloud.summary_of("GW-1").await?["revoked"], true);
        let claim = cloud.claim("GW-1").await?;
        gateway.enrol(&proxy.base(), &claim.claim).await?;
        gateway.restart().await?;
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        assert_eq!(cloud.summary_of("GW-1").await?["revoked"], false);
        Ok(())
    })
}

#[test]
fn a_key_is_rotated_under_load_and_no_scan_is_lost() -> Result<()> {
    story(async |stand| {
        let (cloud, proxy, gateway) = stand.trio().await?;
        let mut tags = gateway.scan_many("KUNCI-A", 5).await?;
        gateway.drained().await?;
        let old = identity(&gateway)?["key"].as_str().context("no key")?.to_owned();
        // The first answer to the rotation is lost.
        proxy.rule_for_all(|request| match request.message.first_line().contains("/rotate") {
            true => Fate::LoseAnswer,
            false => Fate::Pass,
        });
        let lost = gateway.cli(&["rotate"]).await?;
        tags.extend(gateway.scan_many("KUNCI-B", 5).await?);
        proxy.heal();
        let (rotated, more) = tokio::join!(gateway.cli(&["rotate"]), gateway.scan_many("KUNCI-C", 30));
        rotated?.ok().with_context(|| format!("after a lost answer ({})", lost.stderr))?;
        tags.extend(more?);
        tags.extend(gateway.scan_many("KUNCI-D", 5).await?);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &tags).await?;
        let new = identity(&gateway)?["key"].as_str().context("no key")?.to_owned();
        assert_ne!(old, new);
        eventually("the old key is dead once the new one was used", || async {
            let reply = HandMade::with_key("GW-1", &cloud.base(), &old)?.post("[]").await?;
            Ok(when(reply.status == 401))
        })
        .await?;
        let mut gateway = gateway;
        gateway.restart().await?;
        gateway.scan("KUNCI-E", "makanan_keluar").await?;
        gateway.drained().await
    })
}

#[test]
fn nothing_is_taken_from_anyone_unenrolled() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        cloud.claim("GW-1").await?;
        let object = serde_json::to_string(&batch(1, None, scans(1, 2, "ASING")?)?)?;
        let array = json!([{ "nfc_tag_id": "A", "status_scan": "b", "timestamp": "2026-11-20T03:00:00",
            "gateway_id": "GW-1" }])
        .to_string();
        for key in [new_key(), "lbg_".to_owned(), "GW-1".to_owned(), String::new()] {
            let stranger = HandMade::with_key("GW-1", &cloud.base(), &key)?;
            for body in [&object, &array] {
                assert_eq!(stranger.post(body.clone()).await?.status, 401);
            }
        }
        for body in [&object, &array] {
            let bare = http::client()?
                .post(cloud.url("/api/sync_gateway_data"))
                .header("content-type", "application/json")
                .body(body.clone());
            assert_eq!(http::send(bare).await?.status, 401);
        }
        let rotate = http::client()?
            .post(cloud.url("/api/gateways/rotate"))
            .bearer_auth(new_key())
            .header("content-type", "application/json")
            .body(json!({ "new_key": new_key() }).to_string());
        assert_eq!(http::send(rotate).await?.status, 401);
        assert!(held(&cloud.database().await?).await?.is_empty());
        Ok(())
    })
}

#[test]
fn one_gateway_cannot_take_anothers_key() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let first = cloud.hand_made("GW-1").await?;
        let claim = cloud.claim("GW-2").await?;
        let copycat = HandMade::with_key("GW-2", &cloud.base(), &first.key)?;
        let reply = copycat.redeem(&claim.claim).await?;
        assert!((400..500).contains(&reply.status), "{} {}", reply.status, reply.text);
        first.send(&batch(1, None, scans(1, 2, "SAH")?)?).await?;
        let rows = held(&cloud.database().await?).await?;
        assert!(rows.iter().all(|row| row.content.gateway == "GW-1"), "{rows:?}");
        Ok(())
    })
}

#[test]
fn readers_need_a_key_unless_development_is_open() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("development.open_loopback", false);
        cloud.start().await?;
        let client = http::client()?;
        let paths = ["/api/scans", "/api/dashboard/summary", "/api/live", "/api/tags/A", "/metrics"];
        for path in paths {
            assert_eq!(cloud.get(path).await?.status, 401, "{path}");
        }
        assert_eq!(cloud.get("/livez").await?.status, 200);
        let made: Value =
            serde_json::from_str(&cloud.must(&["key", "add", "dasbor", "--scope", "read", "--json"]).await?)?;
        let key = made["key"].as_str().context("key add --json has no key")?;
        assert!(key.starts_with("lbk_"), "{made}");
        for path in ["/api/scans", "/api/dashboard/summary", "/metrics"] {
            let reply = http::send(client.get(cloud.url(path)).bearer_auth(key)).await?;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        }
        // A reader's key writes nothing.
        let reader = HandMade::with_key("GW-1", &cloud.base(), key)?;
        assert_eq!(reader.post("[]").await?.status, 401);
        let listed = cloud.must(&["key", "list"]).await?;
        assert!(listed.contains("dasbor") && !listed.contains(key), "{listed}");
        Ok(())
    })
}
