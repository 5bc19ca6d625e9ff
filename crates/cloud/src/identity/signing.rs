//! Whose signature counts: the gateways' keys for bundles that people carry.
//!
//! What must stay true:
//! - A public key belongs to one gateway, which showed that it holds the other half.
//! - A key is retired when a newer one has come into use; it is revoked when its gateway is let in again
//!   after it was shut out. A retired key still speaks for what its card holds, a revoked one for nothing.

use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use lumbung_shared::bundle::Seal;
use lumbung_shared::signing::PublicKey;
use sqlx::{PgConnection, PgPool};

/// Who signed a bundle.
#[derive(Debug, Clone)]
pub struct Carried {
    pub gateway: super::Gateway,
    pub key: PublicKey,
    /// When a newer key took its place.
    pub retired_at: Option<DateTime<Utc>>,
}

/// The gateway whose key this is.
///
/// # Errors
/// `SIGNING_KEY_UNKNOWN`, `GATEWAY_REVOKED`, `SIGNING_KEY_REVOKED`, or the database's.
pub async fn signed_by(pool: &PgPool, key: PublicKey) -> Result<Carried> {
    let row = sqlx::query!(
        r#"select g.gateway_id, g.code, g.revoked_at is not null as "shut_out!", s.retired_at,
               s.revoked_at is not null as "revoked!"
           from gateway_signing_key s join gateway g using (gateway_id) where s.public_key = $1"#,
        &key.as_bytes()[..]
    )
    .fetch_optional(pool)
    .await?
    .ok_or(Error::NotFound("SIGNING_KEY_UNKNOWN"))?;
    if row.shut_out {
        return Err(Error::Forbidden("GATEWAY_REVOKED"));
    }
    if row.revoked {
        return Err(Error::Forbidden("SIGNING_KEY_REVOKED"));
    }
    let gateway = super::Gateway { id: row.gateway_id, code: row.code };
    Ok(Carried { gateway, key, retired_at: row.retired_at })
}

/// What the bundles of a gateway may be sealed with: the hash of every bearer key it ever had.
///
/// # Errors
/// The database's.
pub async fn seals(pool: &PgPool, gateway: &super::Gateway) -> Result<Vec<Seal>> {
    let hashes = sqlx::query_scalar!(
        "select key_hash from gateway_key where gateway_id = $1 order by created_at desc",
        gateway.id
    )
    .fetch_all(pool)
    .await?;
    Ok(hashes.into_iter().map(Seal::of_hash).collect())
}

/// Makes a public key the gateway's newest. The older ones are retired by [`retire_older`].
///
/// # Errors
/// `KEY_IN_USE` when it is another gateway's, or the database's.
pub(super) async fn register(conn: &mut PgConnection, gateway_id: i32, key: PublicKey) -> Result<()> {
    sqlx::query_scalar!(
        "insert into gateway_signing_key (public_key, gateway_id) values ($1, $2)
         on conflict on constraint gateway_signing_key_pk do update
             set registered_at = now(), retired_at = null, revoked_at = null
             where gateway_signing_key.gateway_id = excluded.gateway_id
         returning gateway_id",
        &key.as_bytes()[..],
        gateway_id
    )
    .fetch_optional(conn)
    .await?
    .map(|_| ())
    .ok_or(Error::Conflict("KEY_IN_USE"))
}

/// Retires all but the gateway's newest signing key.
pub(super) async fn retire_older(pool: &PgPool, gateway_id: i32) -> sqlx::Result<()> {
    sqlx::query!(
        "update gateway_signing_key s set retired_at = now()
         from gateway_signing_key newer
         where s.gateway_id = $1 and s.retired_at is null
             and newer.gateway_id = $1 and newer.registered_at > s.registered_at",
        gateway_id
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Whoever holds a key of a gateway that was shut out must not come back with it; `but` is the one that an
/// operator has just let in.
pub(super) async fn revoke_all(
    conn: &mut PgConnection,
    gateway_id: i32,
    but: Option<PublicKey>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update gateway_signing_key set revoked_at = coalesce(revoked_at, now())
         where gateway_id = $1 and public_key is distinct from $2",
        gateway_id,
        but.as_ref().map(|key| &key.as_bytes()[..])
    )
    .execute(conn)
    .await?;
    Ok(())
}
