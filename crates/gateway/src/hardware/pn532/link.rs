//! The wire between the board and the PN532: which one, opened by whom, and what it must be able to do.

use super::buses::{I2cLink, PiSpi, SpiLink};
use super::hsu::Hsu;
use crate::hardware::i2c::PiI2c;
use nix::fcntl::{Flock, FlockArg};
use pn532::Interface;
use serde::Deserialize;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::task::Poll;

/// Where the PN532 is connected: `hsu:/dev/ttyS0`, `i2c:/dev/i2c-1` or `spi:/dev/spidev0.0`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LinkAddress {
    Hsu(PathBuf),
    I2c { device: PathBuf, bus: u8 },
    Spi { device: PathBuf, bus: u8, select: u8 },
}

impl TryFrom<String> for LinkAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for LinkAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("\"{text}\" is none of hsu:/dev/ttyS0, i2c:/dev/i2c-1 and spi:/dev/spidev0.0");
        let (kind, path) = text.split_once(':').ok_or_else(wrong)?;
        let device = PathBuf::from(path);
        match kind {
            "hsu" if path.starts_with('/') => Ok(Self::Hsu(device)),
            "i2c" => {
                let bus = path.strip_prefix("/dev/i2c-").and_then(|bus| bus.parse().ok());
                bus.map(|bus| Self::I2c { device, bus }).ok_or_else(wrong)
            }
            "spi" => {
                let numbers = path.strip_prefix("/dev/spidev").and_then(|rest| rest.split_once('.'));
                let parsed = numbers.and_then(|(bus, select)| bus.parse().ok().zip(select.parse().ok()));
                parsed.map(|(bus, select)| Self::Spi { device, bus, select }).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

impl LinkAddress {
    fn device(&self) -> &Path {
        match self {
            Self::Hsu(device) | Self::I2c { device, .. } | Self::Spi { device, .. } => device,
        }
    }
}

/// The bytes did not go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkError(pub String);

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LinkError {}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<nix::errno::Errno> for LinkError {
    fn from(error: nix::errno::Errno) -> Self {
        Self(error.desc().to_owned())
    }
}

/// Why a link cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0} is in use by another program")]
    InUse(PathBuf),
    #[error("{device} cannot be opened: {error}")]
    Unusable { device: PathBuf, error: LinkError },
}

/// What a wire adds to the frames it carries. No call may take longer than a fraction of a second.
pub trait Wire: Interface<Error = LinkError> + Send {
    /// Wakes a PN532 that sleeps.
    fn wake(&mut self) -> Result<(), LinkError>;
    /// Throws away what is still coming in.
    fn settle(&mut self) -> Result<(), LinkError>;
}

/// Any wire.
pub struct Link {
    wire: Box<dyn Wire>,
    /// Keeps other programs of this kind away from the device as long as it is open.
    _lock: Option<Flock<File>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link(…)")
    }
}

impl Link {
    /// Opens the device for this program alone.
    pub fn open(address: &LinkAddress) -> Result<Self, OpenError> {
        let device = address.device();
        let unusable = |error: LinkError| OpenError::Unusable { device: device.to_owned(), error };
        let lock = lock(device)?;
        let wire: Box<dyn Wire> = match address {
            LinkAddress::Hsu(device) => Box::new(Hsu::open(device).map_err(unusable)?),
            LinkAddress::I2c { bus, .. } => {
                let bus = PiI2c::open(*bus).map_err(|error| unusable(LinkError(error.to_string())))?;
                Box::new(I2cLink::new(bus))
            }
            LinkAddress::Spi { bus, select, .. } => {
                Box::new(SpiLink::new(PiSpi::open(*bus, *select).map_err(unusable)?))
            }
        };
        Ok(Self { wire, _lock: Some(lock) })
    }

    /// A link over a wire of the caller's.
    pub fn over(wire: impl Wire + 'static) -> Self {
        Self { wire: Box::new(wire), _lock: None }
    }

    pub(super) fn wake(&mut self) -> Result<(), LinkError> {
        self.wire.wake()
    }

    pub(super) fn settle(&mut self) -> Result<(), LinkError> {
        self.wire.settle()
    }
}

fn lock(device: &Path) -> Result<Flock<File>, OpenError> {
    use std::os::unix::fs::OpenOptionsExt;
    // A serial port may wait for a carrier when it is opened plainly.
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY;
    let opened = File::options().read(true).write(true).custom_flags(flags.bits()).open(device);
    let file =
        opened.map_err(|error| OpenError::Unusable { device: device.to_owned(), error: error.into() })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => OpenError::InUse(device.to_owned()),
        other => OpenError::Unusable { device: device.to_owned(), error: other.into() },
    })
}

impl Interface for Link {
    type Error = LinkError;

    fn write(&mut self, frame: &mut [u8]) -> Result<(), LinkError> {
        self.wire.write(frame)
    }

    fn wait_ready(&mut self) -> Poll<Result<(), LinkError>> {
        self.wire.wait_ready()
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<(), LinkError> {
        self.wire.read(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_the_kind_of_link_and_its_device() {
        assert_eq!("hsu:/dev/ttyS0".parse(), Ok(LinkAddress::Hsu("/dev/ttyS0".into())));
        assert_eq!("i2c:/dev/i2c-1".parse(), Ok(LinkAddress::I2c { device: "/dev/i2c-1".into(), bus: 1 }));
        let spi = LinkAddress::Spi { device: "/dev/spidev0.1".into(), bus: 0, select: 1 };
        assert_eq!("spi:/dev/spidev0.1".parse(), Ok(spi));
        for wrong in ["", "hsu", "hsu:ttyS0", "i2c:/dev/i2c-x", "spi:/dev/spidev0", "usb:/dev/x"] {
            let problem = wrong.parse::<LinkAddress>().unwrap_err();
            assert!(problem.contains("spi:/dev/spidev0.0"), "{problem}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let error = Link::open(&LinkAddress::Hsu("/dev/no-such-port".into())).unwrap_err();
        assert!(error.to_string().starts_with("/dev/no-such-port cannot be opened"), "{error}");
    }
}
