//! Kinds of callers, their keys, and asking as one of them.

use anyhow::{Context, Result};
use lumbung_shared::enrol::SigningKey;
use lumbung_shared::signing::Signer;
use lumbung_tests::http;
use lumbung_tests::programs::Cloud;
use lumbung_tests::stand::Stand;
use lumbung_tests::wire::{HandMade, batch, new_key, scans};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Anyone,
    Readers,
    Gateways,
}

/// Kinds of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    Nobody,
    Reader,
    RevokedReader,
    Gateway,
    RevokedGateway,
    /// Signed in, and no admin.
    Person,
    /// A key of the right form that nobody was given.
    Stranger,
    /// A reader's good key under another scheme than Bearer.
    OtherScheme,
    Garbage,
}

pub(super) const CALLERS: [Caller; 9] = [
    Caller::Nobody,
    Caller::Reader,
    Caller::RevokedReader,
    Caller::Gateway,
    Caller::RevokedGateway,
    Caller::Person,
    Caller::Stranger,
    Caller::OtherScheme,
    Caller::Garbage,
];

/// A cloud that lets nobody in without a key, and keys of every kind.
pub(super) struct Keys {
    pub(super) reader: String,
    pub(super) revoked_reader: String,
    pub(super) person: String,
    pub(super) gateway: HandMade,
    pub(super) neighbour: HandMade,
    /// With what the neighbour signs.
    pub(super) neighbour_signs: Signer,
    pub(super) revoked_gateway: HandMade,
    pub(super) used_claim: String,
}

impl Keys {
    pub(super) async fn of(cloud: &Cloud) -> Result<Self> {
        let access = async |name: &str| -> Result<(i64, String)> {
            let made: Value = serde_json::from_str(&cloud.must(&["key", "add", name, "--json"]).await?)?;
            let key = made["key"].as_str().context("no key")?.to_owned();
            Ok((made["id"].as_i64().context("no id")?, key))
        };
        let (_, reader) = access("pembaca").await?;
        let (id, revoked_reader) = access("dicabut").await?;
        cloud.must(&["key", "revoke", &id.to_string()]).await?;
        let used_claim = cloud.claim("GW-1").await?.claim;
        let gateway = HandMade::enrol("GW-1", &cloud.base(), &used_claim).await?;
        let neighbour = cloud.hand_made("GW-2").await?;
        let neighbour_signs = Signer::from_seed(&[9; 32])?;
        let signing = json!(SigningKey::new(&neighbour_signs, &neighbour.key));
        let register =
            http::client()?.post(cloud.url("/api/gateways/signing_key")).bearer_auth(&neighbour.key);
        http::send(with_json(register, &signing)).await?.expect(200)?;
        let account =
            json!({ "email": "budi@example.com", "username": "budi", "password": "sepeda merah tua" });
        let register = http::client()?.post(cloud.url("/api/auth/register"));
        let account = http::send(with_json(register, &account)).await?.expect(201)?;
        let person = account["token"].as_str().context("no token")?.to_owned();
        let revoked_gateway = cloud.hand_made("GW-3").await?;
        cloud.must(&["gateway", "revoke", "GW-3"]).await?;
        Ok(Self {
            reader,
            revoked_reader,
            person,
            gateway,
            neighbour,
            neighbour_signs,
            revoked_gateway,
            used_claim,
        })
    }

    pub(super) fn authorization(&self, caller: Caller) -> Option<String> {
        let key = match caller {
            Caller::Nobody => return None,
            Caller::Reader => &self.reader,
            Caller::RevokedReader => &self.revoked_reader,
            Caller::Gateway => &self.gateway.key,
            Caller::RevokedGateway => &self.revoked_gateway.key,
            Caller::Person => &self.person,
            Caller::Stranger => &new_key(),
            Caller::OtherScheme => return Some(format!("Basic {}", self.reader)),
            Caller::Garbage => return Some("\u{fffd} lbk_".to_owned()),
        };
        Some(format!("Bearer {key}"))
    }
}

/// A request to a cloud on the stand.
pub(super) struct Ask<'a> {
    pub(super) client: &'a reqwest::Client,
    pub(super) cloud: &'a Cloud,
    pub(super) keys: &'a Keys,
}

impl Ask<'_> {
    pub(super) fn request(&self, method: &Method, target: &str, caller: Caller) -> reqwest::RequestBuilder {
        let request = self.client.request(method.clone(), self.cloud.url(target));
        match self.keys.authorization(caller) {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    /// Whoever may call an endpoint.
    pub(super) fn allowed(whose: For) -> Caller {
        match whose {
            For::Anyone => Caller::Nobody,
            For::Readers => Caller::Reader,
            For::Gateways => Caller::Gateway,
        }
    }

    /// Asks in both languages. Errors must be the one shape in either; the Indonesian one's status and code.
    pub(super) async fn answer(
        &self,
        what: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, String, Option<String>)> {
        let english = request.try_clone().context("a body that cannot be sent twice")?;
        let english = english.header("accept-language", "en").header("x-request-id", "cerita-1");
        let (status, code, message, allow) = self.once(what, request).await?;
        if status >= 400 {
            let (again, same, translated, _) = self.once(what, english).await?;
            assert_eq!((again, &same), (status, &code), "{what}: another answer in English");
            assert_ne!(message, translated, "{what}: {code} is not translated");
        }
        Ok((status, code, allow))
    }

    pub(super) async fn once(
        &self,
        what: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, String, String, Option<String>)> {
        let asked_as = request.try_clone().context("cannot be sent twice")?.build()?;
        let response = request.send().await.with_context(|| what.to_owned())?;
        let status = response.status();
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (id, kind, allow) = (header("x-request-id"), header("content-type"), header("allow"));
        let id = id.with_context(|| format!("{what}: no request id"))?;
        if let Some(mine) = asked_as.headers().get("x-request-id") {
            assert_eq!(mine, id.as_str(), "{what}: another request id than the caller's");
        }
        assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"), "{what}");
        assert!(header("cache-control").is_some(), "{what}: may be kept by anyone");
        assert_eq!(
            status == StatusCode::UNAUTHORIZED,
            header("www-authenticate").is_some(),
            "{what}: {status}"
        );
        let later = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
        assert_eq!(later, header("retry-after").is_some(), "{what}: {status}");
        if status.as_u16() < 400 {
            // A stream has no end to wait for.
            return Ok((status.as_u16(), String::new(), String::new(), allow));
        }
        let text = response.text().await?;
        let body: Value = serde_json::from_str(&text).with_context(|| format!("{what}: {status} {text}"))?;
        assert_eq!(kind.as_deref(), Some("application/json"), "{what}");
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(3), "{what}: {text}");
        assert_eq!((&body["success"], &body["request_id"]), (&json!(false), &json!(id)), "{what}: {text}");
        assert!(body["error"]["details"].is_array(), "{what}: {text}");
        let word = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
        let (code, message) = (word("code"), word("message"));
        assert!(!code.is_empty() && !message.is_empty(), "{what}: {text}");
        Ok((status.as_u16(), code, message, allow))
    }
}

pub(super) fn with_json(request: reqwest::RequestBuilder, body: &Value) -> reqwest::RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}

pub(super) async fn closed_cloud(stand: &Stand) -> Result<(Cloud, Keys)> {
    let mut cloud = stand.cloud_not_started().await?;
    cloud.set("development.open_loopback", false);
    cloud.start().await?;
    cloud.furnish().await?;
    let keys = Keys::of(&cloud).await?;
    keys.gateway.send(&batch(1, None, scans(1, 1, "ADA")?)?).await?;
    Ok((cloud, keys))
}
