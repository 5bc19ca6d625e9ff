//! Pages of a list: how many, between which times, and from where on.

use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use lumbung_shared::FieldError;
use lumbung_shared::time::{from_ms, parse_rfc3339};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// How many a page lists when nobody says: 50.
const USUAL: i64 = 50;

/// How many to list.
///
/// # Errors
/// When `asked` is not between 1 and `most`.
pub(crate) fn limit(asked: Option<i64>, most: i64) -> Result<i64> {
    let limit = asked.unwrap_or(USUAL);
    if !(1..=most).contains(&limit) {
        return Err(FieldError::not_between("limit", 1, most).into());
    }
    Ok(limit)
}

/// Where a page of a list by keys begins, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Counted from 1, as it was asked for.
    pub(crate) number: i64,
    /// Only what comes after this key.
    pub(crate) after: Option<i64>,
    pub(crate) skip: i64,
    /// One more than the page holds, by which one knows that there are more.
    pub(crate) most: i64,
}

impl Page {
    /// Everything.
    pub const ALL: Self = Self { number: 1, after: None, skip: 0, most: i64::MAX };

    /// A page by the cursor of the page before, or without one by its number.
    ///
    /// # Errors
    /// For a page or a limit that there is not, and a cursor of another list.
    pub(crate) fn read(
        number: Option<i64>,
        limit: Option<i64>,
        cursor: Option<&str>,
        most: i64,
    ) -> Result<Self> {
        let limit = self::limit(limit, most)?;
        let number = number.unwrap_or(1);
        if !(1..=100_000).contains(&number) {
            return Err(FieldError::not_between("page", 1, 100_000).into());
        }
        let after = cursor.map(read_cursor::<1>).transpose()?.map(|[id]| id);
        Ok(Self {
            number,
            after,
            skip: if after.is_some() { 0 } else { (number - 1) * limit },
            most: limit + 1,
        })
    }

    /// The key after which to begin, of a table whose keys are no larger than 32 bits.
    pub(crate) fn after_small(self) -> i32 {
        number_of_cursor(self.after.unwrap_or(0))
    }

    /// Cuts the page from its rows; the cursor for the next one by the key of its last row.
    pub(crate) fn cut<T>(self, rows: &mut Vec<T>, key: impl Fn(&T) -> i64) -> Option<String> {
        let more = cut(rows, self.most - 1);
        rows.last().filter(|_| more).map(|last| write_cursor([key(last)]))
    }
}

/// A time to list from or to.
///
/// # Errors
/// When it is not RFC 3339 with an offset.
pub(crate) fn time(field: &'static str, text: Option<&str>) -> Result<Option<DateTime<Utc>>> {
    let Some(text) = text else { return Ok(None) };
    let ms = parse_rfc3339(text).ok_or_else(|| {
        Error::field(
            field,
            "harus RFC 3339 dengan selisih UTC, misalnya 2026-11-21T06:00:00+07:00",
            "must be RFC 3339 with an offset, such as 2026-11-21T06:00:00+07:00",
        )
    })?;
    Ok(Some(from_ms(ms)))
}

/// Cuts a page of `limit` from rows of which one more than that was asked for; true when there are more.
pub(crate) fn cut<T>(rows: &mut Vec<T>, limit: i64) -> bool {
    let asked = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > asked;
    rows.truncate(asked);
    more
}

/// The place of a row in its list, as text that says nothing to anyone else: 16 hex digits for each number, so that
/// the document can say exactly what is taken ([`cursor`]).
pub(crate) fn write_cursor<const N: usize>(place: [i64; N]) -> String {
    place.iter().map(|number| format!("{number:016x}")).collect()
}

/// # Errors
/// When it was not written by [`write_cursor`] for such a list.
pub(crate) fn read_cursor<const N: usize>(text: &str) -> Result<[i64; N]> {
    let unusable = || {
        Error::field(
            "cursor",
            "harus next_cursor dari jawaban sebelumnya",
            "must be the next_cursor of an earlier answer",
        )
    };
    // Letters are small and there is no sign, which from_str_radix would take.
    let is_hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if text.len() != 16 * N || !is_hex {
        return Err(unusable());
    }
    let mut place = [0; N];
    for (at, number) in place.iter_mut().enumerate() {
        let digits = u64::from_str_radix(&text[16 * at..16 * (at + 1)], 16);
        *number = digits.map_err(|_| unusable())?.cast_signed();
    }
    Ok(place)
}

/// What the document says of the cursors of a list whose places are `N` numbers.
pub(crate) fn cursor<const N: usize>() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!("^[0-9a-f]{{{}}}$", 16 * N)))
        .description(Some("`next_cursor` of an earlier answer"))
        .build()
}

/// The place of a row in a list by time; one that no row can have is before or after all of them.
pub(crate) fn time_of_cursor(micros: i64) -> DateTime<Utc> {
    const YEAR_1: i64 = -62_135_596_800_000_000;
    const YEAR_10000: i64 = 253_402_300_800_000_000;
    DateTime::from_timestamp_micros(micros.clamp(YEAR_1, YEAR_10000)).unwrap_or_default()
}

/// The same for a list by a number that is no larger than 32 bits.
pub(crate) fn number_of_cursor(number: i64) -> i32 {
    let within = number.clamp(i32::MIN.into(), i32::MAX.into());
    i32::try_from(within).unwrap_or_default()
}

/// Whatever is given for a cursor is what would be written for its place, which PostgreSQL can compare with, or is refused.
#[cfg(any(test, fuzzing))]
pub fn must_hold(text: &str) {
    fn of<const N: usize>(text: &str) {
        use chrono::Datelike;
        match read_cursor::<N>(text) {
            Ok(place) => {
                assert_eq!(write_cursor(place), text);
                for number in place {
                    let year = time_of_cursor(number).year();
                    assert!((1..=10_000).contains(&year), "{year}");
                    let near = i64::from(number_of_cursor(number));
                    assert!(near == number || near.unsigned_abs() >= i64::from(i32::MAX).unsigned_abs());
                }
            }
            Err(error) => assert_eq!(error.code(), "VALIDATION_ERROR"),
        }
    }
    of::<1>(text);
    of::<2>(text);
    of::<3>(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_survives_the_round_trip_and_only_what_is_written_is_read(
            place: [i64; 3],
            text in "([0-9a-f]{16}){0,4}|[0-9a-fA-F+-]{16}|[0-9a-f]{15}\\PC|\\PC{0,50}",
        ) {
            prop_assert_eq!(read_cursor(&write_cursor(place)).unwrap(), place);
            must_hold(&write_cursor(place));
            must_hold(&text);
        }
    }

    #[test]
    fn a_page_is_found_by_its_cursor_or_else_by_its_number() {
        let read = |number, cursor| Page::read(number, Some(10), cursor, 50);
        let third = Page { number: 3, after: None, skip: 20, most: 11 };
        assert_eq!(read(Some(3), None).unwrap(), third);
        let cursor = write_cursor([7]);
        assert_eq!(read(None, Some(&cursor)).unwrap(), Page { number: 1, after: Some(7), skip: 0, most: 11 });
        assert_eq!(read(Some(3), Some(&cursor)).unwrap().skip, 0);
        for none in [0, -1, i64::MAX] {
            assert!(read(Some(none), None).is_err(), "{none}");
        }
        let mut rows = (1..=11).collect();
        assert_eq!(third.cut(&mut rows, |row| *row), Some(write_cursor([10])));
        assert_eq!((rows.len(), third.cut(&mut rows, |row| *row)), (10, None));
    }

    #[test]
    fn a_page_is_as_long_as_asked_and_knows_whether_there_is_more() {
        assert_eq!((limit(None, 500).unwrap(), limit(Some(500), 500).unwrap()), (50, 500));
        assert!(limit(Some(0), 500).is_err() && limit(Some(501), 500).is_err());
        let mut rows = vec![1, 2, 3];
        assert!(cut(&mut rows, 2) && rows == [1, 2] && !cut(&mut rows, 2));
    }
}
