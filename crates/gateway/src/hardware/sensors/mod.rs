//! Sensors on the Pi's own pins, each read from its data sheet.
//!
//! ```text
//! i2c, sensirion ─▶ bme280, sht4x, scd4x, bh1750, ads1115, ina2xx, tmp105, ds18b20, simulated ─▶ device ─▶ bus
//! ```
//!
//! What must stay true:
//! - A driver trusts no state in its chip: one that lost its power for a moment and came back either reads
//!   right or is an error, and after an error it is set up anew. That is why current is reckoned from the
//!   shunt's voltage and not read from a register that needs a calibration.
//! - What cannot be a measurement (a checksum that is wrong, a conversion that was skipped) is an error;
//!   what is a measurement but hardly the truth (an input beyond its range) is handed on as doubtful.
//! - No read takes longer than a few seconds, whatever the chip answers.

mod ads1115;
mod bh1750;
mod bme280;
mod bus;
mod device;
mod ds18b20;
mod ina2xx;
mod registers;
mod scd4x;
mod sensirion;
mod sht4x;
mod simulated;
mod tmp105;

pub use ads1115::Soil;
pub use bus::{Answer, Bus, BusEnded, Opener};
pub use device::{Device, I2cAddress, Quantity, w1_folder};

use embedded_hal::i2c;
use std::time::Duration;

/// Reads one sensor. Blocks, so it runs on its bus's own thread.
pub trait Sensor {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError>;
}

/// One measured value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What was measured, such as `temperature`.
    pub quantity: &'static str,
    /// Its SenML unit, such as `Cel`.
    pub unit: &'static str,
    pub value: f64,
    /// The sensor itself gives reason to doubt it.
    pub doubtful: bool,
}

impl Sample {
    fn new(quantity: &'static str, unit: &'static str, value: f64) -> Self {
        Self { quantity, unit, value, doubtful: false }
    }

    fn doubtful_if(mut self, doubtful: bool) -> Self {
        self.doubtful = doubtful;
        self
    }
}

/// Why a sensor gave no values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SensorError {
    #[error("nothing answers at its address: check its wires and its address")]
    Absent,
    #[error("the bus failed: {0}")]
    Bus(String),
    #[error("a checksum is wrong: check for long or loose wires")]
    Checksum,
    #[error("it did not finish measuring in time")]
    Late,
    #[error("{0}")]
    Wrong(String),
    #[error("its bus does not answer: something on it holds the line")]
    Stuck,
}

impl SensorError {
    /// The reason as programs read it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Bus(_) => "bus_failed",
            Self::Checksum => "checksum",
            Self::Late => "late",
            Self::Wrong(_) => "wrong_answer",
            Self::Stuck => "stuck",
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
    fn of(error: impl i2c::Error) -> Self {
        match error.kind() {
            i2c::ErrorKind::NoAcknowledge(_) => Self::Absent,
            _ => Self::Bus(format!("{error:?}")),
        }
    }
}

/// Pauses on the bus's thread.
#[derive(Debug, Clone, Copy)]
struct Sleep;

impl embedded_hal::delay::DelayNs for Sleep {
    fn delay_ns(&mut self, ns: u32) {
        std::thread::sleep(Duration::from_nanos(u64::from(ns)));
    }
}
