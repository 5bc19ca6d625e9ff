//! Reading the log: the newest first, by what people ask for.

use super::words::{ACTIONS, Action, OUTCOMES};
use super::{By, Object, redact};
use crate::database::anew;
use crate::error::Result;
use chrono::{DateTime, Utc};
use lumbung_shared::FieldError;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Kinds of those who act.
pub const ACTORS: &[&str] = &["person", "gateway", "key", "command", "itself", "nobody"];

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub from: Option<DateTime<Utc>>,
    pub to: Option<DateTime<Utc>>,
    pub action: Option<String>,
    /// `person:12`, `gateway:GW-1`, `command`.
    pub actor: Option<String>,
    /// `user:12`, or a kind alone.
    pub object: Option<String>,
    pub outcome: Option<String>,
}

impl Wanted {
    /// Refuses words that no entry has: a typing mistake must not look like an empty log.
    ///
    /// # Errors
    /// [`Error::Fields`].
    pub fn check(&self) -> Result<()> {
        let knows = |field, asked: &Option<String>, known: &mut dyn Iterator<Item = &'static str>| {
            let Some(asked) = asked else { return Ok(()) };
            let words: Vec<_> = known.collect();
            let known = words.contains(&asked.as_str());
            known.then_some(()).ok_or_else(|| FieldError::not_one_of(field, &words))
        };
        knows("action", &self.action, &mut ACTIONS.iter().map(|(_, word)| *word))?;
        knows("outcome", &self.outcome, &mut OUTCOMES.iter().map(|(_, word)| *word))?;
        let kind = halves(self.actor.as_ref()).0;
        knows("actor", &kind, &mut ACTORS.iter().copied())?;
        for (field, text) in [("actor", &self.actor), ("object", &self.object)] {
            if let Some(text) = text {
                lumbung_shared::check_text(field, text, 160)?;
            }
        }
        Ok(())
    }
}

/// `kind:id`, or a kind alone.
fn halves(text: Option<&String>) -> (Option<String>, Option<String>) {
    match text.map(|text| text.split_once(':').ok_or(text)) {
        None => (None, None),
        Some(Ok((kind, id))) => (Some(kind.to_owned()), Some(id.to_owned())),
        Some(Err(kind)) => (Some(kind.clone()), None),
    }
}

/// An entry as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditListed)]
pub struct Listed {
    #[schema(example = 1042)]
    pub id: i64,
    /// Its place in the chain; none for the second until it has one.
    #[schema(example = 1040)]
    pub number: Option<i64>,
    /// SHA-256 in hexadecimal.
    pub hash: Option<String>,
    pub happened_at: DateTime<Utc>,
    pub logged_at: DateTime<Utc>,
    pub request_id: Option<String>,
    #[schema(example = "person")]
    pub actor_kind: String,
    #[schema(example = "12")]
    pub actor_id: Option<String>,
    /// Cut to its network.
    #[schema(example = "203.0.113.0/24")]
    pub address: Option<String>,
    pub user_agent: Option<String>,
    #[schema(example = "authn_login_success")]
    pub action: String,
    #[schema(example = "user")]
    pub object_kind: Option<String>,
    #[schema(example = "12")]
    pub object_id: Option<String>,
    #[schema(example = "success")]
    pub outcome: String,
    pub reason: Option<String>,
    pub detail: serde_json::Value,
    /// The program's version.
    #[schema(example = "0.1.0")]
    pub version: String,
}

/// Up to `limit` entries with ids below `before`, the newest first.
///
/// # Errors
/// [`Error::Fields`] for words that no entry has, or the database's.
pub async fn search(
    conn: &mut PgConnection,
    wanted: &Wanted,
    before: i64,
    limit: i64,
) -> Result<Vec<Listed>> {
    wanted.check()?;
    let (actor_kind, actor_id) = halves(wanted.actor.as_ref());
    let (object_kind, object_id) = halves(wanted.object.as_ref());
    let rows = sqlx::query!(
        r#"select e.audit_id as id, s.number as "number?", encode(s.hash, 'hex') as hash, happened_at, logged_at,
               request_id, actor_kind, actor_id, address, user_agent, action, object_kind, object_id, outcome,
               reason, detail::text as "detail!", version
           from audit_entry e left join audit_seal s using (audit_id)
           where e.audit_id < $1
               and ($2::timestamptz is null or logged_at >= $2)
               and ($3::timestamptz is null or logged_at < $3)
               and ($4::text is null or action = $4)
               and ($5::text is null or actor_kind = $5) and ($6::text is null or actor_id = $6)
               and ($7::text is null or object_kind = $7) and ($8::text is null or object_id = $8)
               and ($9::text is null or outcome = $9)
           order by e.audit_id desc limit $10"#,
        before,
        wanted.from,
        wanted.to,
        wanted.action,
        actor_kind,
        actor_id,
        object_kind,
        object_id,
        wanted.outcome,
        limit
    )
    .fetch_all(anew(conn))
    .await?;
    let listed = rows.into_iter().map(|row| {
        Ok(Listed {
            id: row.id,
            number: row.number,
            hash: row.hash,
            happened_at: row.happened_at,
            logged_at: row.logged_at,
            request_id: row.request_id,
            actor_kind: row.actor_kind,
            actor_id: row.actor_id,
            address: row.address,
            user_agent: row.user_agent,
            action: row.action,
            object_kind: row.object_kind,
            object_id: row.object_id,
            outcome: row.outcome,
            reason: row.reason,
            detail: serde_json::from_str(&row.detail).map_err(anyhow::Error::from)?,
            version: row.version,
        })
    });
    listed.collect()
}

/// Tells that a person searches: once for each search, whose further pages within the hour are part of it.
///
/// # Errors
/// The database's.
pub async fn tell_search(conn: &mut PgConnection, by: &By, wanted: &Wanted, further: bool) -> Result<()> {
    let Wanted { from, to, action, actor, object, outcome } = wanted;
    let detail = json!({ "action": action, "actor": actor, "object": object, "outcome": outcome,
        "from": from, "to": to });
    let object = Object::new("audit_entry", &"*");
    if further && is_told(conn, by, &object, &detail).await? {
        return Ok(());
    }
    by.did(conn, Action::SensitiveRead, object, None, detail).await
}

/// Tells that a person looks at something that is looked at all day: once an hour.
///
/// # Errors
/// The database's.
pub async fn tell_look(conn: &mut PgConnection, by: &By, object: Object) -> Result<()> {
    let detail = json!({});
    if is_told(conn, by, &object, &detail).await? {
        return Ok(());
    }
    by.did(conn, Action::SensitiveRead, object, None, detail).await
}

/// Whether the same reading by the same person was told within the hour.
async fn is_told(conn: &mut PgConnection, by: &By, object: &Object, detail: &Value) -> Result<bool> {
    let Some(person) = by.person() else { return Ok(false) };
    Ok(sqlx::query_scalar!(
        r#"select exists (select from audit_entry
               where actor_kind = 'person' and actor_id = $1 and action = $2 and object_kind = $3 and object_id = $4
                   and detail = ($5::text)::jsonb and logged_at > now() - interval '1 hour') as "told!""#,
        person.to_string(),
        Action::SensitiveRead.word(),
        object.kind,
        object.id,
        redact::detail(detail).to_string()
    )
    .fetch_one(conn)
    .await?)
}

/// What is worth seeing at a glance: what changed power, places or accounts, and what was refused.
const NOTABLE: [Action; 13] = [
    Action::AccessRefused,
    Action::AdminAction,
    Action::PermissionsChanged,
    Action::UserCreated,
    Action::UserBanned,
    Action::UserUnbanned,
    Action::TokenReuse,
    Action::GatewayEnrolled,
    Action::GatewayRevoked,
    Action::RecordsReplayed,
    Action::RecordsImported,
    Action::PlaceChanged,
    Action::JobRun,
];

/// An entry at a glance: ids alone, neither names nor where from.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AuditBrief)]
pub struct Brief {
    #[schema(example = 1042)]
    pub id: i64,
    pub at: DateTime<Utc>,
    #[schema(example = "user_banned")]
    pub action: String,
    #[schema(example = "person")]
    pub actor_kind: String,
    #[schema(example = "1")]
    pub actor_id: Option<String>,
    #[schema(example = "user")]
    pub object_kind: Option<String>,
    #[schema(example = "12")]
    pub object_id: Option<String>,
    #[schema(example = "success")]
    pub outcome: String,
}

/// The latest of what is notable, newest first: so many of each action are read, whatever else fills the log.
///
/// # Errors
/// The database's.
pub async fn recent(conn: &mut PgConnection, most: i64) -> Result<Vec<Brief>> {
    let words = NOTABLE.map(|action| action.word().to_owned());
    Ok(sqlx::query_as!(
        Brief,
        r#"select e.audit_id as "id!", e.happened_at as "at!", e.action as "action!", e.actor_kind as "actor_kind!",
               e.actor_id, e.object_kind, e.object_id, e.outcome as "outcome!"
           from unnest($1::text[]) word cross join lateral (
               select * from audit_entry where action = word order by audit_id desc limit $2) e
           order by e.audit_id desc limit $2"#,
        &words,
        most
    )
    .fetch_all(conn)
    .await?)
}
