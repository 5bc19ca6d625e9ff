//! What messages know of a person: given to them, and taken away.

use crate::error::Result;
use crate::outside;
use serde_json::Value;
use sqlx::PgConnection;

/// What they were told, without the bodies of mails on their way.
pub async fn export(conn: &mut PgConnection, user_id: i64) -> Result<Value> {
    Ok(sqlx::query_scalar!(
        r#"select jsonb_build_object(
               'notifications', (select coalesce(jsonb_agg(to_jsonb(n) order by n.notification_id), '[]')
                                 from notification n where n.user_id = $1),
               'preferences', (select coalesce(jsonb_agg(to_jsonb(w) order by w.kind, w.channel), '[]')
                               from notification_preference w where w.user_id = $1),
               'browsers', (select coalesce(jsonb_agg(to_jsonb(p) - array['p256dh', 'auth']
                                                      order by p.push_subscription_id), '[]')
                            from push_subscription p where p.user_id = $1),
               'telephone', (select to_jsonb(t) - array['code_hash'] from phone t where t.user_id = $1),
               'deliveries', (select coalesce(jsonb_agg(to_jsonb(d) - array['content', 'html', 'leased_until']
                                                        order by d.delivery_id), '[]')
                              from delivery d where d.user_id = $1)) as "data!""#,
        user_id
    )
    .fetch_one(conn)
    .await?)
}

/// Everything that was told to a person, by account and by address, those that the account had earlier among them; what
/// is still on its way is not sent.
pub async fn erase(conn: &mut PgConnection, user_id: i64, email: &str) -> Result<()> {
    let mut addresses = sqlx::query_scalar!(
        "delete from delivery where user_id = $1 or lower(address) = lower($2) returning address",
        user_id,
        email
    )
    .fetch_all(&mut *conn)
    .await?;
    addresses.push(email.to_owned());
    sqlx::query!("delete from notification where user_id = $1", user_id).execute(&mut *conn).await?;
    sqlx::query!("delete from notification_preference where user_id = $1", user_id)
        .execute(&mut *conn)
        .await?;
    sqlx::query!("delete from phone where user_id = $1", user_id).execute(&mut *conn).await?;
    sqlx::query!("delete from push_subscription where user_id = $1", user_id).execute(&mut *conn).await?;
    Ok(outside::forget(conn, &addresses).await?)
}
