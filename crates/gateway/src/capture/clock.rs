//! What happens to the clock becomes events, and is remembered for the time after a power cut.

use super::{Capture, Refused};
use crate::clock::{ClockFile, KernelWatch, News};
use crate::outbox::OutboxError;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a step may go unnoticed while nothing is scanned.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the present is written down when nothing happened: the card's wear against the hour that a
/// power cut takes from an unset clock.
const WRITE_EVERY: Duration = Duration::from_secs(3_600);

/// Watches the clock.
pub struct ClockLoop {
    capture: Capture,
    file: ClockFile,
    kernel: KernelWatch,
    written: Option<Instant>,
}

impl ClockLoop {
    pub fn over(capture: Capture, file: ClockFile) -> Self {
        Self { capture, file, kernel: KernelWatch::default(), written: None }
    }

    /// Runs until `stop`, or until the store has ended.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => {}
            }
            if self.kernel.is_due() {
                self = self.with_the_kernel_asked().await?;
            }
            self.round().await?;
        }
        // What is written down counts as told: so it is told first.
        let told = self.round().await;
        if told.is_ok() {
            self.write().await;
        }
        Ok(())
    }

    /// Asking the kernel may start a process and wait for it.
    async fn with_the_kernel_asked(mut self) -> Result<Self, String> {
        tokio::task::spawn_blocking(move || {
            self.kernel.look(&self.capture.clock);
            self
        })
        .await
        .map_err(|error| error.to_string())
    }

    /// Tells what is new and writes down what is worth it.
    async fn round(&mut self) -> Result<(), String> {
        let news = self.capture.clock.take_news();
        for one in &news {
            let noted = match one {
                News::Anchor(anchor) => self.note("clock_anchor", serde_json::to_value(anchor)).await,
                News::Step(step) => {
                    tracing::warn!(from_ms = step.from_ms, to_ms = step.to_ms, "the clock was stepped");
                    self.note("clock_step", serde_json::to_value(step)).await
                }
            };
            match noted {
                Err(Refused::Store(OutboxError::Closed)) => return Err("the store is closed".to_owned()),
                // The cloud corrects times from what its own answers bring as well.
                Err(error) => tracing::error!(%error, "what happened to the clock could not be kept"),
                Ok(()) => {}
            }
        }
        if !news.is_empty() || self.written.is_none_or(|written| written.elapsed() >= WRITE_EVERY) {
            self.write().await;
        }
        Ok(())
    }

    async fn note(
        &self,
        kind: &'static str,
        body: serde_json::Result<serde_json::Value>,
    ) -> Result<(), Refused> {
        self.capture.note(kind, body.unwrap_or_default()).await
    }

    async fn write(&mut self) {
        self.written = Some(Instant::now());
        let (file, clock) = (self.file.clone(), self.capture.clock.clone());
        let run = self.capture.outbox.run().id;
        let written = tokio::task::spawn_blocking(move || file.write(&clock, run)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            // A full or failing disk is told of where scans are stored; the floor stays where it was.
            tracing::warn!(%error, "the time could not be written down");
        }
    }
}
