//! What the cloud signs receipts of carried bundles with.
//!
//! What must stay true:
//! - The key is made once and is the same for every replica: gateways have pinned its public half.
//! - Where `receipts.seal_key` is set it is not kept in clear, also one that was before.
//! - A key that cannot be opened is not replaced: without it no receipt is signed, and nothing else stops.

use crate::error::Result;
use crate::finding::Finding;
use crate::random;
use crate::sealed::{Kept, Vault};
use anyhow::{Context, bail};
use lumbung_shared::signing::{PublicKey, Signer};
use sqlx::PgPool;

/// The key; made when it is first asked for.
///
/// # Errors
/// The database's, the system's for want of random bytes, or a `seal_key` that is missing or another.
pub async fn signer(pool: &PgPool, seal_key: &str) -> Result<Signer> {
    Ok(Signer::from_seed(&seed(pool, seal_key).await?).context("the receipt key")?)
}

/// Its public half, for gateways that are let in. None while the key cannot be opened: they ask again.
///
/// # Errors
/// The database's, or the system's for want of random bytes.
pub(super) async fn public_key(pool: &PgPool, seal_key: &str) -> Result<Option<PublicKey>> {
    match signer(pool, seal_key).await {
        Ok(signer) => Ok(Some(signer.public_key())),
        Err(error) if stored(pool).await?.is_some_and(|kept| kept.sealed_seed.is_some()) => {
            tracing::error!("receipts cannot be signed: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

struct Stored {
    seed: Option<Vec<u8>>,
    sealed_seed: Option<Vec<u8>>,
}

async fn stored(pool: &PgPool) -> sqlx::Result<Option<Stored>> {
    sqlx::query_as!(Stored, "select seed, sealed_seed from receipt_key").fetch_optional(pool).await
}

async fn seed(pool: &PgPool, seal_key: &str) -> anyhow::Result<Vec<u8>> {
    let vault = Vault::open(seal_key, Kept::ReceiptKey)?;
    let mut kept = stored(pool).await?;
    if kept.is_none() {
        let drawn = random::draw::<32>()?;
        // Two replicas may be at it: the first one's stays.
        sqlx::query!("insert into receipt_key (seed) values ($1) on conflict do nothing", &drawn[..])
            .execute(pool)
            .await?;
        kept = stored(pool).await?;
    }
    match kept.context("the receipt key was not kept")? {
        Stored { sealed_seed: Some(sealed), .. } => vault.unseal(0, &sealed),
        Stored { seed: Some(seed), .. } => {
            if vault.has_key() {
                let sealed = vault.seal(0, &seed)?;
                sqlx::query!(
                    "update receipt_key set seed = null, sealed_seed = $1 where seed is not null",
                    sealed
                )
                .execute(pool)
                .await?;
            }
            Ok(seed)
        }
        Stored { .. } => bail!("the receipt key is neither in clear nor sealed"),
    }
}

/// Whether the key is safe from who can read the database, and there for who signs.
pub async fn check(pool: &PgPool, seal_key: &str) -> Finding {
    let advice = "set receipts.seal_key as it was when the key was sealed; without it no receipt is signed";
    match stored(pool).await {
        Err(error) => Finding::fail("receipts", error.to_string(), "see the database"),
        Ok(None) => Finding::ok("receipts", "the key is drawn when the first gateway is let in"),
        Ok(Some(Stored { sealed_seed: Some(sealed), .. })) => {
            match Vault::open(seal_key, Kept::ReceiptKey).and_then(|vault| vault.unseal(0, &sealed)) {
                Ok(_) => Finding::ok("receipts", "the key is sealed in the database"),
                Err(error) => Finding::fail("receipts", format!("the key cannot be opened: {error}"), advice),
            }
        }
        Ok(Some(_)) if seal_key.is_empty() => Finding::warn(
            "receipts",
            "whoever reads the database or a backup can sign receipts, and gateways believe them",
            "set receipts.seal_key, a credential that no backup holds",
        ),
        Ok(Some(_)) => Finding::ok("receipts", "the key is sealed when it is next used"),
    }
}
