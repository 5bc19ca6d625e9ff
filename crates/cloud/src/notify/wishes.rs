//! What reaches a person by which channel: what a kind does by itself, and their own wishes.

use super::kind::Kind;
use crate::error::Result;
use sqlx::PgConnection;
use std::collections::HashMap;

/// By what a person is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    InApp,
    Email,
    Push,
    Sms,
}

impl Channel {
    pub const ALL: [Self; 4] = [Self::InApp, Self::Email, Self::Push, Self::Sms];

    pub fn word(self) -> &'static str {
        match self {
            Self::InApp => "in_app",
            Self::Email => "email",
            Self::Push => "push",
            Self::Sms => "sms",
        }
    }
}

impl Kind {
    /// Cannot be turned off: whoever holds somebody's session could hide what they do with it.
    pub fn is_fixed(self, channel: Channel) -> bool {
        self.is_transactional() && matches!(channel, Channel::InApp | Channel::Email)
    }

    /// What happens unless the person wished otherwise. Mail is for what cannot wait until somebody looks, a text
    /// message for whoever asked for it.
    fn usual(self, channel: Channel) -> bool {
        match channel {
            Channel::InApp | Channel::Push => true,
            Channel::Email => self.is_transactional(),
            Channel::Sms => false,
        }
    }
}

/// A person's wishes.
#[derive(Debug, Default)]
pub struct Wishes {
    differing: HashMap<(String, String), bool>,
}

impl Wishes {
    /// # Errors
    /// The database's.
    pub async fn of(conn: &mut PgConnection, user_id: i64) -> Result<Self> {
        let rows = sqlx::query!(
            "select kind, channel, wanted from notification_preference where user_id = $1",
            user_id
        )
        .fetch_all(conn)
        .await?;
        Ok(Self { differing: rows.into_iter().map(|row| ((row.kind, row.channel), row.wanted)).collect() })
    }

    /// Whether a kind reaches the person by a channel.
    pub fn want(&self, kind: Kind, channel: Channel) -> bool {
        if kind.is_secret() {
            return channel == Channel::Email;
        }
        let wished = self.differing.get(&(kind.word().to_owned(), channel.word().to_owned()));
        kind.is_fixed(channel) || wished.copied().unwrap_or_else(|| kind.usual(channel))
    }
}

/// Keeps one wish; what cannot be turned off stays on whatever is kept.
///
/// # Errors
/// The database's.
pub async fn wish(
    conn: &mut PgConnection,
    user_id: i64,
    kind: Kind,
    channel: Channel,
    wanted: bool,
) -> Result<()> {
    sqlx::query!(
        "insert into notification_preference (user_id, kind, channel, wanted) values ($1, $2, $3, $4)
         on conflict (user_id, kind, channel) do update set wanted = excluded.wanted",
        user_id,
        kind.word(),
        channel.word(),
        wanted
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_an_account_goes_by_mail_alone_whatever_is_wished() {
        let mut wishes = Wishes::default();
        for channel in Channel::ALL {
            wishes.differing.insert(("reset_password".into(), channel.word().into()), true);
        }
        let by = Channel::ALL.map(|channel| wishes.want(Kind::ResetPassword, channel));
        assert_eq!(by, [false, true, false, false]);
    }

    #[test]
    fn nobody_hides_a_changed_password_and_everybody_chooses_about_the_rest() {
        let mut wishes = Wishes::default();
        for (kind, channel) in
            [("password_changed", "email"), ("password_changed", "in_app"), ("post_liked", "in_app")]
        {
            wishes.differing.insert((kind.into(), channel.into()), false);
        }
        wishes.differing.insert(("post_liked".into(), "email".into()), true);
        let by = |kind| Channel::ALL.map(|channel| wishes.want(kind, channel));
        assert_eq!(by(Kind::PasswordChanged), [true, true, true, false]);
        assert_eq!(by(Kind::PostLiked), [false, true, true, false]);
        assert_eq!(by(Kind::PostCommented), [true, false, true, false]);
    }
}
