//! SenML JSON (RFC 8428) as readings. Pure.
//!
//! Base fields hold for their own record and for those after it. A record that has nothing but base fields is no
//! reading. What is neither a number nor true or false is refused, record by record.

use super::readings::{Wrong, reading};
use crate::clock::Moment;
use crate::words::FieldProblem;
use lumbung_shared::reading::ReadingContent;
use lumbung_shared::time::ClockState;
use serde_json::{Map, Value};

/// The version of SenML that RFC 8428 describes.
const VERSION: f64 = 10.0;
/// Times below this many seconds are relative to now.
const RELATIVE: f64 = 268_435_456.0;
/// The unit of what is on or off.
const ON_OFF: &str = "1";

/// What holds until a record says otherwise.
#[derive(Default)]
struct Base<'a> {
    name: &'a str,
    unit: Option<&'a str>,
    value: f64,
    time: f64,
}

/// A reading, nothing, or what is wrong, for each record.
pub(super) fn read(
    records: &[Map<String, Value>],
    now: &Moment,
    prefix: &str,
) -> Vec<Result<Option<ReadingContent>, Wrong>> {
    let mut base = Base::default();
    records.iter().map(|record| one(record, &mut base, now, prefix)).collect()
}

fn one<'a>(
    record: &'a Map<String, Value>,
    base: &mut Base<'a>,
    now: &Moment,
    prefix: &str,
) -> Result<Option<ReadingContent>, Wrong> {
    if let Some(name) = text(record, "bn")? {
        base.name = name;
    }
    if let Some(unit) = text(record, "bu")? {
        base.unit = Some(unit);
    }
    if let Some(value) = number(record, "bv")? {
        base.value = value;
    }
    if let Some(time) = number(record, "bt")? {
        base.time = time;
    }
    if number(record, "bver")?.is_some_and(|version| version > VERSION) {
        return Err(("bver", FieldProblem::NotUnderstood));
    }
    // Fields that must be understood end so (section 4.4), and we know none.
    if record.keys().any(|field| field.ends_with('_')) {
        return Err(("_", FieldProblem::NotUnderstood));
    }
    for field in ["vs", "vd", "s"] {
        if record.contains_key(field) {
            return Err((field, FieldProblem::NotKept));
        }
    }
    let (value, on) = (number(record, "v")?, record.get("vb"));
    let own_unit = text(record, "u")?.or(base.unit);
    let (value, unit) = match (value, on) {
        (Some(_), Some(_)) => return Err(("vb", FieldProblem::NotNumber)),
        (Some(value), None) => (value + base.value, own_unit.ok_or(("u", FieldProblem::Missing))?),
        (None, Some(Value::Bool(on))) => (f64::from(u8::from(*on)), own_unit.unwrap_or(ON_OFF)),
        (None, Some(_)) => return Err(("vb", FieldProblem::NotNumber)),
        (None, None) if ["n", "u", "t", "ut"].iter().any(|field| record.contains_key(*field)) => {
            return Err(("v", FieldProblem::Missing));
        }
        (None, None) => return Ok(None),
    };
    let name = format!("{prefix}{}{}", base.name, text(record, "n")?.unwrap_or_default());
    let at_ms = at_ms(base.time + number(record, "t")?.unwrap_or_default(), now);
    reading("n", &name, "u", unit, value, at_ms).map(Some)
}

/// "Now" is left to the store's own stamp, and so is a time before now on a clock that knows no time of day.
fn at_ms(time: f64, now: &Moment) -> Option<i64> {
    // A float's cast keeps within the range of the integer.
    let ms = (time * 1_000.0).round() as i64;
    if time >= RELATIVE {
        Some(ms)
    } else if ms == 0 || now.state == ClockState::Unset {
        None
    } else {
        Some(now.wall_ms.saturating_add(ms))
    }
}

fn text<'a>(record: &'a Map<String, Value>, field: &'static str) -> Result<Option<&'a str>, Wrong> {
    match record.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err((field, FieldProblem::NotText)),
    }
}

fn number(record: &Map<String, Value>, field: &'static str) -> Result<Option<f64>, Wrong> {
    match record.get(field) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or((field, FieldProblem::NotNumber)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW_MS: i64 = 1_795_228_200_000;

    fn read_at(state: ClockState, records: &Value) -> Vec<Result<Option<ReadingContent>, &'static str>> {
        let now = Moment { mono_ms: 0, wall_ms: NOW_MS, state };
        let records: Vec<_> =
            records.as_array().unwrap().iter().map(|record| record.as_object().unwrap().clone()).collect();
        let outcomes = read(&records, &now, "");
        outcomes.into_iter().map(|outcome| outcome.map_err(|(field, _)| field)).collect()
    }

    fn told(records: &Value) -> Vec<(String, String, f64, Option<i64>)> {
        let readings = read_at(ClockState::Held, records);
        readings
            .into_iter()
            .filter_map(Result::unwrap)
            .map(|r| (r.series.as_str().to_owned(), r.unit.as_str().to_owned(), r.value, r.at_ms))
            .collect()
    }

    fn wrong(record: &Value) -> &'static str {
        read_at(ClockState::Held, &json!([record])).remove(0).unwrap_err()
    }

    #[test]
    fn base_fields_hold_for_their_record_and_for_those_after_it() {
        let pack = json!([
            { "bn": "urn:dev:ow:10e2073a01080063:", "bt": 1_795_228_000.5, "bu": "A", "bv": 1, "n": "v", "u": "V", "v": 119.1 },
            { "n": "c", "t": -5, "v": 0.2 },
            { "bn": "k-1/", "bv": 0, "n": "door", "vb": true, "u": "1" },
        ]);
        let name = |n| format!("urn:dev:ow:10e2073a01080063:{n}");
        assert_eq!(
            told(&pack),
            [
                (name("v"), "V".to_owned(), 120.1, Some(1_795_228_000_500)),
                (name("c"), "A".to_owned(), 1.2, Some(1_795_227_995_500)),
                ("k-1/door".to_owned(), "1".to_owned(), 1.0, Some(1_795_228_000_500)),
            ]
        );
    }

    #[test]
    fn small_times_are_relative_to_now_and_now_is_left_to_the_store() {
        let at = |state, t: f64| {
            let pack = json!([{ "n": "a", "u": "Cel", "v": 1, "t": t }]);
            read_at(state, &pack).remove(0).unwrap().unwrap().at_ms
        };
        assert_eq!(at(ClockState::Held, -60.0), Some(NOW_MS - 60_000));
        assert_eq!(at(ClockState::Held, 0.0), None);
        assert_eq!(at(ClockState::Held, RELATIVE), Some(268_435_456_000));
        assert_eq!(at(ClockState::Unset, -60.0), None);
    }

    #[test]
    fn a_record_of_base_fields_alone_is_no_reading() {
        assert_eq!(told(&json!([{ "bn": "a", "bu": "Cel" }, { "v": 3 }])).len(), 1);
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_its_field() {
        for (record, field) in [
            (json!({ "n": "a", "vs": "buka" }), "vs"),
            (json!({ "n": "a", "vd": "aGk" }), "vd"),
            (json!({ "n": "a", "u": "J", "v": 1, "s": 5 }), "s"),
            (json!({ "n": "a", "v": 1 }), "u"),
            (json!({ "n": "a", "u": "Cel" }), "v"),
            (json!({ "u": "Cel", "v": 1 }), "n"),
            (json!({ "n": "a b", "u": "Cel", "v": 1 }), "n"),
            (json!({ "n": "a", "u": "Cel", "v": "1" }), "v"),
            (json!({ "n": "a", "u": "Cel", "v": 1, "vb": true }), "vb"),
            (json!({ "n": "a", "u": "Cel", "v": 1, "bver": 11 }), "bver"),
            (json!({ "n": "a", "u": "Cel", "v": 1, "bx_": 1 }), "_"),
            (json!({ "n": "a", "u": "Cel", "v": 1.7e308, "bv": 1.7e308 }), "value"),
        ] {
            assert_eq!(wrong(&record), field);
        }
        let twice =
            read_at(ClockState::Held, &json!([{ "n": "a", "u": "Cel", "v": 1 }, { "n": "b", "vs": "x" }]));
        assert!(twice[0].is_ok() && twice[1].is_err());
    }
}
