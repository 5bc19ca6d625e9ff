//! What a parser says of a request that it cannot read, in words for people. Parsers speak English only, of Rust's types;
//! what is known of their sentences is said anew, and of any other only where it is about.

use super::Error;
use lumbung_shared::language::Words;

impl Error {
    /// A body of JSON that cannot be read.
    pub(crate) fn unread_json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let at = (error.line() > 0).then(|| (error.line(), error.column()));
        if error.is_data() {
            return unread("body", &text, at);
        }
        let words = Words::new("bukan JSON yang sah", "is not valid JSON");
        Self::Unreadable { part: "body".into(), words: placed(words, at) }
    }

    /// Parameters of a path or a query that cannot be read.
    pub(crate) fn unread_parameters(part: &'static str, error: &impl std::fmt::Display) -> Self {
        let text = error.to_string();
        unread(part, text.split_once("deserialize error: ").map_or(&*text, |(_, inner)| inner), None)
    }

    /// What the server's library refused by itself.
    pub(crate) fn refused(error: &actix_web::Error) -> Self {
        use actix_web::http::StatusCode;
        if error.as_response_error().status_code() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::TooLarge(Words::new("kirim lebih sedikit", "send less"));
        }
        Self::unreadable("tidak sampai utuh", "did not arrive whole")
    }
}

fn unread(part: &'static str, text: &str, at: Option<(usize, usize)>) -> Error {
    // Callers' own text is quoted in it, so only the beginning tells what kind of sentence it is.
    let named = |what: &str| text.strip_prefix(what)?.split('`').nth(1).map(str::to_owned);
    for (what, indonesian, english) in [
        ("missing field", "wajib diisi", "must be given"),
        ("duplicate field", "hanya boleh sekali", "may come only once"),
        ("unknown field", "tidak dikenal di sini", "is not known here"),
    ] {
        if let Some(member) = named(what) {
            return Error::Unreadable { part: member.into(), words: Words::new(indonesian, english) };
        }
    }
    let expected = text.rsplit_once("expected ").or_else(|| text.rsplit_once(" to a "));
    let words = match expected {
        Some((_, known)) if text.starts_with("unknown variant") => {
            let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            let known = known.join(", ");
            Words::new(format!("harus salah satu dari {known}"), format!("must be one of {known}"))
        }
        Some((_, expected)) => kind(expected),
        None if ["invalid digit", "number too", "cannot parse integer"]
            .iter()
            .any(|is| text.starts_with(is)) =>
        {
            kind("i64")
        }
        None => Words::new("tidak dapat dibaca", "cannot be read"),
    };
    Error::Unreadable { part: part.into(), words: placed(words, at) }
}

/// What was expected, as serde names it.
fn kind(expected: &str) -> Words {
    let is = |names: &[&str]| names.iter().any(|name| expected.starts_with(name));
    if is(&["a string", "a borrowed string", "string"]) {
        Words::new("harus berupa teks", "must be text")
    } else if is(&["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "usize"]) {
        Words::new("harus berupa bilangan bulat dalam batasnya", "must be a whole number within its limits")
    } else if is(&["f32", "f64"]) {
        Words::new("harus berupa angka", "must be a number")
    } else if is(&["a boolean", "`true` or `false`"]) {
        Words::new("harus true atau false", "must be true or false")
    } else if is(&["a sequence"]) {
        Words::new("harus berupa daftar", "must be a list")
    } else if is(&["an object", "struct ", "a map"]) {
        Words::new("harus berupa objek dengan anggota bernama", "must be an object with named members")
    } else if is(&["an RFC 3339", "a formatted date and time"]) {
        Words::new("harus berupa waktu RFC 3339", "must be an RFC 3339 time")
    } else {
        Words::new("bukan yang diminta di situ", "is not what is asked for there")
    }
}

fn placed(words: Words, at: Option<(usize, usize)>) -> Words {
    let Some((line, column)) = at else { return words };
    words
        .followed_by(&format!(" (baris {line}, kolom {column})"), &format!(" (line {line}, column {column})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Language;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only ever read into")]
    struct Asked {
        name: String,
        #[serde(default)]
        count: u8,
        #[serde(default)]
        share: f64,
        #[serde(default)]
        sure: bool,
        #[serde(default)]
        list: Vec<Kind>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Kitchen,
        Farm,
    }

    fn told(error: &Error) -> [String; 2] {
        [Language::Indonesian, Language::English].map(|language| {
            let detail = error.details(language).remove(0);
            format!("{} {}", detail.field, detail.message)
        })
    }

    #[test]
    fn what_serde_says_of_json_is_said_in_both_languages_and_says_where() {
        for (text, indonesian, english) in [
            ("{}", "name wajib diisi", "name must be given"),
            (r#"{"name":"a","name":"b"}"#, "name hanya boleh sekali", "name may come only once"),
            (r#"{"name":"a","nam":"b"}"#, "nam tidak dikenal di sini", "nam is not known here"),
            (
                r#"{"name":1}"#,
                "body harus berupa teks (baris 1, kolom 9)",
                "body must be text (line 1, column 9)",
            ),
            (
                r#"{"name":"a","count":256}"#,
                "body harus berupa bilangan bulat dalam batasnya (baris 1, kolom 23)",
                "body must be a whole number within its limits (line 1, column 23)",
            ),
            (
                r#"{"name":"a","share":"x"}"#,
                "body harus berupa angka (baris 1, kolom 23)",
                "body must be a number (line 1, column 23)",
            ),
            (
                r#"{"name":"a","list":["missing field `x`, expected `y`"]}"#,
                "body harus salah satu dari kitchen, farm (baris 1, kolom 53)",
                "body must be one of kitchen, farm (line 1, column 53)",
            ),
            (
                r#"{"name":"a","sure":1}"#,
                "body harus true atau false (baris 1, kolom 20)",
                "body must be true or false (line 1, column 20)",
            ),
            (
                r#"{"name":"a","list":3}"#,
                "body harus berupa daftar (baris 1, kolom 20)",
                "body must be a list (line 1, column 20)",
            ),
            (
                r#"{"name":"a","list":["barn"]}"#,
                "body harus salah satu dari kitchen, farm (baris 1, kolom 26)",
                "body must be one of kitchen, farm (line 1, column 26)",
            ),
            (
                "{\n  \"name\" 1}",
                "body bukan JSON yang sah (baris 2, kolom 10)",
                "body is not valid JSON (line 2, column 10)",
            ),
        ] {
            let error = serde_json::from_str::<Asked>(text).unwrap_err();
            assert_eq!(told(&Error::unread_json(&error)), [indonesian, english], "{text}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_query_names_the_query() {
        let error = actix_web::web::Query::<Asked>::from_query("name=a&count=x").unwrap_err();
        let said = told(&Error::unread_parameters("query", &error));
        assert_eq!(
            said,
            [
                "query harus berupa bilangan bulat dalam batasnya",
                "query must be a whole number within its limits"
            ],
            "{error}"
        );
        let error = actix_web::web::Query::<Asked>::from_query("count=1").unwrap_err();
        assert_eq!(told(&Error::unread_parameters("query", &error))[0], "name wajib diisi");
        let path = actix_web::error::PathError::Deserialize(serde::de::Error::custom(
            r#"can not parse "x" to a i64"#,
        ));
        assert_eq!(
            told(&Error::unread_parameters("path", &path))[1],
            "path must be a whole number within its limits"
        );
    }
}
