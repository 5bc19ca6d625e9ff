//! What we ask of the PN532, each question with a deadline.
//!
//! What must stay true:
//! - No question takes longer than its deadline and a little for clearing the line after it.
//! - Whatever goes wrong, the command is aborted and the line cleared before the next one is sent, so
//!   that no late answer is taken for the answer to another question.

use super::link::{Link, LinkError};
use pn532::requests::{BorrowedRequest, Command, NTAGCommand, SAMMode};
use pn532::{CountDown, Pn532, Request, nb};
use std::convert::Infallible;
use std::fmt;
use std::time::{Duration, Instant};

/// Longest answer we ask for, and the frame around it; the crate panics when the second is too small.
const ANSWER: usize = 100;
const FRAME: usize = 128;
/// For everything but waiting for tags; the chip needs a few milliseconds.
const QUICK: Duration = Duration::from_millis(200);
/// How often the chip tries to activate a tag in one poll; its default is for ever.
const POLL_TRIES: u8 = 0x10;
/// At most two tags can be told apart at once.
const MOST_TARGETS: u8 = 2;
/// Of a garbled answer: how often the question is put again within its deadline.
const TRIES: usize = 3;
pub(super) const PAGE: usize = 4;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChipError {
    #[error("the PN532 did not answer {0:?} in time")]
    Silent(Command),
    #[error("the PN532's answer to {0:?} cannot be understood ({1})")]
    Garbled(Command, String),
    #[error("the link to the PN532 failed: {0}")]
    Link(LinkError),
    #[error("what answers is not a PN532 (it says {0:#04x})")]
    Stranger(u8),
    /// The reader is well; the tag has gone or refuses.
    #[error("the tag did not answer (PN532 status {0:#04x})")]
    Tag(u8),
}

/// A tag in the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The chip's number for it, 1 or 2.
    pub number: u8,
    /// SEL_RES; 0 for NTAG21x and other type 2 tags.
    pub sak: u8,
    /// 4, 7 or 10 bytes.
    pub uid: Vec<u8>,
}

/// The chip's firmware, as it tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firmware {
    pub version: u8,
    pub revision: u8,
}

/// A PN532 behind an open link.
pub struct Chip {
    inner: Pn532<Link, Deadline, FRAME>,
    poll_deadline: Duration,
}

impl fmt::Debug for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chip(…)")
    }
}

impl Chip {
    /// Takes a link; `poll_deadline` bounds one look for tags.
    pub fn new(link: Link, poll_deadline: Duration) -> Self {
        let timer = Deadline { until: Instant::now() };
        Self { inner: Pn532::new(link, timer), poll_deadline }
    }

    /// Brings the chip from any state into the one where it reads tags.
    pub fn prepare(&mut self) -> Result<Firmware, ChipError> {
        self.clear()?;
        self.inner.interface.wake().map_err(ChipError::Link)?;
        let sam = Request::sam_configuration(SAMMode::Normal, false);
        self.ask(Command::SAMConfiguration, &sam.data, QUICK)?;
        let firmware = self.firmware()?;
        self.ask(Command::RFConfiguration, &[0x05, 0xFF, 0x01, POLL_TRIES], QUICK)?;
        Ok(firmware)
    }

    /// Whether the chip is there; needs no tag.
    pub fn firmware(&mut self) -> Result<Firmware, ChipError> {
        let answer = self.ask(Command::GetFirmwareVersion, &[], QUICK)?;
        match answer[..] {
            [0x32, version, revision, _] => Ok(Firmware { version, revision }),
            [other, ..] => Err(ChipError::Stranger(other)),
            [] => Err(garbled(Command::GetFirmwareVersion, "empty")),
        }
    }

    /// The ISO 14443 A tags in the field now.
    pub fn targets(&mut self) -> Result<Vec<Target>, ChipError> {
        let answer = self.ask(Command::InListPassiveTarget, &[MOST_TARGETS, 0x00], self.poll_deadline)?;
        parse_targets(&answer).ok_or_else(|| garbled(Command::InListPassiveTarget, "cut short"))
    }

    /// Four pages of a type 2 tag (NTAG21x, Ultralight) from `page` on.
    pub fn read_pages(&mut self, target: u8, page: u8) -> Result<[u8; 4 * PAGE], ChipError> {
        let data = self.exchange(&[target, NTAGCommand::Read as u8, page])?;
        <[u8; 4 * PAGE]>::try_from(data).map_err(|_| garbled(Command::InDataExchange, "not four pages"))
    }

    /// Writes one page of a type 2 tag.
    pub fn write_page(&mut self, target: u8, page: u8, data: [u8; PAGE]) -> Result<(), ChipError> {
        let [a, b, c, d] = data;
        self.exchange(&[target, NTAGCommand::Write as u8, page, a, b, c, d]).map(drop)
    }

    fn exchange(&mut self, data: &[u8]) -> Result<Vec<u8>, ChipError> {
        let mut answer = self.ask(Command::InDataExchange, data, QUICK)?;
        if answer.is_empty() {
            return Err(garbled(Command::InDataExchange, "empty"));
        }
        match answer.remove(0) & 0x3F {
            0 => Ok(answer),
            status => Err(ChipError::Tag(status)),
        }
    }

    fn ask(&mut self, command: Command, data: &[u8], deadline: Duration) -> Result<Vec<u8>, ChipError> {
        let until = Instant::now() + deadline;
        let mut tries = TRIES;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let request = BorrowedRequest::new(command, data);
            let error = match self.inner.process(request, ANSWER, left) {
                Ok(answer) => return Ok(answer.to_vec()),
                Err(pn532::Error::InterfaceError(error)) => ChipError::Link(error),
                Err(pn532::Error::TimeoutAck | pn532::Error::TimeoutResponse) => ChipError::Silent(command),
                Err(other) => garbled(command, &format!("{other:?}")),
            };
            self.clear()?;
            tries -= 1;
            let again = matches!(error, ChipError::Garbled(..)) && tries > 0 && Instant::now() < until;
            if !again {
                return Err(error);
            }
        }
    }

    /// Ends what the chip is at, and forgets what it still says about it.
    fn clear(&mut self) -> Result<(), ChipError> {
        let aborted = self.inner.abort().map_err(|error| match error {
            pn532::Error::InterfaceError(error) => ChipError::Link(error),
            other => ChipError::Link(LinkError(format!("{other:?}"))),
        });
        aborted.and(self.inner.interface.settle().map_err(ChipError::Link))
    }
}

fn garbled(command: Command, what: &str) -> ChipError {
    ChipError::Garbled(command, what.to_owned())
}

/// The answer to InListPassiveTarget; `None` when it ends early or names a UID of no known length.
fn parse_targets(answer: &[u8]) -> Option<Vec<Target>> {
    let (&count, mut rest) = answer.split_first()?;
    let mut targets = Vec::new();
    for _ in 0..count.min(MOST_TARGETS) {
        let [number, _, _, sak, uid_length, tail @ ..] = rest else { return None };
        if !matches!(uid_length, 4 | 7 | 10) {
            return None;
        }
        let (uid, tail) = tail.split_at_checked(usize::from(*uid_length))?;
        targets.push(Target { number: *number, sak: *sak, uid: uid.to_vec() });
        // A tag that speaks ISO 14443-4 adds its ATS, whose length counts itself.
        let ats = if sak & 0x20 != 0 { tail.first().copied().unwrap_or(0) } else { 0 };
        rest = tail.get(usize::from(ats)..)?;
    }
    Some(targets)
}

/// Whatever a chip says of the tags in its field: at most as many as can be told apart, each with a UID of a known length.
#[cfg(any(test, fuzzing))]
pub fn must_hold(answer: &[u8]) {
    let targets = parse_targets(answer).unwrap_or_default();
    assert!(targets.len() <= usize::from(MOST_TARGETS));
    assert!(targets.iter().all(|target| matches!(target.uid.len(), 4 | 7 | 10)));
}

/// Counts down on the monotonic clock.
#[derive(Debug)]
struct Deadline {
    until: Instant,
}

impl CountDown for Deadline {
    type Time = Duration;

    fn start<T: Into<Duration>>(&mut self, count: T) {
        self.until = Instant::now() + count.into();
    }

    fn wait(&mut self) -> nb::Result<(), Infallible> {
        if Instant::now() >= self.until { Ok(()) } else { Err(nb::Error::WouldBlock) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_every_length_and_two_at_once_are_understood() {
        assert_eq!(parse_targets(&[0]), Some(vec![]));
        let seven = [1, 1, 0x00, 0x44, 0x00, 7, 4, 1, 2, 3, 4, 5, 6];
        let expected = Target { number: 1, sak: 0, uid: vec![4, 1, 2, 3, 4, 5, 6] };
        assert_eq!(parse_targets(&seven), Some(vec![expected]));
        // The first of two speaks ISO 14443-4 and adds an ATS of three bytes.
        let two = [2, 1, 0x03, 0x44, 0x20, 4, 9, 9, 9, 9, 3, 0x77, 0x80, 2, 0, 0x44, 0, 10];
        let two = [&two[..], &[7; 10]].concat();
        let found = parse_targets(&two).unwrap();
        assert_eq!((found[0].uid.len(), found[1].uid.len(), found[1].number), (4, 10, 2));
    }

    #[test]
    fn an_answer_that_is_cut_or_made_up_is_refused_not_read_past() {
        let whole = [2, 1, 0, 0x44, 0x20, 4, 9, 9, 9, 9, 2, 0x77, 2, 0, 0x44, 0, 7, 1, 2, 3, 4, 5, 6, 7];
        assert!(parse_targets(&whole).is_some());
        for cut in 0..whole.len() {
            assert_eq!(parse_targets(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(parse_targets(&[1, 1, 0, 0, 0, 5, 1, 2, 3, 4, 5]), None);
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..50_000 {
            let bytes: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
            must_hold(&bytes);
        }
    }
}
