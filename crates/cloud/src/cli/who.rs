//! Programmes, sites, gateways and keys.

use super::{say, say_json};
use crate::audit::{Action, By, Object};
use crate::config::Config;
use crate::error::Error;
use crate::identity::keys::{self, Scope};
use crate::identity::{claims, gateways};
use crate::page::Page;
use crate::places::{self, NewSite};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;
use sqlx::PgPool;

#[derive(Subcommand)]
pub(super) enum Programme {
    /// Add a programme, or rename it
    #[command(after_help = "Example:\n  lumbung-cloud programme add MBG 'Makan Bergizi Gratis'")]
    Add { code: String, name: String },
}

impl Programme {
    pub(super) async fn run(self, pool: &PgPool) -> anyhow::Result<()> {
        let Self::Add { code, name } = self;
        let mut tx = pool.begin().await?;
        let added = places::add_programme(&mut *tx, &code, &name).await?;
        let detail = json!({ "made": added, "name": name });
        By::command()
            .did(&mut tx, Action::PlaceChanged, Object::new("programme", &code), None, detail)
            .await?;
        tx.commit().await?;
        say(format_args!(
            "programme {code} {}",
            if added { "added" } else { "was there already, name brought up to date" }
        ))
    }
}

#[derive(Subcommand)]
pub(super) enum Site {
    /// Add a site, or bring its name, kind and time zone up to date
    #[command(
        after_help = "Example:\n  lumbung-cloud site add DAPUR-MENTENG --programme MBG --name 'Dapur Menteng' \\\n      --kind kitchen --time-zone Asia/Jakarta"
    )]
    Add {
        code: String,
        #[arg(long)]
        programme: String,
        #[arg(long)]
        name: String,
        /// kitchen, school, warehouse, farm or office
        #[arg(long)]
        kind: String,
        /// IANA name: Asia/Jakarta, Asia/Makassar, Asia/Jayapura
        #[arg(long, default_value = "Asia/Jakarta")]
        time_zone: String,
    },
    /// List sites: code, kind, time zone, programme, name
    List,
}

impl Site {
    pub(super) async fn run(self, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::Add { code, programme, name, kind, time_zone } => {
                let site = NewSite::parse(&programme, &code, &name, &kind, &time_zone)?;
                let mut tx = pool.begin().await?;
                let added = places::add_site(&mut *tx, &site).await?;
                let detail =
                    json!({ "made": added, "programme": programme, "kind": kind, "time_zone": time_zone });
                By::command()
                    .did(&mut tx, Action::PlaceChanged, Object::new("site", &code), None, detail)
                    .await?;
                tx.commit().await?;
                say(format_args!(
                    "site {code} {}",
                    if added { "added" } else { "was there already, brought up to date" }
                ))
            }
            Self::List => {
                let mut sites = places::sites(pool, None, Page::ALL).await?;
                sites.sort_by(|a, b| (&a.programme, &a.code).cmp(&(&b.programme, &b.code)));
                for site in sites {
                    say(format_args!(
                        "{}\t{}\t{}\t{}\t{}",
                        site.code, site.kind, site.time_zone, site.programme, site.name
                    ))?;
                }
                Ok(())
            }
        }
    }
}

#[derive(Subcommand)]
pub(super) enum Gateway {
    /// Make a claim with which one box becomes this gateway: single use, short-lived
    #[command(
        after_help = "The claim is shown once, also as a QR code. On the box:\n  lumbung-gateway enrol 'lumbung://enrol?…'\n\nFor a gateway that is known already the claim brings a new box or key; its records stay."
    )]
    Add {
        /// The gateway's code
        code: String,
        /// The site it stands at
        #[arg(long)]
        site: String,
        /// How long the claim can be redeemed, such as 15m or 2h
        #[arg(long, value_parser = duration)]
        valid: Option<std::time::Duration>,
        /// One line of JSON instead
        #[arg(long)]
        json: bool,
    },
    /// List gateways: code, site, state, last heard
    List {
        #[arg(long)]
        json: bool,
    },
    /// Say that a gateway stood at a site once, so that what it recorded there is taken
    #[command(
        after_help = "Example, for quarantined records with the reason foreign_site:\n  lumbung-cloud gateway stood GW-1 --site DAPUR-LAMA\n  lumbung-cloud quarantine replay --all"
    )]
    Stood {
        code: String,
        #[arg(long)]
        site: String,
    },
    /// Take no more from a gateway; what it sent stays, what it holds stays with it
    Revoke {
        code: String,
        #[arg(long)]
        reason: Option<String>,
    },
}

pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    humantime_serde::re::humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write 15m, 2h or 30d"))
}

/// The moment that long from now.
pub(super) fn until(valid: std::time::Duration) -> Result<DateTime<Utc>, Error> {
    chrono::Duration::from_std(valid)
        .ok()
        .and_then(|valid| Utc::now().checked_add_signed(valid))
        .ok_or_else(|| Error::field("valid", "terlalu lama", "is too long"))
}

impl Gateway {
    pub(super) async fn run(self, config: &Config, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::Add { code, site, valid, json } => {
                let valid = valid.unwrap_or(config.enrolment.claim_valid);
                let mut tx = pool.begin().await?;
                let claim = claims::claim(&mut tx, &code, &site, valid, &By::command()).await?;
                tx.commit().await?;
                let uri = claim.uri(&config.public_url());
                let expires = claim.expires_at.to_rfc3339_opts(SecondsFormat::Secs, true);
                if json {
                    return say_json(&json!({
                        "gateway_id": claim.gateway, "site": claim.site, "claim": claim.code, "uri": uri,
                        "expires_at": expires,
                    }));
                }
                let qr = QrCode::new(&uri)?.render::<Dense1x2>().quiet_zone(true).build();
                say(format_args!(
                    "{qr}\n\ngateway {code} at {site}\nclaim   {}\nuntil   {expires}\n",
                    claim.code
                ))?;
                say(format_args!("On the box:\n  lumbung-gateway enrol '{uri}'"))
            }
            Self::List { json } => {
                let mut gateways = gateways::list(pool, None, Page::ALL).await?;
                gateways.sort_by(|a, b| a.gateway_id.cmp(&b.gateway_id));
                for gateway in gateways {
                    if json {
                        say_json(&gateway)?;
                        continue;
                    }
                    let state = match (&gateway.revoked_at, gateway.enrolled) {
                        (Some(_), _) => "revoked",
                        (None, true) => "enrolled",
                        (None, false) => "not enrolled",
                    };
                    let heard = gateway
                        .last_heard_at
                        .map_or_else(|| "never".into(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
                    say(format_args!("{}\t{}\t{state}\t{heard}", gateway.gateway_id, gateway.site))?;
                }
                Ok(())
            }
            Self::Stood { code, site } => {
                let mut tx = pool.begin().await?;
                gateways::stood(&mut tx, &code, &site, &By::command()).await?;
                tx.commit().await?;
                say(format_args!("gateway {code} stood at {site}: `quarantine replay` takes what waits"))
            }
            Self::Revoke { code, reason } => {
                let mut tx = pool.begin().await?;
                gateways::revoke(&mut tx, &code, reason.as_deref(), &By::command()).await?;
                tx.commit().await?;
                say(format_args!("gateway {code} revoked"))
            }
        }
    }
}

#[derive(Subcommand)]
pub(super) enum Key {
    /// Make an access key; it is shown once
    #[command(
        after_help = "Examples:\n  lumbung-cloud key add dashboard\n  lumbung-cloud key add prometheus --scope metrics\n  lumbung-cloud key add visitor --scope read --valid 30d\n  curl -H 'Authorization: Bearer lbk_…' http://127.0.0.1:8000/api/dashboard/summary"
    )]
    Add {
        /// Whom or what it is for
        name: String,
        /// What it opens; several with commas
        #[arg(long, default_value = "read", value_delimiter = ',')]
        scope: Vec<Scope>,
        /// How long it is good, such as 30d; for ever without
        #[arg(long, value_parser = duration)]
        valid: Option<std::time::Duration>,
        #[arg(long)]
        json: bool,
    },
    /// List access keys: id, scopes, made, last used, state, name
    List,
    /// End a key
    Revoke { id: i32 },
}

impl Key {
    pub(super) async fn run(self, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::Add { name, scope, valid, json } => {
                let expires_at = valid.map(until).transpose()?;
                let mut tx = pool.begin().await?;
                let key = keys::add(&mut tx, &name, &scope, expires_at, &By::command()).await?;
                tx.commit().await?;
                if json {
                    say_json(&key)
                } else {
                    say(format_args!("key {} for {}:\n{}", key.id, key.name, key.key))
                }
            }
            Self::List => {
                for key in keys::list(pool, Page::ALL).await? {
                    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
                    let (made, scopes) = (time(key.created_at), key.scopes.join(","));
                    let used = key.last_used_at.map_or_else(|| "never".into(), time);
                    let state = key.state();
                    say(format_args!("{}\t{scopes}\t{made}\t{used}\t{state}\t{}", key.id, key.name))?;
                }
                Ok(())
            }
            Self::Revoke { id } => {
                let mut tx = pool.begin().await?;
                keys::revoke(&mut tx, id, &By::command()).await?;
                tx.commit().await?;
                say(format_args!("key {id} revoked"))
            }
        }
    }
}
