//! SCD40, SCD41: carbon dioxide, temperature and humidity. (Sensirion's data sheet of the SCD4x, §3.)
//!
//! The sensor measures by itself every five seconds. It must be stopped before it can be set up, whoever
//! started it, and each measurement can be read once.

use super::sensirion::{crc, share, words};
use super::{Sample, Sensor, SensorError};
use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;

const STOP: u16 = 0x3F86;
const SET_ALTITUDE: u16 = 0x2427;
const START: u16 = 0x21B1;
const IS_READY: u16 = 0xE4B8;
const MEASUREMENT: u16 = 0xEC05;

const STOPPING_MS: u32 = 500;
const COMMAND_MS: u32 = 1;
/// A measurement is due every 5 s; one second more is a fault.
const LOOKS: usize = 24;
const BETWEEN_LOOKS_MS: u32 = 250;
/// Any of these bits: a measurement waits to be read.
const READY: u16 = 0x07FF;

pub(super) struct Scd4x<B, D> {
    bus: B,
    address: u8,
    delay: D,
}

impl<B: I2c, D: DelayNs> Scd4x<B, D> {
    /// Sets the sensor up for the height it hangs at (carbon dioxide is measured by its share of the air's
    /// pressure) and lets it measure.
    pub(super) fn open(bus: B, address: u8, altitude_m: u16, delay: D) -> Result<Self, SensorError> {
        let mut sensor = Self { bus, address, delay };
        sensor.command(STOP, STOPPING_MS)?;
        let [a, b] = SET_ALTITUDE.to_be_bytes();
        let [high, low] = altitude_m.to_be_bytes();
        sensor.send(&[a, b, high, low, crc([high, low])], COMMAND_MS)?;
        sensor.command(START, COMMAND_MS)?;
        Ok(sensor)
    }

    fn command(&mut self, command: u16, wait_ms: u32) -> Result<(), SensorError> {
        self.send(&command.to_be_bytes(), wait_ms)
    }

    fn send(&mut self, bytes: &[u8], wait_ms: u32) -> Result<(), SensorError> {
        self.bus.write(self.address, bytes).map_err(SensorError::of)?;
        self.delay.delay_ms(wait_ms);
        Ok(())
    }

    fn ask<const N: usize>(&mut self, command: u16) -> Result<[u16; N], SensorError> {
        self.command(command, COMMAND_MS)?;
        words(&mut self.bus, self.address)
    }

    fn wait(&mut self) -> Result<(), SensorError> {
        for _ in 0..LOOKS {
            let [state] = self.ask(IS_READY)?;
            if state & READY != 0 {
                return Ok(());
            }
            self.delay.delay_ms(BETWEEN_LOOKS_MS);
        }
        Err(SensorError::Late)
    }
}

impl<B: I2c, D: DelayNs> Sensor for Scd4x<B, D> {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError> {
        self.wait()?;
        let [carbon_dioxide, temperature, humidity] = self.ask(MEASUREMENT)?;
        Ok(vec![
            Sample::new("co2", "ppm", f64::from(carbon_dioxide)),
            Sample::new("temperature", "Cel", -45.0 + 175.0 * share(temperature)),
            Sample::new("humidity", "%RH", 100.0 * share(humidity)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal_mock::eh1::delay::NoopDelay;
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

    /// The data sheet's example: 500 ppm, 25 °C, 37 %.
    const EXAMPLE: [u8; 9] = [0x01, 0xF4, 0x33, 0x66, 0x67, 0xA2, 0x5E, 0xB9, 0x3C];

    fn write(bytes: &[u8]) -> Transaction {
        Transaction::write(0x62, bytes.to_vec())
    }

    fn answer(bytes: &[u8]) -> Transaction {
        Transaction::read(0x62, bytes.to_vec())
    }

    fn set_up() -> Vec<Transaction> {
        vec![
            write(&[0x3F, 0x86]),
            // The data sheet's example for 1,950 m.
            write(&[0x24, 0x27, 0x07, 0x9E, 0x09]),
            write(&[0x21, 0xB1]),
        ]
    }

    fn read(turns: &[Transaction]) -> Result<Vec<Sample>, SensorError> {
        let mut bus = Mock::new(&[&set_up(), turns].concat());
        let values = Scd4x::open(bus.clone(), 0x62, 1_950, NoopDelay).and_then(|mut sensor| sensor.read());
        bus.done();
        values
    }

    #[test]
    fn a_measurement_is_waited_for_and_read_as_in_the_data_sheet() {
        let values = read(&[
            write(&[0xE4, 0xB8]),
            answer(&[0x80, 0x00, 0xA2]),
            write(&[0xE4, 0xB8]),
            answer(&[0x80, 0x06, crc([0x80, 0x06])]),
            write(&[0xEC, 0x05]),
            answer(&EXAMPLE),
        ])
        .unwrap();
        assert_eq!((values[0].quantity, values[0].unit, values[0].value), ("co2", "ppm", 500.0));
        assert!((values[1].value - 25.0).abs() < 0.01, "{values:?}");
        assert!((values[2].value - 37.0).abs() < 0.01, "{values:?}");
    }

    #[test]
    fn a_damaged_word_spoils_the_reading() {
        let mut damaged = EXAMPLE;
        damaged[8] ^= 0x10;
        let values = read(&[
            write(&[0xE4, 0xB8]),
            answer(&[0x80, 0x06, crc([0x80, 0x06])]),
            write(&[0xEC, 0x05]),
            answer(&damaged),
        ]);
        assert_eq!(values, Err(SensorError::Checksum));
    }

    #[test]
    fn a_sensor_that_never_gets_ready_is_late_and_not_waited_for_without_end() {
        let look = || [write(&[0xE4, 0xB8]), answer(&[0x80, 0x00, 0xA2])];
        let looks: Vec<Transaction> = (0..LOOKS).flat_map(|_| look()).collect();
        assert_eq!(read(&looks), Err(SensorError::Late));
    }
}
