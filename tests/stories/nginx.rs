//! The cloud behind the shipped nginx configuration: TLS, two replicas, and nothing lost on the way.

use anyhow::{Context, Result};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::{Cloud, Nginx};
use lumbung_tests::stand::Stand;
use lumbung_tests::story::story;
use lumbung_tests::tls::Authority;
use lumbung_tests::wait::eventually;
use reqwest::Method;
use reqwest::redirect::Policy;
use serde_json::json;

/// Two replicas on one database and nginx before them.
async fn behind(stand: &Stand) -> Result<(Cloud, Cloud, Nginx)> {
    let mut cloud = stand.cloud_not_started().await?;
    let url = cloud.settings.database_url.clone();
    let mut replica = Cloud::new(lumbung_tests::programs::settings("replica", stand.path(), url))?;
    for one in [&mut cloud, &mut replica] {
        one.set("http.public_url", "https://localhost").set("limits.sign_in", "1/1h");
        one.start().await?;
    }
    let authority = Authority::new(stand.path())?;
    let replicas = [cloud.address(), replica.address()];
    let nginx = Nginx::start(&stand.path().join("nginx"), &stand.log("nginx"), &authority, &replicas).await?;
    Ok((cloud, replica, nginx))
}

#[test]
fn requests_keep_their_id_their_address_and_their_answers_through_nginx() -> Result<()> {
    story(async |stand| {
        let (_cloud, _replica, nginx) = behind(stand).await?;
        let reply =
            http::send(nginx.client().get(nginx.url("/api/health")).header("x-request-id", "cerita_1"))
                .await?;
        assert_eq!((reply.status, reply.header("x-request-id")), (200, Some("cerita_1")));
        assert_eq!(reply.header("strict-transport-security"), Some("max-age=31536000"));
        for name in ["x-content-type-options", "content-security-policy", "x-request-id", "referrer-policy"] {
            assert_eq!(reply.headers.get_all(name).iter().count(), 1, "{name}");
        }
        let drawn =
            http::send(nginx.client().get(nginx.url("/api/health")).header("x-request-id", "a b")).await?;
        assert!(drawn.header("x-request-id").is_some_and(|id| id.len() == 32), "{drawn:?}");

        // Whoever writes an address into the request is still counted as who connects: one sign-in per replica.
        let sign_in = async |forged: &str| -> Result<Reply> {
            let body = json!({"email": "budi@example.com", "password": "sepeda merah tua"}).to_string();
            let request = nginx.client().post(nginx.url("/api/auth/login"));
            let request =
                request.header("content-type", "application/json").header("x-forwarded-for", forged);
            http::send(request.body(body)).await
        };
        let mut statuses = Vec::new();
        for n in 0..6 {
            statuses.push(sign_in(&format!("192.0.2.{n}")).await?.status);
        }
        assert!(statuses.iter().filter(|status| **status == 401).count() <= 2, "{statuses:?}");
        assert_eq!(statuses.last(), Some(&429), "{statuses:?}");

        // Too large for the cloud, and for nginx: the same shape.
        for bytes in [6_000_000, 38_000_000] {
            let request = nginx.client().post(nginx.url("/api/gateways/enrol"));
            let reply =
                http::send(request.header("content-type", "application/json").body(vec![b' '; bytes]))
                    .await?;
            let body = reply.expect(413)?;
            assert_eq!(reply.error_code(), "TOO_LARGE", "{bytes}");
            assert_eq!(body["request_id"].as_str(), reply.header("x-request-id"), "{body}");
            assert_eq!((&body["success"], body["error"]["details"].is_array()), (&json!(false), true));
        }
        // A line and a header that nginx itself does not take; the line is refused before the language is read.
        let long = "x".repeat(10_000);
        let refused = async |path: &str, language: &str, value: &str| {
            let request = nginx.http1().get(nginx.url(path)).header("accept-language", language);
            http::send(request.header("x-long", value)).await
        };
        let line = refused(&format!("/api/{long}"), "en", "").await?;
        assert_eq!((line.status, line.error_code().as_str()), (414, "TOO_LARGE"), "{}", line.text);
        let mut messages = Vec::new();
        for language in ["id", "en-GB, id;q=0.5"] {
            let header = refused("/api/health", language, &long).await?;
            let body = header.expect(400)?;
            assert_eq!(header.error_code(), "UNREADABLE_REQUEST");
            assert_eq!(body["request_id"].as_str(), header.header("x-request-id"), "{body}");
            messages.push(body["error"]["message"].clone());
        }
        assert_ne!(messages[0], messages[1]);
        Ok(())
    })
}

#[test]
fn only_browsers_are_sent_on_to_https_and_the_log_keeps_no_secrets() -> Result<()> {
    story(async |stand| {
        let (_cloud, _replica, nginx) = behind(stand).await?;
        let client =
            reqwest::Client::builder().no_proxy().redirect(Policy::none()).tls_certs_only([]).build()?;
        let plain =
            |method, path: &str| client.request(method, format!("http://127.0.0.1:{}{path}", nginx.plain));
        let sent_on = http::send(plain(Method::GET, "/laporan?bulan=11")).await?;
        assert_eq!(
            (sent_on.status, sent_on.header("location")),
            (301, Some("https://localhost/laporan?bulan=11"))
        );
        for request in [
            plain(Method::GET, "/api/health"),
            plain(Method::POST, "/api/sync_gateway_data").bearer_auth("lbk_rahasia").body("[]"),
            plain(Method::POST, "/ingest").body("{}"),
            plain(Method::GET, "/metrics").bearer_auth("lbk_rahasia"),
        ] {
            let reply = http::send(request.header("x-request-id", "cerita-80")).await?;
            let body = reply.expect(403)?;
            assert_eq!(
                (reply.error_code().as_str(), &body["request_id"]),
                ("HTTPS_ONLY", &json!("cerita-80"))
            );
            assert!(reply.header("location").is_none());
        }
        let asked = nginx.client().get(nginx.url("/files/nama-rahasia?search=siti%40example.com"));
        http::send(asked.header("referer", "https://localhost/lewat?token=rahasia")).await?;
        let logged = eventually("the request is in the log", || async {
            let log = std::fs::read_to_string(&nginx.access_log)?;
            Ok(log.contains("/files/...").then_some(log))
        })
        .await?;
        assert!(logged.contains("\"POST /api/sync_gateway_data HTTP/1.1\" 403"), "{logged}");
        for secret in ["siti", "bulan", "rahasia"] {
            assert!(!logged.contains(secret), "{secret} stands in {logged}");
        }
        Ok(())
    })
}

#[test]
fn a_replica_that_dies_is_missed_by_nobody() -> Result<()> {
    story(async |stand| {
        let (mut cloud, mut replica, nginx) = behind(stand).await?;
        let all_good = async || -> Result<()> {
            for _ in 0..20 {
                let reply = http::send(nginx.client().get(nginx.url("/api/health"))).await?;
                assert_eq!(reply.status, 200, "{}", reply.text);
            }
            Ok(())
        };
        all_good().await?;
        cloud.kill();
        all_good().await?;
        // Nobody is left: nginx says so as the cloud would.
        replica.kill();
        let reply = http::send(nginx.client().get(nginx.url("/api/health"))).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (503, "BUSY"), "{}", reply.text);
        assert!(reply.header("retry-after").is_some() && reply.header("x-request-id").is_some());
        cloud.start().await?;
        eventually("the cloud is found again", || async {
            let reply = http::send(nginx.client().get(nginx.url("/api/health"))).await?;
            Ok((reply.status == 200).then_some(()))
        })
        .await
    })
}

#[test]
fn events_pass_nginx_as_they_happen() -> Result<()> {
    story(async |stand| {
        let (cloud, _replica, nginx) = behind(stand).await?;
        cloud.furnish().await?;
        let added = cloud.must(&["key", "add", "layar", "--scope", "read", "--json"]).await?;
        let added: serde_json::Value = serde_json::from_str(&added)?;
        let key = added["key"].as_str().context("key")?;
        let mut events = nginx.client().get(nginx.url("/api/live")).bearer_auth(key).send().await?;
        assert_eq!(events.status(), 200);
        let gateway = stand.gateway("GW-1", &cloud, &cloud.base()).await?;
        gateway.scan("LEWAT-1", "makanan_keluar").await?;
        let mut heard = String::new();
        while !heard.contains("LEWAT-1") {
            let chunk = events.chunk().await?.context("the stream ended")?;
            heard.push_str(&String::from_utf8_lossy(&chunk));
        }
        Ok(())
    })
}
