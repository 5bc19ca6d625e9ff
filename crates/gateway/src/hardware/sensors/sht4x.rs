//! SHT40, SHT41, SHT45: temperature and humidity. (Sensirion's data sheet of the SHT4x, §4.)

use super::sensirion::{share, words};
use super::{Sample, Sensor, SensorError};
use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;

const MEASURE_PRECISELY: u8 = 0xFD;
/// The longest that a precise measurement takes is 8.3 ms.
const MEASURING_MS: u32 = 10;

pub(super) struct Sht4x<B, D> {
    bus: B,
    address: u8,
    delay: D,
}

impl<B: I2c, D: DelayNs> Sht4x<B, D> {
    pub(super) fn new(bus: B, address: u8, delay: D) -> Self {
        Self { bus, address, delay }
    }
}

impl<B: I2c, D: DelayNs> Sensor for Sht4x<B, D> {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError> {
        self.bus.write(self.address, &[MEASURE_PRECISELY]).map_err(SensorError::of)?;
        self.delay.delay_ms(MEASURING_MS);
        let [temperature, humidity] = words(&mut self.bus, self.address)?;
        Ok(vec![
            Sample::new("temperature", "Cel", -45.0 + 175.0 * share(temperature)),
            // The formula reaches a little beyond both ends; the data sheet says to cut that off.
            Sample::new("humidity", "%RH", (-6.0 + 125.0 * share(humidity)).clamp(0.0, 100.0)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::sensors::sensirion::crc;
    use embedded_hal::i2c::{ErrorKind, NoAcknowledgeSource};
    use embedded_hal_mock::eh1::delay::NoopDelay;
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

    fn read(answer: Vec<u8>) -> Result<Vec<Sample>, SensorError> {
        let mut bus = Mock::new(&[Transaction::write(0x44, vec![0xFD]), Transaction::read(0x44, answer)]);
        let values = Sht4x::new(bus.clone(), 0x44, NoopDelay).read();
        bus.done();
        values
    }

    fn answer(temperature: u16, humidity: u16) -> Vec<u8> {
        let with_sum = |word: u16| {
            let [high, low] = word.to_be_bytes();
            [high, low, crc([high, low])]
        };
        [with_sum(temperature), with_sum(humidity)].concat()
    }

    #[test]
    fn ticks_become_degrees_and_percent() {
        // 0x6666 is 40 % of the range: -45 + 70 = 25 °C; 0x8000: -6 + 62.501 = 56.501 %.
        let values = read(answer(0x6666, 0x8000)).unwrap();
        assert_eq!((values[0].quantity, values[0].unit), ("temperature", "Cel"));
        assert!((values[0].value - 25.0).abs() < 1e-9, "{values:?}");
        assert_eq!((values[1].quantity, values[1].unit), ("humidity", "%RH"));
        assert!((values[1].value - 56.501).abs() < 1e-3, "{values:?}");
    }

    #[test]
    fn both_ends_of_the_humidity_are_cut_off() {
        let humidity = |ticks| read(answer(0, ticks)).unwrap()[1].value;
        assert_eq!((humidity(0), humidity(u16::MAX)), (0.0, 100.0));
    }

    #[test]
    fn a_damaged_word_spoils_the_reading() {
        let mut damaged = answer(0x6666, 0x8000);
        damaged[4] ^= 1;
        assert_eq!(read(damaged), Err(SensorError::Checksum));
    }

    #[test]
    fn a_sensor_that_is_not_there_is_absent() {
        let nobody = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);
        let mut bus = Mock::new(&[Transaction::write(0x44, vec![0xFD]).with_error(nobody)]);
        assert_eq!(Sht4x::new(bus.clone(), 0x44, NoopDelay).read(), Err(SensorError::Absent));
        bus.done();
    }
}
