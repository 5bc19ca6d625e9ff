//! BME280: temperature, humidity and air pressure. (Bosch's data sheet BST-BME280-DS002.)
//!
//! A driver of our own: the crates for it reckon in integers that overflow when a broken chip gives
//! nonsense, or wait for the chip without an end.

use super::registers::Registers;
use super::{Sample, Sensor, SensorError};
use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;

const CHIP_ID: u8 = 0xD0;
const BME280: u8 = 0x60;
const BMP280: [u8; 3] = [0x56, 0x57, 0x58];
const RESET: u8 = 0xE0;
const RESET_WORD: u8 = 0xB6;
const STATUS: u8 = 0xF3;
const IS_COPYING: u8 = 1;
const IS_MEASURING: u8 = 1 << 3;
const CONTROL_HUMIDITY: u8 = 0xF2;
const CONTROL: u8 = 0xF4;
const CONFIG: u8 = 0xF5;
const CALIBRATION: u8 = 0x88;
const CALIBRATION_HUMIDITY: u8 = 0xE1;
const DATA: u8 = 0xF7;

/// Each of the three measured once, then asleep: what the data sheet advises for the weather.
const ONCE: u8 = 1;
const MEASURE_ONCE: u8 = 1 << 5 | 1 << 2 | 1;
const START_MS: u32 = 2;
/// The longest that the three take together is 9.3 ms.
const MEASURING_MS: u32 = 10;
const LOOKS: usize = 5;
/// What a value is that was not measured.
const SKIPPED_20: u32 = 0x8_0000;
const SKIPPED_16: u16 = 0x8000;

pub(super) struct Bme280<B, D> {
    chip: Registers<B>,
    calibration: Calibration,
    delay: D,
}

impl<B: I2c, D: DelayNs> Bme280<B, D> {
    pub(super) fn open(bus: B, address: u8, mut delay: D) -> Result<Self, SensorError> {
        let mut chip = Registers::new(bus, address);
        let id = chip.byte(CHIP_ID)?;
        if BMP280.contains(&id) {
            return Err(SensorError::Wrong(
                "this is a BMP280, which is sold as a BME280 but measures no humidity".to_owned(),
            ));
        }
        if id != BME280 {
            return Err(SensorError::Wrong(format!("this is no BME280 (its id is {id:#04x})")));
        }
        chip.set_byte(RESET, RESET_WORD)?;
        settled(&mut chip, IS_COPYING, START_MS, &mut delay)?;
        chip.set_byte(CONFIG, 0)?;
        let calibration = Calibration::of(&chip.bytes(CALIBRATION)?, &chip.bytes(CALIBRATION_HUMIDITY)?);
        if calibration.t1 == 0.0 || calibration.p1 == 0.0 {
            return Err(SensorError::Wrong("its calibration is empty".to_owned()));
        }
        Ok(Self { chip, calibration, delay })
    }
}

fn settled<B: I2c>(
    chip: &mut Registers<B>,
    busy: u8,
    wait_ms: u32,
    delay: &mut impl DelayNs,
) -> Result<(), SensorError> {
    for _ in 0..LOOKS {
        delay.delay_ms(wait_ms);
        if chip.byte(STATUS)? & busy == 0 {
            return Ok(());
        }
    }
    Err(SensorError::Late)
}

impl<B: I2c, D: DelayNs> Sensor for Bme280<B, D> {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError> {
        // Counts only once the other control register is written, and is lost with the power.
        self.chip.set_byte(CONTROL_HUMIDITY, ONCE)?;
        self.chip.set_byte(CONTROL, MEASURE_ONCE)?;
        settled(&mut self.chip, IS_MEASURING, MEASURING_MS, &mut self.delay)?;
        let [p0, p1, p2, t0, t1, t2, h0, h1] = self.chip.bytes(DATA)?;
        let of_20 = |high, middle, low| u32::from_be_bytes([0, high, middle, low]) >> 4;
        let (pressure, temperature) = (of_20(p0, p1, p2), of_20(t0, t1, t2));
        let humidity = u16::from_be_bytes([h0, h1]);
        if temperature == SKIPPED_20 || pressure == SKIPPED_20 || humidity == SKIPPED_16 {
            return Err(SensorError::Wrong("it did not measure all it should".to_owned()));
        }
        let fine = self.calibration.fine(f64::from(temperature));
        Ok(vec![
            Sample::new("temperature", "Cel", fine / 5_120.0),
            Sample::new("humidity", "%RH", self.calibration.humidity(f64::from(humidity), fine)),
            Sample::new("pressure", "Pa", self.calibration.pressure(f64::from(pressure), fine)),
        ])
    }
}

/// The chip's own trimming values, by their names in the data sheet.
#[derive(Debug)]
struct Calibration {
    t1: f64,
    t2: f64,
    t3: f64,
    p1: f64,
    p: [f64; 8],
    h1: f64,
    h2: f64,
    h3: f64,
    h4: f64,
    h5: f64,
    h6: f64,
}

impl Calibration {
    fn of(first: &[u8; 26], second: &[u8; 7]) -> Self {
        let unsigned = |low, high| f64::from(u16::from_le_bytes([low, high]));
        let signed = |low, high| f64::from(i16::from_le_bytes([low, high]));
        let [a, b, c, d, e, f, g, h, rest @ .., _, h1] = *first;
        let mut p = [0.0; 8];
        for (value, pair) in p.iter_mut().zip(rest.as_chunks().0) {
            let [low, high] = *pair;
            *value = signed(low, high);
        }
        let [h2_low, h2_high, h3, h4_high, shared, h5_high, h6] = *second;
        // Twelve bits each, with the sign in the high byte; they share the byte between them.
        let twelve = |high: u8, low: u8| f64::from(i16::from(high.cast_signed()) << 4 | i16::from(low));
        Self {
            t1: unsigned(a, b),
            t2: signed(c, d),
            t3: signed(e, f),
            p1: unsigned(g, h),
            p,
            h1: f64::from(h1),
            h2: signed(h2_low, h2_high),
            h3: f64::from(h3),
            h4: twelve(h4_high, shared & 0x0F),
            h5: twelve(h5_high, shared >> 4),
            h6: f64::from(h6.cast_signed()),
        }
    }

    /// The temperature as the other two formulas want it.
    fn fine(&self, adc: f64) -> f64 {
        let first = (adc / 16_384.0 - self.t1 / 1_024.0) * self.t2;
        let second = (adc / 131_072.0 - self.t1 / 8_192.0).powi(2) * self.t3;
        first + second
    }

    /// In Pa.
    fn pressure(&self, adc: f64, fine: f64) -> f64 {
        let [p2, p3, p4, p5, p6, p7, p8, p9] = self.p;
        let var1 = fine / 2.0 - 64_000.0;
        let var2 = var1 * var1 * p6 / 32_768.0 + var1 * p5 * 2.0;
        let var2 = var2 / 4.0 + p4 * 65_536.0;
        let var1 = (p3 * var1 * var1 / 524_288.0 + p2 * var1) / 524_288.0;
        let var1 = (1.0 + var1 / 32_768.0) * self.p1;
        if var1 == 0.0 {
            // The data sheet's own way out of a division by nothing.
            return 0.0;
        }
        let p = (1_048_576.0 - adc - var2 / 4_096.0) * 6_250.0 / var1;
        p + (p9 * p * p / 2_147_483_648.0 + p * p8 / 32_768.0 + p7) / 16.0
    }

    /// In percent.
    fn humidity(&self, adc: f64, fine: f64) -> f64 {
        let h = fine - 76_800.0;
        let raw = adc - (self.h4 * 64.0 + self.h5 / 16_384.0 * h);
        let slope = 1.0 + self.h6 / 67_108_864.0 * h * (1.0 + self.h3 / 67_108_864.0 * h);
        let h = raw * (self.h2 / 65_536.0 * slope);
        (h * (1.0 - self.h1 * h / 524_288.0)).clamp(0.0, 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal_mock::eh1::delay::NoopDelay;
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

    /// The trimming values of Bosch's worked example for temperature and pressure (in the BMP280's data
    /// sheet, §3.12: the formulas are the same), with a humidity part of a real chip.
    fn calibration() -> ([u8; 26], [u8; 7]) {
        let words: [i32; 12] =
            [27_504, 26_435, -1_000, 36_477, -10_685, 3_024, 2_855, 140, -7, 15_500, -14_600, 6_000];
        let mut first = [0; 26];
        for (bytes, word) in first.chunks_exact_mut(2).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes()[..2]);
        }
        first[25] = 0x4B;
        (first, [0x77, 0x01, 0x00, 0x12, 0x20, 0x03, 0x1E])
    }

    fn register(number: u8, bytes: &[u8]) -> Transaction {
        Transaction::write_read(0x76, vec![number], bytes.to_vec())
    }

    fn set(number: u8, value: u8) -> Transaction {
        Transaction::write(0x76, vec![number, value])
    }

    fn set_up() -> Vec<Transaction> {
        let (first, second) = calibration();
        vec![
            register(0xD0, &[0x60]),
            set(0xE0, 0xB6),
            register(0xF3, &[1]),
            register(0xF3, &[0]),
            set(0xF5, 0),
            register(0x88, &first),
            register(0xE1, &second),
        ]
    }

    fn read(turns: &[Transaction]) -> Result<Vec<Sample>, SensorError> {
        let mut bus = Mock::new(turns);
        let values = Bme280::open(bus.clone(), 0x76, NoopDelay).and_then(|mut sensor| sensor.read());
        bus.done();
        values
    }

    fn measured(data: [u8; 8]) -> Vec<Transaction> {
        let turn = [set(0xF2, 1), set(0xF4, 0x25), register(0xF3, &[8]), register(0xF3, &[0])];
        [set_up(), turn.into(), vec![register(0xF7, &data)]].concat()
    }

    /// 415,148, 519,888 and 24,244 as the registers hold them.
    const EXAMPLE: [u8; 8] = [0x65, 0x5A, 0xC0, 0x7E, 0xED, 0x00, 0x5E, 0xB4];

    #[test]
    fn the_data_sheets_worked_example_comes_out() {
        let values = read(&measured(EXAMPLE)).unwrap();
        assert_eq!(values.iter().map(|value| value.unit).collect::<Vec<_>>(), ["Cel", "%RH", "Pa"]);
        assert!((values[0].value - 25.08).abs() < 0.005, "{values:?}");
        assert!((values[2].value - 100_653.27).abs() < 0.3, "{values:?}");
    }

    #[test]
    fn the_humidity_is_that_of_boschs_integer_formula() {
        // Its result for this temperature (140,177 fine) and these trimming values is 0x8399 / 1,024.
        let (first, second) = calibration();
        let humidity = Calibration::of(&first, &second).humidity(24_244.0, 140_177.0);
        assert!((humidity - f64::from(0x8399) / 1_024.0).abs() < 0.01, "{humidity}");
    }

    #[test]
    fn twelve_bit_trimming_values_may_be_negative() {
        let (first, mut second) = calibration();
        second[3..6].copy_from_slice(&[0xFE, 0x4C, 0xFF]);
        let calibration = Calibration::of(&first, &second);
        // 0xFEC and 0xFF4 with their sign.
        assert_eq!((calibration.h4, calibration.h5), (-20.0, -12.0));
    }

    #[test]
    fn a_value_that_was_not_measured_is_an_error() {
        let mut skipped = EXAMPLE;
        skipped[6..].copy_from_slice(&[0x80, 0x00]);
        assert!(matches!(read(&measured(skipped)), Err(SensorError::Wrong(_))));
    }

    #[test]
    fn a_bmp280_that_was_sold_as_a_bme280_is_recognised() {
        let error = read(&[register(0xD0, &[0x58])]).unwrap_err();
        assert!(error.to_string().contains("BMP280"), "{error}");
    }

    #[test]
    fn a_chip_that_is_never_done_is_late() {
        let mut turns = set_up();
        turns.extend([set(0xF2, 1), set(0xF4, 0x25)]);
        turns.extend(vec![register(0xF3, &[8]); LOOKS]);
        assert_eq!(read(&turns), Err(SensorError::Late));
    }
}
