//! A Pi's I2C bus behind the `embedded-hal` traits.
//!
//! rppal's own implementation makes every part of a transaction a transfer of its own. A register read
//! must not let go of the bus between naming the register and reading it, so a write that is followed
//! by a read goes out as one transfer here.

use embedded_hal::i2c::{self, ErrorKind, I2c, NoAcknowledgeSource, Operation};
use std::io;

/// After this long the kernel gives a transfer up.
const TIMEOUT_MS: u32 = 200;
const ENXIO: i32 = 6;
const EREMOTEIO: i32 = 121;

/// A Pi's I2C bus, with errors that tell "nobody there" from the rest.
#[derive(Debug)]
pub struct PiI2c(rppal::i2c::I2c);

#[derive(thiserror::Error)]
#[error("{0}")]
pub struct PiI2cError(rppal::i2c::Error);

/// Drivers over any bus can only show an error so, and people read it.
impl std::fmt::Debug for PiI2cError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl PiI2c {
    /// Opens `/dev/i2c-<bus>`. Others may have it open too: the kernel puts their transfers in turn.
    pub fn open(bus: u8) -> Result<Self, PiI2cError> {
        let bus = rppal::i2c::I2c::with_bus(bus).map_err(PiI2cError)?;
        bus.set_timeout(TIMEOUT_MS).map_err(PiI2cError)?;
        Ok(Self(bus))
    }
}

impl i2c::Error for PiI2cError {
    fn kind(&self) -> ErrorKind {
        match &self.0 {
            rppal::i2c::Error::Io(error) => kind_of(error),
            _ => ErrorKind::Other,
        }
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.raw_os_error() {
        Some(ENXIO | EREMOTEIO) => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown),
        _ => ErrorKind::Other,
    }
}

impl i2c::ErrorType for PiI2c {
    type Error = PiI2cError;
}

impl I2c for PiI2c {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), PiI2cError> {
        self.0.set_slave_address(u16::from(address)).map_err(PiI2cError)?;
        let mut rest = operations;
        loop {
            rest = match rest {
                [] => return Ok(()),
                [Operation::Write(sent), Operation::Read(buffer), rest @ ..] => {
                    self.0.write_read(sent, buffer).map_err(PiI2cError)?;
                    rest
                }
                [Operation::Write(sent), rest @ ..] => {
                    self.0.write(sent).map_err(PiI2cError)?;
                    rest
                }
                [Operation::Read(buffer), rest @ ..] => {
                    self.0.read(buffer).map_err(PiI2cError)?;
                    rest
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_nobody_acknowledges_is_nobody_there_and_other_errors_are_not() {
        for errno in [ENXIO, EREMOTEIO] {
            let kind = kind_of(&io::Error::from_raw_os_error(errno));
            assert_eq!(kind, ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown));
        }
        assert_eq!(kind_of(&io::Error::from_raw_os_error(5)), ErrorKind::Other);
    }
}
