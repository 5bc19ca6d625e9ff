//! A sensor that is not there: a temperature and a humidity that wander about a mean.

use super::{Sample, Sensor, SensorError};

const TEMPERATURE: (f64, f64) = (27.0, 0.3);
const HUMIDITY: (f64, f64) = (72.0, 0.8);
/// How much of the way back to the mean each step goes.
const PULL: f64 = 0.02;

/// The same seed wanders the same way.
pub(super) struct Simulated {
    random: fastrand::Rng,
    temperature: f64,
    humidity: f64,
}

impl Simulated {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), temperature: TEMPERATURE.0, humidity: HUMIDITY.0 }
    }

    fn wander(&mut self, from: f64, (mean, step): (f64, f64)) -> f64 {
        from + (mean - from) * PULL + (self.random.f64() - 0.5) * 2.0 * step
    }
}

impl Sensor for Simulated {
    fn read(&mut self) -> Result<Vec<Sample>, SensorError> {
        self.temperature = self.wander(self.temperature, TEMPERATURE);
        self.humidity = self.wander(self.humidity, HUMIDITY).clamp(0.0, 100.0);
        // As fine as a real one shows it.
        let rounded = |value: f64| (value * 100.0).round() / 100.0;
        Ok(vec![
            Sample::new("temperature", "Cel", rounded(self.temperature)),
            Sample::new("humidity", "%RH", rounded(self.humidity)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_wanders_the_same_way_and_never_far() {
        let walk = |seed| {
            let mut sensor = Simulated::new(seed);
            (0..5_000).flat_map(|_| sensor.read().unwrap()).collect::<Vec<_>>()
        };
        let values = walk(7);
        assert_eq!(values, walk(7));
        assert_ne!(values, walk(8));
        let far = |value: &&Sample| value.unit == "Cel" && !(10.0..45.0).contains(&value.value);
        assert_eq!(values.iter().find(far), None);
    }
}
