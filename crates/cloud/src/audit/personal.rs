//! What the audit log knows of a person. It names people by number only and is never changed: when the account is
//! erased, the number is all that is left.

use crate::error::Result;
use serde_json::Value;
use sqlx::PgConnection;

/// What a person did and what was done to their account, the latest 10,000 entries. Where somebody else did it,
/// from where is that person's own affair.
pub async fn export(conn: &mut PgConnection, user_id: i64) -> Result<Value> {
    Ok(sqlx::query_scalar!(
        r#"select coalesce(jsonb_agg(to_jsonb(e) order by e.audit_id), '[]') as "data!" from (
               select audit_id, happened_at, actor_kind, action, object_kind, object_id, outcome, reason, detail,
                   case when theirs then address end as address, case when theirs then user_agent end as user_agent
               from (select *, actor_kind in ('person', 'nobody') and coalesce(actor_id, $1) = $1 as theirs
                     from audit_entry) a
               where actor_kind = 'person' and actor_id = $1 or object_kind = 'user' and object_id = $1
               order by audit_id desc limit 10000) e"#,
        user_id.to_string()
    )
    .fetch_one(conn)
    .await?)
}
