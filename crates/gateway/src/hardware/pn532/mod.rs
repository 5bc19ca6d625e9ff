//! The PN532 tag reader, from the wire up:
//!
//! ```text
//! hsu, buses ─▶ link ─▶ chip ─▶ tag (ndef) ─▶ reader (debounce)
//! ```

mod buses;
mod chip;
mod debounce;
mod hsu;
mod link;
mod ndef;
mod reader;
mod tag;

/// All that comes over the reader's wire.
#[cfg(fuzzing)]
pub fn must_hold(bytes: &[u8]) {
    hsu::must_hold(bytes);
    chip::must_hold(bytes);
    ndef::must_hold(bytes);
}

pub use buses::{I2cLink, SpiLink};
pub use chip::{Chip, ChipError, Firmware, Target};
pub use hsu::Hsu;
pub use link::{Link, LinkAddress, LinkError, OpenError, Wire};
pub use reader::{Naming, Pn532Reader, Settings};
pub use tag::{Content, WriteError, read, write};
