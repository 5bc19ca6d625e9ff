//! Writing scans into a batch.

use super::Segment;
use super::columns::ScanColumns;
use crate::scan::{Scan, Source};

/// The status table of a batch while it is being written.
#[derive(Debug, Default)]
pub struct Statuses {
    codes: Vec<String>,
}

impl Statuses {
    fn index_of(&mut self, status: &str) -> u32 {
        let at = self.codes.iter().position(|known| known == status).unwrap_or_else(|| {
            self.codes.push(status.to_owned());
            self.codes.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    pub fn into_codes(self) -> Vec<String> {
        self.codes
    }
}

/// Writes scans of one run, in rising `seq`, as one segment. `None` when there are none.
pub fn write_scans(scans: Vec<Scan>, statuses: &mut Statuses) -> Result<Option<Segment>, serde_json::Error> {
    let Some(first) = scans.first().map(|scan| scan.seq) else {
        return Ok(None);
    };
    let n = scans.len() as u64;
    let mut cols = ScanColumns::default();
    let mut step = Vec::with_capacity(scans.len());
    let (mut last_seq, mut last_mono) = (first, 0);
    for (i, scan) in (0u32..).zip(scans) {
        step.push(scan.seq - last_seq);
        cols.t.push(scan.mono_ms.wrapping_sub(last_mono));
        (last_seq, last_mono) = (scan.seq, scan.mono_ms);
        let content = scan.content;
        cols.status.push(statuses.index_of(&content.status));
        cols.tag.push(content.tag.into_string());
        push_change(&mut cols.offset, i, scan.wall_ms.wrapping_sub(scan.mono_ms), None);
        push_change(&mut cols.clock, i, scan.clock, None);
        push_change(&mut cols.source, i, scan.source, Some(Source::Reader));
        cols.at.extend(content.at_ms.map(|v| (i, v)));
        cols.note.extend(content.note.map(|v| (i, v)));
        cols.officer.extend(content.officer.map(|v| (i, v)));
        cols.quantity.extend(content.quantity.map(|v| (i, v)));
        cols.client_ref.extend(content.client_ref.map(|v| (i, v)));
    }
    let contiguous = step.iter().skip(1).all(|&distance| distance == 1);
    let cols = serde_json::value::to_raw_value(&cols)?;
    Ok(Some(Segment { seq: first, n, step: (!contiguous).then_some(step), cols }))
}

fn push_change<T: PartialEq + Copy>(column: &mut Vec<(u32, T)>, i: u32, value: T, start: Option<T>) {
    if column.last().map(|(_, current)| *current).or(start) != Some(value) {
        column.push((i, value));
    }
}
