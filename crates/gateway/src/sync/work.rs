//! The loop: take the oldest, send, settle, wait.

use super::client::CloudClient;
use super::known::{Change, Cloud, Known};
use super::rules::{Lock, ParkReason, Reply, Rules, Send, Sent, Wait};
use super::state::{LastAnswer, SyncHandle, SyncState};
use super::{batch, client, enrol, link, verdicts};
use crate::board::Board;
use crate::clock::Clock;
use crate::config;
use crate::hardware::ReaderHealth;
use crate::identity::{IdentityFile, Stamp};
use crate::metrics::Metrics;
use crate::mutant::Mutant;
use crate::outbox::{Limits, Outbox, OutboxError, ParkedRecord, Pending, Stream};
use lumbung_shared::time::rfc3339;
use lumbung_shared::wire::{Answer, Health, MAX_BATCH_RUNS};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const SYNC_PATH: &str = "/api/sync_gateway_data";
/// How often a gateway without an identity looks for one.
const LOOK_FOR_IDENTITY: Duration = Duration::from_secs(1);
/// How often a waiting gateway looks for a new link or another key.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// How long a cloud that did not take the signing key is left alone about it.
const REGISTER_AGAIN: Duration = Duration::from_secs(3_600);

/// What the sync needs from the rest of the program.
#[derive(Debug)]
pub struct SyncWorker {
    pub outbox: Outbox,
    pub clock: Arc<Clock>,
    pub handle: Arc<SyncHandle>,
    pub metrics: Arc<Metrics>,
    pub reader: Arc<ReaderHealth>,
    pub board: Arc<Board>,
    pub identity: IdentityFile,
    pub client: CloudClient,
    pub config: config::Sync,
    /// Beats the address in the identity; empty: that one counts.
    pub cloud_url: String,
}

/// What one round brought.
struct Round {
    sent: Sent,
    reply: Reply,
    /// The record that went alone, if one did.
    alone: Option<(Stream, i64)>,
    message: String,
}

impl SyncWorker {
    /// Runs until `stop`, or until the store has ended (an error: nothing can be sent without it).
    pub async fn run(self, stop: CancellationToken) -> Result<(), OutboxError> {
        let mut rules = Rules::new(&self.config);
        let mut known = Known::default();
        let mut suspect = None;
        let mut register_at = None;
        loop {
            let change = self.refresh(&mut known);
            if change != Change::None {
                rules.identity_changed();
                register_at = Some(Instant::now());
            }
            if change == Change::Cloud {
                self.tell_again().await?;
            }
            let Some(cloud) = &known.cloud else {
                self.handle.change(|view| view.state = SyncState::NotEnrolled);
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(LOOK_FOR_IDENTITY) => {}
                    () = self.handle.hand_woke() => {}
                }
                continue;
            };
            self.handle.change(|view| {
                view.state = SyncState::Sending;
                view.next_attempt_at = None;
            });
            let round = tokio::select! {
                // An answer that is not waited for any more is asked for again after the next start.
                () = stop.cancelled() => return Ok(()),
                round = self.survived(cloud, rules.send()) => round?,
            };
            let step = rules.after(round.sent, round.reply, fastrand::f64());
            if let Sent::Records { .. } = round.sent {
                // A scan that came meanwhile goes before a suspected reading, and nothing speaks against it.
                let same = suspect == round.alone;
                suspect = round.alone;
                if let (Some(reason), Some(record), true) = (step.park, suspect, same) {
                    self.park(record, reason).await?;
                }
            }
            self.show(&rules, round.reply, &round.message, step.wait);
            if matches!(round.reply, Reply::Settled { .. })
                && register_at.is_some_and(|due| due <= Instant::now())
            {
                register_at = self.register(cloud).await;
            }
            if self.wait(step.wait, known.stamp, &stop).await {
                return Ok(());
            }
        }
    }

    /// Tells the cloud with what this gateway signs bundles, while the line is good. Answers when to try
    /// again, if ever.
    async fn register(&self, cloud: &Cloud) -> Option<Instant> {
        match enrol::register(&self.client, &cloud.url, &self.identity, &cloud.enrolment).await {
            Ok(true) => None,
            Ok(false) => Some(Instant::now() + REGISTER_AGAIN),
            Err(error) => {
                tracing::warn!(%error, "the cloud has not taken the signing key");
                Some(Instant::now() + REGISTER_AGAIN)
            }
        }
    }

    /// The cloud may be another than the one that heard of the runs so far.
    async fn tell_again(&self) -> Result<(), OutboxError> {
        match self.outbox.tell_again().await {
            Err(OutboxError::Closed) => Err(OutboxError::Closed),
            Err(error) => {
                tracing::error!(%error, "a cloud that does not know the runs will not be told of them");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// A round; a store that only refuses is a failure like any other, one that ended is the end.
    async fn survived(&self, cloud: &Cloud, send: Send) -> Result<Round, OutboxError> {
        match self.round(cloud, send).await {
            Err(OutboxError::Closed) => Err(OutboxError::Closed),
            Err(error) => Ok(Round {
                sent: match send {
                    Send::Records { .. } => Sent::Records { count: 0 },
                    Send::Envelope => Sent::Envelope,
                    Send::Probe => Sent::Probe,
                },
                reply: Reply::Failed { timed_out: false },
                alone: None,
                message: format!("the store: {error}"),
            }),
            round => round,
        }
    }

    /// One request and what it settles.
    async fn round(&self, cloud: &Cloud, send: Send) -> Result<Round, OutboxError> {
        let mut pending = match send {
            Send::Probe => Pending::default(),
            Send::Envelope => self.take(1).await?,
            Send::Records { limit } => self.take(limit).await?,
        };
        if send == Send::Envelope {
            // The same runs and the same words, only the record is not there.
            pending.clear();
        }
        let records = pending.records;
        let alone = match send {
            Send::Records { .. } if records == 1 => pending.runs.iter().find_map(|run| run.seqs().next()),
            _ => None,
        };
        let sent = match send {
            Send::Probe => Sent::Probe,
            Send::Envelope => Sent::Envelope,
            Send::Records { .. } => Sent::Records { count: records },
        };
        let failed =
            |message: String| Round { sent, reply: Reply::Failed { timed_out: false }, alone, message };

        let more = pending.more;
        let health = self.health(&pending).await?;
        let (run, now) = (self.outbox.run().epoch, self.clock.now());
        let written = tokio::task::spawn_blocking(move || batch::write(run, now, pending.runs, health)).await;
        let written = match written {
            Ok(Ok(written)) => written,
            Ok(Err(error)) => return Ok(failed(format!("the batch cannot be written: {error}"))),
            Err(error) => return Ok(failed(format!("writing the batch failed: {error}"))),
        };
        tracing::info!(
            records,
            bytes = written.body.len(),
            json_bytes = written.json_bytes,
            "Mencoba sinkronisasi..."
        );
        self.flag_early(&written.sent).await?;

        let url = format!("{}{SYNC_PATH}", cloud.url);
        let key = Some(&cloud.enrolment.key);
        let asked_mono_ms = self.clock.mono_ms();
        let answered = match client::post(&self.client.http, &url, key, Some("zstd"), written.body).await {
            Ok(answered) => answered,
            Err(error) => {
                let timed_out = error.timed_out;
                return Ok(Round {
                    reply: Reply::Failed { timed_out },
                    ..failed(self.client.why_no_answer(error.text))
                });
            }
        };
        let heard_mono_ms = self.clock.mono_ms();
        let reply = match answered.judge() {
            Err(reply) => reply,
            Ok(answer) => {
                self.client.hear_time(&url, asked_mono_ms, heard_mono_ms, &answer.server_time);
                self.settle(cloud, &written.sent, &answer, records, more).await?
            }
        };
        if reply == Reply::Unauthorised {
            self.drop_on_401(&written.sent).await?;
        }
        let message = match reply {
            Reply::Settled { .. } => answered.status.as_u16().to_string(),
            Reply::NotKept => "the store could not keep the verdicts".to_owned(),
            Reply::SettledNothing { .. } => "the answer has no verdict on what was sent".to_owned(),
            Reply::Failed { .. } if answered.status.is_success() => "the answer cannot be read".to_owned(),
            _ => answered.message(),
        };
        Ok(Round { sent, reply, alone, message })
    }

    /// The next records; those that no batch can carry are set aside on the way.
    async fn take(&self, limit: usize) -> Result<Pending, OutboxError> {
        // Fewer records, fewer runs: what makes a batch too large may be either.
        let runs = MAX_BATCH_RUNS.min(limit.saturating_mul(4));
        let limits = Limits { records: limit, bytes: batch::MOST_BYTES, runs };
        let pending = self.outbox.pending(limits).await?;
        let unreadable = pending.unreadable.iter();
        let unreadable: Vec<ParkedRecord> =
            unreadable.map(|(stream, seq, why)| self.parked((*stream, *seq), "unreadable", why)).collect();
        if !unreadable.is_empty() {
            tracing::error!(records = unreadable.len(), "stored records cannot be read and are set aside");
            self.outbox.park(unreadable).await?;
        }
        Ok(pending)
    }

    async fn settle(
        &self,
        cloud: &Cloud,
        sent: &[verdicts::SentRun],
        answer: &Answer,
        records: usize,
        more: bool,
    ) -> Result<Reply, OutboxError> {
        if answer.gateway_id != cloud.enrolment.gateway_id {
            tracing::warn!(
                answered = answer.gateway_id,
                enrolled = cloud.enrolment.gateway_id,
                "the cloud calls this gateway by another name"
            );
        }
        let at = rfc3339(self.clock.now().wall_ms);
        let settlement = verdicts::settlement(sent, answer, &at);
        let retry_after = answer.retry_after.map(Duration::from_secs);
        let covered: i64 = settlement.ranges.iter().map(|r| r.through - r.first + 1).sum();
        let held_back = settlement.quarantined.len();
        let heard = settlement.runs.len();
        let started = Instant::now();
        if !settlement.ranges.is_empty() || heard > 0 {
            match self.outbox.settle(settlement).await {
                Err(OutboxError::Closed) => return Err(OutboxError::Closed),
                // The cloud has them; they go out again and come back as duplicates.
                Err(error) => {
                    tracing::error!(%error, "the verdicts could not be kept");
                    return Ok(Reply::NotKept);
                }
                Ok(_) => {}
            }
        }
        self.handle.change(|view| view.alarms.clone_from(&answer.alarms));
        // Nothing of what was sent has a verdict: neither the records nor, without any, the runs.
        if (records > 0 && covered == 0) || (records == 0 && heard < sent.len()) {
            return Ok(Reply::SettledNothing { retry_after });
        }
        if records > 0 {
            self.handle.change(|view| view.last_sent_at = Some(at));
            tracing::info!(
                records = covered,
                quarantined = held_back,
                settle_ms = started.elapsed().as_millis() as u64,
                "Berhasil mengirim {covered} data"
            );
        } else {
            tracing::debug!("the cloud has heard of this gateway");
        }
        let more = more || (covered as usize) < records;
        Ok(Reply::Settled { more, retry_after })
    }

    async fn health(&self, pending: &Pending) -> Result<Health, OutboxError> {
        let gauges = self.outbox.gauges();
        let board = self.board.latest();
        Ok(Health {
            unsent: Stream::ALL
                .into_iter()
                .map(|stream| (stream.name().to_owned(), gauges.unsent(stream)))
                .collect(),
            oldest_unsent_at: pending.oldest_at.clone(),
            parked: gauges.parked(),
            disk_free_bytes: self.outbox.disk_free(),
            reader: Some(self.reader.as_str().to_owned()),
            undervoltage: board.undervoltage,
            undervoltage_since_boot: board.undervoltage_since_boot,
            card_written_bytes: board.card_written_bytes,
            read_only: board.read_only.then_some(true),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            salvaged: self.outbox.salvaged(),
        })
    }

    fn parked(&self, (stream, seq): (Stream, i64), reason: &str, detail: &str) -> ParkedRecord {
        ParkedRecord {
            stream: stream.name().to_owned(),
            seq,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parked_at: rfc3339(self.clock.now().wall_ms),
        }
    }

    async fn park(&self, record: (Stream, i64), reason: ParkReason) -> Result<(), OutboxError> {
        let (code, detail) = match reason {
            ParkReason::Refused => ("refused", "the cloud refuses any batch that this record is in"),
            ParkReason::TooLarge => ("too_large", "the record alone is too large for the cloud"),
        };
        let (stream, seq) = (record.0.name(), record.1);
        tracing::error!(stream, seq, reason = code, "a record is set aside; `quarantine list` shows it");
        match self.outbox.park(vec![self.parked(record, code, detail)]).await {
            Err(OutboxError::Closed) => Err(OutboxError::Closed),
            Err(error) => {
                tracing::error!(%error, stream, seq, "it could not be set aside and stays in line");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn show(&self, rules: &Rules, reply: Reply, message: &str, wait: Wait) {
        let now = self.clock.now();
        let (state, outcome) = match (reply, rules.lock()) {
            (Reply::Settled { .. }, _) => (SyncState::Idle, "accepted"),
            (_, Some(Lock::Unauthorised)) => (SyncState::Unauthorised, "unauthorised"),
            (_, Some(Lock::Revoked)) => (SyncState::Revoked, "revoked"),
            (Reply::SettledNothing { .. }, _) => (SyncState::BackingOff, "no_verdict"),
            (Reply::TooLarge, _) => (SyncState::BackingOff, "too_large"),
            (Reply::Refused, _) => (SyncState::BackingOff, "refused"),
            (Reply::Busy { .. }, _) => (SyncState::BackingOff, "busy"),
            (Reply::NotKept, _) => (SyncState::BackingOff, "not_kept"),
            (Reply::Failed { timed_out: true }, _) => (SyncState::BackingOff, "timed_out"),
            _ => (SyncState::BackingOff, "failed"),
        };
        self.metrics.count_push(outcome);
        let wait_ms = i64::try_from(wait.long.as_millis()).unwrap_or(i64::MAX);
        if !matches!(reply, Reply::Settled { .. }) {
            tracing::warn!(outcome, message, wait_ms, "the cloud did not take the batch; everything is kept");
        }
        let status = message.get(..3).and_then(|digits| digits.parse().ok());
        self.handle.change(|view| {
            view.state = state;
            view.next_attempt_at = Some(rfc3339(now.wall_ms.saturating_add(wait_ms)));
            view.last_answer =
                Some(LastAnswer { at: rfc3339(now.wall_ms), status, message: message.to_owned() });
        });
    }

    /// Waits as the rules say. True: it is time to stop.
    async fn wait(&self, wait: Wait, stamp: Option<Stamp>, stop: &CancellationToken) -> bool {
        let begun = Instant::now();
        let end = begun + wait.long;
        let earliest = begun + wait.at_least.min(wait.long);
        // The key may have been exchanged while the answer was on its way.
        if self.identity.stamp() != stamp {
            return false;
        }
        let mut routes = link::default_routes();
        let mut look = tokio::time::interval(LOOK_AROUND);
        look.reset();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return true,
                () = tokio::time::sleep_until(end) => return false,
                () = self.handle.hand_woke() => break,
                () = self.handle.scan_woke(), if wait.by_scan => break,
                _ = look.tick() => {
                    if self.identity.stamp() != stamp {
                        return false;
                    }
                    let present = link::default_routes();
                    if wait.by_scan && present.is_some() && present != routes {
                        tracing::info!("there is a new link");
                        break;
                    }
                    routes = present;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep_until(earliest) => false,
        }
    }

    /// A known-bad build believes before it hears.
    #[cfg_attr(not(feature = "mutants"), allow(clippy::unused_async))]
    async fn flag_early(&self, sent: &[verdicts::SentRun]) -> Result<(), OutboxError> {
        if Mutant::FlagEarly.is_active() {
            let ranges = verdicts::ranges(sent);
            let settlement = crate::outbox::Settlement { ranges, ..Default::default() };
            self.outbox.settle(settlement).await?;
        }
        Ok(())
    }

    /// A known-bad build takes a refused key for the end of its records.
    #[cfg(feature = "mutants")]
    async fn drop_on_401(&self, sent: &[verdicts::SentRun]) -> Result<(), OutboxError> {
        if Mutant::DropOn401.is_active() {
            self.outbox.lose(verdicts::ranges(sent)).await?;
        }
        Ok(())
    }

    #[cfg(not(feature = "mutants"))]
    async fn drop_on_401(&self, _: &[verdicts::SentRun]) -> Result<(), OutboxError> {
        Ok(())
    }
}
