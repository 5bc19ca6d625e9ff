//! NDEF: what is written on a tag. Pure, and suspicious of every byte: anybody can write a tag.

/// A message tells its own length; this many records of it are looked at.
const MOST_RECORDS: usize = 16;
const NULL: u8 = 0x00;
const MESSAGE: u8 = 0x03;
const TERMINATOR: u8 = 0xFE;
const WELL_KNOWN: u8 = 0x01;
const LANGUAGE: &[u8] = b"id";

/// What a tag's data area begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Area<'a> {
    /// A message, whole.
    Message(&'a [u8]),
    /// A message or another block goes on: this many bytes of the area are needed to say more.
    Needs(usize),
    /// No message.
    Nothing,
}

/// Looks for the first NDEF message among the blocks (TLVs) of a type 2 tag's data area.
pub(super) fn find_message(area: &[u8]) -> Area<'_> {
    let mut at = 0;
    loop {
        let Some(&kind) = area.get(at) else { return Area::Needs(at + 1) };
        match kind {
            NULL => {
                at += 1;
                continue;
            }
            TERMINATOR => return Area::Nothing,
            _ => {}
        }
        let (length, begin) = match area.get(at + 1..) {
            Some([0xFF, high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), at + 4),
            Some([0xFF, ..]) | Some([]) | None => return Area::Needs(at + 4),
            Some([length, ..]) => (usize::from(*length), at + 2),
        };
        let end = begin + length;
        if kind == MESSAGE {
            return match area.get(begin..end) {
                Some([]) => Area::Nothing,
                Some(message) => Area::Message(message),
                None => Area::Needs(end),
            };
        }
        at = end;
    }
}

/// The text of the first text or URI record of a message.
pub(super) fn text_of(message: &[u8]) -> Option<String> {
    let mut rest = message;
    for _ in 0..MOST_RECORDS {
        let (record, tail) = Record::take(rest)?;
        match (record.format, record.kind) {
            (WELL_KNOWN, b"T") => return text_record(record.payload),
            (WELL_KNOWN, b"U") => return uri_record(record.payload),
            _ => rest = tail,
        }
    }
    None
}

struct Record<'a> {
    format: u8,
    kind: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    fn take(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&flags, rest) = bytes.split_first()?;
        let (chunked, short, named) = (flags & 0x20 != 0, flags & 0x10 != 0, flags & 0x08 != 0);
        if chunked {
            // Nobody writes an identity in pieces.
            return None;
        }
        let (&kind_length, rest) = rest.split_first()?;
        let (payload_length, rest) = if short {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        } else {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            (usize::try_from(u32::from_be_bytes(*length)).ok()?, rest)
        };
        let (name_length, rest) = if named {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        } else {
            (0, rest)
        };
        let (kind, rest) = rest.split_at_checked(usize::from(kind_length))?;
        let (_, rest) = rest.split_at_checked(name_length)?;
        let (payload, rest) = rest.split_at_checked(payload_length)?;
        Some((Self { format: flags & 0x07, kind, payload }, rest))
    }
}

fn text_record(payload: &[u8]) -> Option<String> {
    let (&status, rest) = payload.split_first()?;
    let text = rest.get(usize::from(status & 0x3F)..)?;
    if status & 0x80 == 0 {
        return String::from_utf8(text.to_vec()).ok();
    }
    if text.len() % 2 != 0 {
        return None;
    }
    let mut units: Vec<u16> =
        text.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(u16::from_be_bytes)).collect();
    match units.first() {
        Some(0xFFFE) => units = units.iter().skip(1).map(|unit| unit.swap_bytes()).collect(),
        Some(0xFEFF) => drop(units.remove(0)),
        _ => {}
    }
    String::from_utf16(&units).ok()
}

fn uri_record(payload: &[u8]) -> Option<String> {
    let (&code, rest) = payload.split_first()?;
    let rest = std::str::from_utf8(rest).ok()?;
    // The abbreviations of the NFC Forum's URI record, in their order.
    const BEGINNINGS: [&str; 36] = [
        "",
        "http://www.",
        "https://www.",
        "http://",
        "https://",
        "tel:",
        "mailto:",
        "ftp://anonymous:anonymous@",
        "ftp://ftp.",
        "ftps://",
        "sftp://",
        "smb://",
        "nfs://",
        "ftp://",
        "dav://",
        "news:",
        "telnet://",
        "imap:",
        "rtsp://",
        "urn:",
        "pop:",
        "sip:",
        "sips:",
        "tftp:",
        "btspp://",
        "btl2cap://",
        "btgoep://",
        "tcpobex://",
        "irdaobex://",
        "file://",
        "urn:epc:id:",
        "urn:epc:tag:",
        "urn:epc:pat:",
        "urn:epc:raw:",
        "urn:epc:",
        "urn:nfc:",
    ];
    BEGINNINGS.get(usize::from(code)).map(|beginning| format!("{beginning}{rest}"))
}

/// A data area that holds one text record, ready to be written.
pub(super) fn area_with_text(text: &str) -> Option<Vec<u8>> {
    let mut payload = vec![u8::try_from(LANGUAGE.len()).ok()?];
    payload.extend_from_slice(LANGUAGE);
    payload.extend_from_slice(text.as_bytes());
    let mut message = match u8::try_from(payload.len()) {
        Ok(length) => vec![0xD1, 1, length, b'T'],
        Err(_) => {
            let length = u32::try_from(payload.len()).ok()?.to_be_bytes();
            [&[0xC1, 1][..], &length, b"T"].concat()
        }
    };
    message.extend(payload);
    let mut area = match u8::try_from(message.len()) {
        Ok(length) if length < 0xFF => vec![MESSAGE, length],
        _ => {
            let [high, low] = u16::try_from(message.len()).ok()?.to_be_bytes();
            vec![MESSAGE, 0xFF, high, low]
        }
    };
    area.extend(message);
    area.push(TERMINATOR);
    Some(area)
}

/// Whatever is on a tag is looked at and comes to an end.
#[cfg(any(test, fuzzing))]
pub fn must_hold(bytes: &[u8]) {
    match find_message(bytes) {
        Area::Message(message) => drop(text_of(message)),
        // Else a reader would ask for what it has, for ever.
        Area::Needs(length) => assert!(length > bytes.len()),
        Area::Nothing => {}
    }
    // What we write is read again, whatever we read.
    if let Some(text) = text_of(bytes).filter(|text| !text.is_empty()) {
        let area = area_with_text(&text).unwrap_or_default();
        let read = match find_message(&area) {
            Area::Message(message) => text_of(message),
            _ => None,
        };
        assert!(read.as_ref() == Some(&text) || area.is_empty(), "{text:?} is read as {read:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_in(area: &[u8]) -> Option<String> {
        match find_message(area) {
            Area::Message(message) => text_of(message),
            _ => None,
        }
    }

    #[test]
    fn what_is_written_is_read_again_whatever_its_length() {
        for text in ["K", "KONTAINER-0042", &"é".repeat(128), &"🍚".repeat(128), &"x".repeat(249)] {
            assert_eq!(text_in(&area_with_text(text).unwrap()).as_deref(), Some(text));
        }
    }

    #[test]
    fn text_and_uri_records_of_other_writers_are_understood() {
        // An NTAG213 from the factory has a lock control block first.
        let message = [0x01, 3, 0xA0, 0x0C, 0x34, 0x03, 8, 0xD1, 1, 4, b'T', 2, b'e', b'n', b'A', 0xFE];
        assert_eq!(text_in(&message).as_deref(), Some("A"));
        let uri = [0x03, 10, 0xD1, 1, 6, b'U', 4, b'a', b'.', b'i', b'd', b'/', 0xFE];
        assert_eq!(text_in(&uri).as_deref(), Some("https://a.id/"));
        // UTF-16, with and without a byte order mark.
        assert_eq!(text_record(&[0x82, b'e', b'n', 0x00, b'A']).as_deref(), Some("A"));
        assert_eq!(text_record(&[0x80, 0xFF, 0xFE, b'A', 0x00]).as_deref(), Some("A"));
        // A named record of another kind comes first.
        let two = [0x9A, 1, 1, 1, b'x', b'i', 9, 0x51, 1, 2, b'T', 0, b'B'];
        assert_eq!(text_of(&two).as_deref(), Some("B"));
    }

    #[test]
    fn a_message_is_asked_for_in_as_many_bytes_as_it_needs() {
        let area = area_with_text("KONTAINER-0042").unwrap();
        for cut in 0..area.len() - 1 {
            match find_message(&area[..cut]) {
                Area::Needs(bytes) => assert!(bytes > cut && bytes <= area.len(), "{cut}: {bytes}"),
                other => panic!("{cut}: {other:?}"),
            }
        }
        assert_eq!(find_message(&[0x03, 0x00, 0xFE]), Area::Nothing);
        assert_eq!(find_message(&[0x00, 0x00, 0xFE]), Area::Nothing);
    }

    #[test]
    fn hostile_bytes_are_refused_and_never_read_past() {
        for bytes in [
            &[0x03, 0xFF, 0xFF, 0xFF][..],
            &[0xD1, 0xFF, 0xFF, b'T'],
            &[0xC1, 1, 0xFF, 0xFF, 0xFF, 0xFF, b'T'],
            &[0xF1, 1, 1, b'T', 0],
            &[0xD1, 1, 2, b'T', 0x3F, b'x'],
            &[0xD1, 1, 3, b'T', 0x00, 0xC3, 0x28],
            &[0xD1, 1, 2, b'U', 0x24, b'x'],
            &[0xD1, 1, 4, b'T', 0x80, 0xD8, 0x00, 0x00],
        ] {
            assert_eq!(text_of(bytes), None, "{bytes:02X?}");
            let _ = find_message(bytes);
        }
        let mut random = fastrand::Rng::with_seed(3);
        let good = area_with_text("KONTAINER-0042").unwrap();
        for _ in 0..100_000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            if let Area::Message(message) = find_message(&bytes) {
                let _ = text_of(message);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_on_a_tag_is_looked_at_and_what_we_write_is_read(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\x03\xFE\xFF\xD1TU\x01\x00"[..])], 0..200),
            text in "\\PC{1,60}",
        ) {
            must_hold(&bytes);
            prop_assert_eq!(area_with_text(&text).and_then(|area| text_in(&area)), Some(text));
        }
    }
}
