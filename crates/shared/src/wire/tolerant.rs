//! Columns of any stream read with patience: each value by itself, so that one bad value spoils one record.

use super::Segment;
use super::refusal::{Budget, Refusal, SegmentError, whole_segment};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What the columns of a stream are called. Every stream has `t`, milliseconds since boot as deltas.
pub(super) struct Layout {
    /// One value per record.
    pub(super) each: &'static [&'static str],
    /// Pairs (index, value) that hold from that record on.
    pub(super) from_there_on: &'static [&'static str],
    /// Pairs (index, value) for that record only.
    pub(super) just_there: &'static [&'static str],
}

/// The fields of one record outside its columns, by name; `t` is absolute here.
pub(super) type Object = Map<String, Value>;

/// The columns by name, whatever they are.
pub(super) type Cols<'a> = BTreeMap<String, &'a RawValue>;

/// One record of a stream as it is kept outside the columns.
pub(super) trait Raw: Sized {
    type Record;
    const LAYOUT: Layout;
    /// The fields as what they should be; says which one is not.
    fn from_object(object: Object) -> Result<Self, String>;
    fn into_record(self, seq: i64) -> Result<Self::Record, Refusal>;
}

/// The records of a segment in order, or what could not be read of it.
pub(super) type Read<T> = Result<Vec<Result<T, Refusal>>, SegmentError>;

/// Reads record by record. From all columns `resolver` makes what puts the thing that an index points at in
/// the index's place.
pub(super) fn read<R: Raw, F: Fn(&mut Object)>(
    segment: &Segment,
    seqs: &[i64],
    statuses: &[String],
    budget: &mut Budget,
    resolver: impl FnOnce(&Cols<'_>) -> Result<F, String>,
) -> Read<R::Record> {
    let whole = |why: String, budget: &mut Budget| {
        let refusal = whole_segment(segment, seqs, statuses, "bad_columns", why);
        budget.charge(&refusal)?;
        Ok(vec![Err(refusal)])
    };
    let Ok(cols) = serde_json::from_str::<Cols<'_>>(segment.cols.get()) else {
        return whole("cols is not an object".to_owned(), budget);
    };
    let columns = Columns::of(&cols, &R::LAYOUT, seqs.len());
    let (mut columns, resolve) = match columns.and_then(|columns| Ok((columns, resolver(&cols)?))) {
        Ok(both) => both,
        Err(why) => return whole(why, budget),
    };
    let mut read = Vec::with_capacity(seqs.len());
    for (i, &seq) in seqs.iter().enumerate() {
        let mut object = columns.record(i);
        resolve(&mut object);
        let raw = Value::Object(object.clone()).to_string();
        let refusal = |detail| Refusal { seq, through: seq, reason: "bad_field", detail, raw };
        let record = R::from_object(object).map_err(refusal).and_then(|raw| raw.into_record(seq));
        read.push(charged(record, budget)?);
    }
    Ok(read)
}

/// Reads one record again from what [`Refusal::raw`] kept of it.
pub(super) fn read_raw<R: Raw>(seq: i64, raw: &str) -> Result<R::Record, Refusal> {
    let unreadable =
        |detail: String| Refusal { seq, through: seq, reason: "bad_field", detail, raw: raw.to_owned() };
    let object: Object = serde_json::from_str(raw).map_err(|error| unreadable(error.to_string()))?;
    R::from_object(object).map_err(unreadable)?.into_record(seq)
}

/// Takes what a refusal holds from the budget.
pub(super) fn charged<T>(
    read: Result<T, Refusal>,
    budget: &mut Budget,
) -> Result<Result<T, Refusal>, SegmentError> {
    if let Err(refusal) = &read {
        budget.charge(refusal)?;
    }
    Ok(read)
}

/// Takes the field `name` out of a record as what it should be; an error calls it `called`.
pub(super) fn field<T: DeserializeOwned>(
    object: &mut Object,
    name: &str,
    called: &str,
) -> Result<Option<T>, String> {
    let value = object.remove(name).filter(|value| !value.is_null());
    value.map(serde_json::from_value).transpose().map_err(|error| format!("{called}: {error}"))
}

/// The columns with values that may be anything.
struct Columns {
    t: Vec<Value>,
    /// A missing time breaks the chain of deltas for every record behind it.
    mono: Option<i64>,
    each: Vec<(&'static str, Vec<Value>)>,
    from_there_on: Vec<(&'static str, Pairs)>,
    just_there: Vec<(&'static str, Pairs)>,
}

impl Columns {
    /// # Errors
    /// Names the column whose values cannot be told apart: then no record is safe to take.
    fn of(cols: &Cols<'_>, layout: &Layout, n: usize) -> Result<Self, String> {
        let pairs =
            |name: &&'static str| Ok::<_, String>((*name, Pairs::of(name, raw_values(cols, name)?, n)?));
        Ok(Self {
            t: values(cols, "t")?,
            mono: Some(0),
            each: layout
                .each
                .iter()
                .map(|name| Ok((*name, values(cols, name)?)))
                .collect::<Result<_, String>>()?,
            from_there_on: layout.from_there_on.iter().map(pairs).collect::<Result<_, String>>()?,
            just_there: layout.just_there.iter().map(pairs).collect::<Result<_, String>>()?,
        })
    }

    /// The fields of record `i`; to be asked in order.
    fn record(&mut self, i: usize) -> Object {
        let delta = self.t.get(i).and_then(Value::as_i64);
        self.mono = self.mono.zip(delta).map(|(mono, t)| mono.wrapping_add(t));
        let mut object = Object::new();
        object.insert("t".into(), self.mono.map_or(Value::Null, Value::from));
        for (name, column) in &mut self.each {
            object.insert((*name).to_owned(), column.get_mut(i).map_or(Value::Null, Value::take));
        }
        for (name, pairs) in &mut self.from_there_on {
            object.insert((*name).to_owned(), pairs.still(i));
        }
        for (name, pairs) in &mut self.just_there {
            object.insert((*name).to_owned(), pairs.only_at(i));
        }
        object
    }
}

fn raw_values<'a>(cols: &Cols<'a>, name: &str) -> Result<Vec<&'a RawValue>, String> {
    match cols.get(name) {
        None => Ok(Vec::new()),
        Some(column) => {
            serde_json::from_str(column.get()).map_err(|_| format!("the column {name} is not an array"))
        }
    }
}

/// The values of a column that has no pairs.
pub(super) fn values(cols: &Cols<'_>, name: &str) -> Result<Vec<Value>, String> {
    Ok(raw_values(cols, name)?.into_iter().map(value).collect())
}

/// A value, or what stands there when it is none: half a surrogate pair, 1e999, a well of brackets.
fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| json!({ "unreadable": raw.get() }))
}

/// Pairs of an index and a value that may be anything.
struct Pairs {
    by_index: BTreeMap<usize, Value>,
    current: Value,
}

impl Pairs {
    fn of(name: &str, pairs: Vec<&RawValue>, n: usize) -> Result<Self, String> {
        let mut by_index = BTreeMap::new();
        for pair in pairs {
            let (index, of) = serde_json::from_str::<(usize, &RawValue)>(pair.get())
                .map_err(|_| format!("the column {name} is not made of [index, value]"))?;
            if index >= n || by_index.insert(index, value(of)).is_some() {
                return Err(format!("the column {name} names a record that is not there, or one twice"));
            }
        }
        Ok(Self { by_index, current: Value::Null })
    }

    fn only_at(&mut self, i: usize) -> Value {
        self.by_index.remove(&i).unwrap_or(Value::Null)
    }

    fn still(&mut self, i: usize) -> Value {
        if let Some(value) = self.by_index.remove(&i) {
            self.current = value;
        }
        self.current.clone()
    }
}
