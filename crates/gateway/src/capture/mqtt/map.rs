//! From a message to readings, as the configuration maps its topic. Pure.
//!
//! Each message is for one map at most. A map says which fields of a payload are readings. Payloads with a
//! structure of their own (a meter's registers, a vendor's binary format) would be a second kind of map, beside
//! [`Map`], giving the same [`Read`].

use super::filter::{Filter, Parts, Template};
use crate::config;
use lumbung_shared::reading::{Quality, ReadingContent, SeriesName, Unit};
use lumbung_shared::time::parse_rfc3339;
use serde_json::Value;

/// Longest payload that is looked into.
pub(super) const PAYLOAD_BYTES: usize = 64 << 10;
/// Most fields of one map: what one message becomes is kept in one transaction.
const MOST_FIELDS: usize = 64;
/// The years 2020 to 2099. A device that thinks it is another has no clock.
const BELIEVABLE_MS: std::ops::Range<i64> = 1_577_836_800_000..4_102_444_800_000;
/// Numbers from here on are milliseconds since 1970, smaller ones seconds.
const MILLISECONDS_FROM: f64 = 100_000_000_000.0;

/// A map that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("mqtt.map {topic:?}: {problem}")]
pub struct MapError {
    topic: String,
    problem: String,
}

/// All maps; no two of them are for the same topic.
#[derive(Debug)]
pub struct MqttMaps(Vec<Map>);

#[derive(Debug)]
struct Map {
    filter: Filter,
    time: Option<String>,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    /// JSON pointer; empty for the whole payload.
    pointer: String,
    series: Template,
    unit: Unit,
    scale: f64,
    offset: f64,
    plausible: Option<[f64; 2]>,
}

/// What is in one message.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    pub(super) readings: Vec<ReadingContent>,
    /// Why the message, or one of its fields, is none.
    pub(super) unreadable: Option<Unreadable>,
}

/// Why something is not a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// A stable code.
    pub(super) reason: &'static str,
    /// The JSON pointer of the field, or what else it is about.
    pub(super) about: String,
}

impl Unreadable {
    fn new(reason: &'static str, about: impl Into<String>) -> Self {
        Self { reason, about: about.into() }
    }
}

impl MqttMaps {
    pub fn parse(maps: &[config::MqttMap]) -> Result<Self, MapError> {
        let mut parsed: Vec<Map> = Vec::new();
        for map in maps {
            let wrong = |problem| MapError { topic: map.topic.clone(), problem };
            let fresh = Map::parse(map).map_err(wrong)?;
            if let Some(other) = parsed.iter().find(|other| other.filter.overlaps(&fresh.filter)) {
                let problem = format!(
                    "some topics are also for the map of {}; give each topic one map with all its fields",
                    other.filter
                );
                return Err(wrong(problem));
            }
            parsed.push(fresh);
        }
        Ok(Self(parsed))
    }

    /// What the broker is asked for.
    pub(super) fn filters(&self) -> Vec<String> {
        self.0.iter().map(|map| map.filter.to_string()).collect()
    }

    /// What a message says; `None` when no map is for its topic.
    pub(super) fn read(&self, topic: &str, payload: &[u8]) -> Option<Read> {
        self.0.iter().find_map(|map| map.filter.parts(topic).map(|parts| map.read(&parts, payload)))
    }
}

impl Map {
    fn parse(map: &config::MqttMap) -> Result<Self, String> {
        let filter = Filter::parse(&map.topic)?;
        if map.fields.is_empty() || map.fields.len() > MOST_FIELDS {
            return Err(format!("must have 1 to {MOST_FIELDS} fields"));
        }
        let fields = map.fields.iter().map(|field| Field::parse(field, &filter)).collect::<Result<_, _>>()?;
        let time = map.time.clone();
        if let Some(time) = &time {
            check_pointer(time)?;
        }
        Ok(Self { filter, time, fields })
    }

    fn read(&self, parts: &Parts<'_>, payload: &[u8]) -> Read {
        let unreadable = |reason, about: String| Read {
            unreadable: Some(Unreadable::new(reason, about)),
            ..Read::default()
        };
        if payload.len() > PAYLOAD_BYTES {
            return unreadable("too_large", format!("{} bytes", payload.len()));
        }
        let Ok(text) = str::from_utf8(payload) else {
            return unreadable("not_text", String::new());
        };
        // Whatever is not JSON is a text, and a text may be a number.
        let payload = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        let at_ms = self.time.as_deref().and_then(|time| payload.pointer(time)).and_then(time_ms);
        let mut read = Read::default();
        for field in &self.fields {
            match field.read(parts, &payload, at_ms) {
                Ok(Some(reading)) => read.readings.push(reading),
                Ok(None) => {}
                Err(error) => read.unreadable = read.unreadable.or(Some(error)),
            }
        }
        // Devices leave out what they have nothing to say about; one that says nothing at all is misunderstood.
        if read == Read::default() {
            let pointers: Vec<_> = self.fields.iter().map(|field| field.pointer.as_str()).collect();
            read.unreadable = Some(Unreadable::new("no_field", pointers.join(" ")));
        }
        read
    }
}

impl Field {
    fn parse(field: &config::MqttField, filter: &Filter) -> Result<Self, String> {
        check_pointer(&field.pointer)?;
        let series = Template::parse(&field.series, filter)?;
        let unit = Unit::parse(&field.unit).map_err(|error| error.to_string())?;
        if !field.scale.is_finite() || field.scale == 0.0 || !field.offset.is_finite() {
            return Err("scale must be a number other than 0, offset a number".to_owned());
        }
        if field
            .plausible
            .is_some_and(|[least, most]| !matches!(least.partial_cmp(&most), Some(o) if o.is_lt()))
        {
            return Err("plausible must be the least and the most, such as [-40, 85]".to_owned());
        }
        let (scale, offset, plausible) = (field.scale, field.offset, field.plausible);
        Ok(Self { pointer: field.pointer.clone(), series, unit, scale, offset, plausible })
    }

    /// `None` when the payload does not have the field.
    fn read(
        &self,
        parts: &Parts<'_>,
        payload: &Value,
        at_ms: Option<i64>,
    ) -> Result<Option<ReadingContent>, Unreadable> {
        let raw = match payload.pointer(&self.pointer) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::Bool(on)) => Some(f64::from(u8::from(*on))),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        let Some(raw) = raw else {
            return Err(Unreadable::new("not_a_number", &self.pointer));
        };
        let value = raw * self.scale + self.offset;
        if !value.is_finite() {
            return Err(Unreadable::new("not_finite", &self.pointer));
        }
        let series = self.series.fill(parts);
        let series = SeriesName::parse(&series).map_err(|_| Unreadable::new("bad_series", series))?;
        let quality = match self.plausible {
            Some([least, most]) if !(least..=most).contains(&value) => Quality::Implausible,
            _ => Quality::Good,
        };
        Ok(Some(ReadingContent { series, unit: self.unit.clone(), value, quality, at_ms }))
    }
}

fn check_pointer(pointer: &str) -> Result<(), String> {
    if pointer.is_empty() || pointer.starts_with('/') {
        Ok(())
    } else {
        Err(format!("{pointer:?} is not a JSON pointer, such as \"/data/temperature\""))
    }
}

/// The device's own time. One that cannot be is left out: the gateway's stands.
fn time_ms(value: &Value) -> Option<i64> {
    let ms = match value {
        Value::String(text) => parse_rfc3339(text)?,
        Value::Number(number) => {
            let number = number.as_f64()?;
            // A float's cast keeps within the range of the integer.
            (if number < MILLISECONDS_FROM { number * 1_000.0 } else { number }).round() as i64
        }
        _ => return None,
    };
    BELIEVABLE_MS.contains(&ms).then_some(ms)
}

/// Whatever a device sends, and wherever, becomes readings within their limits or has a reason, or is nobody's.
#[cfg(any(test, fuzzing))]
pub fn must_hold(maps: &MqttMaps, topic: &str, payload: &[u8]) {
    let Some(read) = maps.read(topic, payload) else { return };
    assert!(read.unreadable.is_some() || !read.readings.is_empty());
    for reading in read.readings {
        assert_eq!(reading.check(), Ok(()), "{reading:?}");
        assert!(reading.at_ms.is_none_or(|ms| BELIEVABLE_MS.contains(&ms)), "{reading:?}");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::capture::mqtt) fn maps(toml: &str) -> Result<MqttMaps, MapError> {
        #[derive(serde::Deserialize)]
        struct File {
            map: Vec<config::MqttMap>,
        }
        let file = ::config::Config::builder()
            .add_source(::config::File::from_str(toml, ::config::FileFormat::Toml))
            .build()
            .unwrap();
        MqttMaps::parse(&file.try_deserialize::<File>().unwrap().map)
    }

    const FRIDGE: &str = r#"
        [[map]]
        topic = "kulkas/{device}/suhu"
        fields = [{ series = "{device}/temperature", unit = "Cel", plausible = [-40, 60] }]

        [[map]]
        topic = "zigbee2mqtt/{device}"
        time = "/last_seen"
        fields = [
            { pointer = "/temperature", series = "{device}/temperature", unit = "Cel" },
            { pointer = "/humidity", series = "{device}/humidity", unit = "%RH", plausible = [0, 100] },
            { pointer = "/battery/0", series = "{device}/battery", unit = "V", scale = 0.001, offset = 0.5 },
        ]
    "#;

    fn told(topic: &str, payload: &str) -> Vec<(String, f64, Quality)> {
        let read = maps(FRIDGE).unwrap().read(topic, payload.as_bytes()).unwrap();
        assert_eq!(read.unreadable, None, "{payload}");
        read.readings.into_iter().map(|r| (r.series.as_str().to_owned(), r.value, r.quality)).collect()
    }

    fn why(topic: &str, payload: &[u8]) -> &'static str {
        maps(FRIDGE).unwrap().read(topic, payload).unwrap().unreadable.unwrap().reason
    }

    #[test]
    fn a_plain_number_becomes_a_reading_of_the_device_in_its_topic() {
        for payload in ["4.5", " 4.5\n", "+4.5", "\"4.5\"", "45e-1"] {
            let expected = [("k-1/temperature".to_owned(), 4.5, Quality::Good)];
            assert_eq!(told("kulkas/k-1/suhu", payload), expected, "{payload}");
        }
    }

    #[test]
    fn an_implausible_value_is_kept_and_marked() {
        assert_eq!(told("kulkas/k-1/suhu", "85")[0].2, Quality::Implausible);
        assert_eq!(told("kulkas/k-1/suhu", "60")[0].2, Quality::Good);
    }

    #[test]
    fn several_fields_of_one_payload_are_scaled_and_left_out_where_they_are_not() {
        let all = told("zigbee2mqtt/k-1", r#"{"temperature":4,"humidity":"81.5","battery":[2500]}"#);
        let values: Vec<_> = all.iter().map(|(series, value, _)| (series.as_str(), *value)).collect();
        assert_eq!(values, [("k-1/temperature", 4.0), ("k-1/humidity", 81.5), ("k-1/battery", 3.0)]);
        assert_eq!(told("zigbee2mqtt/k-1", r#"{"temperature":null,"humidity":1}"#).len(), 1);
    }

    #[test]
    fn the_devices_own_time_is_kept_unless_it_cannot_be() {
        let at = |time: &str| {
            let payload = format!(r#"{{"temperature":1,"last_seen":{time}}}"#);
            maps(FRIDGE).unwrap().read("zigbee2mqtt/k", payload.as_bytes()).unwrap().readings[0].at_ms
        };
        let expected = parse_rfc3339("2026-11-21T02:30:00Z");
        for time in [r#""2026-11-21T09:30:00+07:00""#, "1795228200", "1795228200000"] {
            assert_eq!(at(time), expected, "{time}");
        }
        for none in ["0", "12", r#""1970-01-01T00:00:00Z""#, r#""kemarin""#, "true", "null", "1e300"] {
            assert_eq!(at(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_reading_is_told_with_its_reason_and_the_rest_is_kept() {
        assert_eq!(why("kulkas/k-1/suhu", b"dingin"), "not_a_number");
        assert_eq!(why("kulkas/k-1/suhu", b""), "not_a_number");
        assert_eq!(why("kulkas/k-1/suhu", b"[1]"), "not_a_number");
        assert_eq!(why("kulkas/k-1/suhu", b"null"), "no_field");
        assert_eq!(why("kulkas/k-1/suhu", b"NaN"), "not_finite");
        assert_eq!(why("kulkas/k-1/suhu", b"\xff\xfe"), "not_text");
        assert_eq!(why("kulkas/kulkas 1/suhu", b"4"), "bad_series");
        assert_eq!(why("kulkas/k-1/suhu", &vec![b'1'; PAYLOAD_BYTES + 1]), "too_large");
        assert_eq!(why("zigbee2mqtt/k", b"{}"), "no_field");
        let read =
            maps(FRIDGE).unwrap().read("zigbee2mqtt/k", br#"{"temperature":"x","humidity":5}"#).unwrap();
        assert_eq!((read.readings.len(), read.unreadable.unwrap().about.as_str()), (1, "/temperature"));
    }

    #[test]
    fn a_topic_without_a_map_is_nobodys() {
        assert_eq!(maps(FRIDGE).unwrap().read("kulkas/k-1", b"4"), None);
    }

    #[test]
    fn a_map_that_cannot_work_is_refused_by_its_topic() {
        let field = r#"fields = [{ series = "{d}/t", unit = "Cel" }]"#;
        let twice = format!("[[map]]\ntopic = \"a/{{d}}\"\n{field}\n[[map]]\ntopic = \"{{d}}/b\"\n{field}");
        assert!(maps(&twice).unwrap_err().to_string().contains("a/+"), "{twice}");
        for bad in [r#"topic = "a/{d}/#/x""#, r#"topic = "a""#, "topic = \"{d}\"\ntime = \"last_seen\""] {
            let bad = format!("[[map]]\n{bad}\n{field}");
            assert!(maps(&bad).is_err(), "{bad}");
        }
        for bad in [
            r#"{ series = "{d}/t", unit = "° C" }"#,
            r#"{ series = "{d}/t", unit = "Cel", scale = 0.0 }"#,
            r#"{ series = "{d}/t", unit = "Cel", plausible = [3, 1] }"#,
            r#"{ series = "{d}/t", unit = "Cel", pointer = "suhu" }"#,
        ] {
            let bad = format!("[[map]]\ntopic = \"a/{{d}}\"\nfields = [{bad}]");
            assert!(maps(&bad).is_err(), "{bad}");
        }
        assert!(maps("[[map]]\ntopic = \"a\"\nfields = []").is_err());
    }

    proptest! {
        #[test]
        fn whatever_a_device_sends_is_finite_readings_or_a_reason(
            topic in "kulkas/[^/]{0,8}/suhu|zigbee2mqtt/\\PC{0,8}|\\PC{0,20}",
            payload in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                any::<f64>().prop_map(|value| value.to_string().into_bytes()),
                r#"\{"temperature":[-0-9.e"]{0,12},"humidity":(\PC{0,6}|null|\{\}),"last_seen":[-0-9."T:Z]{0,20}\}"#
                    .prop_map(String::into_bytes),
            ],
        ) {
            must_hold(&maps(FRIDGE).unwrap(), &topic, &payload);
        }
    }
}
