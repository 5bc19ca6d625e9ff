//! The PN532 on I2C and SPI.
//!
//! Where the `pn532` crate and a Pi disagree:
//! - I2C: the chip sends a status byte before each frame, in one and the same read. The crate reads the
//!   two as two operations, which Linux sends as two reads, so that the frame begins with the status
//!   byte again. Here it is one read.
//! - I2C: a PN532 that is busy does not acknowledge its address, which is "not yet", not a failure.
//! - SPI: a transfer in place must send what is in the buffer; rppal's own device sends nothing.

use super::link::{LinkError, Wire};
use embedded_hal::i2c::{self, ErrorKind, I2c, NoAcknowledgeSource};
use embedded_hal::spi::{self, SpiDevice};
use pn532::Interface;
use pn532::i2c::{I2C_ADDRESS, PN532_I2C_READY};
use pn532::spi::SPIInterface;
use rppal::spi::{Bus, Mode, Segment, SlaveSelect, Spi};
use std::task::Poll;
use std::thread::sleep;
use std::time::Duration;

/// Between two looks whether the chip is ready.
const TURN: Duration = Duration::from_millis(1);
/// The chip wakes up within this.
const WAKE: Duration = Duration::from_millis(2);
/// A sleeping chip does not acknowledge the first write.
const WRITES: usize = 3;
/// Room for the largest frame we ask for and its status byte.
const ROOM: usize = 160;
/// Well below the chip's 5 MHz, for wires of a hand's length.
const SPI_HERTZ: u32 = 1_000_000;

/// A PN532 on any I2C bus.
#[derive(Debug)]
pub struct I2cLink<B>(B);

impl<B: I2c> I2cLink<B> {
    pub fn new(bus: B) -> Self {
        Self(bus)
    }
}

fn is_busy(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address | NoAcknowledgeSource::Unknown))
}

fn failed(error: impl std::fmt::Debug) -> LinkError {
    LinkError(format!("{error:?}"))
}

impl<B: I2c> Interface for I2cLink<B> {
    type Error = LinkError;

    fn write(&mut self, frame: &mut [u8]) -> Result<(), LinkError> {
        let mut left = WRITES;
        loop {
            left -= 1;
            match self.0.write(I2C_ADDRESS, frame) {
                Ok(()) => return Ok(()),
                Err(error) if left > 0 && is_busy(i2c::Error::kind(&error)) => sleep(WAKE),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn wait_ready(&mut self) -> Poll<Result<(), LinkError>> {
        let mut status = [0];
        match self.0.read(I2C_ADDRESS, &mut status) {
            Ok(()) if status == [PN532_I2C_READY] => return Poll::Ready(Ok(())),
            Err(error) if !is_busy(i2c::Error::kind(&error)) => return Poll::Ready(Err(failed(error))),
            Ok(()) | Err(_) => {}
        }
        sleep(TURN);
        Poll::Pending
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<(), LinkError> {
        let mut whole = [0; ROOM];
        let whole = whole.get_mut(..=buf.len()).ok_or_else(|| LinkError("no room".to_owned()))?;
        self.0.read(I2C_ADDRESS, whole).map_err(failed)?;
        buf.copy_from_slice(whole.get(1..).unwrap_or_default());
        Ok(())
    }
}

impl<B: I2c + Send> Wire for I2cLink<B> {
    fn wake(&mut self) -> Result<(), LinkError> {
        // Being addressed wakes it; whether it heard will be seen by the next command.
        let _ = self.0.write(I2C_ADDRESS, &[0]);
        sleep(WAKE);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), LinkError> {
        // The chip holds its answers until they are read; aborting the command drops them.
        sleep(WAKE);
        Ok(())
    }
}

/// A PN532 on any SPI device.
#[derive(Debug)]
pub struct SpiLink<D: SpiDevice>(SPIInterface<D>);

impl<D: SpiDevice> SpiLink<D> {
    pub fn new(spi: D) -> Self {
        Self(SPIInterface { spi })
    }
}

impl<D: SpiDevice> Interface for SpiLink<D> {
    type Error = LinkError;

    fn write(&mut self, frame: &mut [u8]) -> Result<(), LinkError> {
        self.0.write(frame).map_err(failed)
    }

    fn wait_ready(&mut self) -> Poll<Result<(), LinkError>> {
        let ready = self.0.wait_ready().map_err(failed);
        if ready.is_pending() {
            sleep(TURN);
        }
        ready
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<(), LinkError> {
        self.0.read(buf).map_err(failed)
    }
}

impl<D: SpiDevice + Send> Wire for SpiLink<D> {
    fn wake(&mut self) -> Result<(), LinkError> {
        // Being selected wakes it.
        let _ = self.0.wait_ready().map_err(failed)?;
        sleep(WAKE);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), LinkError> {
        sleep(WAKE);
        Ok(())
    }
}

/// A Pi's SPI device.
#[derive(Debug)]
pub struct PiSpi(Spi);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PiSpiError(rppal::spi::Error);

impl PiSpi {
    pub fn open(bus: u8, select: u8) -> Result<Self, LinkError> {
        let bus = match bus {
            0 => Bus::Spi0,
            1 => Bus::Spi1,
            2 => Bus::Spi2,
            3 => Bus::Spi3,
            4 => Bus::Spi4,
            5 => Bus::Spi5,
            6 => Bus::Spi6,
            other => return Err(LinkError(format!("a Pi has no SPI bus {other}"))),
        };
        let select = match select {
            0 => SlaveSelect::Ss0,
            1 => SlaveSelect::Ss1,
            2 => SlaveSelect::Ss2,
            other => return Err(LinkError(format!("an SPI bus has no select line {other}"))),
        };
        let spi = Spi::new(bus, select, SPI_HERTZ, Mode::Mode0);
        Ok(Self(spi.map_err(|error| LinkError(error.to_string()))?))
    }
}

impl spi::Error for PiSpiError {
    fn kind(&self) -> spi::ErrorKind {
        spi::ErrorKind::Other
    }
}

impl spi::ErrorType for PiSpi {
    type Error = PiSpiError;
}

impl SpiDevice for PiSpi {
    fn transaction(&mut self, operations: &mut [spi::Operation<'_, u8>]) -> Result<(), PiSpiError> {
        let sent = sent_in_place(operations);
        let segments: Vec<Segment<'_, '_>> = operations
            .iter_mut()
            .zip(&sent)
            .map(|(operation, sent)| match operation {
                spi::Operation::Read(buffer) => Segment::with_read(buffer),
                spi::Operation::Write(buffer) => Segment::with_write(buffer),
                spi::Operation::Transfer(read, write) => Segment::new(read, write),
                spi::Operation::TransferInPlace(buffer) => Segment::new(buffer, sent),
                spi::Operation::DelayNs(ns) => {
                    let us = u16::try_from(ns.div_ceil(1_000)).unwrap_or(u16::MAX);
                    Segment::with_settings(None, None, 0, us, 0, false)
                }
            })
            .collect();
        self.0.transfer_segments(&segments).map_err(PiSpiError)
    }
}

/// For each operation the bytes that a transfer in place sends: its buffer is overwritten meanwhile.
fn sent_in_place(operations: &[spi::Operation<'_, u8>]) -> Vec<Vec<u8>> {
    operations
        .iter()
        .map(|operation| match operation {
            spi::Operation::TransferInPlace(buffer) => buffer.to_vec(),
            _ => Vec::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_in_place_sends_what_was_in_the_buffer() {
        let (mut in_place, mut read) = ([1, 2], [3]);
        let operations = [
            spi::Operation::Write(&[9][..]),
            spi::Operation::TransferInPlace(&mut in_place),
            spi::Operation::Read(&mut read),
        ];
        assert_eq!(sent_in_place(&operations), [vec![], vec![1, 2], vec![]]);
    }
}
