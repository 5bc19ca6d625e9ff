//! What stands around every request of the cloud.

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::eventually;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A sign-in that fails, as a proxy on this machine hands it on.
async fn sign_in(cloud: &Cloud, forwarded_for: &str) -> Result<Reply> {
    let body = json!({"email": "budi@example.com", "password": "sepeda merah tua"}).to_string();
    let request = http::client()?
        .post(cloud.url("/api/auth/login"))
        .header("content-type", "application/json")
        .header("x-forwarded-for", forwarded_for);
    http::send(request.body(body)).await
}

/// An address is told by the limit that it shares with nobody.
async fn is_limited(cloud: &Cloud, forwarded_for: &str) -> Result<bool> {
    Ok(sign_in(cloud, forwarded_for).await?.status == 429)
}

#[test]
fn a_rate_is_each_addresss_own_and_its_answers_say_how_much_is_left() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("limits.sign_in", "2/1h");
        cloud.start().await?;
        let first = sign_in(&cloud, "192.0.2.1").await?;
        assert_eq!((first.status, first.header("ratelimit-policy")), (401, Some("\"sign_in\";q=2;w=3600")));
        assert!(
            first.header("ratelimit").context("RateLimit")?.starts_with("\"sign_in\";r=1;t="),
            "{first:?}"
        );
        assert_eq!(first.header("www-authenticate"), Some("Bearer"));
        assert_eq!(sign_in(&cloud, "192.0.2.1").await?.status, 401);
        let third = sign_in(&cloud, "192.0.2.1").await?;
        assert_eq!((third.status, third.error_code().as_str()), (429, "TOO_MANY_REQUESTS"));
        let wait: u64 = third.header("retry-after").context("Retry-After")?.parse()?;
        assert!((1..=1_800).contains(&wait), "{wait}");
        assert!(
            third.header("ratelimit").context("RateLimit")?.starts_with("\"sign_in\";r=0;t="),
            "{third:?}"
        );
        // What a client writes into the header itself stands before what the proxy saw.
        assert!(is_limited(&cloud, "203.0.113.9, 192.0.2.1").await?, "a forged address");
        assert!(!is_limited(&cloud, "192.0.2.2").await?);
        // A whole /64 is one customer.
        assert!(!is_limited(&cloud, "2001:db8::1").await? && !is_limited(&cloud, "2001:db8::2").await?);
        assert!(is_limited(&cloud, "2001:db8::3").await?);
        // Other kinds, and whoever looks after the cloud, are not touched.
        assert_eq!(cloud.get("/api/scans").await?.status, 200);
        for _ in 0..4 {
            let health = cloud.get("/livez").await?;
            assert_eq!((health.status, health.header("ratelimit")), (200, None));
        }
        Ok(())
    })
}

#[test]
fn nobody_behind_an_untrusted_proxy_passes_for_another() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("limits.sign_in", "1/1h").set("http.allowed_hosts", "").set("http.cors_origins", "");
        // An empty variable is an empty list.
        for proxies in ["192.0.2.200,198.51.100.0/24", ""] {
            cloud.set("http.trusted_proxies", proxies);
            cloud.start().await?;
            assert!(!is_limited(&cloud, "192.0.2.1").await?);
            assert!(is_limited(&cloud, "192.0.2.2").await?, "the header of a stranger was believed");
            cloud.stop().await?;
        }
        Ok(())
    })
}

#[test]
fn who_guesses_keys_is_slowed_down_and_a_good_key_beside_them_is_not() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud
            .set("limits.refused", "3/1h")
            .set("limits.read", "6/1h")
            .set("development.open_loopback", false);
        cloud.start().await?;
        let added: serde_json::Value =
            serde_json::from_str(&cloud.must(&["key", "add", "layar", "--scope", "read", "--json"]).await?)?;
        let good = added["key"].as_str().context("key")?;
        let read = async |key: &str| {
            let request = http::client()?.get(cloud.url("/api/scans")).bearer_auth(key);
            anyhow::Ok(http::send(request).await?.status)
        };
        assert_eq!(read(good).await?, 200);
        for n in 0..3 {
            assert_eq!(read(&format!("lbk_{n}")).await?, 401);
        }
        assert_eq!(read("lbk_4").await?, 429);
        // Its own rate, not the address's: that had only two left.
        for _ in 0..6 {
            assert_eq!(read(good).await?, 200);
        }
        assert_eq!(read(good).await?, 429);
        Ok(())
    })
}

#[test]
fn a_page_of_an_allowed_origin_may_call_and_reads_refusals_too() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("http.cors_origins", "https://app.example.id,https://peta.example.id");
        cloud.set("limits.sign_in", "1/1h");
        cloud.start().await?;
        let preflight = async |origin: &str| {
            let request = http::client()?
                .request(Method::OPTIONS, cloud.url("/api/auth/login"))
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization,content-type,idempotency-key");
            http::send(request).await
        };
        let asked = preflight("https://app.example.id").await?;
        assert_eq!(asked.status, 200, "{}", asked.text);
        assert_eq!(asked.header("access-control-allow-origin"), Some("https://app.example.id"));
        assert_eq!(asked.header("access-control-allow-credentials"), None);
        assert!(asked.header("vary").is_some_and(|vary| vary.contains("Origin")), "{asked:?}");
        let refused = preflight("https://app.example.id.evil.example").await?;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (400, None));
        // The second sign-in is one too many; both answers can be read.
        for status in [401, 429] {
            let request = http::client()?
                .post(cloud.url("/api/auth/login"))
                .header("origin", "https://peta.example.id")
                .header("content-type", "application/json")
                .body(json!({"email": "budi@example.com", "password": "sepeda merah tua"}).to_string());
            let reply = http::send(request).await?;
            assert_eq!(reply.status, status, "{}", reply.text);
            assert_eq!(reply.header("access-control-allow-origin"), Some("https://peta.example.id"));
            let exposed = reply.header("access-control-expose-headers").context("exposed")?;
            assert!(exposed.contains("ratelimit") && exposed.contains("x-request-id"), "{exposed}");
            assert!(reply.header("vary").is_some_and(|vary| vary.contains("Origin")), "{reply:?}");
        }
        let other = http::client()?.get(cloud.url("/livez")).header("origin", "https://evil.example");
        assert_eq!(http::send(other).await?.header("access-control-allow-origin"), None);
        Ok(())
    })
}

#[test]
fn a_page_of_an_allowed_origin_reads_that_its_body_took_too_long() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("http.cors_origins", "https://peta.example.id").set("http.body_timeout", "1s");
        cloud.start().await?;
        for (origin, reads) in [("https://peta.example.id", true), ("https://evil.example", false)] {
            let head = format!(
                "POST /api/gateways/enrol HTTP/1.1\r\nhost: {}\r\norigin: {origin}\r\n\
                 content-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
                cloud.address()
            );
            let mut slow = tokio::net::TcpStream::connect(cloud.address()).await?;
            slow.write_all(head.as_bytes()).await?;
            let mut late = Vec::new();
            while !late.windows(4).any(|end| end == b"\r\n\r\n") {
                assert!(slow.read_buf(&mut late).await? > 0, "{}", String::from_utf8_lossy(&late));
            }
            let late = String::from_utf8(late)?.to_lowercase();
            assert!(late.starts_with("http/1.1 408"), "{late}");
            assert_eq!(late.contains(&format!("access-control-allow-origin: {origin}")), reads, "{late}");
            for said in ["access-control-expose-headers: x-request-id", "vary: origin"] {
                assert_eq!(late.contains(said), reads, "{late}");
            }
            for said in ["x-request-id: ", "x-content-type-options: nosniff", "cache-control: no-store"] {
                assert!(late.contains(said), "{late}");
            }
        }
        let key = cloud.must(&["key", "add", "prometheus", "--scope", "metrics", "--json"]).await?;
        let key: serde_json::Value = serde_json::from_str(&key)?;
        let asked = http::client()?.get(cloud.url("/metrics"));
        let metrics = http::send(asked.bearer_auth(key["key"].as_str().context("key")?)).await?.text;
        let mut counted = metrics.lines().filter(|line| line.contains("status=\"408\""));
        assert!(
            counted.any(|line| line.contains("/api/gateways/enrol") && line.ends_with(" 2")),
            "{metrics}"
        );
        Ok(())
    })
}

#[test]
fn a_request_by_another_name_is_turned_away() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("http.public_url", "https://mbg.example.id").set("http.allowed_hosts", "lumbung.local");
        cloud.set("development.open_loopback", false);
        cloud.start().await?;
        for (host, status) in [
            ("mbg.example.id", 200),
            ("lumbung.local:8000", 200),
            ("localhost", 200),
            ("192.168.1.5:8000", 200),
            ("evil.example", 421),
            ("mbg.example.id.evil.example", 421),
        ] {
            let reply = http::send(http::client()?.get(cloud.url("/api/scans")).header("host", host)).await?;
            assert_eq!(reply.status, if status == 200 { 401 } else { status }, "{host}: {}", reply.text);
            assert_eq!(reply.error_code() == "BAD_HOST", status == 421, "{host}: {}", reply.text);
            // An https cloud says so, and nobody may frame it.
            assert_eq!(reply.header("strict-transport-security"), Some("max-age=31536000"));
            let policy = reply.header("content-security-policy").context("policy")?;
            assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        }
        Ok(())
    })
}

#[test]
fn a_head_is_answered_like_its_get_without_the_body() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        for path in
            ["/", "/livez", "/api/scans", "/api/live", "/openapi.json", "/docs/", "/api/tags/TIDAK-ADA"]
        {
            let got = http::client()?.get(cloud.url(path)).send().await?;
            let head = http::send(http::client()?.head(cloud.url(path))).await?;
            assert_eq!((head.status, head.text.as_str()), (got.status().as_u16(), ""), "{path}");
            for name in ["content-type", "content-security-policy", "cache-control"] {
                let of_get = got.headers().get(name).and_then(|value| value.to_str().ok());
                assert_eq!(head.header(name), of_get, "{name} of {path}");
            }
            assert_eq!(head.header("strict-transport-security"), None, "{path} is not https");
        }
        let page = cloud.get("/docs/swagger-ui-bundle.js").await?;
        assert_eq!(page.status, 200);
        let policy = page.header("content-security-policy").context("policy")?;
        assert!(policy.contains("script-src 'self'"), "{policy}");
        let missing = http::send(http::client()?.head(cloud.url("/tidak/ada"))).await?;
        assert_eq!((missing.status, missing.text.as_str()), (404, ""));
        Ok(())
    })
}

#[test]
fn a_crowd_before_a_stuck_database_is_told_to_come_back_and_gateways_are_served() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("database.max_connections", 2).set("database.people_wait", "2s");
        cloud.start().await?;
        cloud.furnish().await?;
        let gateway = stand.gateway("GW-1", &cloud, &cloud.base()).await?;
        let database = cloud.database().await?;
        let mut lock = database.begin().await?;
        sqlx::query("lock table app_user in access exclusive mode").execute(&mut *lock).await?;
        let client = http::client()?;
        let body = json!({"email": "budi@example.com", "password": "sepeda merah tua"}).to_string();
        let many = try_join_all((0..200).map(|_| {
            let request = client.post(cloud.url("/api/auth/login"));
            let request = request.header("content-type", "application/json").body(body.clone());
            http::send(request)
        }));
        let served = async {
            gateway.scan("TETAP-1", "makanan_keluar").await?;
            gateway.drained().await?;
            eventually("the crowd is told", || async {
                Ok(stand.logs().contains("requests wait for the database").then_some(()))
            })
            .await
        };
        let freed = async {
            let served = served.await;
            lock.rollback().await?;
            served
        };
        let (replies, freed) = tokio::join!(many, freed);
        freed?;
        let replies = replies?;
        let busy: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 503).collect();
        assert!(!busy.is_empty());
        assert!(busy.iter().all(|reply| reply.header("retry-after").is_some()));
        assert!(replies.iter().all(|reply| [401, 429, 503].contains(&reply.status)));
        Ok(())
    })
}
