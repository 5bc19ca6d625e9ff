//! The thread that owns the writing connection.

#[cfg(feature = "mutants")]
use super::SeqRange;
use super::room::{self, Need};
use super::settle::{Change, Release, Settlement};
use super::store::{Outcome, Prepared};
use super::trouble::{OpenError, OutboxError, Trouble};
use super::{Gauges, Kept, ParkedRecord, Run, Settings, Stream, check, disk, settle, store};
use crate::mutant::Mutant;
use lumbung_shared::wire::Epoch;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait; beyond that, callers wait to be let in.
pub(super) const QUEUE: usize = 1_024;
/// Most scans of one transaction.
const GROUP: usize = 1_000;
/// Pages in the WAL that make a checkpoint worth its flushes.
const CHECKPOINT_PAGES: i64 = 1_000;
/// Most pages a transaction touches besides its rows': the sequence, a cursor, a new leaf and its parents.
const PAGES_PER_COMMIT: i64 = 4;

pub(super) type Reply<T> = oneshot::Sender<Result<T, OutboxError>>;

#[derive(Debug)]
pub(super) enum Command {
    Store(Box<Prepared>, Reply<Kept>),
    Settle(Settlement, Reply<u64>),
    Park(Vec<ParkedRecord>, Reply<()>),
    Release(Option<(Stream, i64)>, Reply<u64>),
    TellAgain(Reply<()>),
    Maintain(Reply<()>),
    Ping(Reply<()>),
    /// Reading met something that must end the program.
    Fail(Trouble),
    Close,
    #[cfg(feature = "mutants")]
    Lose(Vec<SeqRange>, Reply<u64>),
}

/// What the writer works with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) conn: Connection,
    pub(super) reserve: disk::Reserve,
    /// Released when the writer is gone.
    pub(super) _lock: disk::DirLock,
}

struct Writer {
    parts: Parts,
    inbox: mpsc::Receiver<Command>,
    gauges: Arc<Gauges>,
    run: (i64, Epoch),
    dir: PathBuf,
    /// At least as many pages as are in the WAL and not in the file.
    wal_pages: i64,
    early_ack: bool,
}

/// Starts the thread; what it returns resolves when it has ended.
pub(super) fn start(
    parts: Parts,
    inbox: mpsc::Receiver<Command>,
    gauges: Arc<Gauges>,
    run: &Run,
    settings: &Settings,
) -> Result<oneshot::Receiver<Result<(), Trouble>>, OpenError> {
    let (ended, end) = oneshot::channel();
    let mut writer = Writer {
        parts,
        inbox,
        gauges,
        run: (run.id, run.epoch),
        dir: settings.dir.clone(),
        wal_pages: CHECKPOINT_PAGES,
        early_ack: Mutant::EarlyAck.is_active(),
    };
    std::thread::Builder::new()
        .name("outbox-writer".to_owned())
        .spawn(move || {
            let result = writer.work();
            if let Err(trouble) = &result {
                writer.give_up(trouble);
            }
            drop(writer);
            // The program may be gone before its store.
            let _ = ended.send(result);
        })
        .map_err(OpenError::path(&settings.dir))?;
    Ok(end)
}

impl Writer {
    fn work(&mut self) -> Result<(), Trouble> {
        let mut held = None;
        while let Some(command) = held.take().or_else(|| self.inbox.blocking_recv()) {
            match command {
                Command::Store(first, reply) => held = self.store_group(*first, reply)?,
                Command::Settle(settlement, reply) => {
                    let touched = settlement.ranges.iter().map(|r| r.through - r.first + 1).sum();
                    self.change(touched, reply, |conn| settle::settle(conn, &settlement))?;
                }
                Command::Park(records, reply) => {
                    let touched = records.len() as i64;
                    self.change(touched, reply, |conn| Ok(((), settle::park(conn, &records)?)))?;
                }
                Command::Release(which, reply) => {
                    let which = which.map_or(Release::All, |(stream, seq)| Release::One(stream, seq));
                    self.change(1, reply, |conn| settle::release(conn, which))?;
                }
                Command::TellAgain(reply) => {
                    let run_id = self.run.0;
                    self.change(1, reply, |conn| {
                        settle::tell_again(conn, run_id).map(|()| ((), Change::default()))
                    })?;
                }
                Command::Maintain(reply) => {
                    self.parts.reserve.keep();
                    self.look_for_room()?;
                    let _ = reply.send(Ok(()));
                }
                Command::Ping(reply) => {
                    let _ = reply.send(Ok(()));
                }
                Command::Fail(trouble) => return Err(trouble),
                Command::Close => return self.close(),
                #[cfg(feature = "mutants")]
                Command::Lose(ranges, reply) => {
                    self.change(1, reply, |conn| settle::lose(conn, &ranges))?;
                }
            }
            self.checkpoint_if_due()?;
        }
        Ok(())
    }

    /// Commits every scan that waits, then answers. Gives back the command that ended the group.
    fn store_group(&mut self, first: Prepared, reply: Reply<Kept>) -> Result<Option<Command>, Trouble> {
        let mut scans = vec![first];
        let mut replies = vec![Some(reply)];
        let mut held = None;
        while scans.len() < GROUP {
            match self.inbox.try_recv() {
                Ok(Command::Store(scan, reply)) => {
                    scans.push(*scan);
                    replies.push(Some(reply));
                }
                Ok(other) => {
                    held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.wal_pages += PAGES_PER_COMMIT + scans.len() as i64;
        let early_ack = self.early_ack;
        let run = self.run;
        let result = self.with_room(Need::Scans(scans.len()), |conn| {
            let outcomes = scans
                .iter()
                .map(|scan| store::keep(conn, run, scan))
                .collect::<rusqlite::Result<Vec<Outcome>>>()?;
            if early_ack {
                answer(&mut replies, &outcomes);
            }
            Ok(outcomes)
        });
        match result {
            Ok(outcomes) => {
                let fresh = outcomes.iter().filter(|o| o.is_ok_and(|kept| kept.fresh)).count();
                Change::stored(fresh as u64).apply(&self.gauges);
                answer(&mut replies, &outcomes);
            }
            Err(trouble @ Trouble::Other(_)) if scans.len() > 1 => {
                // One scan that the schema refuses must not take its neighbours with it.
                tracing::warn!(%trouble, scans = scans.len(), "a group failed; storing its scans one by one");
                for (scan, reply) in scans.iter().zip(replies) {
                    self.store_alone(scan, reply)?;
                }
            }
            Err(trouble) => {
                let error = refusal(&trouble);
                for reply in replies.into_iter().flatten() {
                    let _ = reply.send(Err(error));
                }
                self.survive(trouble)?;
            }
        }
        Ok(held)
    }

    fn store_alone(&mut self, scan: &Prepared, reply: Option<Reply<Kept>>) -> Result<(), Trouble> {
        let run = self.run;
        let result = self.with_room(Need::Scans(1), |conn| store::keep(conn, run, scan));
        let (answer, trouble) = match result {
            Ok(outcome) => {
                let fresh = outcome.is_ok_and(|kept| kept.fresh);
                Change::stored(u64::from(fresh)).apply(&self.gauges);
                (outcome.map_err(|c| OutboxError::Conflict { seq: c.seq }), None)
            }
            Err(trouble) => (Err(refusal(&trouble)), Some(trouble)),
        };
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
        trouble.map_or(Ok(()), |trouble| self.survive(trouble))
    }

    /// Any other transaction: run, commit, count, answer.
    fn change<T>(
        &mut self,
        rows: i64,
        reply: Reply<T>,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<(T, Change)>,
    ) -> Result<(), Trouble> {
        self.wal_pages += PAGES_PER_COMMIT + rows;
        match self.with_room(Need::Keeping, &mut work) {
            Ok((value, change)) => {
                change.apply(&self.gauges);
                let _ = reply.send(Ok(value));
                Ok(())
            }
            Err(trouble) => {
                let _ = reply.send(Err(refusal(&trouble)));
                self.survive(trouble)
            }
        }
    }

    /// Runs a transaction; when there is no room for it, makes some and tries once more.
    fn with_room<T>(
        &mut self,
        need: Need,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Trouble> {
        // Once full, room for the reserve comes before room for scans.
        let mut result = match self.gauges.is_full() && !room::may_take(&self.parts, need)? {
            true => Err(no_room()),
            false => room::transact(&self.parts.conn, &mut work),
        };
        if let Err(Trouble::Full(text)) = &result {
            tracing::debug!(%text, "no room");
            self.make_room()?;
            result = match room::may_take(&self.parts, need)? {
                true => room::transact(&self.parts.conn, &mut work),
                false => Err(no_room()),
            };
            if need == Need::Keeping && !self.parts.reserve.restore() {
                self.gauges.full.store(true, Relaxed);
            }
        }
        match &result {
            Err(Trouble::Full(_)) => self.gauges.full.store(true, Relaxed),
            Ok(_) if need != Need::Keeping && self.gauges.is_full() => {
                self.gauges.full.store(false, Relaxed);
                tracing::info!("there is room again: scans are taken");
            }
            _ => {}
        }
        result
    }

    fn make_room(&mut self) -> Result<(), Trouble> {
        let room = room::make_room(&self.parts)?;
        room.change.apply(&self.gauges);
        self.wal_pages = 0;
        // Once is news; after that every refused scan would say it again.
        if !self.gauges.is_full() {
            let made = room.made;
            tracing::warn!(made, "the disk is full; the reserve and the oldest sent records make room");
        }
        Ok(())
    }

    /// While the store is full and nobody brings scans, somebody has to notice that it no longer is.
    fn look_for_room(&mut self) -> Result<(), Trouble> {
        if !self.gauges.is_full() {
            return Ok(());
        }
        match self.with_room(Need::Scans(1), settle::try_room) {
            Err(trouble) if trouble.is_fatal() => Err(trouble),
            _ => Ok(()),
        }
    }

    /// Whether the writer may go on after this.
    fn survive(&self, trouble: Trouble) -> Result<(), Trouble> {
        if trouble.is_fatal() {
            return Err(trouble);
        }
        tracing::error!(%trouble, "the store refused");
        Ok(())
    }

    /// Moves the WAL into the file when it has grown enough; whoever waited has been answered.
    fn checkpoint_if_due(&mut self) -> Result<(), Trouble> {
        if self.wal_pages < CHECKPOINT_PAGES {
            return Ok(());
        }
        let mut waiting = self.checkpoint("noop")?;
        if waiting >= CHECKPOINT_PAGES {
            waiting = self.checkpoint("passive")?;
        }
        self.wal_pages = waiting.min(CHECKPOINT_PAGES / 2);
        Ok(())
    }

    /// Pages that the WAL still holds for the file, after a checkpoint or a mere look. A checkpoint that
    /// could not be made (no room, a reader in the way) is made up for later: the WAL keeps everything.
    fn checkpoint(&self, mode: &str) -> Result<i64, Trouble> {
        match room::wal_state(&self.parts.conn, mode) {
            Err(trouble) if trouble.is_fatal() => Err(trouble),
            Err(trouble) => {
                tracing::warn!(%trouble, mode, "no checkpoint");
                Ok(0)
            }
            Ok(pages) => Ok(pages),
        }
    }

    /// Leaves one whole file behind for whoever copies or looks at it.
    fn close(&self) -> Result<(), Trouble> {
        self.checkpoint("truncate").map(|_| ())
    }

    /// After an I/O error nothing may be written through this connection again, not even at its end.
    fn give_up(&self, trouble: &Trouble) {
        tracing::error!(%trouble, "the store has ended: no scan is acknowledged any more");
        if let Err(error) = self.parts.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            tracing::error!(%error, "the last connection may still checkpoint");
        }
        if matches!(trouble, Trouble::Corrupt(_) | Trouble::Unreadable(_)) {
            check::ask_for_full_check(&self.dir);
        }
    }
}

fn no_room() -> Trouble {
    Trouble::Full("what is left is for settling what is there".to_owned())
}

fn refusal(trouble: &Trouble) -> OutboxError {
    match trouble {
        Trouble::Full(_) => OutboxError::Full,
        _ => OutboxError::Failed,
    }
}

fn answer(replies: &mut [Option<Reply<Kept>>], outcomes: &[Outcome]) {
    for (reply, outcome) in replies.iter_mut().zip(outcomes) {
        if let Some(reply) = reply.take() {
            // A caller that went away has its scan all the same.
            let _ = reply.send(outcome.map_err(|conflict| OutboxError::Conflict { seq: conflict.seq }));
        }
    }
}
