//! What waits for the writer, and what of it shares a commit.
//!
//! Scans go first: a commit takes every scan that waits and only as many readings as cost a scan nothing.
//! Larger calls of readings get a commit of their own, one between two rounds of scans.

use super::settle::Change;
use super::store::{self, Outcome, Prepared};
use super::telemetry::{self, KeyReused, PreparedEvent, PreparedReadings};
use super::writer::{Command, Reply};
use super::{Kept, KeptReadings, OutboxError, Stream};
use lumbung_shared::wire::Epoch;
use rusqlite::Connection;
use std::collections::VecDeque;

/// Most scans of one transaction.
const SCANS: usize = 1_000;
/// Most rows of telemetry in a transaction with scans.
pub(super) const BESIDE_SCANS: usize = 32;
/// Rows of telemetry after which a transaction of its own takes no further call.
const TELEMETRY: usize = 512;

/// Something to store, and who waits for it.
#[derive(Debug)]
pub(super) enum Item {
    Scan(Box<Prepared>, Option<Reply<Kept>>),
    Readings(Box<PreparedReadings>, Option<Reply<KeptReadings>>),
    Event(Box<PreparedEvent>, Option<Reply<i64>>),
}

/// What became of an item in its transaction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Done {
    Scan(Outcome),
    Readings(Result<KeptReadings, KeyReused>),
    Event(i64),
}

impl Item {
    pub(super) fn is_scan(&self) -> bool {
        matches!(self, Self::Scan(..))
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Readings(readings, _) => readings.readings.len(),
            Self::Scan(..) | Self::Event(..) => 1,
        }
    }

    /// Writes it, within the caller's transaction.
    pub(super) fn keep(&self, conn: &Connection, run: (i64, Epoch)) -> rusqlite::Result<Done> {
        Ok(match self {
            Self::Scan(scan, _) => Done::Scan(store::keep(conn, run, scan)?),
            Self::Readings(readings, _) => Done::Readings(telemetry::keep_readings(conn, run, readings)?),
            Self::Event(event, _) => Done::Event(telemetry::keep_event(conn, run.0, event)?),
        })
    }

    /// Tells whoever waits; once. A caller that went away has its record all the same.
    pub(super) fn answer(&mut self, done: Result<Done, OutboxError>) {
        fn tell<T>(reply: &mut Option<Reply<T>>, answer: Result<T, OutboxError>) {
            if let Some(reply) = reply.take() {
                let _ = reply.send(answer);
            }
        }
        match (self, done) {
            (Self::Scan(_, reply), Ok(Done::Scan(outcome))) => {
                tell(reply, outcome.map_err(|conflict| OutboxError::Conflict { seq: conflict.seq }));
            }
            (Self::Readings(_, reply), Ok(Done::Readings(kept))) => {
                tell(reply, kept.map_err(|KeyReused| OutboxError::KeyReused));
            }
            (Self::Event(_, reply), Ok(Done::Event(seq))) => tell(reply, Ok(seq)),
            (Self::Scan(_, reply), done) => tell(reply, Err(done.err().unwrap_or(OutboxError::Failed))),
            (Self::Readings(_, reply), done) => tell(reply, Err(done.err().unwrap_or(OutboxError::Failed))),
            (Self::Event(_, reply), done) => tell(reply, Err(done.err().unwrap_or(OutboxError::Failed))),
        }
    }
}

impl Done {
    /// Adds what is new to what the gauges must learn.
    pub(super) fn count(&self, change: &mut Change) {
        match self {
            Self::Scan(outcome) => {
                change.stored(Stream::Scan, u64::from(outcome.is_ok_and(|kept| kept.fresh)));
            }
            Self::Readings(Ok(kept)) if kept.fresh => change.stored(Stream::Reading, kept.count),
            Self::Readings(_) => {}
            Self::Event(_) => change.stored(Stream::Event, 1),
        }
    }
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    scans: VecDeque<Item>,
    telemetry: VecDeque<Item>,
    pub(super) others: VecDeque<Command>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.scans.len() + self.telemetry.len() + self.others.len()
    }

    pub(super) fn has_items(&self) -> bool {
        !self.scans.is_empty() || !self.telemetry.is_empty()
    }

    pub(super) fn push(&mut self, command: Command) {
        match command {
            Command::Store(item) if item.is_scan() => self.scans.push_back(item),
            Command::Store(item) => self.telemetry.push_back(item),
            other => self.others.push_back(other),
        }
    }

    pub(super) fn has_telemetry(&self) -> bool {
        !self.telemetry.is_empty()
    }

    /// The scans that wait, and the telemetry that may go with them if any may.
    pub(super) fn take_scans(&mut self, beside: bool) -> Vec<Item> {
        let mut group: Vec<Item> = self.scans.drain(..self.scans.len().min(SCANS)).collect();
        if beside && !group.is_empty() {
            let mut rows = 0;
            while let Some(next) = self.telemetry.pop_front_if(|next| rows + next.rows() <= BESIDE_SCANS) {
                rows += next.rows();
                group.push(next);
            }
        }
        group
    }

    /// At least one call of readings or event that waits.
    pub(super) fn take_telemetry(&mut self) -> Vec<Item> {
        let (mut group, mut rows) = (Vec::new(), 0);
        while rows < TELEMETRY
            && let Some(next) = self.telemetry.pop_front()
        {
            rows += next.rows();
            group.push(next);
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::NewEvent;
    use crate::outbox::tests::{reading, scan};

    fn scan_item() -> Item {
        let prepared = Prepared { scan: scan("A"), timestamp: String::new() };
        Item::Scan(Box::new(prepared), None)
    }

    fn readings_item(rows: usize) -> Item {
        let readings = (0..rows).map(|_| reading("a", 1.0)).collect();
        Item::Readings(Box::new(PreparedReadings::new(readings, None)), None)
    }

    #[test]
    fn scans_go_first_with_no_more_telemetry_than_costs_them_nothing() {
        let mut waiting = Waiting::default();
        let moment = scan("A").moment;
        let event = NewEvent { kind: "undervoltage".to_owned(), body: "{}".to_owned(), moment };
        let event = Item::Event(Box::new(PreparedEvent::new(event)), None);
        for item in [event, readings_item(BESIDE_SCANS - 1), readings_item(10_000), scan_item(), scan_item()]
        {
            waiting.push(Command::Store(item));
        }
        let kinds = |group: &[Item]| group.iter().map(|i| (i.is_scan(), i.rows())).collect::<Vec<_>>();
        let first = waiting.take_scans(true);
        assert_eq!(kinds(&first), [(true, 1), (true, 1), (false, 1), (false, BESIDE_SCANS - 1)]);
        assert_eq!(kinds(&waiting.take_telemetry()), [(false, 10_000)]);
        waiting.push(Command::Store(readings_item(1)));
        waiting.push(Command::Store(scan_item()));
        assert_eq!(kinds(&waiting.take_scans(false)), [(true, 1)], "no margin, nothing beside scans");
        assert!(waiting.has_items());
    }
}
