//! Messages to people: rows first, sent afterwards.
//!
//! What must stay true:
//! - [`send`] only writes rows, in the caller's transaction: what was rolled back is never told, and what was
//!   committed is told sooner or later however often programs die.
//! - A link or a code that opens an account travels by e-mail alone. It is never shown in the app, where
//!   somebody with a stolen session would read it, and is gone from the database once it was sent.
//! - Like events of one group are one row as long as it is unread, told outside once.

pub mod deliver;
mod kind;
pub mod personal;
pub mod phones;
mod render;
pub mod retention;
pub mod shown;
pub mod subscriptions;
pub mod undelivered;
pub mod webhooks;
pub mod wishes;

pub use crate::error::Language;
pub use kind::Kind;

use crate::error::Result;
use crate::outside::LONGEST_PUSH;
use anyhow::Context;
use render::Rendered;
use serde_json::{Value, json};
use sqlx::PgConnection;
use wishes::{Channel, Wishes};

/// Something to tell somebody.
#[derive(Debug, Clone)]
pub struct Message {
    pub to: Recipient,
    pub kind: Kind,
    /// What the kind's texts name.
    pub values: Value,
    /// What it is about: a word and an id.
    pub related: Option<(&'static str, i64)>,
    /// Messages of one kind with the same key become one as long as it is unread.
    pub group: Option<String>,
}

/// Plain addresses: who somebody is, their caller knows.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// None for an address without an account.
    pub user_id: Option<i64>,
    pub email: Option<String>,
    pub language: Language,
}

/// Writes what is to be told, in the caller's transaction.
///
/// # Errors
/// The database's, or a value that the kind's texts need and `values` lacks.
pub async fn send(conn: &mut PgConnection, message: &Message) -> Result<()> {
    let Message { to, kind, .. } = message;
    let wishes = match to.user_id {
        Some(user_id) => Wishes::of(conn, user_id).await?,
        None => Wishes::default(),
    };
    let mut notification_id = None;
    if let Some(user_id) = to.user_id.filter(|_| wishes.want(*kind, Channel::InApp)) {
        let (id, times) = keep(conn, user_id, message).await?;
        if times > 1 {
            return Ok(());
        }
        notification_id = Some(id);
    }
    if let Some(email) = to.email.as_ref().filter(|_| wishes.want(*kind, Channel::Email)) {
        let Rendered { title, content, html } = message.rendered(1)?;
        sqlx::query!(
            "insert into delivery (notification_id, user_id, kind, channel, address, title, content, html)
             values ($1, $2, $3, 'email', $4, $5, $6, $7)",
            notification_id,
            to.user_id,
            kind.word(),
            email,
            title,
            content,
            html
        )
        .execute(&mut *conn)
        .await?;
    }
    if let Some(user_id) = to.user_id.filter(|_| wishes.want(*kind, Channel::Push)) {
        push(conn, user_id, notification_id, message).await?;
    }
    if let Some(user_id) = to.user_id.filter(|_| wishes.want(*kind, Channel::Sms)) {
        let Rendered { title, .. } = message.rendered(1)?;
        phones::text(conn, user_id, notification_id, *kind, &title).await?;
    }
    Ok(())
}

/// A delivery for each of a person's browsers.
async fn push(
    conn: &mut PgConnection,
    user_id: i64,
    notification_id: Option<i64>,
    message: &Message,
) -> Result<()> {
    let Rendered { title, content, .. } = message.rendered(1)?;
    let (related_type, related_id) = message.related.unzip();
    // A text grows at most fourfold in bytes, and JSON's own escapes are rare: well below what services take.
    let body: String = content.chars().take(LONGEST_PUSH / 8).collect();
    let text = json!({
        "type": message.kind.word(),
        "title": title,
        "body": body,
        "notification_id": notification_id,
        "related_type": related_type,
        "related_id": related_id,
    })
    .to_string();
    sqlx::query!(
        "insert into delivery (notification_id, user_id, kind, channel, address, title, content)
         select $1, $2, $3, 'push', push_subscription_id::text, $4, $5 from push_subscription where user_id = $2",
        notification_id,
        user_id,
        message.kind.word(),
        title,
        text
    )
    .execute(conn)
    .await?;
    Ok(())
}

impl Message {
    fn rendered(&self, times: i32) -> anyhow::Result<Rendered> {
        render::render(self.kind, self.to.language, &self.values, times)
            .with_context(|| format!("the text of {}", self.kind.word()))
    }
}

/// The message's place in the app; how many like it that place stands for.
async fn keep(conn: &mut PgConnection, user_id: i64, message: &Message) -> Result<(i64, i32)> {
    let Rendered { title, content, .. } = message.rendered(1)?;
    let (related_kind, related_id) = message.related.unzip();
    let kept = sqlx::query!(
        "insert into notification (user_id, kind, title, content, related_kind, related_id, group_key)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (user_id, kind, group_key) where read_at is null and group_key is not null
         do update set times = notification.times + 1, created_at = now()
         returning notification_id, times",
        user_id,
        message.kind.word(),
        title,
        content,
        related_kind,
        related_id,
        message.group
    )
    .fetch_one(&mut *conn)
    .await?;
    if kept.times > 1 {
        let Rendered { title, content, .. } = message.rendered(kept.times)?;
        sqlx::query!(
            "update notification set title = $2, content = $3 where notification_id = $1",
            kept.notification_id,
            title,
            content
        )
        .execute(conn)
        .await?;
    }
    Ok((kept.notification_id, kept.times))
}
