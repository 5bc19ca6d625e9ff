//! INA219 and INA226: voltage, current and power of a line with a shunt in it.
//! (TI's data sheets SBOS448 and SBOS547.)
//!
//! Both can reckon the current themselves, from a calibration that they forget when their power fails for
//! a moment; they say 0 A then. So the shunt's voltage is read, and Ohm's law applied here.

use super::registers::Registers;
use super::{Sample, Sensor, SensorError};
use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;

const CONFIG: u8 = 0x00;
const SHUNT: u8 = 0x01;
const BUS: u8 = 0x02;

/// INA219: 32 V, ±320 mV, 12 bits, both voltages all the time.
const INA219_CONFIG: u16 = 0x399F;
/// Until the first pair of values is there.
const INA219_FIRST_MS: u32 = 2;
const INA219_SHUNT_STEP: f64 = 10e-6;
const INA219_SHUNT_END: i16 = 32_000;
const INA219_BUS_STEP: f64 = 4e-3;

/// INA226: 16 means of 1.1 ms each, both voltages all the time: a value every 35 ms.
const INA226_CONFIG: u16 = 0x4527;
const INA226_FIRST_MS: u32 = 40;
const INA226_SHUNT_STEP: f64 = 2.5e-6;
const INA226_BUS_STEP: f64 = 1.25e-3;
const MANUFACTURER: u8 = 0xFE;
const TEXAS_INSTRUMENTS: u16 = 0x5449;

/// The settings must be the ones that were written at the beginning, or the steps mean something else.
fn still_set<B: I2c>(chip: &mut Registers<B>, config: u16) -> Result<(), SensorError> {
    match chip.word(CONFIG)? {
        found if found == config => Ok(()),
        _ => Err(SensorError::Wrong("the chip was reset or used by another program".to_owned())),
    }
}

fn samples(volts: f64, shunt_volts: f64, shunt_ohms: f64, beyond: bool) -> Vec<Sample> {
    let amperes = shunt_volts / shunt_ohms;
    vec![
        Sample::new("voltage", "V", volts),
        Sample::new("current", "A", amperes).doubtful_if(beyond),
        Sample::new("power", "W", volts * amperes).doubtful_if(beyond),
    ]
}

pub(super) struct Ina219<B> {
    chip: Registers<B>,
    shunt_ohms: f64,
}

impl<B: I2c> Ina219<B> {
    pub(super) fn open(
        bus: B,
        address: u8,
        shunt_ohms: f64,
        mut delay: impl DelayNs,
    ) -> Result<Self, SensorError> {
        let mut chip = Registers::new(bus, address);
        chip.set_word(CONFIG, INA219_CONFIG)?;
        delay.delay_ms(INA219_FIRST_MS);
        Ok(Self { chip, shunt_ohms })
    }
}

impl<B: I2c> Sensor for Ina219<B> {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError> {
        still_set(&mut self.chip, INA219_CONFIG)?;
        let shunt = self.chip.signed(SHUNT)?;
        // Three bits of flags stand below the number.
        let volts = f64::from(self.chip.word(BUS)? >> 3) * INA219_BUS_STEP;
        let beyond = shunt.unsigned_abs() >= INA219_SHUNT_END.unsigned_abs();
        Ok(samples(volts, f64::from(shunt) * INA219_SHUNT_STEP, self.shunt_ohms, beyond))
    }
}

pub(super) struct Ina226<B> {
    chip: Registers<B>,
    shunt_ohms: f64,
}

impl<B: I2c> Ina226<B> {
    pub(super) fn open(
        bus: B,
        address: u8,
        shunt_ohms: f64,
        mut delay: impl DelayNs,
    ) -> Result<Self, SensorError> {
        let mut chip = Registers::new(bus, address);
        let manufacturer = chip.word(MANUFACTURER)?;
        if manufacturer != TEXAS_INSTRUMENTS {
            return Err(SensorError::Wrong(format!(
                "this is no INA226 (its maker is {manufacturer:#06x}); is it an INA219?"
            )));
        }
        chip.set_word(CONFIG, INA226_CONFIG)?;
        delay.delay_ms(INA226_FIRST_MS);
        Ok(Self { chip, shunt_ohms })
    }
}

impl<B: I2c> Sensor for Ina226<B> {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError> {
        still_set(&mut self.chip, INA226_CONFIG)?;
        let shunt = self.chip.signed(SHUNT)?;
        let volts = f64::from(self.chip.word(BUS)?) * INA226_BUS_STEP;
        let beyond = matches!(shunt, i16::MIN | i16::MAX);
        Ok(samples(volts, f64::from(shunt) * INA226_SHUNT_STEP, self.shunt_ohms, beyond))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal_mock::eh1::delay::NoopDelay;
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

    fn register(number: u8, value: u16) -> Transaction {
        Transaction::write_read(0x40, vec![number], value.to_be_bytes().to_vec())
    }

    fn ina219(config: u16, shunt: u16, bus: u16) -> Result<Vec<Sample>, SensorError> {
        let mut mock = vec![Transaction::write(0x40, vec![0, 0x39, 0x9F]), register(0, config)];
        if config == INA219_CONFIG {
            mock.extend([register(1, shunt), register(2, bus)]);
        }
        let mut mock = Mock::new(&mock);
        let values = Ina219::open(mock.clone(), 0x40, 0.002, NoopDelay).and_then(|mut sensor| sensor.read());
        mock.done();
        values
    }

    fn ina226(maker: u16, shunt: u16, bus: u16) -> Result<Vec<Sample>, SensorError> {
        let mut mock = vec![register(0xFE, maker)];
        if maker == TEXAS_INSTRUMENTS {
            mock.extend([
                Transaction::write(0x40, vec![0, 0x45, 0x27]),
                register(0, INA226_CONFIG),
                register(1, shunt),
                register(2, bus),
            ]);
        }
        let mut mock = Mock::new(&mock);
        let values = Ina226::open(mock.clone(), 0x40, 0.002, NoopDelay).and_then(|mut sensor| sensor.read());
        mock.done();
        values
    }

    fn close(values: &[Sample], expected: [(&str, &str, f64); 3]) {
        for (value, (quantity, unit, number)) in values.iter().zip(expected) {
            assert_eq!((value.quantity, value.unit), (quantity, unit));
            assert!((value.value - number).abs() < 1e-9, "{values:?}");
        }
    }

    /// Both data sheets work the same example: 11.98 V, and 20 mV over 2 mΩ: 10 A, 119.8 W.
    const EXAMPLE: [(&str, &str, f64); 3] =
        [("voltage", "V", 11.98), ("current", "A", 10.0), ("power", "W", 119.8)];

    #[test]
    fn an_ina219_reads_as_in_the_data_sheets_example() {
        // 0x5D98 is 2,995 × 4 mV above three flag bits; "conversion ready" is set here.
        close(&ina219(INA219_CONFIG, 0x07D0, 0x5D9A).unwrap(), EXAMPLE);
    }

    #[test]
    fn an_ina226_reads_as_in_the_data_sheets_example() {
        close(&ina226(TEXAS_INSTRUMENTS, 0x1F40, 0x2570).unwrap(), EXAMPLE);
    }

    #[test]
    fn current_may_flow_back_into_the_battery() {
        let values = ina219(INA219_CONFIG, (-2_000_i16).cast_unsigned(), 0x5D98).unwrap();
        close(&values, [("voltage", "V", 11.98), ("current", "A", -10.0), ("power", "W", -119.8)]);
    }

    #[test]
    fn a_shunt_at_its_end_makes_current_and_power_doubtful_and_not_the_voltage() {
        for values in [
            ina219(INA219_CONFIG, (-32_000_i16).cast_unsigned(), 0x5D98).unwrap(),
            ina226(TEXAS_INSTRUMENTS, 0x7FFF, 0x2570).unwrap(),
        ] {
            assert_eq!(values.iter().map(|value| value.doubtful).collect::<Vec<_>>(), [false, true, true]);
        }
    }

    #[test]
    fn a_chip_that_lost_its_settings_or_is_another_is_an_error() {
        assert!(matches!(ina219(0x019F, 0, 0), Err(SensorError::Wrong(_))));
        assert!(matches!(ina226(0, 0, 0), Err(SensorError::Wrong(text)) if text.contains("INA219")));
    }
}
