//! TMP105, TMP102, LM75 and their many relatives: temperature. (TI's data sheet SBOS648.)

use super::registers::Registers;
use super::{Sample, Sensor, SensorError};
use embedded_hal::i2c::I2c;

const TEMPERATURE: u8 = 0x00;
/// The first eight of the register's bits are whole degrees.
const STEPS_PER_DEGREE: f64 = 256.0;

pub(super) struct Tmp105<B>(Registers<B>);

impl<B: I2c> Tmp105<B> {
    pub(super) fn new(bus: B, address: u8) -> Self {
        Self(Registers::new(bus, address))
    }
}

impl<B: I2c> Sensor for Tmp105<B> {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError> {
        let steps = self.0.signed(TEMPERATURE)?;
        Ok(vec![Sample::new("temperature", "Cel", f64::from(steps) / STEPS_PER_DEGREE)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

    #[test]
    fn the_register_is_read_as_in_the_data_sheets_table() {
        for (register, degrees) in [
            ([0x7F, 0xF0], 127.9375),
            ([0x19, 0x00], 25.0),
            ([0x00, 0x40], 0.25),
            ([0xFF, 0xC0], -0.25),
            ([0xE7, 0x00], -25.0),
        ] {
            let mut bus = Mock::new(&[Transaction::write_read(0x48, vec![0], register.to_vec())]);
            let values = Tmp105::new(bus.clone(), 0x48).read().unwrap();
            assert_eq!(values, [Sample::new("temperature", "Cel", degrees)]);
            bus.done();
        }
    }
}
