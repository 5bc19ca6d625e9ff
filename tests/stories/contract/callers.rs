//! Who asks: every kind of caller, what each shows, and a closed cloud that knows them all.

use anyhow::{Context, Result};
use lumbung_shared::enrol::SigningKey;
use lumbung_shared::signing::Signer;
use lumbung_tests::http;
use lumbung_tests::programs::Cloud;
use lumbung_tests::stand::Stand;
use lumbung_tests::wire::{HandMade, batch, new_key, scans};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::sync::atomic::{AtomicU64, Ordering};

/// The password of everybody here.
pub(super) const PASSWORD: &str = "sepeda merah tua";

/// Kinds of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    Nobody,
    ReadKey,
    MetricsKey,
    /// For programmes and sites.
    PlacesKey,
    /// For gateways' claims.
    EnrolKey,
    RevokedKey,
    Gateway,
    RevokedGateway,
    User,
    Volunteer,
    Ambassador,
    /// Of the programme that everything here is of.
    Operator,
    /// Of another programme.
    OtherOperator,
    /// Of the site that everything here is of.
    Officer,
    Admin,
    /// Signed in, then banned.
    Banned,
    /// With the token of a session that was ended.
    SignedOut,
    /// A key of the right form that nobody was given.
    Stranger,
    /// A good read key under another scheme than Bearer.
    OtherScheme,
    Garbage,
}

pub(super) const CALLERS: [Caller; 20] = [
    Caller::Nobody,
    Caller::ReadKey,
    Caller::MetricsKey,
    Caller::PlacesKey,
    Caller::EnrolKey,
    Caller::RevokedKey,
    Caller::Gateway,
    Caller::RevokedGateway,
    Caller::User,
    Caller::Volunteer,
    Caller::Ambassador,
    Caller::Operator,
    Caller::OtherOperator,
    Caller::Officer,
    Caller::Admin,
    Caller::Banned,
    Caller::SignedOut,
    Caller::Stranger,
    Caller::OtherScheme,
    Caller::Garbage,
];

impl Caller {
    /// Signed in with a session that is good.
    pub(super) fn is_person(self) -> bool {
        self.role().is_some()
    }

    fn role(self) -> Option<&'static str> {
        match self {
            Self::User | Self::Operator | Self::OtherOperator | Self::Officer => Some("user"),
            Self::Volunteer => Some("volunteer"),
            Self::Ambassador => Some("ambassador"),
            Self::Admin => Some("admin"),
            _ => None,
        }
    }

    /// What they are given beside their role, as the command line says it.
    fn grant(self) -> Option<[&'static str; 3]> {
        match self {
            Self::Operator => Some(["operator", "--programme", "MBG"]),
            Self::OtherOperator => Some(["operator", "--programme", "LAIN"]),
            Self::Officer => Some(["officer", "--site", "DAPUR-1"]),
            _ => None,
        }
    }

    /// The scope of a key that is good.
    fn scope(self) -> Option<&'static str> {
        match self {
            Self::ReadKey | Self::OtherScheme => Some("read"),
            Self::MetricsKey => Some("metrics"),
            Self::PlacesKey => Some("places:write"),
            Self::EnrolKey => Some("gateways:enrol"),
            _ => None,
        }
    }

    pub(super) fn is_key(self) -> bool {
        self.scope().is_some() && self != Self::OtherScheme
    }
}

/// An account, and a session of it.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) user_id: i64,
    pub(super) session_id: i64,
    pub(super) email: String,
    pub(super) username: String,
    pub(super) token: String,
}

/// A cloud that lets nobody in without a key, and callers of every kind with what they show.
pub(super) struct Stage {
    pub(super) client: reqwest::Client,
    pub(super) cloud: Cloud,
    pub(super) database: PgPool,
    drawn: AtomicU64,
    people: Vec<(Caller, Account)>,
    /// By scope.
    keys: Vec<(&'static str, String)>,
    revoked_key: String,
    pub(super) gateway: HandMade,
    pub(super) neighbour: HandMade,
    /// With what the neighbour signs.
    pub(super) neighbour_signs: Signer,
    revoked_gateway: HandMade,
    pub(super) used_claim: String,
}

impl Stage {
    pub(super) async fn set(stand: &Stand) -> Result<Self> {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("development.open_loopback", false).set("sms.url", "http://127.0.0.1:9/");
        cloud.set("people.totp_key", "what the secrets of apps are sealed with");
        cloud.start().await?;
        cloud.furnish().await?;
        cloud.must(&["programme", "add", "LAIN", "Program Lain"]).await?;
        let access = async |scope: &str| -> Result<(i64, String)> {
            let made = cloud.must(&["key", "add", scope, "--scope", scope, "--json"]).await?;
            let made: Value = serde_json::from_str(&made)?;
            let key = made["key"].as_str().context("no key")?.to_owned();
            Ok((made["id"].as_i64().context("no id")?, key))
        };
        let mut keys = Vec::new();
        for scope in CALLERS.into_iter().filter(|caller| caller.is_key()).filter_map(Caller::scope) {
            keys.push((scope, access(scope).await?.1));
        }
        let (id, revoked_key) = access("read").await?;
        cloud.must(&["key", "revoke", &id.to_string()]).await?;
        let used_claim = cloud.claim("GW-1").await?.claim;
        let gateway = HandMade::enrol("GW-1", &cloud.base(), &used_claim).await?;
        gateway.send(&batch(1, None, scans(1, 1, "ADA")?)?).await?;
        let neighbour = cloud.hand_made("GW-2").await?;
        let neighbour_signs = Signer::from_seed(&[9; 32])?;
        let signing = json!(SigningKey::new(&neighbour_signs, &neighbour.key));
        let client = http::client()?;
        let register = client.post(cloud.url("/api/gateways/signing_key")).bearer_auth(&neighbour.key);
        http::send(with_json(register, &signing)).await?.expect(200)?;
        let revoked_gateway = cloud.hand_made("GW-3").await?;
        cloud.must(&["gateway", "revoke", "GW-3"]).await?;
        let database = cloud.database().await?;
        let mut stage = Self {
            client,
            cloud,
            database,
            drawn: AtomicU64::new(0),
            people: Vec::new(),
            keys,
            revoked_key,
            gateway,
            neighbour,
            neighbour_signs,
            revoked_gateway,
            used_claim,
        };
        for caller in CALLERS {
            if caller.is_person() || [Caller::Banned, Caller::SignedOut].contains(&caller) {
                let account = stage.account(caller).await?;
                stage.people.push((caller, account));
            }
        }
        Ok(stage)
    }

    /// A number that was not drawn before.
    pub(super) fn draw(&self) -> u64 {
        self.drawn.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A new account of a caller's kind, signed in.
    pub(super) async fn account(&self, caller: Caller) -> Result<Account> {
        let username = format!("warga{}", self.draw());
        let email = format!("{username}@example.com");
        let body = json!({ "email": email, "username": username, "password": PASSWORD });
        let register = self.client.post(self.cloud.url("/api/auth/register"));
        let made = http::send(with_json(register, &body)).await?.expect(201)?;
        let user_id = made["user_id"].as_i64().context("user_id")?;
        let token = made["token"].as_str().context("token")?.to_owned();
        // Nobody was asked of this session yet, so nobody remembers what it was before.
        if let Some(role) = caller.role() {
            sqlx::query("update app_user set role = $2 where user_id = $1")
                .bind(user_id)
                .bind(role)
                .execute(&self.database)
                .await?;
        }
        if let Some(grant) = caller.grant() {
            self.cloud.must(&[&["user", "grant", &email], &grant[..]].concat()).await?;
        }
        if caller == Caller::Banned {
            self.cloud.must(&["user", "ban", &email]).await?;
        }
        if caller == Caller::SignedOut {
            let leave = self.client.post(self.cloud.url("/api/auth/logout")).bearer_auth(&token);
            http::send(with_json(leave, &json!({}))).await?.expect(200)?;
        }
        let session_id = sqlx::query_scalar("select max(session_id) from user_session where user_id = $1")
            .bind(user_id)
            .fetch_one(&self.database)
            .await?;
        Ok(Account { user_id, session_id, email, username, token })
    }

    /// The account that stands for a kind of caller; the user's for those who have none.
    pub(super) fn standing(&self, caller: Caller) -> Result<&Account> {
        let of = |wanted| self.people.iter().find(|(kind, _)| *kind == wanted).map(|(_, account)| account);
        of(caller).or_else(|| of(Caller::User)).context("nobody is on the stage")
    }

    fn authorization(&self, caller: Caller, account: &Account) -> Option<String> {
        let of_scope =
            |scope| self.keys.iter().find(|(known, _)| *known == scope).map(|(_, key)| key.as_str());
        let key = match caller {
            Caller::Nobody => return None,
            Caller::RevokedKey => &self.revoked_key,
            Caller::Gateway => &self.gateway.key,
            Caller::RevokedGateway => &self.revoked_gateway.key,
            Caller::Stranger => &new_key(),
            Caller::Garbage => return Some("\u{fffd} lbk_".to_owned()),
            Caller::OtherScheme => return Some(format!("Basic {}", of_scope("read")?)),
            other => other.scope().map_or(Some(account.token.as_str()), of_scope)?,
        };
        Some(format!("Bearer {key}"))
    }

    /// A request of a caller who shows what they have; people as the account given.
    pub(super) fn request(
        &self,
        method: &reqwest::Method,
        target: &str,
        caller: Caller,
        account: &Account,
    ) -> reqwest::RequestBuilder {
        let request = self.client.request(method.clone(), self.cloud.url(target));
        match self.authorization(caller, account) {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }
}

pub(super) fn with_json(request: reqwest::RequestBuilder, body: &Value) -> reqwest::RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}
