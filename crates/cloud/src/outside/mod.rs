//! The world beyond this system: mail servers, and what stands in for them.
//!
//! What must stay true:
//! - Nothing here is asked twice for one thing: whoever calls has leased it and settles it by the answer.
//! - An answer never repeats an address: it is kept and shown to admins.

mod mail;
mod outbox;

pub use mail::Mail;
pub use outbox::{Kept, kept};

use crate::config::Config;
use mail::Mailer;
use sqlx::PgPool;

/// Why something was not carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    /// It may be later.
    Later(String),
    /// It never will be.
    Never(String),
}

/// Every road out.
pub struct Outside {
    mailer: Mailer,
}

impl Outside {
    /// # Errors
    /// What is wrong with the configuration.
    pub fn open(config: &Config, pool: &PgPool) -> anyhow::Result<Self> {
        Ok(Self { mailer: Mailer::open(&config.mail, pool)? })
    }

    /// Hands one mail to the mail server.
    ///
    /// # Errors
    /// What the server said.
    pub async fn mail(&self, mail: &Mail) -> Result<(), Undelivered> {
        self.mailer.send(mail).await
    }
}
