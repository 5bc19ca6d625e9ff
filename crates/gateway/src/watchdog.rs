//! What systemd is told: that the gateway is ready, how it is, and again and again that it truly lives.
//!
//! What must stay true:
//! - A ping means that the store's two threads have answered and the tag reader's thread has come round
//!   since the ping before, and that the runtime had time for this. When one of them hangs, the pings stop
//!   and systemd starts the program anew.
//! - A ping writes nothing: it must not wear the card.
//! - A cloud out of reach, a full disk and a tag reader under repair are no reason to start anew.

use crate::hardware::ReaderHealth;
use crate::outbox::{Outbox, OutboxError, Stream};
use crate::words::service_status;
use lumbung_shared::language::Language;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the status is told to a systemd that wants no pings.
const STATUS: Duration = Duration::from_secs(20);
/// Looks within the time that systemd allows without a ping: one that comes late costs no restart.
const LOOKS: u32 = 3;

/// Looks whether the gateway lives, and tells systemd.
pub(crate) struct Watchdog {
    outbox: Outbox,
    reader: Option<Arc<ReaderHealth>>,
    /// How often the reader's thread had come round at the look before.
    turns: Option<u64>,
}

impl Watchdog {
    /// `reader` where there is one.
    pub(crate) fn over(outbox: Outbox, reader: Option<Arc<ReaderHealth>>) -> Self {
        Self { outbox, reader, turns: None }
    }

    /// Runs until `stop`. Does nothing where systemd did not start the program.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            stop.cancelled().await;
            return Ok(());
        }
        let lang = Language::of_locale(&std::env::var("LANG").unwrap_or_default());
        let every = sd_notify::watchdog_enabled().map_or(STATUS, |within| within / LOOKS);
        let mut look = tokio::time::interval(every);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = look.tick() => {}
            }
            let lives = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                lives = self.lives(every) => lives,
            };
            match lives {
                // The address is bound before any part starts. "Ready" once more changes nothing.
                Ok(()) => {
                    let status = self.status(lang);
                    tell(&[NotifyState::Ready, NotifyState::Watchdog, NotifyState::Status(&status)]);
                }
                Err(part) => tracing::error!(part, "does not answer: systemd gets no sign of life"),
            }
        }
    }

    /// Whether everything that must not hang came round; names what did not.
    async fn lives(&mut self, within: Duration) -> Result<(), &'static str> {
        match tokio::time::timeout(within, self.outbox.sign_of_life()).await {
            Err(_) | Ok(Err(OutboxError::Closed)) => return Err("the store"),
            Ok(_) => {}
        }
        let Some(reader) = &self.reader else { return Ok(()) };
        let turns = Some(reader.turns());
        if turns == std::mem::replace(&mut self.turns, turns) {
            return Err("the tag reader's thread");
        }
        Ok(())
    }

    fn status(&self, lang: Language) -> String {
        let gauges = self.outbox.gauges();
        let unsent = Stream::ALL.iter().map(|stream| gauges.unsent(*stream)).sum();
        service_status(lang, unsent, self.reader.as_ref().map_or("none", |reader| reader.as_str()))
    }
}

/// The program ends in order: no restart is needed for it.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told how the gateway is");
    }
}
