//! A tag, a phone's post or a sensor's turn becomes a record, and only then is anybody told that it is safe.

mod action;
mod clock;
pub mod mqtt;
mod reader;
pub mod sensors;

pub use action::{Action, ActionError};
pub use clock::ClockLoop;
pub use reader::ReaderLoop;

use crate::clock::Clock;
use crate::hardware::{Light, Signal};
use crate::metrics::Metrics;
use crate::outbox::{Kept, KeptReadings, NewEvent, NewReading, NewScan, Once, Outbox, OutboxError};
use lumbung_shared::FieldError;
use lumbung_shared::event::check_event;
use lumbung_shared::reading::ReadingContent;
use lumbung_shared::scan::{ScanContent, Source};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// Why a record was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Store(#[from] OutboxError),
}

impl Refused {
    /// For counting.
    fn code(&self) -> &'static str {
        match self {
            Self::Field(_) => "bad_field",
            Self::Store(OutboxError::Conflict { .. } | OutboxError::KeyReused) => "conflict",
            Self::Store(OutboxError::Full) => "storage_full",
            Self::Store(OutboxError::Busy) => "storage_busy",
            Self::Store(_) => "storage_failed",
        }
    }
}

/// The one way into the store.
#[derive(Clone)]
pub struct Capture {
    pub outbox: Outbox,
    pub clock: Arc<Clock>,
    /// Rung after every stored scan and event.
    pub doorbell: Arc<Notify>,
    pub signal: Arc<dyn Signal>,
    pub metrics: Arc<Metrics>,
}

impl Capture {
    /// Keeps a scan. `Ok` means: it is durable and will reach the cloud.
    pub async fn take(&self, content: ScanContent, source: Source) -> Result<Kept, Refused> {
        let begun = Instant::now();
        let kept = self.keep(content, source).await;
        match &kept {
            Ok(kept) if kept.fresh => {
                self.signal.show(Light::Green);
                self.doorbell.notify_one();
                self.metrics.count_stored(begun.elapsed());
            }
            Ok(_) => self.signal.show(Light::Green),
            Err(refused) => {
                self.signal.show(Light::Red);
                self.metrics.count_refused(refused.code());
            }
        }
        kept
    }

    /// Keeps readings, all or none. `Ok` means: they are durable and will reach the cloud.
    pub async fn take_readings(
        &self,
        readings: Vec<ReadingContent>,
        once: Option<Once>,
    ) -> Result<KeptReadings, Refused> {
        let kept = self.keep_readings(readings, once).await;
        match &kept {
            // They go with the next scan, event or interval: a reading each second must neither undo the
            // sync's back-off nor make a batch of its own on a link that is billed by the byte.
            Ok(kept) if kept.fresh => self.metrics.count_readings(kept.count),
            Ok(_) => {}
            Err(refused) => self.metrics.count_readings_refused(refused.code()),
        }
        kept
    }

    async fn keep_readings(
        &self,
        readings: Vec<ReadingContent>,
        once: Option<Once>,
    ) -> Result<KeptReadings, Refused> {
        readings.iter().try_for_each(ReadingContent::check)?;
        // One moment for one call: what came together was measured together.
        let moment = self.clock.now();
        let readings = readings.into_iter().map(|content| NewReading { content, moment });
        Ok(self.outbox.store_readings(readings.collect(), once).await?)
    }

    /// Keeps a word on what happened to the gateway. `Ok` means: it is durable and will reach the cloud.
    pub async fn note(&self, kind: &'static str, body: serde_json::Value) -> Result<(), Refused> {
        let (body, moment) = (body.to_string(), self.clock.now());
        check_event(kind, &body)?;
        self.outbox.store_event(NewEvent { kind: kind.to_owned(), body, moment }).await?;
        self.doorbell.notify_one();
        Ok(())
    }

    async fn keep(&self, content: ScanContent, source: Source) -> Result<Kept, Refused> {
        content.check()?;
        let scan = NewScan { content, source, moment: self.clock.now() };
        Ok(self.outbox.store(scan).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Glance, Settings};
    use lumbung_shared::tag::TagId;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    /// A light that looks into the database when it is switched on.
    struct Witness {
        dir: PathBuf,
        seen: Mutex<Vec<(Light, u64)>>,
    }

    impl Signal for Witness {
        fn show(&self, light: Light) {
            let unsent = Glance::at(&self.dir).unwrap().unsent;
            self.seen.lock().unwrap().push((light, unsent[0].1));
        }
    }

    fn content(status: &str) -> ScanContent {
        ScanContent {
            tag: TagId::parse("A").unwrap(),
            status: status.into(),
            at_ms: None,
            note: None,
            officer: None,
            quantity: None,
            client_ref: None,
        }
    }

    fn settings(dir: &Path) -> Settings {
        Settings {
            dir: dir.to_owned(),
            max_bytes: 0,
            reserve_bytes: 0,
            site: None,
            boot: "b".into(),
            version: "0".into(),
        }
    }

    #[tokio::test]
    async fn the_light_is_green_only_when_the_scan_can_be_read_from_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Clock::default());
        let (outbox, ended) = Outbox::open(&settings(dir.path()), clock.now()).unwrap();
        let witness = Arc::new(Witness { dir: dir.path().to_owned(), seen: Mutex::default() });
        let capture = Capture {
            outbox: outbox.clone(),
            clock,
            doorbell: Arc::default(),
            signal: Arc::clone(&witness) as Arc<dyn Signal>,
            metrics: Arc::default(),
        };
        capture.take(content("masuk"), Source::Reader).await.unwrap();
        capture.take(content(""), Source::Reader).await.unwrap_err();
        outbox.close().await;
        ended.wait().await.unwrap();
        assert_eq!(
            capture.take(content("masuk"), Source::Reader).await,
            Err(Refused::Store(OutboxError::Closed))
        );
        let seen = witness.seen.lock().unwrap().clone();
        assert_eq!(seen, [(Light::Green, 1), (Light::Red, 1), (Light::Red, 1)]);
    }
}
