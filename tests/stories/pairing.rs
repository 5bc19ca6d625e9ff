//! Officers' phones on the local network: pairing, real TLS with a pinned certificate, tokens that end at once.

use anyhow::{Context, Result};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::{Gateway, free_port};
use lumbung_tests::stand::{Stand, cloud_holds};
use lumbung_tests::story::story;
use reqwest::Certificate;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpSocket;
use uuid::Uuid;

/// What a phone knows of its gateway: where it is and which certificate it showed when it was paired.
struct Phone {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Phone {
    /// A phone that trusts this gateway's certificate and nothing else.
    fn pinned_to(gateway: &Gateway, port: u16) -> Result<Self> {
        let pem = std::fs::read_to_string(gateway.dir.join("lan.pem"))?;
        let start = pem.find("-----BEGIN CERTIFICATE").context("no certificate")?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([Certificate::from_pem(&pem.as_bytes()[start..])?])
            .timeout(Duration::from_secs(20))
            .build()?;
        Ok(Self { client, base: format!("https://127.0.0.1:{port}"), token: String::new() })
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> Result<Reply> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        http::send(request).await
    }

    async fn get(&self, path: &str) -> Result<Reply> {
        self.ask(reqwest::Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.ask(reqwest::Method::POST, path, Some(body)).await
    }

    async fn pair(&mut self, code: &str) -> Result<Value> {
        let paired =
            self.post("/api/pair", &json!({ "code": code, "name": "HP Sari" })).await?.expect(201)?;
        self.token = paired["token"].as_str().context("no token")?.to_owned();
        Ok(paired)
    }
}

/// A gateway that is open to phones, not started.
fn open_to_phones(gateway: &mut Gateway) -> Result<u16> {
    let port = free_port()?;
    gateway.set("lan.listen", format!("127.0.0.1:{port}"));
    Ok(port)
}

async fn invited(gateway: &Gateway, more: &[&str]) -> Result<Value> {
    let arguments = [&["phone", "pair", "--json"], more].concat();
    Ok(serde_json::from_str(&gateway.cli(&arguments).await?.ok()?)?)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The secret in the QR code.
fn secret(invitation: &Value) -> &str {
    text(invitation, "uri").split("secret=").nth(1).unwrap_or_default().split('&').next().unwrap_or_default()
}

async fn stand_with_phones(stand: &Stand) -> Result<(Gateway, u16)> {
    let mut gateway = stand.bare_gateway("GW-1")?;
    let port = open_to_phones(&mut gateway)?;
    gateway.start().await?;
    Ok((gateway, port))
}

#[test]
fn a_phone_pairs_and_brings_a_scan_twice_after_a_lost_answer_and_the_cloud_holds_it_once() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let mut gateway = stand.gateway_not_started("GW-1", &cloud, &cloud.base()).await?;
        let port = open_to_phones(&mut gateway)?;
        gateway.start().await?;
        let invitation = invited(&gateway, &["--officer", "P-07"]).await?;
        let mut phone = Phone::pinned_to(&gateway, port)?;
        let paired = phone.pair(secret(&invitation)).await?;
        assert_eq!(text(&paired, "gateway_id"), "GW-1");
        let fingerprint = text(&paired, "fingerprint");
        assert!(text(&invitation, "uri").contains(&format!("fp={fingerprint}")), "{invitation}");
        let scan =
            json!({ "nfc_tag_id": "HP-A", "status_scan": "makanan_diterima", "client_ref": Uuid::new_v4() });
        let first = phone.post("/api/log_scan", &scan).await?.expect(201)?;
        let again = phone.post("/api/log_scan", &scan).await?.expect(200)?;
        assert_eq!(first["id"], again["id"]);
        // Also after a restart the token holds, and it is the same scan.
        gateway.restart().await?;
        let again = phone.post("/api/log_scan", &scan).await?.expect(200)?;
        assert_eq!(first["id"], again["id"]);
        gateway.drained().await?;
        cloud_holds(&cloud.database().await?, &["HP-A".to_owned()]).await?;
        let scans = phone.get("/api/scans").await?.expect(200)?;
        assert_eq!(scans["scans"][0]["officer"], "P-07", "{scans}");
        let other = json!({ "nfc_tag_id": "HP-B", "status_scan": "makanan_diterima", "officer": "P-08" });
        assert_eq!(phone.post("/api/log_scan", &other).await?.error_code(), "officer_differs");
        Ok(())
    })
}

#[test]
fn a_phone_that_pinned_another_certificate_says_nothing_to_this_gateway() -> Result<()> {
    story(async |stand| {
        let (gateway, port) = stand_with_phones(stand).await?;
        let mut other = stand.bare_gateway("GW-2")?;
        open_to_phones(&mut other)?;
        other.start().await?;
        let mut fooled = Phone::pinned_to(&other, port)?;
        fooled.token = "lbp_would-be-given-away".into();
        assert!(fooled.get("/livez").await.is_err(), "the handshake went through");
        // The certificate is the same after a restart: no phone needs to be paired anew.
        let right = Phone::pinned_to(&gateway, port)?;
        let mut gateway = gateway;
        gateway.restart().await?;
        assert_eq!(right.get("/livez").await?.status, 200);
        Ok(())
    })
}

#[test]
fn a_revoked_phone_is_refused_by_its_very_next_request() -> Result<()> {
    story(async |stand| {
        let (gateway, port) = stand_with_phones(stand).await?;
        let mut phone = Phone::pinned_to(&gateway, port)?;
        let stranger = phone.get("/api/status").await?;
        assert_eq!((stranger.status, stranger.error_code()), (401, "pairing_needed".to_owned()));
        let paired = phone.pair(text(&invited(&gateway, &[]).await?, "code")).await?;
        assert_eq!(phone.get("/api/status").await?.status, 200);
        let listed = gateway.cli(&["phone", "list"]).await?.ok()?;
        assert!(listed.contains("HP Sari"), "{listed}");
        gateway.cli(&["phone", "revoke", text(&paired["phone"], "id")]).await?.ok()?;
        let refused = phone.get("/api/status").await?;
        assert_eq!((refused.status, refused.error_code()), (401, "token_refused".to_owned()));
        Ok(())
    })
}

#[test]
fn a_code_is_good_once_and_guessing_it_ends_it_while_the_qr_code_goes_on() -> Result<()> {
    story(async |stand| {
        let (gateway, port) = stand_with_phones(stand).await?;
        let used = invited(&gateway, &[]).await?;
        Phone::pinned_to(&gateway, port)?.pair(text(&used, "code")).await?;
        let stranger = Phone::pinned_to(&gateway, port)?;
        let wish = |code: &str| json!({ "code": code, "name": "HP lain" });
        for code in [text(&used, "code"), secret(&used)] {
            assert_eq!(stranger.post("/api/pair", &wish(code)).await?.error_code(), "pair_code_wrong");
        }
        let invitation = invited(&gateway, &[]).await?;
        let code = text(&invitation, "code");
        let wrong = if code == "000000" { "000001" } else { "000000" };
        for _ in 0..5 {
            assert_eq!(stranger.post("/api/pair", &wish(wrong)).await?.error_code(), "pair_code_wrong");
        }
        assert_eq!(stranger.post("/api/pair", &wish(code)).await?.error_code(), "pair_code_wrong");
        Phone::pinned_to(&gateway, port)?.pair(secret(&invitation)).await?;
        // However many codes are opened, the hour's tries end.
        let mut last = String::new();
        for _ in 0..4 {
            invited(&gateway, &[]).await?;
            for _ in 0..5 {
                last = stranger.post("/api/pair", &wish(wrong)).await?.error_code();
            }
        }
        assert_eq!(last, "pair_too_many_tries");
        // Nor is a token given out on the plain port.
        assert_eq!(gateway.post("/api/pair", &wish(code)).await?.error_code(), "tls_needed");
        Ok(())
    })
}

#[test]
fn a_phone_comes_in_after_a_restart_though_strangers_hold_every_place() -> Result<()> {
    story(async |stand| {
        let (mut gateway, port) = stand_with_phones(stand).await?;
        let mut phone = Phone::pinned_to(&gateway, port)?;
        phone.pair(text(&invited(&gateway, &[]).await?, "code")).await?;
        // From here on nobody is known by address.
        gateway.restart().await?;
        let mut held = Vec::new();
        for neighbour in (2..=6).flat_map(|last| [last; 8]) {
            let socket = TcpSocket::new_v4()?;
            socket.bind(([127, 0, 0, neighbour], 0).into())?;
            held.push(socket.connect(([127, 0, 0, 1], port).into()).await?);
        }
        assert_eq!(phone.get("/api/status").await?.status, 200);
        Ok(())
    })
}
