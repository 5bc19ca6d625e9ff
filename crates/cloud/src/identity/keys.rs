//! Access keys: service accounts with scopes, for dashboards, scrapers and scripts.

use super::secret;
use crate::audit::{Action, By, Object};
use crate::error::{Error, Result};
use crate::page::Page;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;

/// What every access key starts with.
pub(super) const PREFIX: &str = "lbk_";

/// What a key opens. A small closed set: what a key may do is read from its scopes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
pub enum Scope {
    /// Everything that can be read but people's accounts, metrics too.
    #[serde(rename = "read")]
    #[value(name = "read")]
    Read,
    /// `/metrics` and `/api/health/detailed`.
    #[serde(rename = "metrics")]
    #[value(name = "metrics")]
    Metrics,
    /// Makes and changes programmes and sites.
    #[serde(rename = "places:write")]
    #[value(name = "places:write")]
    PlacesWrite,
    /// Makes gateways and claims to them, and revokes them.
    #[serde(rename = "gateways:enrol")]
    #[value(name = "gateways:enrol")]
    GatewaysEnrol,
}

impl Scope {
    const ALL: [Self; 4] = [Self::Read, Self::Metrics, Self::PlacesWrite, Self::GatewaysEnrol];

    /// As it is stored, sent and typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Metrics => "metrics",
            Self::PlacesWrite => "places:write",
            Self::GatewaysEnrol => "gateways:enrol",
        }
    }

    /// Those that this program knows; what a newer one gave opens nothing here.
    fn read(words: &[String]) -> Vec<Self> {
        Self::ALL.into_iter().filter(|scope| words.iter().any(|word| word == scope.word())).collect()
    }
}

/// A good key that came with a request.
#[derive(Debug, Clone)]
pub struct Key {
    pub(super) id: i32,
    scopes: Vec<Scope>,
}

impl Key {
    pub fn opens(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// Whose hash this is. Asked of the database every time: a revoked key is refused at once.
pub(super) async fn find(pool: &PgPool, hash: &[u8]) -> Result<Key> {
    let row = sqlx::query!(
        r#"select access_key_id, scopes,
               coalesce(last_used_at < now() - interval '1 minute', true) as "unseen!"
           from access_key where key_hash = $1 and revoked_at is null and coalesce(expires_at > now(), true)"#,
        hash
    )
    .fetch_optional(pool)
    .await?
    .ok_or(Error::Unauthenticated)?;
    if row.unseen {
        sqlx::query!(
            "update access_key set last_used_at = now() where access_key_id = $1",
            row.access_key_id
        )
        .execute(pool)
        .await?;
    }
    Ok(Key { id: row.access_key_id, scopes: Scope::read(&row.scopes) })
}

/// A key that was just made; this is the only time it is seen.
#[derive(Serialize, ToSchema)]
pub struct NewKey {
    #[schema(example = 3)]
    pub id: i32,
    #[schema(example = "dashboard")]
    pub name: String,
    pub scopes: Vec<Scope>,
    pub expires_at: Option<DateTime<Utc>>,
    /// For `Authorization: Bearer`; shown this once.
    #[schema(example = "lbk_…")]
    pub key: String,
}

/// Makes a key.
///
/// # Errors
/// [`Error::Fields`] for an unusable name, no scope or an end that is past, or the database's.
pub async fn add(
    conn: &mut PgConnection,
    name: &str,
    scopes: &[Scope],
    expires_at: Option<DateTime<Utc>>,
    by: &By,
) -> Result<NewKey> {
    lumbung_shared::check_text("name", name, 100)?;
    let scopes: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| scopes.contains(scope)).collect();
    if scopes.is_empty() {
        let all = Scope::ALL.map(Scope::word).join(", ");
        return Err(Error::field(
            "scopes",
            format!("sebutkan paling sedikit satu dari {all}"),
            format!("must name at least one of {all}"),
        ));
    }
    if expires_at.is_some_and(|at| at <= Utc::now()) {
        return Err(Error::field("expires_at", "harus di masa depan", "must be in the future"));
    }
    let key = secret::draw_key(PREFIX)?;
    let words: Vec<String> = scopes.iter().map(|scope| scope.word().to_owned()).collect();
    let id = sqlx::query_scalar!(
        "insert into access_key (name, key_hash, scopes, expires_at, made_by) values ($1, $2, $3, $4, $5)
         returning access_key_id",
        name,
        secret::hash(&key),
        &words,
        expires_at,
        by.person()
    )
    .fetch_one(&mut *conn)
    .await?;
    let detail = json!({ "name": name, "scopes": words });
    by.did(conn, Action::TokenCreated, Object::new("access_key", &id), None, detail).await?;
    Ok(NewKey { id, name: name.to_owned(), scopes, expires_at, key })
}

/// A key as people list it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeyListed)]
pub struct Listed {
    #[schema(example = 3)]
    pub id: i32,
    #[schema(example = "dashboard")]
    pub name: String,
    #[schema(example = json!(["read"]))]
    pub scopes: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    /// To the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Listed {
    /// `good`, `expired` or `revoked`.
    pub fn state(&self) -> &'static str {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(at)) if at <= Utc::now() => "expired",
            _ => "good",
        }
    }
}

/// The keys after a number, oldest first, at most `limit`.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, page: Page) -> Result<Vec<Listed>> {
    Ok(sqlx::query_as!(
        Listed,
        "select access_key_id as id, name, scopes, created_at, expires_at, last_used_at, revoked_at
         from access_key where access_key_id > $1 order by access_key_id limit $2 offset $3",
        page.after_small(),
        page.most,
        page.skip
    )
    .fetch_all(pool)
    .await?)
}

/// Ends a key.
///
/// # Errors
/// [`Error::NotFound`] for an unknown id, or the database's.
pub async fn revoke(conn: &mut PgConnection, id: i32, by: &By) -> Result<()> {
    let revoked = sqlx::query_scalar!(
        "update access_key set revoked_at = coalesce(revoked_at, now()) where access_key_id = $1
         returning access_key_id",
        id
    )
    .fetch_optional(&mut *conn)
    .await?;
    revoked.ok_or(Error::NotFound("NOT_FOUND"))?;
    by.did(conn, Action::TokenRevoked, Object::new("access_key", &id), None, json!({})).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_one_word_everywhere_and_an_unknown_one_opens_nothing() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.word());
            assert_eq!(clap::ValueEnum::to_possible_value(&scope).unwrap().get_name(), scope.word());
        }
        assert_eq!(Scope::read(&["metrics".into(), "everything".into()]), [Scope::Metrics]);
    }
}
