//! A cloud without a proxy in front: it ends TLS itself.

use anyhow::{Context, Result};
use lumbung_tests::http;
use lumbung_tests::stand::Stand;
use lumbung_tests::story::story;
use lumbung_tests::tls::Authority;
use lumbung_tests::wait::{eventually, when};
use nix::sys::signal::Signal;
use reqwest::redirect::Policy;
use reqwest::tls::Version as Tls;
use reqwest::{Method, Version};
use serde_json::Value;
use std::path::PathBuf;

/// A folder below the stand's.
fn folder(stand: &Stand, name: &str) -> Result<PathBuf> {
    let dir = stand.path().join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

#[test]
fn people_and_programs_of_every_age_shake_hands() -> Result<()> {
    story(async |stand| {
        let authority = Authority::new(stand.path())?;
        let files = authority.issue_into(&folder(stand, "tls")?)?;
        let mut cloud = stand.cloud_not_started().await?;
        cloud.with_tls(&files, &authority)?.start().await?;

        let url = cloud.url("/api/health");
        for (oldest, newest, http) in [
            (Tls::TLS_1_3, Tls::TLS_1_3, Version::HTTP_2),
            (Tls::TLS_1_2, Tls::TLS_1_2, Version::HTTP_2),
            (Tls::TLS_1_2, Tls::TLS_1_3, Version::HTTP_11),
        ] {
            let client = authority.client_with(|client| {
                let client = client.tls_version_min(oldest).tls_version_max(newest);
                if http == Version::HTTP_11 { client.http1_only() } else { client }
            })?;
            let answer = client.get(&url).send().await?;
            assert_eq!((answer.status().as_u16(), answer.version()), (200, http));
            assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
            // Stories run with `development.open_loopback`: who sits here reads without a key.
            let here = client.get(cloud.url("/api/scans")).send().await?;
            assert_eq!(here.status().as_u16(), 200, "{http:?}");
            let sent_on = client.get(cloud.url("/api/scans")).header("x-forwarded-for", "127.0.0.1");
            assert_eq!(sent_on.send().await?.status().as_u16(), 401, "{http:?}");
        }
        let stranger = http::client()?.get(&url).send().await;
        assert!(stranger.is_err(), "a client that does not know the authority goes on");
        let clear = http::client()?.get(format!("http://{}/api/health", cloud.address())).send().await;
        assert!(clear.is_err(), "plain HTTP is answered: {clear:?}");
        cloud.stop().await
    })
}

#[test]
fn another_certificate_ends_no_stream_and_a_bad_one_changes_nothing() -> Result<()> {
    story(async |stand| {
        let first = Authority::new(&folder(stand, "first")?)?;
        let second = Authority::new(&folder(stand, "second")?)?;
        let tls = folder(stand, "tls")?;
        let files = first.issue_into(&tls)?;
        let mut cloud = stand.cloud_not_started().await?;
        cloud.with_tls(&files, &first)?.start().await?;
        cloud.furnish().await?;
        let plain = stand.replica_of(&cloud).await?;
        let added: Value =
            serde_json::from_str(&cloud.must(&["key", "add", "layar", "--scope", "read", "--json"]).await?)?;
        let key = added["key"].as_str().context("key")?;
        let mut stream = first.client()?.get(cloud.url("/api/live")).bearer_auth(key).send().await?;
        assert_eq!(stream.status(), 200);

        // Whom a new connection is shown to.
        let url = cloud.url("/livez");
        let knows = async |authority: &Authority| -> Result<Option<()>> {
            Ok(when(authority.client()?.get(&url).send().await.is_ok()))
        };
        // Changed files are noticed by themselves.
        second.issue_into(&tls)?;
        eventually("the new certificate is shown", async || knows(&second).await).await?;
        assert!(knows(&first).await?.is_none(), "the certificate before is shown");

        // A key of another renewal, and then nothing at all.
        std::fs::write(&files.key, first.issue()?.1)?;
        for (bad, said) in [(true, "is not the key of"), (false, "No such file")] {
            if !bad {
                std::fs::remove_file(&files.key)?;
            }
            cloud.signal(Signal::SIGHUP);
            eventually("the bad certificate is told", || async {
                let log = std::fs::read_to_string(&cloud.settings.log)?;
                Ok(when(log.contains("the one before stays") && log.contains(said)))
            })
            .await?;
            assert!(knows(&second).await?.is_some(), "the old certificate is gone");
        }
        first.issue_into(&tls)?;
        cloud.signal(Signal::SIGHUP);
        eventually("the first authority's is shown again", async || knows(&first).await).await?;

        // Through all of that, one stream.
        let maker = plain.hand_made("GW-1").await?;
        maker.send(&lumbung_tests::wire::batch(1, None, lumbung_tests::wire::scans(1, 1, "TETAP")?)?).await?;
        let mut heard = String::new();
        while !heard.contains("TETAP-1") {
            let chunk = stream.chunk().await?.context("the stream ended")?;
            heard.push_str(&String::from_utf8_lossy(&chunk));
        }
        let metrics = http::send(first.client()?.get(cloud.url("/metrics")).bearer_auth(key)).await?.text;
        assert!(metrics.contains("lumbung_cloud_certificate_not_after_timestamp_seconds "), "{metrics}");
        Ok(())
    })
}

#[test]
fn without_a_key_that_fits_the_cloud_does_not_start() -> Result<()> {
    story(async |stand| {
        let authority = Authority::new(stand.path())?;
        let files = authority.issue_into(&folder(stand, "tls")?)?;
        let mut cloud = stand.cloud_not_started().await?;
        cloud.with_tls(&files, &authority)?;
        std::fs::write(&files.key, authority.issue()?.1)?;
        let ended = cloud.cli(&["serve"]).await?;
        assert_eq!((ended.code(), ended.stderr.contains("is not the key of")), (1, true), "{}", ended.stderr);
        let looked: Value = serde_json::from_str(&cloud.cli(&["doctor", "--json"]).await?.stdout)?;
        let checks = looked["checks"].as_array().context("checks")?;
        let tls = checks.iter().find(|check| check["check"] == "tls").context("tls is not looked at")?;
        assert_eq!(tls["state"], "fail", "{tls}");
        std::fs::remove_file(&files.key)?;
        let ended = cloud.cli(&["serve"]).await?;
        assert_eq!((ended.code(), ended.stderr.contains("http.tls.key")), (1, true), "{}", ended.stderr);
        cloud.set("http.tls.key", "");
        assert_eq!(cloud.cli(&["serve"]).await?.code(), 2);
        Ok(())
    })
}

#[test]
fn the_address_without_tls_sends_browsers_on_and_refuses_programs() -> Result<()> {
    story(async |stand| {
        let authority = Authority::new(stand.path())?;
        let files = authority.issue_into(&folder(stand, "tls")?)?;
        let mut cloud = stand.cloud_not_started().await?;
        let plain = lumbung_tests::programs::free_port()?;
        cloud.with_tls(&files, &authority)?.set("http.tls.redirect_from", format!("127.0.0.1:{plain}"));
        cloud.start().await?;

        let client =
            reqwest::Client::builder().no_proxy().redirect(Policy::none()).tls_certs_only([]).build()?;
        let ask = |method, path: &str| client.request(method, format!("http://127.0.0.1:{plain}{path}"));
        let sent_on = http::send(ask(Method::GET, "//lain.example/?a=b")).await?;
        let there = format!("{}//lain.example/?a=b", cloud.base());
        assert_eq!((sent_on.status, sent_on.header("location")), (301, Some(there.as_str())));
        for request in [
            ask(Method::GET, "/api/health"),
            ask(Method::POST, "/api/sync_gateway_data").bearer_auth("lbk_rahasia").body("[]"),
            ask(Method::POST, "/ingest").body("{}"),
            ask(Method::GET, "/metrics").bearer_auth("lbk_rahasia"),
        ] {
            let reply = http::send(request).await?;
            reply.expect(403)?;
            assert_eq!((reply.error_code().as_str(), reply.header("location")), ("HTTPS_ONLY", None));
        }
        assert_eq!(http::send(ask(Method::GET, "/").header("host", "jahat.example")).await?.status, 421);
        cloud.stop().await
    })
}
