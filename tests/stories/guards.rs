//! What stands around every request of the cloud.

use anyhow::{Context, Result};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use serde_json::json;

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
        cloud.set("limits.sign_in", "1/1h").set("http.trusted_proxies", "192.0.2.200,198.51.100.0/24");
        cloud.start().await?;
        assert!(!is_limited(&cloud, "192.0.2.1").await?);
        assert!(is_limited(&cloud, "192.0.2.2").await?, "the header of a stranger was believed");
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
