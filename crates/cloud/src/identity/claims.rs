//! An operator's leave for one box to become a gateway: single use, short-lived.

use super::{gateways, secret, signing};
use crate::audit::{self, Action, Actor, By, Entry, Object, Origin};
use crate::error::{Error, OnConstraint, Result};
use crate::places::check_code;
use chrono::{DateTime, Utc};
use lumbung_shared::FieldError;
use lumbung_shared::enrol::EnrolRequest;
use serde_json::json;
use sqlx::{PgConnection, PgPool};

/// What gateways call stands beside their codes in the API's paths.
pub const VERBS: [&str; 3] = ["enrol", "rotate", "signing_key"];

/// A claim as the operator hands it on. It is not kept anywhere else.
pub struct Claim {
    pub gateway: String,
    pub site: String,
    pub code: String,
    pub expires_at: DateTime<Utc>,
}

impl Claim {
    /// What the QR code says.
    pub fn uri(&self, cloud: &str) -> String {
        let cloud: String = cloud
            .bytes()
            .map(|b| match b {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b':' | b'/' => {
                    char::from(b).to_string()
                }
                other => format!("%{other:02X}"),
            })
            .collect();
        format!("lumbung://enrol?cloud={cloud}&claim={}", self.code)
    }
}

/// Makes a claim for a gateway: a new one, or one that is to get a new box or key. The site is where it
/// stands from now on.
///
/// # Errors
/// [`Error::Fields`] for an unusable code or an unknown site, or the database's.
pub async fn claim(
    conn: &mut PgConnection,
    gateway: &str,
    site: &str,
    valid: std::time::Duration,
    by: &By,
) -> Result<Claim> {
    check_code("gateway", gateway)?;
    let found = sqlx::query!(
        r#"insert into gateway (code, site_id) select $1, site_id from site where code = $2
           on conflict on constraint gateway_code_key do update set site_id = excluded.site_id
           returning gateway_id, xmax = 0 as "made!""#,
        gateway,
        site
    )
    .fetch_optional(&mut *conn)
    .await
    .on_constraint(
        "gateway_code_form",
        Error::field("gateway", "bentuknya tidak dapat dipakai", "has an unusable form"),
    )?
    .ok_or_else(|| FieldError::unknown("site"))?;
    if found.made {
        check_no_verb("gateway", gateway)?;
    }
    gateways::stands(conn, found.gateway_id, site).await?;
    draw(conn, found.gateway_id, gateway, site, valid, by).await
}

/// Makes a gateway that is not there yet, and its first claim.
///
/// # Errors
/// [`Error::Fields`] for an unusable code or an unknown site, `GATEWAY_TAKEN`, or the database's.
pub async fn first(
    conn: &mut PgConnection,
    gateway: &str,
    site: &str,
    valid: std::time::Duration,
    by: &By,
) -> Result<Claim> {
    check_code("gateway_id", gateway)?;
    check_no_verb("gateway_id", gateway)?;
    let gateway_id = sqlx::query_scalar!(
        "insert into gateway (code, site_id) select $1, site_id from site where code = $2 returning gateway_id",
        gateway,
        site
    )
    .fetch_optional(&mut *conn)
    .await
    .on_constraint("gateway_code_key", Error::Conflict("GATEWAY_TAKEN"))?
    .ok_or_else(|| FieldError::unknown("site"))?;
    gateways::stands(conn, gateway_id, site).await?;
    draw(conn, gateway_id, gateway, site, valid, by).await
}

/// One that has such a code from earlier goes on with it, and is revoked at the command line.
fn check_no_verb(field: &'static str, gateway: &str) -> Result<()> {
    let good = !VERBS.contains(&gateway);
    good.then_some(()).ok_or_else(|| {
        Error::field(
            field,
            "adalah kata dari alamat API sendiri; pilih yang lain",
            "is a word of the API's own paths; choose another",
        )
    })
}

async fn draw(
    conn: &mut PgConnection,
    gateway_id: i32,
    gateway: &str,
    site: &str,
    valid: std::time::Duration,
    by: &By,
) -> Result<Claim> {
    let code = secret::draw_claim()?;
    let valid = chrono::Duration::from_std(valid)
        .map_err(|_| Error::field("valid", "terlalu lama", "is too long"))?;
    let expires_at = Utc::now()
        .checked_add_signed(valid)
        .ok_or_else(|| Error::field("valid", "terlalu lama", "is too long"))?;
    // One claim at a time: a new one ends those that nobody used.
    sqlx::query!("delete from gateway_claim where gateway_id = $1 and redeemed_at is null", gateway_id)
        .execute(&mut *conn)
        .await?;
    // As it is kept: the clock here is finer.
    let expires_at = sqlx::query_scalar!(
        "insert into gateway_claim (claim_hash, gateway_id, expires_at) values ($1, $2, $3) returning expires_at",
        secret::hash(&secret::normalise_claim(&code)),
        gateway_id,
        expires_at
    )
    .fetch_one(&mut *conn)
    .await?;
    let detail = json!({ "what": "claim", "site": site, "until": expires_at });
    by.did(conn, Action::TokenCreated, Object::new("gateway", &gateway), None, detail).await?;
    Ok(Claim { gateway: gateway.to_owned(), site: site.to_owned(), code, expires_at })
}

/// Ends the claim to a gateway that nobody has used yet.
///
/// # Errors
/// `NO_OPEN_CLAIM`, or the database's.
pub async fn withdraw(conn: &mut PgConnection, gateway: &str, by: &By) -> Result<()> {
    let open = sqlx::query_scalar!(
        r#"delete from gateway_claim c using gateway g
           where g.code = $1 and c.gateway_id = g.gateway_id and c.redeemed_at is null
           returning c.expires_at > now() as "open!""#,
        gateway
    )
    .fetch_all(&mut *conn)
    .await?;
    if !open.contains(&true) {
        return Err(Error::NotFound("NO_OPEN_CLAIM"));
    }
    let detail = json!({ "what": "claim" });
    by.did(conn, Action::TokenRevoked, Object::new("gateway", &gateway), None, detail).await
}

/// Redeems a claim with the gateway's own new key. Asking again with the same claim and key is the same
/// enrolment; every older key of the gateway ends when the new one is first used. A revoked gateway that
/// is enrolled again is welcome again: the operator made the claim.
///
/// # Errors
/// `CLAIM_UNKNOWN`, `CLAIM_USED`, `KEY_IN_USE`, or the database's.
pub(super) async fn redeem(pool: &PgPool, request: &EnrolRequest, origin: Origin) -> Result<i32> {
    let (claim_hash, key_hash) =
        (secret::hash(&secret::normalise_claim(&request.claim)), secret::hash(&request.key));
    let signing_key = request.signing.as_ref().map(|signing| signing.public_key);
    let mut tx = pool.begin().await?;
    // The gateway first, as `claim` does: two of them must wait for each other, not lock each other out.
    let claim = sqlx::query!(
        r#"select g.gateway_id, g.code, g.revoked_at is not null as "shut_out!", c.redeemed_key_hash,
               c.expires_at > now() as "fresh!"
           from gateway g join gateway_claim c using (gateway_id) where c.claim_hash = $1 for update of g"#,
        claim_hash
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(Error::NotFound("CLAIM_UNKNOWN"))?;
    match claim.redeemed_key_hash {
        Some(known) if known == key_hash => return Ok(claim.gateway_id),
        Some(_) => return Err(Error::Conflict("CLAIM_USED")),
        None if !claim.fresh => return Err(Error::NotFound("CLAIM_UNKNOWN")),
        None => {}
    }
    sqlx::query!(
        "insert into gateway_key (key_hash, gateway_id) values ($1, $2)",
        key_hash,
        claim.gateway_id
    )
    .execute(&mut *tx)
    .await
    .on_constraint("gateway_key_pk", Error::Conflict("KEY_IN_USE"))?;
    sqlx::query!(
        "update gateway_claim set redeemed_at = now(), redeemed_key_hash = $2 where claim_hash = $1",
        claim_hash,
        key_hash
    )
    .execute(&mut *tx)
    .await?;
    if claim.shut_out {
        signing::revoke_all(&mut tx, claim.gateway_id, signing_key).await?;
    }
    if let Some(key) = signing_key {
        signing::register(&mut tx, claim.gateway_id, key).await?;
    }
    // Whoever held a key of the revoked gateway must not come back with it.
    sqlx::query!(
        "update gateway_key k set retired_at = now() from gateway g
         where g.gateway_id = $1 and k.gateway_id = $1 and g.revoked_at is not null and k.key_hash <> $2
             and k.retired_at is null",
        claim.gateway_id,
        key_hash
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update gateway set revoked_at = null, revoke_reason = null, hardware = coalesce($2, hardware)
         where gateway_id = $1",
        claim.gateway_id,
        request.hardware.as_deref()
    )
    .execute(&mut *tx)
    .await?;
    let enrolled = Entry {
        object: Some(Object::new("gateway", &claim.code)),
        detail: json!({ "was_revoked": claim.shut_out, "hardware": request.hardware }),
        origin: Some(origin),
        ..Entry::of(Actor::Gateway(&claim.code), Action::GatewayEnrolled)
    };
    audit::record(&mut tx, &enrolled).await?;
    tx.commit().await?;
    Ok(claim.gateway_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uri_carries_an_address_with_its_port_and_nothing_unescaped() {
        let claim =
            Claim { gateway: "GW".into(), site: "S".into(), code: "ABCDE-1".into(), expires_at: Utc::now() };
        assert_eq!(
            claim.uri("https://x.example:8000/a?b&c"),
            "lumbung://enrol?cloud=https://x.example:8000/a%3Fb%26c&claim=ABCDE-1"
        );
    }
}
