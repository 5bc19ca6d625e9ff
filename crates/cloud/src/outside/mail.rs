//! Mail over SMTP, or kept here.

use super::{Undelivered, outbox};
use crate::config::{Mail as Settings, MailSecurity, MailTransport};
use crate::finding::Finding;
use anyhow::{Context, ensure};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::{Error as SmtpError, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// How long a server may take for each of its answers.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections to the server at most.
const CONNECTIONS: u32 = 4;
/// Characters of a server's answer that are kept.
const ANSWER: usize = 300;

/// One mail to one person.
#[derive(Debug)]
pub struct Mail {
    pub to: String,
    pub title: String,
    pub content: String,
    pub html: String,
    /// The same at every try, so that a mailbox can tell a second copy.
    pub message_id: Uuid,
}

pub(super) enum Mailer {
    Smtp { transport: AsyncSmtpTransport<Tokio1Executor>, from: Mailbox },
    Outbox(PgPool),
}

impl Mailer {
    pub(super) fn open(settings: &Settings, pool: &PgPool) -> anyhow::Result<Self> {
        match settings.transport {
            MailTransport::Outbox => Ok(Self::Outbox(pool.clone())),
            MailTransport::Smtp => smtp(settings),
        }
    }

    /// Connects and signs in, sending nothing.
    pub(super) async fn check(&self) -> Finding {
        let Self::Smtp { transport, .. } = self else {
            let advice = "name a mail server in [mail]; until then mails stay at /dev/outbox";
            return Finding::warn("mail", "no mail leaves this cloud", advice);
        };
        let advice = "see mail.host, mail.port, mail.security and the credential mail.password";
        match transport.test_connection().await {
            Ok(true) => Finding::ok("mail", "the server lets us in"),
            Ok(false) => Finding::fail("mail", "the server hangs up", advice),
            Err(error) => Finding::fail("mail", error.to_string(), advice),
        }
    }

    pub(super) async fn send(&self, mail: &Mail) -> Result<(), Undelivered> {
        match self {
            Self::Smtp { transport, from } => {
                let message = message(from, mail)?;
                transport.send(message).await.map(drop).map_err(|error| judged(&error, &mail.to))
            }
            Self::Outbox(pool) => {
                outbox::keep(pool, "email", &mail.to, &mail.title, &mail.content, mail.message_id).await
            }
        }
    }
}

fn smtp(settings: &Settings) -> anyhow::Result<Mailer> {
    ensure!(!settings.host.is_empty(), "mail.transport is smtp, so mail.host must name the server");
    let from: Mailbox =
        settings.from.parse().context("mail.from must be an address such as Lumbung <a@b.id>")?;
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host);
    let mut tls = TlsParameters::builder(settings.host.clone());
    if !settings.ca_file.is_empty() {
        let pem =
            std::fs::read(&settings.ca_file).with_context(|| format!("mail.ca_file {}", settings.ca_file))?;
        tls = tls.add_root_certificate(Certificate::from_pem(&pem).context("mail.ca_file")?);
    }
    let (tls, usual_port) = match settings.security {
        MailSecurity::StartTls => (Tls::Required(tls.build()?), 587),
        MailSecurity::Tls => (Tls::Wrapper(tls.build()?), 465),
        MailSecurity::None => {
            // Mails hold what opens accounts.
            ensure!(
                ["localhost", "127.0.0.1", "::1"].contains(&settings.host.as_str()),
                "mail.security is none, which is only for a server on this machine: use starttls or tls"
            );
            (Tls::None, 25)
        }
    };
    let port = if settings.port == 0 { usual_port } else { settings.port };
    builder = builder
        .tls(tls)
        .port(port)
        .timeout(Some(PATIENCE))
        .pool_config(PoolConfig::new().max_size(CONNECTIONS));
    if !settings.username.is_empty() {
        builder = builder.credentials(Credentials::new(settings.username.clone(), settings.password.clone()));
    }
    Ok(Mailer::Smtp { transport: builder.build(), from })
}

fn message(from: &Mailbox, mail: &Mail) -> Result<Message, Undelivered> {
    let never = |what: &str| Undelivered::Never(what.to_owned());
    let to = mail.to.parse().map_err(|_| never("the address cannot be written to"))?;
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(&mail.title)
        .message_id(Some(format!("<{}@{}>", mail.message_id, from.email.domain())))
        // Nobody's vacation notice answers a program.
        .raw_header(lettre::message::header::HeaderValue::new(
            lettre::message::header::HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".into(),
        ))
        .multipart(MultiPart::alternative_plain_html(mail.content.clone(), mail.html.clone()))
        .map_err(|_| never("the mail cannot be written"))
}

/// Only a server that knows this mail and refuses it for good ends it. Refusing us (530 to 538) is a matter
/// of its configuration or ours, and is mended.
fn judged(error: &SmtpError, address: &str) -> Undelivered {
    let code = error.status().map(u16::from);
    let mut words = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        words = if words.is_empty() { error.to_string() } else { format!("{words}: {error}") };
        source = error.source();
    }
    let words = words.replace(address, "(the address)").chars().take(ANSWER).collect();
    match code {
        Some(code) if error.is_permanent() && !(530..=538).contains(&code) => Undelivered::Never(words),
        _ => Undelivered::Later(words),
    }
}
