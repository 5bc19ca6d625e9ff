//! BH1750: how light it is. (ROHM's data sheet BH1750FVI.)

use super::{Sample, Sensor, SensorError};
use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;

const POWER_ON: u8 = 0x01;
/// One measurement to 1 lx; the chip goes to sleep after it.
const MEASURE_ONCE: u8 = 0x20;
/// The longest that one takes.
const MEASURING_MS: u32 = 180;
const COUNTS_PER_LUX: f64 = 1.2;

pub(super) struct Bh1750<B, D> {
    bus: B,
    address: u8,
    delay: D,
}

impl<B: I2c, D: DelayNs> Bh1750<B, D> {
    pub(super) fn new(bus: B, address: u8, delay: D) -> Self {
        Self { bus, address, delay }
    }
}

impl<B: I2c, D: DelayNs> Sensor for Bh1750<B, D> {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError> {
        for command in [POWER_ON, MEASURE_ONCE] {
            self.bus.write(self.address, &[command]).map_err(SensorError::of)?;
        }
        self.delay.delay_ms(MEASURING_MS);
        let mut counts = [0; 2];
        self.bus.read(self.address, &mut counts).map_err(SensorError::of)?;
        let counts = u16::from_be_bytes(counts);
        let lux = f64::from(counts) / COUNTS_PER_LUX;
        // At its end the counter stands still, however bright it gets.
        Ok(vec![Sample::new("illuminance", "lx", lux).doubtful_if(counts == u16::MAX)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal::i2c::ErrorKind;
    use embedded_hal_mock::eh1::delay::NoopDelay;
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

    fn read(answer: Transaction) -> Result<Vec<Sample>, SensorError> {
        let mut bus =
            Mock::new(&[Transaction::write(0x23, vec![0x01]), Transaction::write(0x23, vec![0x20]), answer]);
        let values = Bh1750::new(bus.clone(), 0x23, NoopDelay).read();
        bus.done();
        values
    }

    #[test]
    fn counts_become_lux_as_in_the_data_sheet() {
        let values = read(Transaction::read(0x23, vec![0x83, 0x90])).unwrap();
        assert_eq!((values[0].quantity, values[0].unit), ("illuminance", "lx"));
        assert!((values[0].value - 28_067.0).abs() < 0.5, "{values:?}");
        assert!(!values[0].doubtful);
    }

    #[test]
    fn a_light_beyond_its_range_is_doubtful() {
        assert!(read(Transaction::read(0x23, vec![0xFF, 0xFF])).unwrap()[0].doubtful);
    }

    #[test]
    fn a_bus_that_fails_is_said() {
        let failed = read(Transaction::read(0x23, vec![0, 0]).with_error(ErrorKind::Bus));
        assert_eq!(failed, Err(SensorError::Bus("Bus".to_owned())));
    }
}
