//! The real driver and the real reader's loop against a PN532 that is emulated, and that emulator
//! against libnfc, which knows nothing of us.

#[cfg(test)]
mod command;
#[cfg(test)]
mod driver;
#[cfg(test)]
mod emulator;
#[cfg(test)]
mod libnfc;
#[cfg(test)]
mod taps;
