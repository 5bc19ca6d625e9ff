//! Which sensor, where it is, what it measures, and how it is opened.

use super::ads1115::{Ads1115, Soil};
use super::bh1750::Bh1750;
use super::bme280::Bme280;
use super::bus::Opener;
use super::ds18b20::Ds18b20;
use super::ina2xx::{Ina219, Ina226};
use super::scd4x::Scd4x;
use super::sht4x::Sht4x;
use super::simulated::Simulated;
use super::tmp105::Tmp105;
use super::{Sensor, SensorError, Sleep};
use crate::hardware::i2c::PiI2c;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A sensor and all that is needed to read it.
#[derive(Debug, Clone, PartialEq)]
pub enum Device {
    Bme280(I2cAddress),
    Sht4x(I2cAddress),
    Scd4x {
        at: I2cAddress,
        altitude_m: u16,
    },
    Bh1750(I2cAddress),
    Ads1115 {
        at: I2cAddress,
        channel: u8,
        soil: Option<Soil>,
    },
    Ina219 {
        at: I2cAddress,
        shunt_ohms: f64,
    },
    Ina226 {
        at: I2cAddress,
        shunt_ohms: f64,
    },
    Tmp105(I2cAddress),
    /// The sensor's own folder.
    Ds18b20(PathBuf),
    Simulated {
        seed: u64,
    },
}

/// What a sensor measures, in which unit, and between which values its data sheet says it can.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    pub name: &'static str,
    pub unit: &'static str,
    pub plausible: RangeInclusive<f64>,
}

const EVERYTHING: RangeInclusive<f64> = f64::MIN..=f64::MAX;

fn quantity(name: &'static str, unit: &'static str, plausible: RangeInclusive<f64>) -> Quantity {
    Quantity { name, unit, plausible }
}

fn temperature(plausible: RangeInclusive<f64>) -> Quantity {
    quantity("temperature", "Cel", plausible)
}

fn humidity() -> Quantity {
    quantity("humidity", "%RH", 0.0..=100.0)
}

fn line(most_volts: f64) -> Vec<Quantity> {
    vec![
        quantity("voltage", "V", 0.0..=most_volts),
        // As much as the shunt is made for; the chip says itself when it is too much.
        quantity("current", "A", EVERYTHING),
        quantity("power", "W", EVERYTHING),
    ]
}

impl Device {
    /// What it measures. Every reading of it has one value for each.
    pub fn quantities(&self) -> Vec<Quantity> {
        match self {
            Self::Bme280(_) => {
                let pressure = quantity("pressure", "Pa", 30_000.0..=110_000.0);
                vec![temperature(-40.0..=85.0), humidity(), pressure]
            }
            Self::Sht4x(_) => vec![temperature(-40.0..=125.0), humidity()],
            // There is no air with less carbon dioxide: a sensor that says 0 has measured nothing.
            Self::Scd4x { .. } => {
                vec![quantity("co2", "ppm", 300.0..=40_000.0), temperature(-10.0..=60.0), humidity()]
            }
            Self::Bh1750(_) => vec![quantity("illuminance", "lx", 0.0..=54_612.5)],
            Self::Ads1115 { soil, .. } => {
                let voltage = quantity("voltage", "V", -0.3..=5.5);
                let moisture = soil.map(|_| quantity("moisture", "%", -10.0..=110.0));
                [Some(voltage), moisture].into_iter().flatten().collect()
            }
            Self::Ina219 { .. } => line(26.0),
            Self::Ina226 { .. } => line(36.0),
            Self::Tmp105(_) => vec![temperature(-55.0..=128.0)],
            Self::Ds18b20(_) => vec![temperature(-55.0..=125.0)],
            Self::Simulated { .. } => vec![temperature(-40.0..=85.0), humidity()],
        }
    }

    /// Sensors on one bus are read one after the other, those on another bus beside them.
    pub fn bus(&self) -> String {
        match self.at() {
            Some(at) => format!("i2c-{}", at.bus),
            None if matches!(self, Self::Ds18b20(_)) => "w1".to_owned(),
            None => "simulated".to_owned(),
        }
    }

    fn at(&self) -> Option<I2cAddress> {
        match self {
            Self::Bme280(at) | Self::Sht4x(at) | Self::Bh1750(at) | Self::Tmp105(at) => Some(*at),
            Self::Scd4x { at, .. } | Self::Ads1115 { at, .. } => Some(*at),
            Self::Ina219 { at, .. } | Self::Ina226 { at, .. } => Some(*at),
            Self::Ds18b20(_) | Self::Simulated { .. } => None,
        }
    }

    /// The addresses that a sensor of this kind can have on its bus.
    pub fn possible_addresses(&self) -> &'static [u8] {
        match self {
            Self::Bme280(_) => &[0x76, 0x77],
            Self::Sht4x(_) => &[0x44, 0x45, 0x46],
            Self::Scd4x { .. } => &[0x62],
            Self::Bh1750(_) => &[0x23, 0x5C],
            Self::Ads1115 { .. } => &[0x48, 0x49, 0x4A, 0x4B],
            Self::Ina219 { .. } | Self::Ina226 { .. } => &[
                0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x4B, 0x4C, 0x4D, 0x4E,
                0x4F,
            ],
            Self::Tmp105(_) => &[0x48, 0x49, 0x4A, 0x4B, 0x4C, 0x4D, 0x4E, 0x4F],
            Self::Ds18b20(_) | Self::Simulated { .. } => &[],
        }
    }

    /// What is wrong with its address, if anything is.
    pub fn check_address(&self) -> Result<(), String> {
        let (Some(at), possible) = (self.at(), self.possible_addresses()) else { return Ok(()) };
        if possible.contains(&at.address) {
            return Ok(());
        }
        let possible: Vec<String> = possible.iter().map(|address| format!("{address:#04x}")).collect();
        Err(format!(
            "a sensor of this kind cannot be at {:#04x}, only at {}",
            at.address,
            possible.join(", ")
        ))
    }

    /// What opens it, as often as is needed.
    pub fn opener(&self) -> Opener {
        let device = self.clone();
        Box::new(move || device.open())
    }

    /// Opens the bus and sets the sensor up. Each has the bus open for itself; the kernel puts transfers in turn.
    pub fn open(&self) -> Result<Box<dyn Sensor>, SensorError> {
        let bus = |at: &I2cAddress| PiI2c::open(at.bus).map_err(|error| SensorError::Bus(error.to_string()));
        Ok(match self {
            Self::Bme280(at) => Box::new(Bme280::open(bus(at)?, at.address, Sleep)?),
            Self::Sht4x(at) => Box::new(Sht4x::new(bus(at)?, at.address, Sleep)),
            Self::Scd4x { at, altitude_m } => {
                Box::new(Scd4x::open(bus(at)?, at.address, *altitude_m, Sleep)?)
            }
            Self::Bh1750(at) => Box::new(Bh1750::new(bus(at)?, at.address, Sleep)),
            Self::Ads1115 { at, channel, soil } => {
                Box::new(Ads1115::new(bus(at)?, at.address, *channel, *soil, Sleep))
            }
            Self::Ina219 { at, shunt_ohms } => {
                Box::new(Ina219::open(bus(at)?, at.address, *shunt_ohms, Sleep)?)
            }
            Self::Ina226 { at, shunt_ohms } => {
                Box::new(Ina226::open(bus(at)?, at.address, *shunt_ohms, Sleep)?)
            }
            Self::Tmp105(at) => Box::new(Tmp105::new(bus(at)?, at.address)),
            Self::Ds18b20(folder) => Box::new(Ds18b20::new(folder)),
            Self::Simulated { seed } => Box::new(Simulated::new(*seed)),
        })
    }
}

/// A place on an I2C bus: `i2c:/dev/i2c-1@0x76`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct I2cAddress {
    bus: u8,
    address: u8,
}

impl FromStr for I2cAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.strip_prefix("i2c:/dev/i2c-").and_then(|rest| {
            let (bus, address) = rest.split_once('@')?;
            let address = u8::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
            Some(Self { bus: bus.parse().ok()?, address })
        });
        parsed.ok_or_else(|| {
            format!(
                "\"{text}\" is not written as i2c:/dev/i2c-1@0x76 (`i2cdetect -y 1` shows who answers there)"
            )
        })
    }
}

impl fmt::Display for I2cAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i2c:/dev/i2c-{}@{:#04x}", self.bus, self.address)
    }
}

/// The folder of a 1-Wire sensor: `w1:28-0316a2794bff`, or `w1:` and the folder's whole path.
pub fn w1_folder(text: &str) -> Result<PathBuf, String> {
    let folder = text.strip_prefix("w1:").map(|id| match id.starts_with('/') {
        true => PathBuf::from(id),
        false => Path::new("/sys/bus/w1/devices").join(id),
    });
    // 28 is the family of the DS18B20.
    let named = |folder: &PathBuf| {
        folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("28-"))
    };
    folder.filter(named).ok_or_else(|| {
        format!(
            "\"{text}\" is not written as w1:28-0316a2794bff (`ls /sys/bus/w1/devices` shows who is there)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_bus_and_a_place_on_it() {
        let at: I2cAddress = "i2c:/dev/i2c-1@0x76".parse().unwrap();
        assert_eq!(
            (at, at.to_string().as_str()),
            (I2cAddress { bus: 1, address: 0x76 }, "i2c:/dev/i2c-1@0x76")
        );
        for wrong in ["", "0x76", "i2c:/dev/i2c-1", "i2c:/dev/i2c-1@76", "i2c:/dev/i2c-x@0x76", "i2c:1@0x76"]
        {
            assert!(wrong.parse::<I2cAddress>().unwrap_err().contains("i2cdetect"), "{wrong}");
        }
    }

    #[test]
    fn an_address_that_a_sensor_cannot_have_is_said_with_those_it_can() {
        let at = "i2c:/dev/i2c-1@0x44".parse().unwrap();
        assert_eq!(Device::Sht4x(at).check_address(), Ok(()));
        let problem = Device::Bme280(at).check_address().unwrap_err();
        assert!(problem.contains("0x44") && problem.contains("0x76, 0x77"), "{problem}");
    }

    #[test]
    fn a_1_wire_sensor_is_named_by_its_id_or_by_its_folder() {
        assert_eq!(w1_folder("w1:28-0316"), Ok("/sys/bus/w1/devices/28-0316".into()));
        assert_eq!(w1_folder("w1:/tmp/w1/28-0316"), Ok("/tmp/w1/28-0316".into()));
        for wrong in ["28-0316", "w1:", "w1:10-0008", "w1:/"] {
            assert!(w1_folder(wrong).unwrap_err().contains("/sys/bus/w1/devices"), "{wrong}");
        }
    }

    #[test]
    fn a_bus_that_does_not_exist_is_an_error_with_its_reason() {
        let at = "i2c:/dev/i2c-199@0x76".parse().unwrap();
        assert!(matches!(Device::Bme280(at).open().err(), Some(SensorError::Bus(_))));
    }
}
