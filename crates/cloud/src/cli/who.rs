//! Programmes, sites, gateways and keys.

use super::{say, say_json};
use crate::config::Config;
use crate::identity::{access, claims, gateways};
use crate::places::{self, NewSite};
use chrono::SecondsFormat;
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
        let added = places::add_programme(pool, &code, &name).await?;
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
                let added = places::add_site(pool, &site).await?;
                say(format_args!(
                    "site {code} {}",
                    if added { "added" } else { "was there already, brought up to date" }
                ))
            }
            Self::List => {
                for site in places::sites(pool).await? {
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
    /// Take no more from a gateway; what it sent stays, what it holds stays with it
    Revoke {
        code: String,
        #[arg(long)]
        reason: Option<String>,
    },
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|error| format!("{error}; write 15m or 2h"))
}

impl Gateway {
    pub(super) async fn run(self, config: &Config, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::Add { code, site, valid, json } => {
                let valid = valid.unwrap_or(config.enrolment.claim_valid);
                let claim = claims::claim(pool, &code, &site, valid).await?;
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
                for gateway in gateways::list(pool).await? {
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
            Self::Revoke { code, reason } => {
                gateways::revoke(pool, &code, reason.as_deref()).await?;
                say(format_args!("gateway {code} revoked"))
            }
        }
    }
}

#[derive(Subcommand)]
pub(super) enum Key {
    /// Make an access key; it is shown once
    #[command(
        after_help = "Example:\n  lumbung-cloud key add dashboard --scope read\n  curl -H 'Authorization: Bearer lbk_…' http://127.0.0.1:8000/api/dashboard/summary"
    )]
    Add {
        /// Whom or what it is for
        name: String,
        #[arg(long, default_value = "read", value_parser = ["read"])]
        scope: String,
        #[arg(long)]
        json: bool,
    },
    /// List access keys: id, scope, made, state, name
    List,
    /// End a key
    Revoke { id: i32 },
}

impl Key {
    pub(super) async fn run(self, pool: &PgPool) -> anyhow::Result<()> {
        match self {
            Self::Add { name, scope: _, json } => {
                let key = access::add(pool, &name).await?;
                if json {
                    say_json(&key)
                } else {
                    say(format_args!("key {} for {}:\n{}", key.id, key.name, key.key))
                }
            }
            Self::List => {
                for key in access::list(pool).await? {
                    let state = if key.revoked_at.is_some() { "revoked" } else { "good" };
                    let made = key.created_at.to_rfc3339_opts(SecondsFormat::Secs, true);
                    say(format_args!("{}\t{}\t{made}\t{state}\t{}", key.id, key.scope, key.name))?;
                }
                Ok(())
            }
            Self::Revoke { id } => {
                access::revoke(pool, id).await?;
                say(format_args!("key {id} revoked"))
            }
        }
    }
}
