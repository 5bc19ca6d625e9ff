//! Columns of pairs (index, value): sparse ones, where a pair stands for its record only, and those that
//! change rarely, where it stands from its record on. And the columns that every stream has.

use super::Segment;
use super::tolerant::{Object, field};
use crate::time::ClockState;
use serde::Serialize;

/// Whether pairs name records that are there, each once and in order: then nothing can be lost or moved.
pub(super) fn rises<T>(pairs: &[(u32, T)], n: usize) -> bool {
    pairs.is_sorted_by(|a, b| a.0 < b.0) && pairs.last().is_none_or(|(last, _)| (*last as usize) < n)
}

/// Walks a column of (index, value) pairs beside the records.
pub(super) struct Cursor<T> {
    pairs: std::iter::Peekable<std::vec::IntoIter<(u32, T)>>,
}

impl<T> Cursor<T> {
    pub(super) fn new(pairs: Vec<(u32, T)>) -> Self {
        Self { pairs: pairs.into_iter().peekable() }
    }

    pub(super) fn at(&mut self, i: u32) -> Option<T> {
        let mut found = None;
        while let Some((_, value)) = self.pairs.next_if(|(index, _)| *index <= i) {
            found = Some(value);
        }
        found
    }
}

/// Adds a pair where the value differs from the one before, at first from `start`.
pub(super) fn push_change<T: PartialEq + Copy>(
    column: &mut Vec<(u32, T)>,
    i: u32,
    value: T,
    start: Option<T>,
) {
    if column.last().map(|(_, current)| *current).or(start) != Some(value) {
        column.push((i, value));
    }
}

/// The numbers of a segment's records while they are being written.
pub(super) struct Steps {
    steps: Vec<i64>,
    last: i64,
}

impl Steps {
    pub(super) fn new(first: i64) -> Self {
        Self { steps: Vec::new(), last: first }
    }

    pub(super) fn push(&mut self, seq: i64) {
        self.steps.push(seq - self.last);
        self.last = seq;
    }

    /// The segment of these numbers.
    pub(super) fn segment(self, first: i64, cols: &impl Serialize) -> Result<Segment, serde_json::Error> {
        let contiguous = self.steps.iter().skip(1).all(|&distance| distance == 1);
        let n = self.steps.len() as u64;
        let cols = serde_json::value::to_raw_value(cols)?;
        Ok(Segment { seq: first, n, step: (!contiguous).then_some(self.steps), cols })
    }
}

/// When records were made. Not a flattened part of a stream's columns: serde would read those in two passes.
#[derive(Debug, Default)]
pub(super) struct TimeColumns {
    /// Milliseconds since boot, each from the record before (the first from 0).
    t: Vec<i64>,
    /// Wall clock minus milliseconds since boot, from there on.
    offset: Vec<(u32, i64)>,
    /// From there on.
    clock: Vec<(u32, ClockState)>,
    last_mono: i64,
}

/// `t`, `offset` and `clock`.
type Times = (Vec<i64>, Vec<(u32, i64)>, Vec<(u32, ClockState)>);

impl TimeColumns {
    pub(super) fn of(t: Vec<i64>, offset: Vec<(u32, i64)>, clock: Vec<(u32, ClockState)>) -> Self {
        Self { t, offset, clock, last_mono: 0 }
    }

    /// Adds record `i`.
    pub(super) fn push(&mut self, i: u32, mono_ms: i64, wall_ms: i64, clock: ClockState) {
        self.t.push(mono_ms.wrapping_sub(self.last_mono));
        self.last_mono = mono_ms;
        push_change(&mut self.offset, i, wall_ms.wrapping_sub(mono_ms), None);
        push_change(&mut self.clock, i, clock, None);
    }

    pub(super) fn into_columns(self) -> Times {
        (self.t, self.offset, self.clock)
    }

    /// The times in order.
    pub(super) fn into_times(self) -> impl Iterator<Item = RawTime> {
        let (mut mono_ms, mut offset, mut clock) = (0i64, None, None);
        let (mut offsets, mut clocks) = (Cursor::new(self.offset), Cursor::new(self.clock));
        (0u32..).zip(self.t).map(move |(i, t)| {
            mono_ms = mono_ms.wrapping_add(t);
            offset = offsets.at(i).or(offset);
            clock = clocks.at(i).or(clock);
            RawTime { t: Some(mono_ms), offset, clock }
        })
    }
}

/// When one record was made, as it is kept outside the columns.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct RawTime {
    pub(super) t: Option<i64>,
    pub(super) offset: Option<i64>,
    pub(super) clock: Option<ClockState>,
}

impl RawTime {
    pub(super) fn of(mono_ms: i64, wall_ms: i64, clock: ClockState) -> Self {
        Self { t: Some(mono_ms), offset: Some(wall_ms.wrapping_sub(mono_ms)), clock: Some(clock) }
    }

    pub(super) fn from_object(object: &mut Object) -> Result<Self, String> {
        Ok(Self {
            t: field(object, "t", "t")?,
            offset: field(object, "offset", "offset")?,
            clock: field(object, "clock", "clock")?,
        })
    }

    /// Milliseconds since boot, wall clock, and how far that is to be believed.
    pub(super) fn told(self) -> Result<(i64, i64, ClockState), String> {
        match (self.t, self.offset, self.clock) {
            (Some(t), Some(offset), Some(clock)) => Ok((t, t.wrapping_add(offset), clock)),
            _ => Err("t, offset and clock must say when it happened".to_owned()),
        }
    }
}
