//! Stand-ins for the board.

use super::{Light, ReaderError, Seen, Signal, TagReader};
use lumbung_shared::tag::TagId;
use std::time::{Duration, Instant};

/// Taps the tags of a list in turn, one each interval.
#[derive(Debug)]
pub struct SimulatedReader {
    tags: Vec<TagId>,
    turn: usize,
    interval: Duration,
    due: Instant,
}

impl SimulatedReader {
    /// The first tap comes after one interval.
    pub fn new(tags: Vec<TagId>, interval: Duration) -> Self {
        Self { tags, turn: 0, interval, due: Instant::now() + interval }
    }
}

impl TagReader for SimulatedReader {
    fn next(&mut self, patience: Duration) -> Result<Option<Seen>, ReaderError> {
        let left = self.due.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(patience));
        if left > patience {
            return Ok(None);
        }
        self.due = Instant::now() + self.interval;
        let tag = self
            .tags
            .get(self.turn % self.tags.len().max(1))
            .cloned()
            .ok_or_else(|| ReaderError("there are no tags to tap".to_owned()))?;
        self.turn += 1;
        Ok(Some(Seen::Tag(tag)))
    }
}

/// Writes into the log what a light would show.
#[derive(Debug, Default)]
pub struct LoggedSignal;

impl Signal for LoggedSignal {
    fn show(&self, light: Light) {
        match light {
            Light::Green => tracing::debug!("green: the scan is kept"),
            Light::Red => tracing::warn!("red: the scan is not kept"),
            Light::Trouble => tracing::warn!("red, blinking: the tag reader is down"),
            Light::Working => tracing::info!("the tag reader reads again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_tapped_in_turn_and_patience_ends() {
        let tags: Vec<TagId> = ["A", "B"].map(|tag| TagId::parse(tag).unwrap()).into();
        let mut reader = SimulatedReader::new(tags, Duration::ZERO);
        let mut next = || match reader.next(Duration::from_secs(1)).unwrap() {
            Some(Seen::Tag(tag)) => tag.into_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!([next(), next(), next()], ["A", "B", "A"]);
        let mut slow = SimulatedReader::new(Vec::new(), Duration::from_secs(3_600));
        assert_eq!(slow.next(Duration::ZERO).unwrap(), None);
    }
}
