//! ADS1115: the voltage at one of its four inputs, and what a soil probe there means by it.
//! (TI's data sheet SBAS444.)

use super::registers::Registers;
use super::{Sample, Sensor, SensorError};
use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;

const CONVERSION: u8 = 0x00;
const CONFIG: u8 = 0x01;
/// Written: begin one conversion. Read: none is going on.
const START_OR_DONE: u16 = 1 << 15;
/// Input 0 against ground; the next inputs follow.
const INPUT_0: u16 = 0b100 << 12;
/// ±4.096 V, one conversion at a time, 128 a second, comparator off.
const SETTINGS: u16 = 0b001 << 9 | 1 << 8 | 0b100 << 5 | 0b11;
const VOLTS_PER_STEP: f64 = 125e-6;
/// 1/128 s, and a tenth more for the chip's clock.
const CONVERTING_MS: u32 = 9;
const LOOKS: usize = 5;

/// The voltages of a soil probe in the air and in water: the two points of its scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Soil {
    pub dry_volts: f64,
    pub wet_volts: f64,
}

impl Soil {
    /// Not cut off at its ends: a probe that hangs in the air or lost its wire should look like it.
    fn percent(self, volts: f64) -> f64 {
        (self.dry_volts - volts) / (self.dry_volts - self.wet_volts) * 100.0
    }
}

pub(super) struct Ads1115<B, D> {
    chip: Registers<B>,
    channel: u8,
    soil: Option<Soil>,
    delay: D,
}

impl<B: I2c, D: DelayNs> Ads1115<B, D> {
    pub(super) fn new(bus: B, address: u8, channel: u8, soil: Option<Soil>, delay: D) -> Self {
        Self { chip: Registers::new(bus, address), channel, soil, delay }
    }

    fn convert(&mut self) -> Result<i16, SensorError> {
        let input = INPUT_0 + (u16::from(self.channel) << 12);
        self.chip.set_word(CONFIG, START_OR_DONE | input | SETTINGS)?;
        for _ in 0..LOOKS {
            self.delay.delay_ms(CONVERTING_MS);
            let config = self.chip.word(CONFIG)?;
            if config & !START_OR_DONE != input | SETTINGS {
                // Another input's voltage under this one's name would be worse than none.
                return Err(SensorError::Wrong("the chip was reset or used by another program".to_owned()));
            }
            if config & START_OR_DONE != 0 {
                return self.chip.signed(CONVERSION);
            }
        }
        Err(SensorError::Late)
    }
}

impl<B: I2c, D: DelayNs> Sensor for Ads1115<B, D> {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError> {
        let steps = self.convert()?;
        let volts = f64::from(steps) * VOLTS_PER_STEP;
        let beyond = steps == i16::MAX;
        let mut samples = vec![Sample::new("voltage", "V", volts).doubtful_if(beyond)];
        if let Some(soil) = self.soil {
            samples.push(Sample::new("moisture", "%", soil.percent(volts)).doubtful_if(beyond));
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal_mock::eh1::delay::NoopDelay;
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

    const PROBE: Soil = Soil { dry_volts: 2.5, wet_volts: 1.0 };

    fn look(config: [u8; 2]) -> Transaction {
        Transaction::write_read(0x48, vec![1], config.to_vec())
    }

    /// Input 2: 1 110 001 1, then 100 00011.
    fn read(rest: &[Transaction]) -> Result<Vec<Sample>, SensorError> {
        let start = Transaction::write(0x48, vec![0x01, 0b1110_0011, 0b1000_0011]);
        let mut bus = Mock::new(&[&[start], rest].concat());
        let values = Ads1115::new(bus.clone(), 0x48, 2, Some(PROBE), NoopDelay).read();
        bus.done();
        values
    }

    fn converted(steps: i16) -> Vec<Sample> {
        read(&[
            look([0b0110_0011, 0b1000_0011]),
            look([0b1110_0011, 0b1000_0011]),
            Transaction::write_read(0x48, vec![0], steps.to_be_bytes().to_vec()),
        ])
        .unwrap()
    }

    #[test]
    fn steps_become_volts_and_volts_the_soils_moisture() {
        // 14,000 steps of 125 µV are 1.75 V: half-way between dry and wet.
        let values = converted(14_000);
        assert_eq!(values, [Sample::new("voltage", "V", 1.75), Sample::new("moisture", "%", 50.0)]);
        assert!((converted(-8)[0].value + 0.001).abs() < 1e-12);
    }

    #[test]
    fn a_probe_that_reads_beyond_its_two_points_is_not_cut_off() {
        let moisture = |steps| converted(steps)[1].value;
        assert!((moisture(21_200) + 10.0).abs() < 1e-9, "2.65 V");
        assert!((moisture(0) - 166.666_666_667).abs() < 1e-6);
    }

    #[test]
    fn an_input_at_its_end_is_doubtful() {
        let values = converted(i16::MAX);
        assert!(values[0].doubtful && values[1].doubtful);
    }

    #[test]
    fn a_chip_that_lost_its_settings_meanwhile_is_an_error() {
        // 0x8583 is what it starts with.
        let values = read(&[look([0x85, 0x83])]);
        assert!(matches!(values, Err(SensorError::Wrong(_))), "{values:?}");
    }

    #[test]
    fn a_conversion_without_end_is_late() {
        let busy = vec![look([0b0110_0011, 0b1000_0011]); LOOKS];
        assert_eq!(read(&busy), Err(SensorError::Late));
    }
}
