//! Operators and officers see their own sites and nothing of anyone else's; keys open what their scopes say.

use anyhow::{Context, Result};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::{PATIENCE, eventually, when, within_a_second};
use lumbung_tests::wire::{HandMade, batch, event, reading, scans, telemetry};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// An account made at the command line, signed in.
async fn sign_in(cloud: &Cloud, email: &str) -> Result<String> {
    let added = cloud.must(&["user", "add", "--email", email, "--json"]).await?;
    let added: Value = serde_json::from_str(&added)?;
    let body = json!({ "email": email, "password": added["password"] });
    let login = http::client()?
        .post(cloud.url("/api/auth/login"))
        .header("content-type", "application/json")
        .body(body.to_string());
    let body = http::send(login).await?.expect(200)?;
    Ok(body["token"].as_str().context("token")?.to_owned())
}

async fn read(cloud: &Cloud, path: &str, token: &str) -> Result<Reply> {
    http::send(http::client()?.get(cloud.url(path)).bearer_auth(token)).await
}

/// A gateway at a site of its own in a programme of its own, with three scans, a reading and an event that bear
/// the place's name.
async fn place(cloud: &Cloud, name: &str) -> Result<HandMade> {
    let (programme, site, gateway) = (format!("P-{name}"), format!("S-{name}"), format!("GW-{name}"));
    cloud.must(&["programme", "add", &programme, name]).await?;
    add_site(cloud, &programme, &site).await?;
    let claim = cloud.claim_with(&[&gateway, "--site", &site]).await?;
    let gateway = HandMade::enrol(&gateway, &cloud.base(), &claim.claim).await?;
    send(&gateway, 1, &site, name).await?;
    Ok(gateway)
}

async fn add_site(cloud: &Cloud, programme: &str, site: &str) -> Result<()> {
    let arguments = ["site", "add", site, "--programme", programme, "--name", site, "--kind", "kitchen"];
    cloud.must(&arguments).await.map(drop)
}

/// A run at a site: three scans, a reading and an event.
async fn send(gateway: &HandMade, epoch: u64, site: &str, name: &str) -> Result<()> {
    let mut scans = batch(epoch, None, scans(1, 3, name)?)?;
    let series = format!("{name}/temperature");
    let down = event(1, "sensor_down", &json!({ "sensor": name }));
    let mut readings = telemetry(epoch, vec![reading(1, &series, "Cel", 4.0)?], vec![down])?;
    for batch in [&mut scans, &mut readings] {
        for run in &mut batch.runs {
            run.start.as_mut().context("no start")?.site = Some(site.to_owned());
        }
        gateway.send(batch).await?;
    }
    Ok(())
}

/// Everything that a reader can list, as one text.
async fn all_that(cloud: &Cloud, token: &str) -> Result<String> {
    let mut all = String::new();
    for path in [
        "/api/scans?limit=500",
        "/api/dashboard/summary",
        "/api/telemetry/series",
        "/api/scans?site=S-SAWAH",
        "/api/scans?gateway_id=GW-SAWAH",
        "/api/dashboard/summary?programme=P-SAWAH",
        "/api/telemetry/series?site=S-SAWAH",
    ] {
        let reply = read(cloud, path, token).await?;
        reply.expect(200).with_context(|| path.to_owned())?;
        all.push_str(&reply.text);
    }
    for gateway in ["GW-DAPUR", "GW-SAWAH"] {
        let reply = read(cloud, &format!("/api/gateways/{gateway}/events"), token).await?;
        all.push_str(reply.text.as_str());
    }
    Ok(all)
}

#[test]
fn an_officer_sees_one_site_and_no_row_of_another() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let replica = stand.replica_of(&cloud).await?;
        place(&cloud, "DAPUR").await?;
        let elsewhere = place(&cloud, "SAWAH").await?;
        let officer = sign_in(&cloud, "budi@example.com").await?;
        let reply = read(&cloud, "/api/scans", &officer).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (403, "NOT_GRANTED"));
        cloud.must(&["user", "grant", "budi@example.com", "officer", "--site", "S-DAPUR"]).await?;
        let listed = cloud.must(&["user", "grants", "budi@example.com"]).await?;
        assert!(listed.contains("officer\tS-DAPUR"), "{listed}");
        for at in [&cloud, &replica] {
            within_a_second("the grant is felt", &403, &200, || async {
                Ok(read(at, "/api/scans", &officer).await?.status)
            })
            .await?;
            let seen = all_that(at, &officer).await?;
            assert!(seen.contains("DAPUR-3") && seen.contains("DAPUR/temperature"), "{seen}");
            assert!(!seen.contains("SAWAH"), "rows of another site: {seen}");
        }
        let summary = read(&cloud, "/api/dashboard/summary", &officer).await?.expect(200)?;
        let totals = json!({ "scans": 3, "gateways": 1, "sites": 1, "quarantined": 0 });
        assert_eq!((&summary["totals"], &summary["today"][0]["count"]), (&totals, &json!(3)));
        let everything = all_that(&cloud, &reader(&cloud, "read").await?).await?;
        assert!(everything.contains("SAWAH-3") && everything.contains("DAPUR-3"), "{everything}");
        // By name, too: a tag, a series, a gateway of somebody else's is not there.
        let database = cloud.database().await?;
        let series: i64 = sqlx::query_scalar("select series_id from series where name like 'SAWAH%'")
            .fetch_one(&database)
            .await?;
        for path in [
            "/api/tags/SAWAH-1".to_owned(),
            "/api/gateways/GW-SAWAH/events".to_owned(),
            format!("/api/telemetry/readings?series_id={series}"),
        ] {
            assert_eq!(read(&cloud, &path, &officer).await?.status, 404, "{path}");
        }
        assert_eq!(read(&cloud, "/api/tags/DAPUR-1", &officer).await?.status, 200);
        for path in ["/metrics", "/api/health/detailed"] {
            assert_eq!(read(&cloud, path, &officer).await?.status, 403, "{path}");
        }
        // A gateway that moves in brings nothing of where it was; what it says from now on is seen.
        cloud.claim_with(&["GW-SAWAH", "--site", "S-DAPUR"]).await?;
        let seen = all_that(&cloud, &officer).await?;
        assert!(!seen.contains("SAWAH-1") && !seen.contains("\"sensor\":\"SAWAH\""), "{seen}");
        send(&elsewhere, 2, "S-DAPUR", "PINDAH").await?;
        let seen = all_that(&cloud, &officer).await?;
        assert!(seen.contains("PINDAH-1") && seen.contains("\"sensor\":\"PINDAH\""), "{seen}");
        assert!(!seen.contains("SAWAH-1") && !seen.contains("\"sensor\":\"SAWAH\""), "{seen}");
        // The same tag at two places: each sees the scans of its own.
        send(&elsewhere, 3, "S-SAWAH", "PINDAH").await?;
        let history = read(&cloud, "/api/tags/PINDAH-1", &officer).await?.expect(200)?;
        assert_eq!(history["scans"].as_array().map(Vec::len), Some(1), "{history}");
        // Taken away, it is felt everywhere.
        cloud.must(&["user", "ungrant", "budi@example.com", "officer", "--site", "S-DAPUR"]).await?;
        for at in [&cloud, &replica] {
            within_a_second("the grant is gone", &200, &403, || async {
                Ok(read(at, "/api/scans", &officer).await?.status)
            })
            .await?;
        }
        Ok(())
    })
}

#[test]
fn a_programmes_operator_sees_the_sites_that_it_has_now() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        place(&cloud, "DAPUR").await?;
        place(&cloud, "SAWAH").await?;
        let operator = sign_in(&cloud, "siti@example.com").await?;
        cloud.must(&["user", "grant", "siti@example.com", "operator", "--programme", "P-DAPUR"]).await?;
        eventually("the grant is felt", || async {
            Ok(when(read(&cloud, "/api/scans", &operator).await?.status == 200))
        })
        .await?;
        assert!(!all_that(&cloud, &operator).await?.contains("SAWAH-1"));
        add_site(&cloud, "P-DAPUR", "S-SAWAH").await?;
        eventually("the site that joined is seen", || async {
            Ok(when(all_that(&cloud, &operator).await?.contains("SAWAH-1")))
        })
        .await?;
        let wrong = cloud.cli(&["user", "grant", "siti@example.com", "operator", "--site", "S-TIDAK-ADA"]);
        assert_eq!(wrong.await?.code(), 2);
        let again = cloud.cli(&["user", "grant", "siti@example.com", "operator", "--programme", "P-DAPUR"]);
        assert_eq!(again.await?.code(), 1);
        let nobody = cloud.cli(&["user", "grant", "x@example.com", "officer", "--programme", "P-DAPUR"]);
        assert_eq!(nobody.await?.code(), 3);
        Ok(())
    })
}

#[test]
fn a_live_stream_tells_each_their_own_and_ends_with_the_grant() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let here = place(&cloud, "DAPUR").await?;
        let elsewhere = place(&cloud, "SAWAH").await?;
        let officer = sign_in(&cloud, "budi@example.com").await?;
        cloud.must(&["user", "grant", "budi@example.com", "officer", "--site", "S-DAPUR"]).await?;
        let mut stream = eventually("the stream opens", || async {
            let client = http::client_with(Duration::from_secs(120))?;
            let response = client.get(cloud.url("/api/live")).bearer_auth(&officer).send().await?;
            Ok((response.status() == 200).then_some(response))
        })
        .await?;
        let mut heard = String::new();
        for epoch in 2..5 {
            send(&elsewhere, epoch, "S-SAWAH", "SAWAH").await?;
            send(&here, epoch, "S-DAPUR", "DAPUR").await?;
        }
        while heard.matches("\"DAPUR-3\"").count() < 3 {
            let chunk = tokio::time::timeout(PATIENCE, stream.chunk()).await?;
            heard.push_str(&String::from_utf8_lossy(&chunk?.context("the stream ended")?));
        }
        assert!(!heard.contains("SAWAH"), "{heard}");
        cloud.must(&["user", "ungrant", "budi@example.com", "officer", "--site", "S-DAPUR"]).await?;
        let ended = Instant::now();
        // The next event finds nobody who may hear it.
        eventually("the stream ends", || async {
            send(&here, 9, "S-DAPUR", "DAPUR").await?;
            let refused = read(&cloud, "/api/scans", &officer).await?.status == 403;
            Ok(when(refused))
        })
        .await?;
        // Lists may refuse before streams do: what is believed of a reader is believed for less than a second.
        tokio::time::sleep_until(ended + Duration::from_secs(1)).await;
        send(&here, 10, "S-DAPUR", "RAHASIA").await?;
        let mut rest = String::new();
        while let Some(chunk) = tokio::time::timeout(PATIENCE, stream.chunk()).await?? {
            rest.push_str(&String::from_utf8_lossy(&chunk));
        }
        assert!(!rest.contains("RAHASIA"), "{rest}");
        Ok(())
    })
}

async fn reader(cloud: &Cloud, scope: &str) -> Result<String> {
    let made = cloud.must(&["key", "add", "kunci", "--scope", scope, "--json"]).await?;
    let made: Value = serde_json::from_str(&made)?;
    Ok(made["key"].as_str().context("key")?.to_owned())
}

#[test]
fn a_key_opens_what_its_scopes_say_until_it_ends() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let (read_key, metrics) = (reader(&cloud, "read").await?, reader(&cloud, "metrics").await?);
        for (key, what, path, status) in [
            (&read_key, "read", "/api/scans", 200),
            (&read_key, "read", "/metrics", 200),
            (&metrics, "metrics", "/metrics", 200),
            (&metrics, "metrics", "/api/health/detailed", 200),
            (&metrics, "metrics", "/api/scans", 403),
            (&metrics, "metrics", "/api/live", 403),
        ] {
            assert_eq!(read(&cloud, path, key).await?.status, status, "{what} {path}");
        }
        let listed = cloud.must(&["key", "list"]).await?;
        assert!(listed.contains("\tmetrics\t") && !listed.contains("never"), "{listed}");
        let database = cloud.database().await?;
        // Another scope beside it opens nothing more.
        sqlx::query("update access_key set scopes = '{metrics,gateways:enrol}' where scopes = '{metrics}'")
            .execute(&database)
            .await?;
        assert_eq!(read(&cloud, "/metrics", &metrics).await?.status, 200);
        assert_eq!(read(&cloud, "/api/scans", &metrics).await?.status, 403);
        sqlx::query("update access_key set expires_at = now() where 'metrics' = any(scopes)")
            .execute(&database)
            .await?;
        assert_eq!(read(&cloud, "/metrics", &metrics).await?.status, 401);
        assert!(cloud.must(&["key", "list"]).await?.contains("expired"));
        assert_eq!(cloud.cli(&["key", "add", "x", "--scope", "semua"]).await?.code(), 2);
        assert_eq!(cloud.cli(&["key", "add", "x", "--valid", "99999999999y"]).await?.code(), 2);
        Ok(())
    })
}
