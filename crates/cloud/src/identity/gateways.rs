//! Gateways and their keys.

use super::{secret, signing};
use crate::audit::{self, Action, Actor, By, Entry, Object, Origin};
use crate::database::anew;
use crate::error::{Error, OnConstraint, Result};
use crate::guards::{self, bearer};
use crate::page::Page;
use crate::places;
use crate::state::State;
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::{DateTime, Utc};
use lumbung_shared::FieldError;
use lumbung_shared::enrol::is_key;
use serde::Serialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use std::future::Future;
use std::pin::Pin;
use utoipa::ToSchema;

/// The gateway whose key came with the request. As a handler's argument it refuses everyone else:
/// 401 without a known key, 403 for a revoked gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub id: i32,
    pub code: String,
}

impl FromRequest for Gateway {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let key = bearer(request.headers()).filter(|key| is_key(key)).map(str::to_owned);
        let state = request.app_data::<web::Data<State>>().cloned();
        let request = request.clone();
        Box::pin(async move {
            let (Some(key), Some(state)) = (key, state) else {
                return Err(Error::Unauthenticated);
            };
            let turn = guards::turn(&request).await?;
            let gateway = authenticate(&state.gateways, &key).await?;
            drop(turn);
            guards::accept_key(&request);
            Ok(gateway)
        })
    }
}

/// Who holds a key. The first use of a new key retires the gateway's older ones.
async fn authenticate(pool: &PgPool, key: &str) -> Result<Gateway> {
    let hash = secret::hash(key);
    let row = sqlx::query!(
        r#"select g.gateway_id, g.code, g.revoked_at is not null as "revoked!",
               k.first_used_at is null as "new!", k.retired_at is not null as "retired!"
           from gateway_key k join gateway g using (gateway_id) where k.key_hash = $1"#,
        hash
    )
    .fetch_optional(pool)
    .await?
    .ok_or(Error::Unauthenticated)?;
    if row.revoked {
        return Err(Error::Forbidden("GATEWAY_REVOKED"));
    }
    if row.retired {
        return Err(Error::Unauthenticated);
    }
    if row.new {
        // One statement, so that two first uses cannot retire each other's key.
        sqlx::query!(
            "update gateway_key k
             set first_used_at = case when k.key_hash = $2 then now() else k.first_used_at end,
                 retired_at = case when k.key_hash = $2 then null else now() end
             from gateway_key used
             where used.key_hash = $2 and k.gateway_id = $1 and k.retired_at is null
               and (k.key_hash = $2 or k.created_at < used.created_at)",
            row.gateway_id,
            hash
        )
        .execute(pool)
        .await?;
        // The box that brought it may have another card, and with that another signing key.
        signing::retire_older(pool, row.gateway_id).await?;
    }
    Ok(Gateway { id: row.gateway_id, code: row.code })
}

/// Registers another key for a gateway; the present one stays good until the new one is used.
pub(super) async fn add_key(pool: &PgPool, gateway: &Gateway, key: &str, origin: Origin) -> Result<()> {
    let mut tx = pool.begin().await?;
    let hash = secret::hash(key);
    let added = sqlx::query_scalar!(
        "insert into gateway_key (key_hash, gateway_id) values ($1, $2)
         on conflict on constraint gateway_key_pk do update set key_hash = excluded.key_hash
             where gateway_key.gateway_id = excluded.gateway_id and gateway_key.retired_at is null
         returning gateway_id",
        hash,
        gateway.id
    )
    .fetch_optional(&mut *tx)
    .await
    .on_constraint("gateway_key_gateway_fk", Error::Unauthenticated)?;
    added.ok_or(Error::Conflict("KEY_IN_USE"))?;
    let brought = Entry {
        object: Some(Object::new("gateway", &gateway.code)),
        origin: Some(origin),
        ..Entry::of(Actor::Gateway(&gateway.code), Action::GatewayKeyRotated)
    };
    audit::record(&mut tx, &brought).await?;
    Ok(tx.commit().await?)
}

/// Ends a gateway's welcome, and any claim to it that nobody used. Its records stay, here and there.
///
/// # Errors
/// [`Error::NotFound`] for an unknown code, or the database's.
pub async fn revoke(conn: &mut PgConnection, code: &str, reason: Option<&str>, by: &By) -> Result<()> {
    sqlx::query_scalar!(
        "with revoked as (
             update gateway set revoked_at = coalesce(revoked_at, now()), revoke_reason = $2 where code = $1
             returning gateway_id
         ), unclaimed as (
             delete from gateway_claim c using revoked
             where c.gateway_id = revoked.gateway_id and c.redeemed_at is null
         )
         select gateway_id from revoked",
        code,
        reason
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    by.did(conn, Action::GatewayRevoked, Object::new("gateway", &code), reason, json!({})).await
}

/// Remembers that a gateway stands, or stood, at a site: it may send what it recorded there. False when that was
/// known.
///
/// # Errors
/// The database's.
pub(super) async fn stands(conn: &mut PgConnection, gateway_id: i32, site: &str) -> Result<bool> {
    let added = sqlx::query!(
        "insert into gateway_site (gateway_id, site_id) select $1, site_id from site where code = $2
         on conflict on constraint gateway_site_pk do nothing",
        gateway_id,
        site
    )
    .execute(conn)
    .await?;
    Ok(added.rows_affected() > 0)
}

/// An operator's word that a gateway stood at a site once; it stays where it is. What it sent from there and waits
/// in quarantine can be replayed then.
///
/// # Errors
/// [`Error::NotFound`] for an unknown gateway, [`Error::Fields`] for an unknown site, or the database's.
pub async fn stood(conn: &mut PgConnection, code: &str, site: &str, by: &By) -> Result<()> {
    let gateway_id = sqlx::query_scalar!("select gateway_id from gateway where code = $1", code)
        .fetch_optional(&mut *conn)
        .await?
        .ok_or(Error::NotFound("NOT_FOUND"))?;
    if places::site_named(&mut *conn, site).await?.is_none() {
        return Err(FieldError::unknown("site").into());
    }
    if stands(conn, gateway_id, site).await? {
        let detail = json!({ "stood_at": site });
        by.did(conn, Action::PlaceChanged, Object::new("gateway", &code), None, detail).await?;
    }
    Ok(())
}

/// Where a gateway stands: the key and the code of its site. It stays there until the transaction is over.
///
/// # Errors
/// The database's.
pub async fn hold(conn: &mut PgConnection, code: &str) -> Result<Option<(i32, String)>> {
    let found = sqlx::query!(
        "select g.site_id, s.code from gateway g join site s using (site_id) where g.code = $1 for update of g",
        code
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(|site| (site.site_id, site.code)))
}

/// A gateway as people list it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GatewayListed)]
pub struct Listed {
    #[serde(skip)]
    pub number: i32,
    #[schema(example = "GW-DAPUR-MENTENG")]
    pub gateway_id: String,
    /// Code of the site where it stands.
    #[schema(example = "DAPUR-MENTENG")]
    pub site: String,
    pub hardware: Option<String>,
    pub enrolled: bool,
    pub revoked_at: Option<DateTime<Utc>>,
    pub revoke_reason: Option<String>,
    pub last_heard_at: Option<DateTime<Utc>>,
}

/// The gateways after a number, in the order they were made, at most `limit`; at `only` these sites where it says.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, only: Option<&[i32]>, page: Page) -> Result<Vec<Listed>> {
    Ok(sqlx::query_as!(
        Listed,
        r#"select g.gateway_id as number, g.code as gateway_id, s.code as site, g.hardware, g.revoked_at, g.revoke_reason,
               exists (select from gateway_key k where k.gateway_id = g.gateway_id and k.retired_at is null)
                   as "enrolled!",
               st.last_heard_at as "last_heard_at?"
           from gateway g join site s using (site_id) left join gateway_state st using (gateway_id)
           where g.gateway_id > $2 and ($1::int[] is null or g.site_id = any($1))
           order by g.gateway_id limit $3 offset $4"#,
        only,
        page.after_small(),
        page.most,
        page.skip
    )
    .fetch_all(anew(pool))
    .await?)
}
