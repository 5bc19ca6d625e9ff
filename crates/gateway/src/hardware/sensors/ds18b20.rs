//! DS18B20 on the 1-Wire pin: the kernel talks to it, and gives its answer as two lines of text.
//!
//! The kernel's `w1_slave` is read before its `temperature`, because only it says whether the checksum
//! was right; some kernels have only the other.

use super::{Sample, Sensor, SensorError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What the chip holds when its power has just come and nothing has been measured. It is a temperature
/// like any other, so it cannot be thrown away.
const POWER_ON_MILLI: i32 = 85_000;

pub(super) struct Ds18b20 {
    folder: PathBuf,
}

impl Ds18b20 {
    /// `folder` is the sensor's own, such as `/sys/bus/w1/devices/28-0316a2794bff`.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn file(&self, name: &str) -> Result<Option<String>, SensorError> {
        match std::fs::read_to_string(self.folder.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SensorError::Bus(error.to_string())),
        }
    }

    fn milli(&self) -> Result<i32, SensorError> {
        if let Some(text) = self.file("w1_slave")? {
            return of_two_lines(&text);
        }
        let text = self.file("temperature")?.ok_or(SensorError::Absent)?;
        number(text.trim())
    }
}

/// `… : crc=5a YES` and `… t=23125`.
fn of_two_lines(text: &str) -> Result<i32, SensorError> {
    let mut lines = text.lines();
    if !lines.next().is_some_and(|line| line.trim_end().ends_with("YES")) {
        return Err(SensorError::Checksum);
    }
    let value = lines.next().and_then(|line| line.rsplit_once("t=")).map(|(_, value)| value.trim());
    number(value.unwrap_or_default())
}

fn number(text: &str) -> Result<i32, SensorError> {
    text.parse().map_err(|_| SensorError::Wrong(format!("the kernel gave \"{text}\" for a temperature")))
}

impl Sensor for Ds18b20 {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError> {
        let milli = self.milli()?;
        let sample = Sample::new("temperature", "Cel", f64::from(milli) / 1_000.0);
        Ok(vec![sample.doubtful_if(milli == POWER_ON_MILLI)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Sample, SensorError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Ds18b20::new(dir.path()).read().map(|mut samples| samples.remove(0))
    }

    const GOOD: &str = "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n";

    #[test]
    fn the_kernels_two_lines_are_a_temperature() {
        assert_eq!(read(&[("w1_slave", GOOD)]), Ok(Sample::new("temperature", "Cel", 23.125)));
        let cold = GOOD.replace("t=23125", "t=-10125");
        assert_eq!(read(&[("w1_slave", &cold)]).unwrap().value, -10.125);
    }

    #[test]
    fn a_kernel_that_only_gives_the_number_is_understood() {
        assert_eq!(read(&[("temperature", "4562\n")]).unwrap().value, 4.562);
    }

    #[test]
    fn a_wrong_checksum_is_an_error_whatever_the_number_says() {
        assert_eq!(read(&[("w1_slave", &GOOD.replace("YES", "NO"))]), Err(SensorError::Checksum));
        assert_eq!(read(&[("w1_slave", "")]), Err(SensorError::Checksum));
    }

    #[test]
    fn the_power_on_value_is_doubtful_and_its_neighbours_are_not() {
        let doubtful = |milli: &str| read(&[("temperature", milli)]).unwrap().doubtful;
        assert!(doubtful("85000"));
        assert!(!doubtful("84937") && !doubtful("85062"));
    }

    #[test]
    fn a_sensor_that_is_gone_is_absent_and_nonsense_is_said() {
        assert_eq!(read(&[]), Err(SensorError::Absent));
        let nonsense = read(&[("temperature", "warm")]).unwrap_err();
        assert!(nonsense.to_string().contains("warm"), "{nonsense}");
    }
}
