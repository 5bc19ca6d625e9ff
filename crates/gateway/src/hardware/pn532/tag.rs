//! Type 2 tags (NTAG21x, Ultralight): reading and writing the text they carry.

use super::chip::{Chip, ChipError, PAGE, Target};
use super::ndef::{Area, area_with_text, find_message, text_of};

/// The capability container, and the first page of the data area.
const CC_PAGE: u8 = 3;
const DATA_PAGE: u8 = 4;
/// Data bytes of the smallest type 2 tag, the only one that leaves its factory without a CC.
const SMALLEST: u8 = 0x06;
const NDEF_MAGIC: u8 = 0xE1;
const READ_ONLY: u8 = 0x0F;

/// What a tag says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text or an address.
    Text(String),
    /// Something else, which is left alone.
    Other,
    /// Nothing yet.
    Blank,
    /// It is not made for NDEF.
    NotNdef,
}

/// Why a tag was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Chip(#[from] ChipError),
    #[error("this kind of tag cannot be written: NTAG213, 215, 216 and Ultralight can")]
    NotNdef,
    #[error("the tag is write-protected")]
    Protected,
    #[error("the tag has something on it already: {0:?}")]
    NotBlank(Content),
    #[error("the text needs {needed} bytes, the tag has {room}")]
    TooLong { needed: usize, room: usize },
    #[error("the tag does not say what was written to it")]
    NotKept,
}

impl Target {
    /// Whether it may be read by pages.
    pub fn has_pages(&self) -> bool {
        self.sak == 0
    }

    /// The UID in upper-case hex.
    pub fn hex(&self) -> String {
        use std::fmt::Write;
        self.uid.iter().fold(String::new(), |mut hex, byte| {
            // Writing into a String cannot fail.
            let _ = write!(hex, "{byte:02X}");
            hex
        })
    }
}

/// Reads no more of the tag than its message needs.
pub fn read(chip: &mut Chip, target: &Target) -> Result<Content, ChipError> {
    if !target.has_pages() {
        return Ok(Content::NotNdef);
    }
    let first = chip.read_pages(target.number, CC_PAGE)?;
    let (cc, data) = first.split_at(PAGE);
    let room = match *cc {
        [NDEF_MAGIC, _, size, _] => usize::from(size) * 8,
        [0, 0, 0, 0] => return Ok(Content::Blank),
        _ => return Ok(Content::NotNdef),
    };
    let mut area = data.to_vec();
    loop {
        area.truncate(room);
        match find_message(&area) {
            Area::Message(message) => return Ok(text_of(message).map_or(Content::Other, Content::Text)),
            Area::Nothing => return Ok(Content::Blank),
            Area::Needs(bytes) if bytes > room => return Ok(Content::Other),
            Area::Needs(_) => {
                let next = usize::from(DATA_PAGE) + area.len() / PAGE;
                // The area is a multiple of pages until it is cut to the room.
                let Ok(page) = u8::try_from(next) else { return Ok(Content::Other) };
                area.extend(chip.read_pages(target.number, page)?);
            }
        }
    }
}

/// Writes a text to a blank tag, or with `replace` to any; reads it back before it says so.
///
/// The message's length is written last: a tag that is taken away meanwhile is blank, not half written.
pub fn write(chip: &mut Chip, target: &Target, text: &str, replace: bool) -> Result<(), WriteError> {
    let present = read(chip, target)?;
    match &present {
        Content::NotNdef => return Err(WriteError::NotNdef),
        Content::Blank => {}
        Content::Text(_) | Content::Other if replace => {}
        Content::Text(_) | Content::Other => return Err(WriteError::NotBlank(present)),
    }
    let head = chip.read_pages(target.number, CC_PAGE)?;
    let [magic, _, size, access, ..] = head;
    if magic == NDEF_MAGIC && access & READ_ONLY != 0 {
        return Err(WriteError::Protected);
    }
    let room = usize::from(if magic == NDEF_MAGIC { size } else { SMALLEST }) * 8;
    let Some(area) = area_with_text(text).filter(|area| area.len() <= room) else {
        let needed = area_with_text(text).map_or(usize::MAX, |area| area.len());
        return Err(WriteError::TooLong { needed, room });
    };
    let mut pages: Vec<[u8; PAGE]> = Vec::new();
    for chunk in area.chunks(PAGE) {
        let mut page = [0; PAGE];
        page.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        pages.push(page);
    }
    if magic != NDEF_MAGIC {
        chip.write_page(target.number, CC_PAGE, [NDEF_MAGIC, 0x10, SMALLEST, 0])?;
    }
    // Blank until the last page is written.
    chip.write_page(target.number, DATA_PAGE, [0x03, 0x00, 0xFE, 0x00])?;
    for (page, data) in (DATA_PAGE..).zip(&pages).skip(1) {
        chip.write_page(target.number, page, *data)?;
    }
    if let Some(first) = pages.first() {
        chip.write_page(target.number, DATA_PAGE, *first)?;
    }
    match read(chip, target)? {
        Content::Text(kept) if kept == text => Ok(()),
        _ => Err(WriteError::NotKept),
    }
}
