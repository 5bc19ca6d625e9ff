//! Chips with numbered registers of one or two bytes.

use super::SensorError;
use embedded_hal::i2c::I2c;

/// A chip at its address on a bus.
#[derive(Debug)]
pub(super) struct Registers<B> {
    bus: B,
    address: u8,
}

impl<B: I2c> Registers<B> {
    pub(super) fn new(bus: B, address: u8) -> Self {
        Self { bus, address }
    }

    pub(super) fn bytes<const N: usize>(&mut self, register: u8) -> Result<[u8; N], SensorError> {
        let mut bytes = [0; N];
        self.bus.write_read(self.address, &[register], &mut bytes).map_err(SensorError::of)?;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self, register: u8) -> Result<u8, SensorError> {
        self.bytes(register).map(|[byte]| byte)
    }

    pub(super) fn word(&mut self, register: u8) -> Result<u16, SensorError> {
        self.bytes(register).map(u16::from_be_bytes)
    }

    pub(super) fn signed(&mut self, register: u8) -> Result<i16, SensorError> {
        self.bytes(register).map(i16::from_be_bytes)
    }

    pub(super) fn set_byte(&mut self, register: u8, value: u8) -> Result<(), SensorError> {
        self.bus.write(self.address, &[register, value]).map_err(SensorError::of)
    }

    pub(super) fn set_word(&mut self, register: u8, value: u16) -> Result<(), SensorError> {
        let [high, low] = value.to_be_bytes();
        self.bus.write(self.address, &[register, high, low]).map_err(SensorError::of)
    }
}
