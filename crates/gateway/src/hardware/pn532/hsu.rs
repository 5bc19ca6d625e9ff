//! The PN532 on a serial line (HSU, 115200 8N1).
//!
//! What must stay true:
//! - Only whole frames are handed on: the `pn532` crate reads a fixed number of bytes, a line brings as
//!   many as it likes, with noise before them.
//! - What came before a command was sent is no answer to it.
//! - Nothing waits longer than `SLICE` for bytes, or `WRITE` for room.

use super::link::{LinkError, Wire};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, BaudRate, ControlFlags, FlushArg, SetArg};
use pn532::Interface;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::task::Poll;
use std::time::{Duration, Instant};

const SLICE: Duration = Duration::from_millis(5);
const WRITE: Duration = Duration::from_millis(200);
/// A line that was silent this long has nothing more to say about the last command.
const QUIET: Duration = Duration::from_millis(10);
const SETTLE: Duration = Duration::from_millis(100);
const ACK: [u8; 6] = [0x00, 0x00, 0xFF, 0x00, 0xFF, 0x00];
const NACK: [u8; 6] = [0x00, 0x00, 0xFF, 0xFF, 0x00, 0x00];
/// Longest normal frame: 255 bytes and what is around them.
const LONGEST: usize = 262;
/// 0x55 twice, then enough zeros for the chip's oscillator to start.
const WAKE: [u8; 16] = [0x55, 0x55, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A serial port.
#[derive(Debug)]
pub struct Hsu {
    port: File,
    bytes: Vec<u8>,
    frames: VecDeque<Vec<u8>>,
}

impl Hsu {
    pub fn open(device: &Path) -> Result<Self, LinkError> {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let port = File::options().read(true).write(true).custom_flags(flags.bits()).open(device)?;
        let mut settings = termios::tcgetattr(&port)?;
        termios::cfmakeraw(&mut settings);
        settings.control_flags |= ControlFlags::CLOCAL | ControlFlags::CREAD;
        settings.control_flags &= !(ControlFlags::CSTOPB | ControlFlags::CRTSCTS | ControlFlags::PARENB);
        termios::cfsetspeed(&mut settings, BaudRate::B115200)?;
        termios::tcsetattr(&port, SetArg::TCSANOW, &settings)?;
        termios::tcflush(&port, FlushArg::TCIOFLUSH)?;
        Ok(Self { port, bytes: Vec::new(), frames: VecDeque::new() })
    }

    fn wait(&self, events: PollFlags, most: Duration) -> Result<bool, LinkError> {
        let mut fds = [PollFd::new(self.port.as_fd(), events)];
        let timeout = PollTimeout::try_from(most).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes in what has arrived; whether anything had.
    fn take_in(&mut self) -> Result<bool, LinkError> {
        let mut chunk = [0; 512];
        match self.port.read(&mut chunk) {
            Ok(0) => Err(LinkError("the serial port is gone".to_owned())),
            Ok(count) => {
                self.bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
                while let Some(frame) = take_frame(&mut self.bytes) {
                    self.frames.push_back(frame);
                }
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        let until = Instant::now() + WRITE;
        while !bytes.is_empty() {
            match self.port.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    if Instant::now() >= until {
                        return Err(LinkError("the serial port takes no more bytes".to_owned()));
                    }
                    self.wait(PollFlags::POLLOUT, SLICE)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn forget(&mut self) -> Result<(), LinkError> {
        self.bytes.clear();
        self.frames.clear();
        termios::tcflush(&self.port, FlushArg::TCIFLUSH)?;
        Ok(())
    }
}

impl Interface for Hsu {
    type Error = LinkError;

    fn write(&mut self, frame: &mut [u8]) -> Result<(), LinkError> {
        self.forget()?;
        self.send(frame)
    }

    fn wait_ready(&mut self) -> Poll<Result<(), LinkError>> {
        if self.frames.is_empty() {
            match self.wait(PollFlags::POLLIN, SLICE) {
                Ok(true) => {
                    if let Err(error) = self.take_in() {
                        return Poll::Ready(Err(error));
                    }
                }
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.frames.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<(), LinkError> {
        let frame = self.frames.pop_front().unwrap_or_default();
        buf.fill(0);
        buf.iter_mut().zip(frame).for_each(|(to, from)| *to = from);
        Ok(())
    }
}

impl Wire for Hsu {
    fn wake(&mut self) -> Result<(), LinkError> {
        self.forget()?;
        self.send(&WAKE)
    }

    fn settle(&mut self) -> Result<(), LinkError> {
        let until = Instant::now() + SETTLE;
        while Instant::now() < until && self.wait(PollFlags::POLLIN, QUIET)? {
            self.take_in()?;
        }
        self.forget()
    }
}

/// The first whole frame, taken out of the bytes with the noise before it. A frame begins at its
/// start code `00 FF`; the zeros around it may be missing on the line and are put in place.
fn take_frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let Some(start) = bytes.windows(2).position(|pair| pair == [0x00, 0xFF]) else {
            // A start code may be half here.
            let keep = usize::from(bytes.last() == Some(&0));
            bytes.drain(..bytes.len() - keep);
            return None;
        };
        bytes.drain(..start);
        let (&length, &check) = bytes.get(2).zip(bytes.get(3))?;
        match (length, check) {
            (0x00, 0xFF) => {
                bytes.drain(..4);
                return Some(ACK.to_vec());
            }
            (0xFF, 0x00) => {
                bytes.drain(..4);
                return Some(NACK.to_vec());
            }
            _ if length != 0 && length.wrapping_add(check) == 0 => {
                let whole = 4 + usize::from(length) + 1;
                if bytes.len() < whole {
                    return None;
                }
                let mut frame = Vec::with_capacity(LONGEST);
                frame.push(0x00);
                frame.extend(bytes.drain(..whole));
                frame.push(0x00);
                return Some(frame);
            }
            // No frame begins here after all.
            _ => {
                bytes.drain(..1);
            }
        }
    }
}

/// Whatever comes over the line is the same frames in whatever pieces it comes, each no longer than a frame may be, and
/// nothing piles up behind them.
#[cfg(any(test, fuzzing))]
pub fn must_hold(line: &[u8]) {
    let (mut whole, mut pieces) = (line.to_vec(), Vec::new());
    let at_once: Vec<_> = std::iter::from_fn(|| take_frame(&mut whole)).collect();
    let mut one_by_one = Vec::new();
    for byte in line {
        pieces.push(*byte);
        one_by_one.extend(std::iter::from_fn(|| take_frame(&mut pieces)));
        assert!(pieces.len() < LONGEST);
    }
    assert!(at_once.iter().all(|frame| frame.len() <= LONGEST));
    assert_eq!((at_once, whole), (one_by_one, pieces));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VERSION: [u8; 13] = [0, 0, 0xFF, 6, 0xFA, 0xD5, 0x03, 0x32, 1, 6, 7, 0xE8, 0];

    fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        std::iter::from_fn(|| take_frame(&mut bytes)).collect()
    }

    #[test]
    fn frames_are_found_in_noise_and_without_their_zeros() {
        let answer = [&ACK[..], &VERSION].concat();
        assert_eq!(frames(&answer), [ACK.to_vec(), VERSION.to_vec()]);
        let noisy = [&[0x55, 0xFF, 0x00, 0xFF, 0x13, 0x00][..], &ACK, &[0x7F], &VERSION].concat();
        assert_eq!(frames(&noisy), [ACK.to_vec(), VERSION.to_vec()]);
        assert_eq!(frames(&VERSION[1..12]), [VERSION.to_vec()]);
        assert_eq!(frames(&NACK), [NACK.to_vec()]);
    }

    #[test]
    fn a_frame_that_comes_byte_by_byte_is_handed_on_when_it_is_whole() {
        let (mut bytes, mut found) = (Vec::new(), Vec::new());
        for byte in VERSION {
            bytes.push(byte);
            found.extend(take_frame(&mut bytes));
        }
        assert_eq!(found, [VERSION.to_vec()]);
    }

    proptest! {
        #[test]
        fn any_bytes_at_all_are_survived_and_never_pile_up(
            // Mostly the bytes that frames are made of.
            line in prop::collection::vec(prop_oneof![prop::sample::select(&b"\x00\xFF\x01\xD5"[..]), any::<u8>()], 0..2_000),
        ) {
            must_hold(&line);
        }
    }
}
