//! Which topics a map is for, and how it names what they carry. Pure.

use std::fmt::{self, Display, Write};

/// A topic filter whose parts may have names: `kulkas/{device}/suhu`, `lab/+/suhu`, `meter/#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter(Vec<Level>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Text(String),
    /// Exactly one level, whatever it says; by its name where it has one.
    Any(Option<String>),
    /// All that follows, or nothing.
    Rest,
}

/// What the named parts of a filter are in one topic.
pub(super) type Parts<'t> = Vec<(String, &'t str)>;

impl Filter {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
            return Err("must be 1 to 256 characters without control characters".to_owned());
        }
        if text.starts_with('$') {
            // Shared subscriptions have no session of their own, and $SYS carries no readings.
            return Err("must not begin with $".to_owned());
        }
        let mut levels = Vec::new();
        for level in text.split('/') {
            if levels.last() == Some(&Level::Rest) {
                return Err("# may only be the last level".to_owned());
            }
            let name = level.strip_prefix('{').and_then(|level| level.strip_suffix('}'));
            levels.push(match (level, name) {
                ("+", _) => Level::Any(None),
                ("#", _) => Level::Rest,
                (_, Some(name)) if is_name(name) => {
                    if levels.contains(&Level::Any(Some(name.to_owned()))) {
                        return Err(format!("{{{name}}} is there twice"));
                    }
                    Level::Any(Some(name.to_owned()))
                }
                (text, _) if text.contains(['+', '#', '{', '}']) => {
                    return Err(format!("{text:?}: +, # and {{name}} must be a whole level"));
                }
                (text, _) => Level::Text(text.to_owned()),
            });
        }
        Ok(Self(levels))
    }

    /// The named parts of `topic`; `None` when the filter is not for it.
    pub(super) fn parts<'t>(&self, topic: &'t str) -> Option<Parts<'t>> {
        let mut parts = Vec::new();
        let mut levels = topic.split('/');
        for level in &self.0 {
            match level {
                Level::Rest => return Some(parts),
                Level::Text(text) => {
                    if levels.next()? != text {
                        return None;
                    }
                }
                Level::Any(name) => {
                    let found = levels.next()?;
                    if let Some(name) = name {
                        parts.push((name.clone(), found));
                    }
                }
            }
        }
        levels.next().is_none().then_some(parts)
    }

    /// Whether there is a topic that both are for. A broker may send it twice then, and it would be two readings.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (mut mine, mut others) = (self.0.iter(), other.0.iter());
        loop {
            match (mine.next(), others.next()) {
                (Some(Level::Rest), _) | (_, Some(Level::Rest)) | (None, None) => return true,
                (None, _) | (_, None) => return false,
                (Some(Level::Text(a)), Some(Level::Text(b))) if a != b => return false,
                _ => {}
            }
        }
    }

    fn names(&self, name: &str) -> bool {
        self.0.iter().any(|level| matches!(level, Level::Any(Some(known)) if known == name))
    }
}

/// As the broker is asked for it.
impl Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, level) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_char('/')?;
            }
            match level {
                Level::Text(text) => f.write_str(text)?,
                Level::Any(_) => f.write_char('+')?,
                Level::Rest => f.write_char('#')?,
            }
        }
        Ok(())
    }
}

/// A series' name with places for the parts of a topic: `{device}/temperature`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Part(String),
}

impl Template {
    /// Every place must be a part of `filter`.
    pub(super) fn parse(text: &str, filter: &Filter) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err(format!("{text:?}: a {{ without its }}"));
            };
            if !filter.names(name) {
                return Err(format!("{text:?}: the topic has no part {{{name}}}"));
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Part(name.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    pub(super) fn fill(&self, parts: &Parts<'_>) -> String {
        let part = |name: &str| parts.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::Part(name) => part(name),
            })
            .collect()
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    #[test]
    fn named_parts_are_asked_for_as_plus_and_found_in_the_topic() {
        let filter = filter("kulkas/{device}/+/{what}");
        assert_eq!(filter.to_string(), "kulkas/+/+/+");
        let parts = filter.parts("kulkas/k-1/x/suhu").unwrap();
        assert_eq!(parts, [("device".to_owned(), "k-1"), ("what".to_owned(), "suhu")]);
        for other in ["kulkas/k-1/x", "kulkas/k-1/x/suhu/y", "lemari/k-1/x/suhu", ""] {
            assert_eq!(filter.parts(other), None, "{other}");
        }
    }

    #[test]
    fn a_hash_takes_all_that_follows_or_nothing() {
        let filter = filter("meter/#");
        for topic in ["meter", "meter/1", "meter/1/2"] {
            assert!(filter.parts(topic).is_some(), "{topic}");
        }
        assert!(filter.parts("meters/1").is_none());
    }

    #[test]
    fn a_filter_that_no_broker_would_understand_is_refused() {
        for bad in ["", "a/#/b", "a/b+", "{a b}/x", "{}", "a/{x}/{x}", "$SYS/#", "a\nb", "x{y}"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_filters_overlap_when_one_topic_is_for_both() {
        for (a, b) in [("a/+", "a/b"), ("a/{x}", "+/b"), ("#", "a"), ("a/#", "a"), ("a/#", "a/b/c")] {
            assert!(filter(a).overlaps(&filter(b)) && filter(b).overlaps(&filter(a)), "{a} {b}");
        }
        for (a, b) in [("a/+", "b/+"), ("a/b", "a/b/c"), ("a/+/c", "a/b/d"), ("b/#", "a")] {
            assert!(!filter(a).overlaps(&filter(b)) && !filter(b).overlaps(&filter(a)), "{a} {b}");
        }
    }

    #[test]
    fn a_series_is_named_after_parts_of_its_topic() {
        let filter = filter("zigbee2mqtt/{room}/{device}");
        let template = Template::parse("{device}/temperature@{room}", &filter).unwrap();
        assert_eq!(template.fill(&filter.parts("zigbee2mqtt/dapur/k-1").unwrap()), "k-1/temperature@dapur");
        assert!(Template::parse("{devise}/x", &filter).unwrap_err().contains("devise"));
        assert!(Template::parse("{device", &filter).is_err());
    }
}
