//! A PN532 that is not there: its commands, NTAG215 tags, and the faults that readers have in the field.
//! On a pseudo-terminal it speaks HSU; as an embedded-hal device it speaks SPI and I2C.

use embedded_hal::{i2c, spi};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ACK: [u8; 6] = [0, 0, 0xFF, 0, 0xFF, 0];
const NACK: [u8; 6] = [0, 0, 0xFF, 0xFF, 0, 0];
const SYNTAX_ERROR: [u8; 8] = [0, 0, 0xFF, 1, 0xFF, 0x7F, 0x81, 0];
const PAGES: usize = 135;

#[derive(Debug, Clone)]
pub struct Card {
    pub uid: Vec<u8>,
    pub sak: u8,
    pub memory: Vec<u8>,
}

impl Card {
    /// A tag without pages.
    pub fn plain(uid: &[u8]) -> Self {
        Self { uid: uid.to_vec(), sak: 0x08, memory: Vec::new() }
    }

    /// An NTAG215 as it leaves the factory.
    pub fn ntag215(uid: [u8; 7]) -> Self {
        let mut memory = vec![0; PAGES * 4];
        let [a, b, c, d, e, f, g] = uid;
        memory[..9].copy_from_slice(&[a, b, c, 0x88 ^ a ^ b ^ c, d, e, f, g, d ^ e ^ f ^ g]);
        memory[9] = 0x48;
        memory[12..19].copy_from_slice(&[0xE1, 0x10, 0x3E, 0x00, 0x03, 0x00, 0xFE]);
        Self { uid: uid.to_vec(), sak: 0, memory }
    }
}

/// What goes wrong with the next answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Garbage,
    Nack,
    WrongChecksum,
    /// The answer comes this late, abort or no abort.
    Late(Duration),
    /// The answer stops in the middle of its frame.
    Half,
}

#[derive(Debug, Default)]
pub struct World {
    pub cards: Vec<Card>,
    pub faults: VecDeque<Fault>,
    /// Says nothing any more.
    pub dead: bool,
    /// Commands that were understood.
    pub commands: Vec<u8>,
    listed: Vec<Vec<u8>>,
}

pub type Shared = Arc<Mutex<World>>;

impl World {
    /// The answer to one command; `None` for one that the chip does not know.
    fn answer(&mut self, command: u8, data: &[u8]) -> Option<Vec<u8>> {
        self.commands.push(command);
        Some(match (command, data) {
            (0x00, echo) => echo.to_vec(),
            (0x02, _) => vec![0x32, 1, 6, 7],
            (0x04, _) => vec![0, 0, 0, 0, 0x80],
            (0x06, registers) => vec![0; registers.len() / 2],
            (0x08 | 0x12 | 0x14 | 0x32, _) => vec![],
            (0x16 | 0x44 | 0x52 | 0x54, _) => vec![0],
            (0x4A, [most, 0, ..]) => self.list(usize::from(*most)),
            (0x4A, _) => vec![0],
            (0x40, [target, command @ ..]) => self.exchange(usize::from(*target), command),
            (0x42, command) => self.pass_through(command),
            _ => return None,
        })
    }

    fn list(&mut self, most: usize) -> Vec<u8> {
        let found: Vec<Card> = self.cards.iter().take(most).cloned().collect();
        self.listed = found.iter().map(|card| card.uid.clone()).collect();
        let mut answer = vec![found.len() as u8];
        for (number, card) in (1..).zip(&found) {
            answer.extend([number, 0x00, 0x44, card.sak, card.uid.len() as u8]);
            answer.extend(&card.uid);
        }
        answer
    }

    fn exchange(&mut self, target: usize, command: &[u8]) -> Vec<u8> {
        const GONE: [u8; 1] = [0x01];
        let Some(uid) = self.listed.get(target.wrapping_sub(1)) else { return vec![0x27] };
        let Some(card) = self.cards.iter_mut().find(|card| &card.uid == uid && !card.memory.is_empty())
        else {
            return GONE.to_vec();
        };
        match command {
            [0x30, page] if usize::from(*page) < PAGES => {
                let from = usize::from(*page) * 4;
                [0].into_iter().chain(card.memory.iter().copied().cycle().skip(from).take(16)).collect()
            }
            [0xA2, page, data @ ..] if (3..PAGES).contains(&usize::from(*page)) && data.len() == 4 => {
                let from = usize::from(*page) * 4;
                card.memory[from..from + 4].copy_from_slice(data);
                vec![0]
            }
            [0x60] => vec![0, 0x00, 0x04, 0x04, 0x02, 0x01, 0x00, 0x11, 0x03],
            _ => GONE.to_vec(),
        }
    }

    /// A host that has switched the chip's own CRC off sends one and expects one.
    fn pass_through(&mut self, command: &[u8]) -> Vec<u8> {
        match command.split_last_chunk::<2>() {
            Some((bare, crc)) if *crc == crc_a(bare) => {
                let mut answer = self.exchange(1, bare);
                if let [0, data @ ..] = &answer[..] {
                    let crc = crc_a(data);
                    answer.extend(crc);
                }
                answer
            }
            _ => self.exchange(1, command),
        }
    }

    /// What the chip says to a frame from the host, in order; nothing to an abort.
    fn frames(&mut self, frame: &[u8]) -> (Vec<Vec<u8>>, Duration) {
        let now = Duration::ZERO;
        let Some([0xD4, command, data @ ..]) = payload(frame) else { return (vec![], now) };
        if self.dead {
            return (vec![], now);
        }
        let answer = match self.answer(*command, data) {
            Some(data) => framed(&[&[0xD5, command + 1][..], &data].concat()),
            None => SYNTAX_ERROR.to_vec(),
        };
        match self.faults.pop_front() {
            None => (vec![ACK.to_vec(), answer], now),
            Some(Fault::Garbage) => (vec![vec![0x5A, 0xFF, 0x00, 0x17, 0xFF, 0xD5]], now),
            Some(Fault::Nack) => (vec![NACK.to_vec()], now),
            Some(Fault::WrongChecksum) => {
                let mut wrong = answer;
                let at = wrong.len() - 2;
                wrong[at] ^= 0x55;
                (vec![ACK.to_vec(), wrong], now)
            }
            Some(Fault::Late(by)) => (vec![ACK.to_vec(), answer], by),
            Some(Fault::Half) => (vec![ACK.to_vec(), answer[..answer.len() / 2].to_vec()], now),
        }
    }
}

/// ISO 14443-3's CRC_A, low byte first.
fn crc_a(data: &[u8]) -> [u8; 2] {
    let crc = data.iter().fold(0x6363u16, |crc, byte| {
        (0..8)
            .fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x8408 } else { crc >> 1 })
    });
    crc.to_le_bytes()
}

fn framed(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u8;
    let sum = data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    [&[0, 0, 0xFF, length, length.wrapping_neg()][..], data, &[sum.wrapping_neg(), 0]].concat()
}

/// The data of a host's frame whose checksums are right.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    let start = frame.windows(2).position(|pair| pair == [0, 0xFF])? + 2;
    let (&length, &check) = (frame.get(start)?, frame.get(start + 1)?);
    let data = frame.get(start + 2..start + 2 + usize::from(length))?;
    let sum = data.iter().fold(*frame.get(start + 2 + usize::from(length))?, |sum, b| sum.wrapping_add(*b));
    (length > 0 && length.wrapping_add(check) == 0 && sum == 0).then_some(data)
}

/// A PN532 at the other end of a serial line.
pub struct SerialPn532 {
    pub world: Shared,
    pub device: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SerialPn532 {
    pub fn start() -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut raw = tcgetattr(&pty.slave).unwrap();
        cfmakeraw(&mut raw);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &raw).unwrap();
        let device = std::fs::read_link(format!("/proc/self/fd/{}", pty.slave.as_raw_fd())).unwrap();
        let (world, stop) = (Shared::default(), Arc::<AtomicBool>::default());
        let (its_world, its_stop) = (Arc::clone(&world), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            // Held open: a line whose last reader has gone hangs up.
            let _slave = pty.slave;
            let mut line = File::from(pty.master);
            let mut bytes = Vec::new();
            while !its_stop.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(line.as_fd(), PollFlags::POLLIN)];
                if poll(&mut fds, PollTimeout::from(20u8)).unwrap() == 0 {
                    continue;
                }
                let mut chunk = [0; 512];
                let count = line.read(&mut chunk).unwrap();
                bytes.extend_from_slice(&chunk[..count]);
                while let Some(frame) = whole_frame(&mut bytes) {
                    let (frames, late) = its_world.lock().unwrap().frames(&frame);
                    for (turn, frame) in frames.iter().enumerate() {
                        if turn > 0 && !late.is_zero() {
                            // Lateness is the fault that is played.
                            std::thread::sleep(late);
                        }
                        line.write_all(frame).unwrap();
                    }
                }
            }
        });
        Self { world, device, stop, thread: Some(thread) }
    }
}

impl Drop for SerialPn532 {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn whole_frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let start = bytes.windows(2).position(|pair| pair == [0, 0xFF])?;
    let length = *bytes.get(start + 2)?;
    let end = match (length, *bytes.get(start + 3)?) {
        (0, 0xFF) | (0xFF, 0) => start + 4,
        _ => start + 4 + usize::from(length) + 1,
    };
    (bytes.len() >= end).then(|| bytes.drain(..end).collect())
}

/// A PN532 on SPI or I2C, where it holds its frames until they are read.
#[derive(Default)]
pub struct BusPn532 {
    pub world: Shared,
    held: VecDeque<Vec<u8>>,
}

impl BusPn532 {
    fn hear(&mut self, frame: &[u8]) {
        self.held = self.world.lock().unwrap().frames(frame).0.into();
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        let frame = self.held.pop_front().unwrap_or_default();
        buffer.fill(0);
        buffer.iter_mut().zip(frame).for_each(|(to, from)| *to = from);
    }
}

impl spi::ErrorType for BusPn532 {
    type Error = Infallible;
}

impl spi::SpiDevice for BusPn532 {
    /// Bytes arrive low bit first, from a master that sends the high bit first.
    fn transaction(&mut self, operations: &mut [spi::Operation<'_, u8>]) -> Result<(), Infallible> {
        let lsb = |bytes: &[u8]| -> Vec<u8> { bytes.iter().map(|byte| byte.reverse_bits()).collect() };
        match operations {
            [spi::Operation::TransferInPlace(status)] => {
                assert_eq!(lsb(status)[0], 0x02);
                status[1] = u8::from(!self.held.is_empty()).reverse_bits();
            }
            [spi::Operation::Write(kind), spi::Operation::Write(frame)] => {
                assert_eq!(lsb(kind), [0x01]);
                self.hear(&lsb(frame));
            }
            [spi::Operation::Write(kind), spi::Operation::Read(buffer)] => {
                assert_eq!(lsb(kind), [0x03]);
                self.fill(buffer);
                buffer.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
            }
            other => panic!("not what a PN532 is sent: {other:?}"),
        }
        Ok(())
    }
}

/// A busy PN532 does not acknowledge its address.
#[derive(Debug)]
pub struct NobodyThere;

impl i2c::Error for NobodyThere {
    fn kind(&self) -> i2c::ErrorKind {
        i2c::ErrorKind::NoAcknowledge(i2c::NoAcknowledgeSource::Address)
    }
}

impl i2c::ErrorType for BusPn532 {
    type Error = NobodyThere;
}

impl i2c::I2c for BusPn532 {
    fn transaction(&mut self, at: u8, operations: &mut [i2c::Operation<'_>]) -> Result<(), NobodyThere> {
        assert_eq!(at, 0x24);
        // One operation each: Linux would send the status byte again before a second read.
        match operations {
            [i2c::Operation::Write(frame)] => self.hear(frame),
            [i2c::Operation::Read(_)] if self.held.is_empty() => return Err(NobodyThere),
            [i2c::Operation::Read([status])] => *status = 1,
            [i2c::Operation::Read([status, buffer @ ..])] => {
                *status = 1;
                self.fill(buffer);
            }
            other => panic!("not what a PN532 is sent: {other:?}"),
        }
        Ok(())
    }
}
