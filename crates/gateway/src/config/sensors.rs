//! `[[sensor]]`: what is written, and what it comes to.

use super::ConfigError;
use crate::hardware::sensors::{Device, I2cAddress, Quantity, Soil, w1_folder};
use chrono::Utc;
use croner::parser::{CronParser, Seconds};
use lumbung_shared::reading::{SeriesName, Unit};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

const SHORTEST: Duration = Duration::from_secs(1);
/// What an SCD4x needs for a measurement.
const SHORTEST_SCD4X: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(86_400);
const HEARTBEAT: Duration = Duration::from_secs(900);
const HIGHEST_M: u16 = 3_000;
const CHANNELS: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Bme280,
    Sht4x,
    Scd4x,
    Bh1750,
    Ads1115,
    Ina219,
    Ina226,
    Tmp105,
    Ds18b20,
    Simulated,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bme280 => "bme280",
            Self::Sht4x => "sht4x",
            Self::Scd4x => "scd4x",
            Self::Bh1750 => "bh1750",
            Self::Ads1115 => "ads1115",
            Self::Ina219 => "ina219",
            Self::Ina226 => "ina226",
            Self::Tmp105 => "tmp105",
            Self::Ds18b20 => "ds18b20",
            Self::Simulated => "simulated",
        }
    }
}

/// One `[[sensor]]` as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensor {
    name: String,
    kind: Kind,
    #[serde(default)]
    address: String,
    #[serde(default, with = "humantime_serde")]
    every: Option<Duration>,
    cron: Option<String>,
    #[serde(default)]
    report_change: BTreeMap<String, f64>,
    #[serde(default, with = "humantime_serde")]
    heartbeat: Option<Duration>,
    #[serde(default)]
    range: BTreeMap<String, [f64; 2]>,
    #[serde(default)]
    offset: BTreeMap<String, f64>,
    #[serde(default)]
    rename: BTreeMap<String, String>,
    shunt_ohms: Option<f64>,
    channel: Option<u8>,
    dry_volts: Option<f64>,
    wet_volts: Option<f64>,
    altitude_m: Option<u16>,
    seed: Option<u64>,
}

/// A sensor that can be read: every key of it has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorPlan {
    pub name: String,
    pub kind: Kind,
    /// As it is written; empty for a simulated one.
    pub address: String,
    pub device: Device,
    pub turns: Turns,
    /// How long a value that does not change may go unreported.
    pub heartbeat: Duration,
    /// One for each quantity of the device, in its order.
    pub series: Vec<SeriesPlan>,
}

/// When a sensor is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turns {
    Every(Duration),
    /// Six fields, the Pi's local time.
    Cron(String),
}

/// What becomes of one quantity of a sensor.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesPlan {
    pub name: SeriesName,
    pub unit: Unit,
    /// Added to what the sensor says.
    pub offset: f64,
    /// What lies outside is kept and marked.
    pub plausible: RangeInclusive<f64>,
    /// Smaller changes are not reported; `None`: every value is.
    pub report_change: Option<f64>,
}

/// What the configured sensors come to, or the first thing that is wrong with them.
pub(super) fn plans(sensors: &[Sensor]) -> Result<Vec<SensorPlan>, ConfigError> {
    let (mut plans, mut names): (Vec<SensorPlan>, BTreeSet<SeriesName>) = Default::default();
    for (at, sensor) in sensors.iter().enumerate() {
        let unusable = |problem: String| {
            let name = if sensor.name.is_empty() { (at + 1).to_string() } else { sensor.name.clone() };
            ConfigError::unusable(format!("sensor \"{name}\""), problem)
        };
        let plan = sensor.plan().map_err(unusable)?;
        if let Some(twin) = plans.iter().find(|earlier| earlier.same_place(&plan)) {
            let problem = format!("{} is the address of sensor \"{}\" already", plan.address, twin.name);
            return Err(unusable(problem));
        }
        for series in &plan.series {
            if !names.insert(series.name.clone()) {
                return Err(unusable(format!("there is a series {} already", series.name.as_str())));
            }
        }
        plans.push(plan);
    }
    Ok(plans)
}

impl SensorPlan {
    fn same_place(&self, other: &Self) -> bool {
        match (&self.device, &other.device) {
            (Device::Simulated { .. }, _) | (_, Device::Simulated { .. }) => false,
            // One input each.
            (Device::Ads1115 { channel: a, .. }, Device::Ads1115 { channel: b, .. }) if a != b => false,
            _ => self.address == other.address,
        }
    }
}

impl Sensor {
    fn plan(&self) -> Result<SensorPlan, String> {
        self.no_strange_keys()?;
        let device = self.device()?;
        device.check_address().map_err(|problem| format!("address: {problem}"))?;
        let quantities = device.quantities();
        self.no_strange_quantities(&quantities)?;
        if self.heartbeat.is_some() && self.report_change.is_empty() {
            return Err("heartbeat: means nothing without report_change, every value is reported then".into());
        }
        let series =
            quantities.into_iter().map(|quantity| self.series(quantity)).collect::<Result<_, _>>()?;
        Ok(SensorPlan {
            name: self.name.clone(),
            kind: self.kind,
            address: self.address.clone(),
            device,
            turns: self.turns()?,
            heartbeat: self.heartbeat.unwrap_or(HEARTBEAT),
            series,
        })
    }

    /// A key that would be passed over in silence is most likely meant for another kind.
    fn no_strange_keys(&self) -> Result<(), String> {
        use Kind::{Ads1115, Ina219, Ina226, Scd4x, Simulated};
        let keys: [(&str, bool, &[Kind]); 6] = [
            ("shunt_ohms", self.shunt_ohms.is_some(), &[Ina219, Ina226]),
            ("channel", self.channel.is_some(), &[Ads1115]),
            ("dry_volts", self.dry_volts.is_some(), &[Ads1115]),
            ("wet_volts", self.wet_volts.is_some(), &[Ads1115]),
            ("altitude_m", self.altitude_m.is_some(), &[Scd4x]),
            ("seed", self.seed.is_some(), &[Simulated]),
        ];
        match keys.iter().find(|(_, given, kinds)| *given && !kinds.contains(&self.kind)) {
            Some((key, ..)) => Err(format!("{key}: a sensor of kind {} has no such key", self.kind.name())),
            None => Ok(()),
        }
    }

    fn no_strange_quantities(&self, quantities: &[Quantity]) -> Result<(), String> {
        let named = [
            ("report_change", self.report_change.keys().collect::<Vec<_>>()),
            ("range", self.range.keys().collect()),
            ("offset", self.offset.keys().collect()),
            ("rename", self.rename.keys().collect()),
        ];
        for (key, names) in named {
            if let Some(strange) = names.iter().find(|name| !quantities.iter().any(|q| q.name == **name)) {
                let known: Vec<_> = quantities.iter().map(|quantity| quantity.name).collect();
                return Err(format!("{key}.{strange}: this sensor measures {}", known.join(", ")));
            }
        }
        Ok(())
    }

    fn device(&self) -> Result<Device, String> {
        let wrong = |problem: String| format!("address: {problem}");
        let i2c = || self.address.parse::<I2cAddress>().map_err(wrong);
        Ok(match self.kind {
            Kind::Bme280 => Device::Bme280(i2c()?),
            Kind::Sht4x => Device::Sht4x(i2c()?),
            Kind::Bh1750 => Device::Bh1750(i2c()?),
            Kind::Tmp105 => Device::Tmp105(i2c()?),
            Kind::Scd4x => {
                let altitude_m = self.altitude_m.unwrap_or(0);
                if altitude_m > HIGHEST_M {
                    return Err(format!("altitude_m: must be at most {HIGHEST_M}"));
                }
                Device::Scd4x { at: i2c()?, altitude_m }
            }
            Kind::Ads1115 => {
                let channel = self.channel.ok_or("channel: which of its inputs is wired, 0 to 3?")?;
                if channel >= CHANNELS {
                    return Err(format!("channel: must be 0 to {}", CHANNELS - 1));
                }
                Device::Ads1115 { at: i2c()?, channel, soil: self.soil()? }
            }
            Kind::Ina219 => Device::Ina219 { at: i2c()?, shunt_ohms: self.shunt()? },
            Kind::Ina226 => Device::Ina226 { at: i2c()?, shunt_ohms: self.shunt()? },
            Kind::Ds18b20 => Device::Ds18b20(w1_folder(&self.address).map_err(wrong)?),
            Kind::Simulated if !self.address.is_empty() => {
                return Err("address: a simulated sensor has none".to_owned());
            }
            Kind::Simulated => Device::Simulated { seed: self.seed.unwrap_or(1) },
        })
    }

    fn soil(&self) -> Result<Option<Soil>, String> {
        match (self.dry_volts, self.wet_volts) {
            (None, None) => Ok(None),
            (Some(dry_volts), Some(wet_volts)) if (dry_volts - wet_volts).abs() >= 0.01 => {
                Ok(Some(Soil { dry_volts, wet_volts }))
            }
            (Some(_), Some(_)) => {
                Err("dry_volts, wet_volts: are the same; measure the probe in the air and \
                                       in water, and write down both voltages"
                    .to_owned())
            }
            _ => Err("dry_volts and wet_volts belong together".to_owned()),
        }
    }

    fn shunt(&self) -> Result<f64, String> {
        let ohms = self.shunt_ohms.ok_or("shunt_ohms: is needed; most modules have 0.1 (printed R100)")?;
        if ohms > 0.0 && ohms.is_finite() { Ok(ohms) } else { Err("shunt_ohms: must be above 0".to_owned()) }
    }

    fn turns(&self) -> Result<Turns, String> {
        match (self.every, &self.cron) {
            (Some(every), None) => {
                let shortest = if self.kind == Kind::Scd4x { SHORTEST_SCD4X } else { SHORTEST };
                if !(shortest..=LONGEST).contains(&every) {
                    return Err(format!("every: must be between {} s and one day", shortest.as_secs()));
                }
                Ok(Turns::Every(every))
            }
            (None, Some(cron)) => {
                check_cron(cron)?;
                Ok(Turns::Cron(cron.clone()))
            }
            _ => Err("give either every = \"60s\" or cron = \"0 */10 * * * *\"".to_owned()),
        }
    }

    fn series(&self, quantity: Quantity) -> Result<SeriesPlan, String> {
        let Quantity { name, unit, plausible } = quantity;
        let last = self.rename.get(name).map_or(name, String::as_str);
        if self.name.is_empty() || last.is_empty() {
            return Err("name, rename: must not be empty".to_owned());
        }
        let series = SeriesName::parse(&format!("{}/{last}", self.name));
        let series = series.map_err(|error| format!("name, rename: {}/{last} {}", self.name, error.words))?;
        let plausible = match self.range.get(name) {
            Some([low, high]) if low < high => *low..=*high,
            Some(_) => return Err(format!("range.{name}: the first number must be the smaller")),
            None => plausible,
        };
        let report_change = self.report_change.get(name).copied();
        if report_change.is_some_and(|change| !(change >= 0.0 && change.is_finite())) {
            return Err(format!("report_change.{name}: must be 0 or more"));
        }
        let offset = self.offset.get(name).copied().unwrap_or(0.0);
        if !offset.is_finite() {
            return Err(format!("offset.{name}: must be a number"));
        }
        let unit = Unit::parse(unit).map_err(|error| error.to_string())?;
        Ok(SeriesPlan { name: series, unit, offset, plausible, report_change })
    }
}

/// The scheduler passes over what will never be; a sensor that is never read must be said.
fn check_cron(text: &str) -> Result<(), String> {
    // As the scheduler reads it.
    let parser = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build();
    let cron = parser.parse(text).map_err(|error| {
        format!(
            "cron: \"{text}\" cannot be read ({error}). It has six fields, second minute hour day month \
             weekday: \"0 */10 * * * *\" is every ten minutes, \"0 0 6,18 * * *\" at 6 and at 18 o'clock"
        )
    })?;
    cron.find_next_occurrence(&Utc::now(), false)
        .map(|_| ())
        .map_err(|_| format!("cron: \"{text}\" is a time that never comes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(toml: &str) -> Result<Vec<SensorPlan>, String> {
        #[derive(Deserialize)]
        struct Whole {
            sensor: Vec<Sensor>,
        }
        let file = config::File::from_str(toml, config::FileFormat::Toml);
        let whole = config::Config::builder().add_source(file).build().unwrap();
        let whole: Whole = whole.try_deserialize().map_err(|error| error.to_string())?;
        plans(&whole.sensor).map_err(|error| error.to_string())
    }

    fn bme280(more: &str) -> String {
        format!(
            "[[sensor]]\nname = \"kulkas-1\"\nkind = \"bme280\"\naddress = \"i2c:/dev/i2c-1@0x76\"\n{more}\n"
        )
    }

    #[test]
    fn a_sensor_with_every_key_comes_to_a_plan() {
        let plans = plan(&bme280(
            "every = \"60s\"\nreport_change = { temperature = 0.2 }\nheartbeat = \"5m\"\n\
             range = { temperature = [-10, 40.5] }\noffset = { temperature = -0.4 }\n\
             rename = { temperature = \"suhu\" }",
        ))
        .unwrap();
        let [plan] = plans.as_slice() else { panic!("{plans:?}") };
        assert_eq!(plan.turns, Turns::Every(Duration::from_secs(60)));
        assert_eq!(plan.heartbeat, Duration::from_secs(300));
        let names: Vec<_> = plan.series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names, ["kulkas-1/suhu", "kulkas-1/humidity", "kulkas-1/pressure"]);
        let suhu = &plan.series[0];
        assert_eq!((suhu.offset, suhu.report_change), (-0.4, Some(0.2)));
        assert_eq!(suhu.plausible, -10.0..=40.5);
        assert_eq!(plan.series[1].plausible, 0.0..=100.0, "the data sheet's");
    }

    #[test]
    fn a_schedule_is_one_of_two_and_can_come_true() {
        let turns = |text: &str| plan(&bme280(text)).map(|plans| plans[0].turns.clone());
        let morning = "0 0 6,18 * * *";
        assert_eq!(turns(&format!("cron = \"{morning}\"")), Ok(Turns::Cron(morning.to_owned())));
        for (wrong, told) in [
            ("", "either every"),
            ("every = \"1m\"\ncron = \"0 * * * * *\"", "either every"),
            ("every = \"10ms\"", "every: must be between 1 s"),
            ("cron = \"* * * * *\"", "six fields"),
            ("cron = \"0 0 0 30 2 *\"", "never comes"),
        ] {
            let problem = turns(wrong).unwrap_err();
            assert!(problem.starts_with("sensor \"kulkas-1\": ") && problem.contains(told), "{problem}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_sensor_is_said_with_what_to_do() {
        let ina = "[[sensor]]\nname = \"aki\"\nevery = \"9s\"\nkind = \"ina219\"\naddress = \"i2c:/dev/i2c-1@0x40\"\n";
        let ads = "[[sensor]]\nname = \"tanah\"\nevery = \"9s\"\nkind = \"ads1115\"\naddress = \"i2c:/dev/i2c-1@0x48\"\n";
        let every = |more: &str| bme280(&format!("every = \"9s\"\n{more}"));
        for (text, told) in [
            (every("channel = 1"), "channel: a sensor of kind bme280"),
            (every("offset = { light = 1 }"), "offset.light: this sensor measures temperature, humidity"),
            (every("heartbeat = \"1m\""), "without report_change"),
            (every("range = { humidity = [60, 20] }"), "range.humidity"),
            (every("report_change = { humidity = -1 }"), "report_change.humidity"),
            (every("rename = { humidity = \"ke lembapan\" }"), "kulkas-1/ke lembapan"),
            (every("rename = { humidity = \"temperature\" }"), "kulkas-1/temperature already"),
            (every("").replace("0x76", "0x44"), "only at 0x76, 0x77"),
            (every("").replace("0x76", "76"), "i2cdetect"),
            (every("").replace("kulkas-1", ""), "sensor \"1\""),
            (every("") + &every("").replace("kulkas-1", "b"), "address of sensor \"kulkas-1\" already"),
            (every("") + &every("").replace("0x76", "0x77"), "kulkas-1/temperature already"),
            (ina.to_owned(), "shunt_ohms"),
            (format!("{ina}shunt_ohms = 0"), "shunt_ohms"),
            (ads.to_owned(), "channel"),
            (format!("{ads}channel = 4"), "0 to 3"),
            (format!("{ads}channel = 0\ndry_volts = 2.5"), "belong together"),
            (format!("{ads}channel = 0\ndry_volts = 2.5\nwet_volts = 2.5"), "measure the probe"),
            (every("").replace("bme280", "bme281"), "bme281"),
            (every("evry = 1"), "evry"),
        ] {
            let problem = plan(&text).unwrap_err();
            assert!(problem.contains(told), "{told:?} is not in: {problem}");
        }
        let two_inputs = format!("{ads}channel = 0\n{}channel = 1\n", ads.replace("tanah", "tanah-2"));
        assert_eq!(plan(&two_inputs).unwrap().len(), 2);
    }
}
