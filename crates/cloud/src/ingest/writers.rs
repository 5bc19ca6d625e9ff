//! Group commit: batches that wait together are stored in one transaction.
//!
//! Nothing waits on purpose. While one transaction commits, the next group gathers; a thousand gateways
//! with a few scans each then cost a few commits, and a lone batch is stored at once.

use super::parse::{Incoming, Outcome, Refused};
use super::store::{self, Poison};
use crate::config;
use crate::error::{Error, Result, is_unreachable};
use crate::metrics::{Metrics, Verdicts};
use lumbung_shared::wire::Refusal;
use sqlx::PgPool;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Most batches in one transaction, however few records they hold.
const GROUP_BATCHES: usize = 256;
/// Times a transaction is tried again when the database undid it for another's sake.
const RETRIES: usize = 3;

struct Job {
    incoming: Incoming,
    answer: oneshot::Sender<Result<Outcome>>,
}

/// The door to the writers.
pub struct Ingest {
    jobs: mpsc::Sender<Job>,
    places: Arc<Semaphore>,
    present: Arc<Mutex<HashSet<i32>>>,
}

/// A batch's place between the door and its answer.
pub(super) struct Place {
    gateway_id: i32,
    present: Arc<Mutex<HashSet<i32>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.gateway_id);
    }
}

/// The other side of the door; [`Writers::run`] does the work.
pub struct Writers {
    jobs: Arc<tokio::sync::Mutex<mpsc::Receiver<Job>>>,
    pool: PgPool,
    metrics: Arc<Metrics>,
    settings: config::Ingest,
}

impl Ingest {
    pub fn new(pool: PgPool, metrics: Arc<Metrics>, settings: config::Ingest) -> (Self, Writers) {
        let (sender, receiver) = mpsc::channel(settings.max_in_flight);
        let places = Arc::new(Semaphore::new(settings.max_in_flight));
        let ingest = Self { jobs: sender, places, present: Arc::default() };
        (ingest, Writers { jobs: Arc::new(tokio::sync::Mutex::new(receiver)), pool, metrics, settings })
    }

    /// Lets a batch in, before its body is read.
    ///
    /// # Errors
    /// [`Error::Busy`] when the house is full, [`Error::TooMany`] while the same gateway's last batch is
    /// still inside.
    pub(super) fn admit(&self, gateway_id: i32) -> Result<Place> {
        let busy = |_| Error::Busy {
            // Not all at once again.
            retry_after: 2 + fastrand::u64(0..8),
            reason: "as many batches as this cloud takes at once are being stored".into(),
        };
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(busy)?;
        if !self.present.lock().unwrap_or_else(PoisonError::into_inner).insert(gateway_id) {
            return Err(Error::TooMany { retry_after: 1 });
        }
        Ok(Place { gateway_id, present: Arc::clone(&self.present), _permit: permit })
    }

    /// Stores a batch; answers after its transaction has committed.
    pub(super) async fn store(&self, incoming: Incoming) -> Result<Outcome> {
        let stopping = || Error::Busy { retry_after: 5, reason: "the cloud is stopping".into() };
        let (answer, outcome) = oneshot::channel();
        self.jobs.send(Job { incoming, answer }).await.map_err(|_| stopping())?;
        outcome.await.map_err(|_| stopping())?
    }
}

impl Writers {
    /// Stores groups until the stop, then whatever was let in before it.
    pub async fn run(self, stop: CancellationToken) {
        let writers = (0..self.settings.writers).map(|_| self.write(&stop));
        futures_util::future::join_all(writers).await;
    }

    async fn write(&self, stop: &CancellationToken) {
        while let Some(group) = self.gather(stop).await {
            let (batches, answers): (Vec<_>, Vec<_>) =
                group.into_iter().map(|job| (job.incoming, job.answer)).unzip();
            let outcomes = self.store(batches).await;
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // A client that left will send the batch again, and be told of duplicates.
                let _ = answer.send(outcome);
            }
        }
    }

    /// One batch and whatever waits with it; `None` after the stop when nothing is left.
    async fn gather(&self, stop: &CancellationToken) -> Option<Vec<Job>> {
        let mut jobs = self.jobs.lock().await;
        let first = tokio::select! {
            biased;
            job = jobs.recv() => job?,
            () = stop.cancelled() => jobs.try_recv().ok()?,
        };
        let mut records = first.incoming.count();
        let mut group = vec![first];
        while records < self.settings.group_records && group.len() < GROUP_BATCHES {
            let Ok(job) = jobs.try_recv() else { break };
            records += job.incoming.count();
            group.push(job);
        }
        Some(group)
    }

    async fn store(&self, batches: Vec<Incoming>) -> Vec<Result<Outcome>> {
        let error = match self.try_store(&batches).await {
            Ok(outcomes) => return outcomes.into_iter().map(Ok).collect(),
            Err(error) => error,
        };
        if is_unreachable(&error) {
            tracing::warn!(batches = batches.len(), "the database cannot store batches now: {error}");
            let busy = || Error::Busy { retry_after: 2 + fastrand::u64(0..4), reason: error.to_string() };
            return batches.iter().map(|_| Err(busy())).collect();
        }
        // Something in one of them cannot be stored: nobody else may wait for it.
        let mut outcomes = Vec::with_capacity(batches.len());
        for mut batch in batches {
            outcomes.push(self.store_alone(&mut batch).await);
        }
        outcomes
    }

    async fn store_alone(&self, batch: &mut Incoming) -> Result<Outcome> {
        let error = match self.try_store(std::slice::from_ref(batch)).await {
            Ok(mut outcomes) => return Ok(outcomes.pop().unwrap_or_default()),
            Err(error) if is_unreachable(&error) => return Err(error.into()),
            Err(error) => error,
        };
        let poison = store::find_poison(&self.pool, batch).await?;
        if poison.is_empty() {
            return Err(Error::Unexpected(error.into()));
        }
        tracing::error!(
            records = poison.len(),
            "records that the database refuses go to quarantine: {error}"
        );
        for Poison { stream, epoch, seq, detail } in poison {
            while let Some(raw) = batch.records.withdraw(stream, epoch, seq) {
                let reason = "store_refused";
                let refusal = Refusal { seq, through: seq, reason, detail: detail.clone(), raw };
                batch.refusals.push(Refused { epoch, stream: stream.to_owned(), refusal });
            }
        }
        Ok(self.try_store(std::slice::from_ref(batch)).await?.pop().unwrap_or_default())
    }

    /// One transaction, tried again when the database undid it for another's sake.
    async fn try_store(&self, batches: &[Incoming]) -> sqlx::Result<Vec<Outcome>> {
        let mut tries = 0;
        loop {
            let started = std::time::Instant::now();
            match store::store(&self.pool, batches).await {
                Ok(outcomes) => {
                    let counted: Vec<_> =
                        batches.iter().zip(&outcomes).map(|(b, o)| Counted(b.count(), o)).collect();
                    self.metrics.stored(&counted, started.elapsed());
                    return Ok(outcomes);
                }
                Err(error) if tries < RETRIES && was_undone(&error) => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20))).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

struct Counted<'a>(usize, &'a Outcome);

impl Verdicts for Counted<'_> {
    fn counts(&self) -> (u64, u64, u64) {
        let duplicates: usize = self.1.duplicates.values().map(Vec::len).sum();
        let quarantined: usize = self.1.quarantined.values().map(Vec::len).sum();
        (self.0 as u64, duplicates as u64, quarantined as u64)
    }
}

fn was_undone(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(db) if db.code().is_some_and(|code| code.starts_with("40")))
}
