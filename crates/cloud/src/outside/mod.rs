//! The world beyond this system: mail servers, push services, providers of text messages, operators'
//! programs, and what stands in for them.
//!
//! What must stay true:
//! - Nothing here is asked twice for one thing: whoever calls has leased it and settles it by the answer.
//! - An answer never repeats an address: it is kept and shown to admins.

mod google;
mod mail;
mod outbox;
mod push;
mod sms;
mod web;
mod webhook;

#[cfg(fuzzing)]
pub use google::must_hold;
pub use google::{Google, NotVouched, Vouched};
pub use mail::Mail;
pub use outbox::{Kept, forget, kept};
pub use push::{LONGEST as LONGEST_PUSH, Subscription};
pub use sms::Text;
pub use webhook::Webhook;

use crate::config::Config;
use crate::finding::Finding;
use lumbung_shared::language::Words;
use mail::Mailer;
use push::Push;
use sms::Texter;
use sqlx::PgPool;
use uuid::Uuid;
use web::Web;

/// Why something was not carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    /// It may be later.
    Later(String),
    /// It never will be.
    Never(String),
    /// Nobody is there any more.
    Gone,
}

/// Whether mails would leave.
pub async fn check(config: &Config, pool: &PgPool) -> Finding {
    match Mailer::open(&config.mail, pool) {
        Ok(mailer) => mailer.check().await,
        Err(error) => Finding::fail("mail", format!("{error:#}"), "mend [mail] in the configuration"),
    }
}

/// Whether text messages would leave.
pub fn check_texts(config: &Config) -> Finding {
    Texter::check(&config.sms)
}

/// Every road out.
pub struct Outside {
    mailer: Mailer,
    push: Push,
    texter: Option<Texter>,
    web: Web,
}

impl Outside {
    /// # Errors
    /// What is wrong with the configuration, or the database's.
    pub async fn open(config: &Config, pool: &PgPool) -> anyhow::Result<Self> {
        Ok(Self {
            mailer: Mailer::open(&config.mail, pool)?,
            push: Push::open(pool, config.public_url()).await?,
            texter: Texter::open(&config.sms)?,
            web: Web::new(config.development.open_loopback)?,
        })
    }

    /// What browsers subscribe with.
    pub fn push_key(&self) -> String {
        self.push.public_key()
    }

    /// Whether an address that somebody named may be asked at all; else what is wrong with it.
    ///
    /// # Errors
    /// What it must be.
    pub fn check_address(&self, address: &str) -> Result<(), Words> {
        self.web.check(address).map(drop)
    }

    /// Hands one message to a browser's push service.
    ///
    /// # Errors
    /// What the service said.
    pub async fn push(&self, to: &Subscription, text: &str, message_id: Uuid) -> Result<(), Undelivered> {
        self.push.send(&self.web, to, text, message_id).await
    }

    /// Hands one message to an operator's program.
    ///
    /// # Errors
    /// What the program said.
    pub async fn webhook(&self, to: &Webhook, body: &str, message_id: Uuid) -> Result<(), Undelivered> {
        webhook::send(&self.web, to, body, message_id).await
    }

    /// How many text messages may leave in a day; none where no provider is named.
    pub fn texts_daily(&self) -> i32 {
        self.texter.as_ref().map_or(0, Texter::daily)
    }

    /// Hands one text message to the provider.
    ///
    /// # Errors
    /// What the provider said.
    pub async fn text(&self, text: &Text<'_>) -> Result<(), Undelivered> {
        match &self.texter {
            Some(texter) => texter.send(text).await,
            None => Err(Undelivered::Later("no provider is named in [sms]".into())),
        }
    }

    /// Hands one mail to the mail server.
    ///
    /// # Errors
    /// What the server said.
    pub async fn mail(&self, mail: &Mail) -> Result<(), Undelivered> {
        self.mailer.send(mail).await
    }
}
