//! Pages of a list: how many, between which times, and from where on.

use crate::error::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use lumbung_shared::time::{from_ms, parse_rfc3339};

/// How many a page lists when nobody says: 50.
const USUAL: i64 = 50;

/// How many to list.
///
/// # Errors
/// When `asked` is not between 1 and `most`.
pub(crate) fn limit(asked: Option<i64>, most: i64) -> Result<i64> {
    let limit = asked.unwrap_or(USUAL);
    if !(1..=most).contains(&limit) {
        return Err(Error::field("limit", format!("must be between 1 and {most}")));
    }
    Ok(limit)
}

/// A time to list from or to.
///
/// # Errors
/// When it is not RFC 3339 with an offset.
pub(crate) fn time(field: &'static str, text: Option<&str>) -> Result<Option<DateTime<Utc>>> {
    let Some(text) = text else { return Ok(None) };
    let ms = parse_rfc3339(text).ok_or_else(|| {
        Error::field(field, "must be RFC 3339 with an offset, such as 2026-11-21T06:00:00+07:00")
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

/// The place of a row in its list, as text that says nothing to anyone else.
pub(crate) fn write_cursor<const N: usize>(place: [i64; N]) -> String {
    let numbers: Vec<String> = place.iter().map(i64::to_string).collect();
    URL_SAFE_NO_PAD.encode(numbers.join("."))
}

/// # Errors
/// When it was not written by [`write_cursor`] for such a list.
pub(crate) fn read_cursor<const N: usize>(text: &str) -> Result<[i64; N]> {
    let numbers = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let numbers: Vec<i64> =
            text.split('.').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
        numbers.try_into().ok()
    };
    numbers().ok_or_else(unusable_cursor)
}

/// The place of a row in a list by time.
pub(crate) fn time_of_cursor(micros: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros).ok_or_else(unusable_cursor)
}

pub(crate) fn unusable_cursor() -> Error {
    Error::field("cursor", "must be the next_cursor of an earlier answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_round_trip_and_nonsense_is_refused() {
        let place = [-5, i64::MIN, 9];
        assert_eq!(read_cursor(&write_cursor(place)).unwrap(), place);
        for nonsense in ["", "x", "MS4yLjM", &write_cursor([1, 2])] {
            assert!(read_cursor::<4>(nonsense).is_err(), "{nonsense}");
        }
        assert!(time_of_cursor(i64::MAX).is_err());
    }

    #[test]
    fn a_page_is_as_long_as_asked_and_knows_whether_there_is_more() {
        assert_eq!((limit(None, 500).unwrap(), limit(Some(500), 500).unwrap()), (50, 500));
        assert!(limit(Some(0), 500).is_err() && limit(Some(501), 500).is_err());
        let mut rows = vec![1, 2, 3];
        assert!(cut(&mut rows, 2) && rows == [1, 2] && !cut(&mut rows, 2));
    }
}
