//! JSON bodies of requests: an object is known by the names of its members, at every depth. And the answer that says
//! nothing but that it was done.
//!
//! serde also reads an array as a struct, its members in their order; a document that says `object` would be wrong then,
//! and `[null,null]` a change of a profile. So handlers take [`Json`] and never actix-web's (`tests/house.rs`).
//!
//! And `12.0` is the whole number 12, as JSON Schema has it: there are languages that write it so.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    Visitor,
};
use serde::{Serialize, forward_to_deserialize_any};
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use utoipa::ToSchema;

/// It was done.
#[derive(Serialize, ToSchema)]
#[schema(as = Success)]
pub(crate) struct Done {
    #[schema(example = true)]
    success: bool,
}

impl Done {
    pub(crate) const YES: Self = Self { success: true };
}

/// The body of a request, as [`web::Json`] reads it under the configuration of the application.
#[derive(Debug)]
pub(crate) struct Json<T>(T);

impl<T> Json<T> {
    pub(crate) fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, actix_web::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let read = web::Json::<Strict<T>>::from_request(request, payload);
        Box::pin(async { Ok(Self(read.await?.into_inner().0)) })
    }
}

/// Reads what is not the whole body of a request in the same way.
///
/// # Errors
/// What is no JSON, or not of this form.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str::<Strict<T>>(text).map(|read| read.0)
}

/// What was read by names.
struct Strict<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Strict<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(ByName(deserializer)).map(Self)
    }
}

macro_rules! whole {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.deserialize_any(Within { visitor, wanted: Wanted::Whole })
        }
    )*};
}

/// A deserializer of JSON, or a part of one, that takes structs from objects only.
struct ByName<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ByName<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Within { visitor, wanted: Wanted::Any })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Within { visitor, wanted: Wanted::Object })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Within { visitor, wanted: Wanted::Any })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        // serde_json's own name for a part that is kept as it was written.
        if name == "$serde_json::private::RawValue" {
            return self.0.deserialize_newtype_struct(name, visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Within { visitor, wanted: Wanted::Any })
    }

    whole! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_ignored_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier
    }
}

/// A visitor that hands on what lies within as [`ByName`].
struct Within<V> {
    visitor: V,
    wanted: Wanted,
}

#[derive(PartialEq, Eq)]
enum Wanted {
    Any,
    /// Only an object will do.
    Object,
    /// A whole number, however it is written.
    Whole,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Within<V> {
    type Value = V::Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wanted == Wanted::Object {
            out.write_str("an object with named members")
        } else {
            self.visitor.expecting(out)
        }
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<V::Value, E> {
        self.visitor.visit_bool(v)
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<V::Value, E> {
        self.visitor.visit_i64(v)
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<V::Value, E> {
        self.visitor.visit_u64(v)
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<V::Value, E> {
        // Beyond this, neighbours are more than 1 apart: nobody knows which whole number was meant.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if self.wanted == Wanted::Whole && v.fract() == 0.0 && v.abs() <= EXACT {
            return self.visitor.visit_i64(v as i64);
        }
        self.visitor.visit_f64(v)
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<V::Value, E> {
        self.visitor.visit_str(v)
    }

    fn visit_borrowed_str<E: Error>(self, v: &'de str) -> Result<V::Value, E> {
        self.visitor.visit_borrowed_str(v)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(ByName(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(ByName(access))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(ByName(access))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for ByName<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(ByName(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for ByName<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(ByName(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for ByName<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(ByName(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

/// What is read by names is read again as it is written, and serde itself would have read the same, but for whole
/// numbers with a point.
#[cfg(any(test, fuzzing))]
pub fn must_hold(text: &str) {
    use sample::Outer;
    let (strict, plain) = (read::<Outer>(text), serde_json::from_str::<Outer>(text));
    if let Ok(outer) = &strict {
        let again = serde_json::to_string(outer).unwrap_or_default();
        assert_eq!(read::<Outer>(&again).ok().as_ref(), Some(outer), "{again}");
        assert!(plain.is_err() || plain.ok().as_ref() == Some(outer), "{text}");
    } else if plain.is_ok() {
        let error = strict.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("sequence, expected an object"), "{error}: {text}");
    }
}

/// A body with everything in it that a body may have.
#[cfg(any(test, fuzzing))]
mod sample {
    use serde::Serialize;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    pub(super) struct Outer {
        pub(super) name: Option<String>,
        #[serde(default)]
        pub(super) inner: Vec<Inner>,
        pub(super) last: Option<Inner>,
        #[serde(flatten)]
        pub(super) rest: Rest,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
    pub(super) struct Inner {
        pub(super) number: i64,
        pub(super) share: f64,
        pub(super) place: (i32, i32),
        pub(super) kind: Kind,
    }

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    pub(super) struct Rest {
        pub(super) sure: bool,
        pub(super) more: Option<Inner>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Serialize, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub(super) enum Kind {
        Kitchen,
        Farm,
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{Inner, Kind, Outer, Rest};
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Outer, String> {
        super::read(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_array_is_no_object_at_any_depth() {
        let inner = r#"{"number":1,"share":0.5,"place":[1,2],"kind":"farm"}"#;
        assert!(read(&format!(r#"{{"sure":true,"inner":[{inner}],"last":{inner},"more":{inner}}}"#)).is_ok());
        let row = r#"[1,0.5,[1,2],"farm"]"#;
        for bad in [
            r#"["x",[],null,true,null]"#.to_owned(),
            format!(r#"{{"sure":true,"inner":[{row}]}}"#),
            format!(r#"{{"sure":true,"last":{row}}}"#),
        ] {
            // What serde itself would take.
            let said = read(&bad).unwrap_err();
            assert!(said.contains("sequence, expected"), "{bad}: {said}");
        }
        assert!(serde_json::from_str::<Inner>(row).is_ok(), "serde no longer reads arrays as structs");
        let said = serde_json::from_str::<Strict<Inner>>(row).err().map(|error| error.to_string());
        assert!(said.unwrap().starts_with("invalid type: sequence, expected an object with named members"));
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point_and_no_other_may() {
        let read = |number: &str| {
            let text = format!(r#"{{"number":{number},"share":0,"place":[1.0,2e0],"kind":"farm"}}"#);
            serde_json::from_str::<Strict<Inner>>(&text).map(|read| (read.0.number, read.0.place)).ok()
        };
        assert_eq!(read("12.0"), Some((12, (1, 2))));
        assert_eq!((read("-3e3"), read("-0.0")), (Some((-3000, (1, 2))), Some((0, (1, 2)))));
        for bad in ["12.5", "1e300", "9007199254740994.0", "true", "null"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_member_that_comes_twice_is_refused() {
        assert!(read(r#"{"sure":true,"name":"a","name":"b"}"#).unwrap_err().contains("duplicate field"));
    }

    fn inner() -> impl Strategy<Value = Inner> {
        let kind = prop_oneof![Just(Kind::Kitchen), Just(Kind::Farm)];
        // Shares that are written as short as they are.
        (any::<i64>(), any::<i32>(), any::<(i32, i32)>(), kind).prop_map(|(number, eighths, place, kind)| {
            Inner { number, share: f64::from(eighths) / 8.0, place, kind }
        })
    }

    proptest! {
        #[test]
        fn whatever_serde_writes_is_read_the_same(
            name: Option<String>,
            list in prop::collection::vec(inner(), 0..3),
            last in prop::option::of(inner()),
            more in prop::option::of(inner()),
            sure: bool,
        ) {
            let outer = Outer { name, inner: list, last, rest: Rest { sure, more } };
            let text = serde_json::to_string(&outer).unwrap();
            prop_assert_eq!(read(&text), Ok(outer));
            must_hold(&text);
        }

        #[test]
        fn whatever_is_sent_is_read_as_serde_would_have_but_for_points_and_arrays(
            text in r#"\{"sure":true(,"name":(null|"\PC{0,4}"))?(,"inner":\[(\{"number":-?[0-9]{1,4}(\.[05]|e[0-3])?,"share":[0-9.]{1,5},"place":\[[0-9.]{1,4},1\],"kind":"(farm|x)"\})?\])?(,"more":(null|\[1,0\.5,\[1,2\],"farm"\]))?\}"#,
        ) {
            must_hold(&text);
        }
    }
}
