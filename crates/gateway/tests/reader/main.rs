//! The real driver and the real reader's loop against a PN532 that is emulated, and that emulator
//! against libnfc, which knows nothing of us.

mod driver;
mod emulator;
mod libnfc;
mod taps;
