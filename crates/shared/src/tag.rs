//! A tag's identity as it is stored and compared everywhere.

use crate::{FieldError, check_text};
use serde::{Deserialize, Serialize};

/// Longest tag identity, in characters.
pub const TAG_MAX_CHARS: usize = 128;

/// A tag's identity: a 4-, 7- or 10-byte UID in upper-case hex without separators, or any other
/// text kept verbatim (1 to 128 characters).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagId(String);

impl TagId {
    /// Takes a tag as a reader, a phone or an old client wrote it: `04:a2:2b`-style hex is
    /// normalised, everything else is kept.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        check_text("nfc_tag_id", text, TAG_MAX_CHARS)?;
        Ok(Self(normalised_uid(text).unwrap_or_else(|| text.to_owned())))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl TryFrom<String> for TagId {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        // A tag that is already normal keeps its allocation: ingest parses millions of these.
        if is_plain_upper_uid(&text) {
            return Ok(Self(text));
        }
        Self::parse(&text)
    }
}

impl From<TagId> for String {
    fn from(tag: TagId) -> Self {
        tag.0
    }
}

impl std::fmt::Display for TagId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_uid_length(hex_digits: usize) -> bool {
    matches!(hex_digits, 8 | 14 | 20)
}

fn is_plain_upper_uid(text: &str) -> bool {
    is_uid_length(text.len()) && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

/// The UID without separators in upper case, if the text is one: plain hex, or byte pairs joined by
/// one and the same separator (`:`, `-` or a space).
fn normalised_uid(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let hex: String = match bytes.get(2).copied() {
        Some(separator @ (b':' | b'-' | b' ')) => {
            let pairs: Vec<&str> = text.split(char::from(separator)).collect();
            if pairs.iter().any(|pair| pair.len() != 2) {
                return None;
            }
            pairs.concat()
        }
        _ => text.to_owned(),
    };
    (is_uid_length(hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit())).then(|| hex.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        TagId::parse(text).unwrap().into_string()
    }

    #[test]
    fn a_uid_is_the_same_tag_however_it_was_written() {
        for written in
            ["04a22b1c5d6e80", "04:A2:2B:1C:5D:6E:80", "04-a2-2b-1c-5d-6e-80", "04 a2 2b 1c 5d 6e 80"]
        {
            assert_eq!(parsed(written), "04A22B1C5D6E80");
        }
        assert_eq!(parsed("deadbeef"), "DEADBEEF");
        assert_eq!(parsed("00112233445566778899"), "00112233445566778899");
    }

    #[test]
    fn anything_else_is_kept_as_it_came() {
        for text in ["NFC_TAG_ALPHA", "deadbee", "04:a2-2b:1c", "kotak 7", "(01)08999999123457(10)A1", "é"] {
            assert_eq!(parsed(text), text);
        }
    }

    #[test]
    fn an_unusable_tag_says_why() {
        assert!(TagId::parse("").unwrap_err().to_string().contains("empty"));
        assert!(TagId::parse(&"x".repeat(129)).unwrap_err().to_string().contains("128"));
        assert!(TagId::parse(&"é".repeat(128)).is_ok());
        assert!(TagId::parse("a\0b").unwrap_err().to_string().contains("control"));
    }
}
