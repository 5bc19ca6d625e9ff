//! The thread that owns the writing connection.

#[cfg(feature = "mutants")]
use super::SeqRange;
use super::group::{Done, Item, Waiting};
use super::retention;
use super::room::{self, Need};
use super::settle::{Change, Release, Settlement};
use super::trouble::{OpenError, OutboxError, Trouble};
use super::{Gauges, ParkedRecord, Run, Settings, Stream, check, disk, settle, telemetry};
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
/// Pages in the WAL that make a checkpoint worth its flushes.
const CHECKPOINT_PAGES: i64 = 1_000;
/// Rows that are marked to be sent again at once; scans wait for no more than that.
const SEND_AGAIN: i64 = 5_000;
/// Most pages a transaction touches besides its rows': the sequence, a cursor, a new leaf and its parents.
const PAGES_PER_COMMIT: i64 = 4;

pub(super) type Reply<T> = oneshot::Sender<Result<T, OutboxError>>;

#[derive(Debug)]
pub(super) enum Command {
    Store(Item),
    Settle(Settlement, Reply<u64>),
    Park(Vec<ParkedRecord>, Reply<()>),
    Release(Option<(Stream, i64)>, Reply<u64>),
    /// A bite of those behind that number.
    SendAgain((Stream, i64), Reply<Option<(i64, u64)>>),
    TellAgain(Reply<()>),
    /// Sent records from before this time go; says whether there may be more to do.
    Maintain(Option<i64>, Reply<bool>),
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
    waiting: Waiting,
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
        waiting: Waiting::default(),
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
    /// Round by round: the scans that wait, a group of telemetry, one other thing.
    fn work(&mut self) -> Result<(), Trouble> {
        loop {
            if self.waiting.len() == 0 {
                let Some(command) = self.inbox.blocking_recv() else { return Ok(()) };
                self.waiting.push(command);
            }
            self.store_waiting()?;
            match self.waiting.others.pop_front() {
                Some(Command::Close) => return self.close(),
                Some(command) => self.obey(command)?,
                None => {}
            }
            self.checkpoint_if_due()?;
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), Trouble> {
        match command {
            Command::Store(item) => self.store(vec![item]),
            Command::Settle(settlement, reply) => {
                let touched = settlement.ranges.iter().map(|r| r.through - r.first + 1).sum();
                self.change(touched, reply, |conn| settle::settle(conn, &settlement))
            }
            Command::Park(records, reply) => {
                let touched = records.len() as i64;
                self.change(touched, reply, |conn| Ok(((), settle::park(conn, &records)?)))
            }
            Command::Release(which, reply) => {
                let which = which.map_or(Release::All, |(stream, seq)| Release::One(stream, seq));
                self.change(1, reply, |conn| settle::release(conn, which))
            }
            Command::SendAgain(behind, reply) => {
                self.change(SEND_AGAIN, reply, |conn| settle::send_again(conn, behind, SEND_AGAIN))
            }
            Command::TellAgain(reply) => {
                let run_id = self.run.0;
                self.change(1, reply, |conn| {
                    settle::tell_again(conn, run_id).map(|()| ((), Change::default()))
                })
            }
            Command::Maintain(before_ms, reply) => {
                self.parts.reserve.keep();
                self.look_for_room()?;
                let short = room::is_short(&self.parts)?;
                self.change(retention::BITE, reply, |conn| {
                    telemetry::forget_old_keys(conn)?;
                    let (mut removed, mut change) = match before_ms {
                        Some(before_ms) => retention::shed_old(conn, before_ms, retention::BITE)?,
                        None => (0, Change::default()),
                    };
                    if removed == 0 && short {
                        (removed, change) = retention::shed_sent(conn, retention::BITE)?;
                    }
                    Ok((removed > 0, change))
                })
            }
            Command::Ping(reply) => {
                let _ = reply.send(Ok(()));
                Ok(())
            }
            Command::Fail(trouble) => Err(trouble),
            Command::Close => self.close(),
            #[cfg(feature = "mutants")]
            Command::Lose(ranges, reply) => self.change(1, reply, |conn| settle::lose(conn, &ranges)),
        }
    }

    /// Takes in what has come meanwhile; beyond the limit, callers wait to be let in.
    fn look_into_inbox(&mut self) {
        while self.waiting.len() < QUEUE
            && let Ok(command) = self.inbox.try_recv()
        {
            self.waiting.push(command);
        }
    }

    /// One commit for the scans that wait, then one for telemetry.
    fn store_waiting(&mut self) -> Result<(), Trouble> {
        self.look_into_inbox();
        let beside = self.waiting.has_telemetry() && room::may_take(&self.parts, Need::BESIDE_SCANS)?;
        let scans = self.waiting.take_scans(beside);
        self.store(scans)?;
        let telemetry = self.waiting.take_telemetry();
        self.store(telemetry)
    }

    /// Commits the items of a group, then answers.
    fn store(&mut self, mut group: Vec<Item>) -> Result<(), Trouble> {
        if group.is_empty() {
            return Ok(());
        }
        let rows: usize = group.iter().map(Item::rows).sum();
        self.wal_pages += PAGES_PER_COMMIT + rows as i64;
        let (early_ack, run) = (self.early_ack, self.run);
        let scans = group.iter().filter(|item| item.is_scan()).count();
        let need = if scans > 0 { Need::Scans(rows) } else { Need::Telemetry(rows) };
        let result = self.with_room(need, |conn| {
            let done =
                group.iter().map(|item| item.keep(conn, run)).collect::<rusqlite::Result<Vec<Done>>>()?;
            if early_ack {
                answer(&mut group, &done);
            }
            Ok(done)
        });
        match result {
            Ok(done) => {
                let mut change = Change::default();
                done.iter().for_each(|done| done.count(&mut change));
                change.apply(&self.gauges);
                answer(&mut group, &done);
                Ok(())
            }
            // One record that the schema refuses must not take its neighbours with it, nor readings that
            // find no room a scan.
            Err(trouble @ (Trouble::Other(_) | Trouble::Full(_)))
                if group.len() > 1 && (scans < group.len() || matches!(trouble, Trouble::Other(_))) =>
            {
                tracing::warn!(%trouble, records = rows, "a group failed; storing its records one by one");
                group.into_iter().try_for_each(|item| self.store(vec![item]))
            }
            Err(trouble) => {
                for item in &mut group {
                    item.answer(Err(refusal(&trouble)));
                }
                self.survive(trouble)
            }
        }
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
        if matches!(need, Need::Telemetry(_)) {
            // All it asks to go is a bite of what the cloud holds.
            if !room::may_take(&self.parts, need)? {
                let mut shed = |conn: &Connection| retention::shed_sent(conn, retention::BITE);
                let (_, change) = room::transact(&self.parts.conn, &mut shed)?;
                change.apply(&self.gauges);
                if !room::may_take(&self.parts, need)? {
                    return Err(no_room());
                }
            }
            return room::transact(&self.parts.conn, &mut work);
        }
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
            Ok(_) if matches!(need, Need::Scans(_)) && self.gauges.is_full() => {
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

    /// Stores what came before the end, and leaves one whole file behind for whoever copies or looks at it.
    fn close(&mut self) -> Result<(), Trouble> {
        while self.waiting.has_items() {
            self.store_waiting()?;
        }
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
        Trouble::Busy(_) => OutboxError::Busy,
        _ => OutboxError::Failed,
    }
}

fn answer(group: &mut [Item], done: &[Done]) {
    for (item, done) in group.iter_mut().zip(done) {
        item.answer(Ok(*done));
    }
}
