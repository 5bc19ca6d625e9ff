//! The streams that this cloud knows: how a record of each is read, and written so that it can be read again.

use crate::moment::Told;
use chrono::{DateTime, Utc};
use lumbung_shared::event::Event;
use lumbung_shared::reading::Reading;
use lumbung_shared::scan::Scan;
use lumbung_shared::wire::{
    Budget, EVENT_STREAM, Epoch, READING_STREAM, Refusal, SCAN_STREAM, Segment, SegmentError,
    read_events_within, read_raw_event, read_raw_events, read_raw_reading, read_raw_readings, read_raw_scan,
    read_raw_segment, read_readings_within, read_scans_within, write_raw_event, write_raw_reading,
    write_raw_scan,
};

/// Each record of a segment, or what could not be read of it.
type Read<T> = Vec<Result<T, Refusal>>;

/// A record of one stream.
pub(super) trait Stream: Sized {
    const NAME: &'static str;
    fn read(segment: &Segment, statuses: &[String], budget: &mut Budget) -> Result<Read<Self>, SegmentError>;
    fn read_raw(seq: i64, raw: &str) -> Result<Self, Refusal>;
    fn read_raw_segment(seq: i64, raw: &str) -> Result<Read<Self>, String>;
    fn write_raw(&self) -> String;
    fn seq(&self) -> i64;
    /// What it says of its own time.
    fn told(&self, received_at: DateTime<Utc>) -> Told;
    fn all(records: &Records) -> &Vec<Record<Self>>;
    fn all_mut(records: &mut Records) -> &mut Vec<Record<Self>>;
}

/// A record and the run it belongs to.
pub(super) struct Record<T> {
    pub(super) epoch: Epoch,
    pub(super) of: T,
}

/// The records of a batch by stream.
#[derive(Default)]
pub(super) struct Records {
    pub(super) scans: Vec<Record<Scan>>,
    pub(super) readings: Vec<Record<Reading>>,
    pub(super) events: Vec<Record<Event>>,
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.scans.len() + self.readings.len() + self.events.len()
    }

    /// Reads a segment of a stream and keeps its records; answers what could not be read, or `None` for a
    /// stream that is not known.
    pub(super) fn read(
        &mut self,
        stream: &str,
        epoch: Epoch,
        segment: &Segment,
        statuses: &[String],
        budget: &mut Budget,
    ) -> Option<Result<Vec<Refusal>, SegmentError>> {
        match stream {
            SCAN_STREAM => Some(self.take::<Scan>(epoch, segment, statuses, budget)),
            READING_STREAM => Some(self.take::<Reading>(epoch, segment, statuses, budget)),
            EVENT_STREAM => Some(self.take::<Event>(epoch, segment, statuses, budget)),
            _ => None,
        }
    }

    fn take<T: Stream>(
        &mut self,
        epoch: Epoch,
        segment: &Segment,
        statuses: &[String],
        budget: &mut Budget,
    ) -> Result<Vec<Refusal>, SegmentError> {
        let mut refusals = Vec::new();
        for read in T::read(segment, statuses, budget)? {
            match read {
                Ok(of) => T::all_mut(self).push(Record { epoch, of }),
                Err(refusal) => refusals.push(refusal),
            }
        }
        Ok(refusals)
    }

    /// Reads again what the quarantine kept of the records `seq` to `through`, if every one can be read now.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn read_again(
        stream: &str,
        epoch: Epoch,
        (seq, through): (i64, i64),
        raw: &str,
    ) -> Result<Self, String> {
        let mut records = Self::default();
        match stream {
            SCAN_STREAM => records.take_again::<Scan>(epoch, (seq, through), raw)?,
            READING_STREAM => records.take_again::<Reading>(epoch, (seq, through), raw)?,
            EVENT_STREAM => records.take_again::<Event>(epoch, (seq, through), raw)?,
            other => return Err(format!("this program does not know the stream {other}")),
        }
        Ok(records)
    }

    fn take_again<T: Stream>(
        &mut self,
        epoch: Epoch,
        (seq, through): (i64, i64),
        raw: &str,
    ) -> Result<(), String> {
        let why = |refusal: Refusal| refusal.detail;
        let read = match T::read_raw(seq, raw) {
            Ok(one) if through == seq => vec![one],
            alone => match T::read_raw_segment(seq, raw) {
                Ok(all) => all.into_iter().collect::<Result<_, _>>().map_err(why)?,
                Err(_) => vec![alone.map_err(why)?],
            },
        };
        T::all_mut(self).extend(read.into_iter().map(|of| Record { epoch, of }));
        Ok(())
    }

    /// Takes a record out; answers it in the form that can be read again.
    pub(super) fn withdraw(&mut self, stream: &str, epoch: Epoch, seq: i64) -> Option<String> {
        match stream {
            SCAN_STREAM => self.withdraw_from::<Scan>(epoch, seq),
            READING_STREAM => self.withdraw_from::<Reading>(epoch, seq),
            EVENT_STREAM => self.withdraw_from::<Event>(epoch, seq),
            _ => None,
        }
    }

    fn withdraw_from<T: Stream>(&mut self, epoch: Epoch, seq: i64) -> Option<String> {
        let all = T::all_mut(self);
        let at = all.iter().position(|record| record.epoch == epoch && record.of.seq() == seq)?;
        Some(all.remove(at).of.write_raw())
    }
}

impl Stream for Scan {
    const NAME: &'static str = SCAN_STREAM;

    fn read(segment: &Segment, statuses: &[String], budget: &mut Budget) -> Result<Read<Self>, SegmentError> {
        read_scans_within(segment, statuses, budget)
    }

    fn read_raw(seq: i64, raw: &str) -> Result<Self, Refusal> {
        read_raw_scan(seq, raw)
    }

    fn read_raw_segment(seq: i64, raw: &str) -> Result<Read<Self>, String> {
        read_raw_segment(seq, raw)
    }

    fn write_raw(&self) -> String {
        write_raw_scan(self)
    }

    fn seq(&self) -> i64 {
        self.seq
    }

    fn told(&self, received_at: DateTime<Utc>) -> Told {
        Told {
            mono_ms: self.mono_ms,
            wall_ms: self.wall_ms,
            clock: self.clock,
            at_ms: self.content.at_ms,
            received_ms: received_at.timestamp_millis(),
        }
    }

    fn all(records: &Records) -> &Vec<Record<Self>> {
        &records.scans
    }

    fn all_mut(records: &mut Records) -> &mut Vec<Record<Self>> {
        &mut records.scans
    }
}

impl Stream for Reading {
    const NAME: &'static str = READING_STREAM;

    fn read(segment: &Segment, _: &[String], budget: &mut Budget) -> Result<Read<Self>, SegmentError> {
        read_readings_within(segment, budget)
    }

    fn read_raw(seq: i64, raw: &str) -> Result<Self, Refusal> {
        read_raw_reading(seq, raw)
    }

    fn read_raw_segment(seq: i64, raw: &str) -> Result<Read<Self>, String> {
        read_raw_readings(seq, raw)
    }

    fn write_raw(&self) -> String {
        write_raw_reading(self)
    }

    fn seq(&self) -> i64 {
        self.seq
    }

    fn told(&self, received_at: DateTime<Utc>) -> Told {
        Told {
            mono_ms: self.mono_ms,
            wall_ms: self.wall_ms,
            clock: self.clock,
            at_ms: self.content.at_ms,
            received_ms: received_at.timestamp_millis(),
        }
    }

    fn all(records: &Records) -> &Vec<Record<Self>> {
        &records.readings
    }

    fn all_mut(records: &mut Records) -> &mut Vec<Record<Self>> {
        &mut records.readings
    }
}

impl Stream for Event {
    const NAME: &'static str = EVENT_STREAM;

    fn read(segment: &Segment, _: &[String], budget: &mut Budget) -> Result<Read<Self>, SegmentError> {
        read_events_within(segment, budget)
    }

    fn read_raw(seq: i64, raw: &str) -> Result<Self, Refusal> {
        read_raw_event(seq, raw)
    }

    fn read_raw_segment(seq: i64, raw: &str) -> Result<Read<Self>, String> {
        read_raw_events(seq, raw)
    }

    fn write_raw(&self) -> String {
        write_raw_event(self)
    }

    fn seq(&self) -> i64 {
        self.seq
    }

    fn told(&self, received_at: DateTime<Utc>) -> Told {
        Told {
            mono_ms: self.mono_ms,
            wall_ms: self.wall_ms,
            clock: self.clock,
            at_ms: None,
            received_ms: received_at.timestamp_millis(),
        }
    }

    fn all(records: &Records) -> &Vec<Record<Self>> {
        &records.events
    }

    fn all_mut(records: &mut Records) -> &mut Vec<Record<Self>> {
        &mut records.events
    }
}
