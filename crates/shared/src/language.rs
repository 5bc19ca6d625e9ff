//! The two languages that people are spoken to in, and texts that exist in both.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;

/// The language of a reader; Indonesian unless something says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    #[default]
    Indonesian,
    English,
}

impl Language {
    /// As it is stored and sent.
    pub fn code(self) -> &'static str {
        self.pick("id", "en")
    }

    pub fn from_code(code: &str) -> Option<Self> {
        [Self::Indonesian, Self::English].into_iter().find(|language| language.code() == code)
    }

    /// From an `Accept-Language` header (RFC 9110): the one that is weighed more, the first of two that are weighed
    /// the same, Indonesian when it wants neither.
    pub fn of_header(header: &str) -> Self {
        let ranges: Vec<(&str, u16)> = header.split(',').filter_map(range).collect();
        let heaviest = |is: &dyn Fn(&str) -> bool| {
            let those = ranges.iter().enumerate().filter(|(_, (tag, _))| is(tag));
            those.map(|(place, (_, weight))| (*weight, Reverse(place))).max()
        };
        let wanted = |language| {
            let named = heaviest(&|tag| Self::of_tag(tag) == Some(language));
            named.or_else(|| heaviest(&|tag| tag == "*")).filter(|(weight, _)| *weight > 0)
        };
        if wanted(Self::English) > wanted(Self::Indonesian) { Self::English } else { Self::Indonesian }
    }

    /// From a locale such as `en_GB.UTF-8`.
    pub fn of_locale(locale: &str) -> Self {
        Self::of_tag(locale).unwrap_or_default()
    }

    /// `in` is what Indonesian was called before 1989, and what older Java still calls it.
    fn of_tag(tag: &str) -> Option<Self> {
        let primary = tag.split(['-', '_', '.']).next()?;
        let is = |code: &str| primary.eq_ignore_ascii_case(code);
        if is("id") || is("in") { Some(Self::Indonesian) } else { is("en").then_some(Self::English) }
    }

    pub fn pick<T>(self, indonesian: T, english: T) -> T {
        match self {
            Self::Indonesian => indonesian,
            Self::English => english,
        }
    }
}

/// One language range with its weight in thousandths; what is written otherwise than it may be is passed over.
fn range(text: &str) -> Option<(&str, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let tag = parts.next().filter(|tag| !tag.is_empty())?;
    let Some(weight) = parts.next() else { return Some((tag, 1000)) };
    let (name, weight) = weight.split_once('=')?;
    let weight: f32 = weight.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
    name.eq_ignore_ascii_case("q").then_some((tag, (weight * 1000.0).round() as u16))
}

/// The same in both languages: nothing can be said in one of them only. Logs and commands say it in English.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    indonesian: Cow<'static, str>,
    english: Cow<'static, str>,
}

impl Words {
    pub fn new(indonesian: impl Into<Cow<'static, str>>, english: impl Into<Cow<'static, str>>) -> Self {
        Self { indonesian: indonesian.into(), english: english.into() }
    }

    /// The same with something behind it.
    pub fn followed_by(self, indonesian: &str, english: &str) -> Self {
        Self::new(self.indonesian.into_owned() + indonesian, self.english.into_owned() + english)
    }

    pub fn within(&self, language: Language) -> &str {
        language.pick(&self.indonesian, &self.english)
    }
}

impl fmt::Display for Words {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.english)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_that_is_weighed_more_counts_and_the_first_of_equals() {
        for english in [
            "en",
            "en-GB,en;q=0.9,id;q=0.8",
            "de, en;q=0.5",
            "EN-us",
            "id;q=0.1, en",
            "en, id",
            "id;q=0, *",
            "en;q=0.5, *;q=0.4",
            "en-GB;q=0.1, id;q=0.5, en",
        ] {
            assert_eq!(Language::of_header(english), Language::English, "{english}");
        }
        for indonesian in [
            "",
            "id-ID",
            "en;q=0.1, id",
            "id, en",
            "en;q=0.2, *",
            "de",
            "*",
            "en;q=0",
            "in-ID, en;q=0.9",
            "english, enm",
            "en;q=2",
            "en;q=x",
            ";;;,=,",
        ] {
            assert_eq!(Language::of_header(indonesian), Language::Indonesian, "{indonesian}");
        }
        assert_eq!(Language::of_locale("en_US.UTF-8"), Language::English);
        assert_eq!(Language::of_locale("C"), Language::Indonesian);
    }
}
