//! The gateways' door: strangers' keys, and records of places where a gateway never stood.

use anyhow::{Context, Result};
use futures_util::future::join_all;
use lumbung_tests::http;
use lumbung_tests::ledger::held;
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use lumbung_tests::wire::{HandMade, batch, new_key, scans};
use serde_json::{Value, json};

/// A batch of three scans whose run says that it is at a site.
fn at_site(epoch: u64, first: i64, site: &str) -> Result<String> {
    let mut made = serde_json::to_value(batch(epoch, None, scans(first, 3, site)?)?)?;
    made["runs"][0]["start"]["site"] = json!(site);
    Ok(made.to_string())
}

/// The tags that are kept at a site.
async fn kept_at(cloud: &Cloud, site: &str) -> Result<Vec<String>> {
    let pool = cloud.database().await?;
    Ok(sqlx::query_scalar(
        "select nfc_tag_id from scan_event join site using (site_id) where code = $1 order by seq",
    )
    .bind(site)
    .fetch_all(&pool)
    .await?)
}

#[test]
fn a_storm_of_invented_keys_shuts_no_gateway_out_that_shares_their_address() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("limits.refused", "5/1h");
        cloud.start().await?;
        cloud.furnish().await?;
        let known = cloud.hand_made("GW-1").await?;
        let new = cloud.hand_made("GW-2").await?;
        known.send(&batch(1, None, scans(1, 1, "KENAL")?)?).await?;

        let storm = async || -> Result<Vec<u16>> {
            let invented = (0..60).map(async |_| {
                let stranger = HandMade::with_key("GW-9", &cloud.base(), &new_key())?;
                anyhow::Ok(stranger.post("[]").await?.status)
            });
            join_all(invented).await.into_iter().collect()
        };
        let (statuses, good) = tokio::join!(storm(), async {
            let mut answers = Vec::new();
            for seq in 2..12 {
                answers.push(known.send(&batch(1, None, scans(seq, 1, "KENAL")?)?).await);
            }
            answers.into_iter().collect::<Result<Vec<_>>>()
        });
        let statuses = statuses?;
        assert_eq!(good?.len(), 10, "a known gateway was turned away");
        assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
        // One that this replica has not heard yet gets in beside them too.
        eventually("the new gateway is let in", || async {
            let reply = new.post(serde_json::to_string(&batch(2, None, scans(1, 1, "BARU")?)?)?).await?;
            Ok(when(reply.status == 200))
        })
        .await
    })
}

#[test]
fn a_run_that_names_a_site_where_its_gateway_never_stood_waits_in_quarantine() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        cloud.must(&["programme", "add", "LAIN", "Program Lain"]).await?;
        let mut arguments = vec!["site", "add", "SEKOLAH-LAIN", "--programme", "LAIN", "--name", "Sekolah"];
        arguments.extend(["--kind", "school", "--time-zone", "Asia/Jakarta"]);
        cloud.must(&arguments).await?;
        let liar = cloud.hand_made("GW-1").await?;

        let lie = at_site(7, 1, "SEKOLAH-LAIN")?;
        let answer = liar.post(lie.clone()).await?.expect(200)?;
        let told = &answer["runs"][0]["streams"]["scan"];
        // The gateway may go on: the cloud holds them.
        assert_eq!(told["acked_through"], 3);
        let exceptions = told["exceptions"].as_array().context("exceptions")?;
        assert!(exceptions.iter().all(|e| e["verdict"] == "quarantined" && e["reason"] == "foreign_site"));
        assert_eq!(
            exceptions.iter().map(|e| e["through"].as_i64().or(e["seq"].as_i64())).max(),
            Some(Some(3))
        );
        assert_eq!(held(&cloud.database().await?).await?.len(), 0);
        // Its second batch in the same run, without the run's introduction, is no way round.
        let mut later = serde_json::to_value(batch(7, None, scans(4, 2, "SUSUL")?)?)?;
        later["runs"][0].as_object_mut().context("a run")?.remove("start");
        liar.post(later.to_string()).await?.expect(200)?;
        assert_eq!(held(&cloud.database().await?).await?.len(), 0);
        let listed = cloud.must(&["quarantine", "list"]).await?;
        assert_eq!(listed.lines().count(), 5, "{listed}");
        assert!(listed.contains("foreign_site") && listed.contains("SEKOLAH-LAIN"), "{listed}");
        assert!(cloud.must(&["quarantine", "replay", "--all"]).await?.contains("0 replayed, 5 stay"));
        // What it says of its own place is taken.
        liar.post(at_site(8, 11, "DAPUR-1")?).await?.expect(200)?;
        assert_eq!(kept_at(&cloud, "DAPUR-1").await?.len(), 3);

        // It did stand there, and nobody had told the cloud.
        cloud.must(&["gateway", "stood", "GW-1", "--site", "SEKOLAH-LAIN"]).await?;
        assert!(cloud.must(&["quarantine", "replay", "--all"]).await?.contains("5 replayed, 0 stay"));
        let tags = kept_at(&cloud, "SEKOLAH-LAIN").await?;
        assert_eq!(tags.join(" "), "SEKOLAH-LAIN-1 SEKOLAH-LAIN-2 SEKOLAH-LAIN-3 SUSUL-4 SUSUL-5");
        // Sent again, they are what is there already.
        let again = liar.post(lie).await?.expect(200)?;
        assert_eq!(again["runs"][0]["streams"]["scan"]["exceptions"][0]["verdict"], "duplicate");
        let audited = cloud.must(&["audit", "list", "--action", "place_changed"]).await?;
        assert!(audited.contains("SEKOLAH-LAIN"), "{audited}");
        assert_eq!(cloud.cli(&["gateway", "stood", "GW-1", "--site", "TIDAK-ADA"]).await?.code(), 2);
        assert_eq!(cloud.cli(&["gateway", "stood", "GW-X", "--site", "DAPUR-1"]).await?.code(), 3);
        Ok(())
    })
}

#[test]
fn what_a_gateway_recorded_before_it_was_moved_still_arrives() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        cloud.add_site("DAPUR-2").await?;
        let maker = cloud.hand_made("GW-1").await?;
        // Moved while its box still held what it had recorded at the old place.
        let claim = cloud.claim_with(&["GW-1", "--site", "DAPUR-2"]).await?;
        let moved = HandMade::enrol("GW-1", &cloud.base(), &claim.claim).await?;
        moved.post(at_site(5, 1, "DAPUR-1")?).await?.expect(200)?;
        moved.post(at_site(6, 4, "DAPUR-2")?).await?.expect(200)?;
        assert_eq!(
            (kept_at(&cloud, "DAPUR-1").await?.len(), kept_at(&cloud, "DAPUR-2").await?.len()),
            (3, 3)
        );
        drop(maker);
        Ok(())
    })
}

#[test]
fn a_claim_that_went_astray_is_withdrawn() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let claim = cloud.claim("GW-1").await?;
        let added = cloud.must(&["key", "add", "petugas", "--scope", "gateways:enrol", "--json"]).await?;
        let key: Value = serde_json::from_str(&added)?;
        let withdraw = async || {
            let request = http::client()?.delete(cloud.url("/api/gateways/GW-1/claim"));
            http::send(request.bearer_auth(key["key"].as_str().context("key")?)).await
        };
        withdraw().await?.expect(200)?;
        let finder = HandMade::with_key("GW-1", &cloud.base(), &new_key())?;
        let refused = finder.redeem(&claim.claim).await?;
        assert_eq!((refused.status, refused.error_code().as_str()), (404, "CLAIM_UNKNOWN"));
        let again = withdraw().await?;
        assert_eq!((again.status, again.error_code().as_str()), (404, "NO_OPEN_CLAIM"));
        let audited = cloud.must(&["audit", "list", "--action", "authn_token_revoked"]).await?;
        assert!(audited.contains("GW-1"), "{audited}");
        // A gateway that is enrolled loses nothing by it.
        let claim = cloud.claim("GW-2").await?;
        let enrolled = HandMade::enrol("GW-2", &cloud.base(), &claim.claim).await?;
        let none = http::client()?.delete(cloud.url("/api/gateways/GW-2/claim"));
        let none = http::send(none.bearer_auth(key["key"].as_str().context("key")?)).await?;
        assert_eq!(none.error_code(), "NO_OPEN_CLAIM");
        enrolled.send(&batch(1, None, scans(1, 1, "TETAP")?)?).await?;
        Ok(())
    })
}
