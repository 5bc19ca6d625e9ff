//! An uploaded image is read within limits, turned upright and written anew: what is kept was made here, and
//! nothing of the original but its pixels goes into it.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, ImageResult, Limits, Rgb, RgbImage};
use lumbung_shared::language::Words;
use std::io::Cursor;

/// No side may be longer, and no picture have more pixels: a phone's largest photo fits, a bomb does not.
const LONGEST: u32 = 16_384;
const MOST_PIXELS: u64 = 64_000_000;
/// What a decoder may take of memory.
const MOST_MEMORY: u64 = 256 << 20;
/// What is kept is made smaller than this: enough for any screen, and light on a village's network.
const KEPT: u32 = 2_560;
pub(super) const THUMBNAIL: u32 = 320;
const QUALITY: u8 = 85;

/// A picture as it is kept: two JPEGs without metadata.
pub struct Picture {
    pub(super) jpeg: Vec<u8>,
    pub(super) thumbnail: Vec<u8>,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// Makes what is kept from what was sent. Its type is what its first bytes say, whatever the client called it.
///
/// # Errors
/// What is wrong with the image, for the one who sent it.
pub(super) fn remake(sent: &[u8]) -> Result<Picture, Words> {
    let format = match image::guess_format(sent) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => format,
        _ => return Err(Words::new("harus gambar JPEG, PNG atau WebP", "must be a JPEG, PNG or WebP image")),
    };
    // The decoder would paint the missing part grey.
    if format == ImageFormat::Jpeg && !is_whole_jpeg(sent) {
        return Err(Words::new("terpotong; kirim lagi", "is cut off; send it again"));
    }
    let image = decode(sent, format)
        .map_err(|_| unreadable())?
        .ok_or_else(|| Words::new("terlalu banyak piksel", "has too many pixels"))?;
    let encoded = |image: &RgbImage| {
        let mut jpeg = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, QUALITY);
        encoder.encode_image(image).map(|()| jpeg).map_err(|_| unreadable())
    };
    let thumbnail = image.thumbnail(THUMBNAIL.min(image.width()), THUMBNAIL.min(image.height()));
    let (image, thumbnail) = (flat(image), flat(thumbnail));
    Ok(Picture {
        jpeg: encoded(&image)?,
        thumbnail: encoded(&thumbnail)?,
        width: image.width(),
        height: image.height(),
    })
}

pub(super) fn unreadable() -> Words {
    Words::new("tidak dapat dibaca sebagai gambar", "cannot be read as an image")
}

/// The image upright and no larger than what is kept; `None` when it claims too many pixels, which is known
/// before any of them is read.
fn decode(sent: &[u8], format: ImageFormat) -> ImageResult<Option<DynamicImage>> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST);
    limits.max_image_height = Some(LONGEST);
    limits.max_alloc = Some(MOST_MEMORY);
    let mut reader = ImageReader::with_format(Cursor::new(sent), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS || decoder.total_bytes() > MOST_MEMORY {
        return Ok(None);
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder)?;
    if width.max(height) > KEPT {
        image = image.resize(KEPT, KEPT, FilterType::Triangle);
    }
    image.apply_orientation(orientation);
    Ok(Some(image))
}

/// On white, where it is transparent.
fn flat(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0.map(u16::from);
        let over = |colour: u16| ((colour * alpha + 255 * (255 - alpha)) / 255) as u8;
        Rgb([over(red), over(green), over(blue)])
    })
}

/// Whether a JPEG has its end: segments up to the first scan, then data in which only an end marker ends it.
/// What follows it (phones put films there) does not count.
fn is_whole_jpeg(sent: &[u8]) -> bool {
    let mut at = 2;
    loop {
        let Some(&[marker, kind]) = sent.get(at..at + 2) else { return false };
        match (marker, kind) {
            (0xFF, 0xFF) => at += 1,
            (0xFF, 0xD9) => return true,
            // A scan's header is skipped like any segment; its data runs to the next marker of another kind.
            (0xFF, 0x01 | 0xD0..=0xD7) => at += 2,
            (0xFF, 1..) => {
                let Some(&[high, low]) = sent.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
                if kind == 0xDA {
                    while sent.get(at..at + 2).is_some_and(|pair| !is_marker(pair)) {
                        at += 1;
                    }
                }
            }
            _ => return false,
        }
    }
}

/// In a scan's data FF is followed by 0, and restarts belong to it.
fn is_marker(pair: &[u8]) -> bool {
    pair[0] == 0xFF && !matches!(pair[1], 0x00 | 0xD0..=0xD7)
}

/// Whatever is sent is refused, or what is kept of it are two JPEGs of the size that is said and no larger than they may be.
#[cfg(any(test, fuzzing))]
pub fn must_hold(sent: &[u8]) {
    let Ok(kept) = remake(sent) else { return };
    let size = |jpeg: &[u8]| {
        assert!(is_whole_jpeg(jpeg) && jpeg.starts_with(&[0xFF, 0xD8]));
        let decoder = ImageReader::with_format(Cursor::new(jpeg), ImageFormat::Jpeg).into_decoder();
        decoder.map(|decoder| decoder.dimensions()).ok()
    };
    assert_eq!(size(&kept.jpeg), Some((kept.width, kept.height)));
    assert!(kept.width.max(kept.height) <= KEPT);
    assert!(size(&kept.thumbnail).is_some_and(|(width, height)| width.max(height) <= THUMBNAIL));
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder, Rgba, RgbaImage};
    use proptest::prelude::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// Left half red, right half blue.
    fn two_halves() -> DynamicImage {
        DynamicImage::from(RgbImage::from_fn(64, 32, |x, _| {
            if x < 32 { Rgb([250, 10, 10]) } else { Rgb([10, 10, 250]) }
        }))
    }

    /// As a phone writes it: held upright (orientation 6) and with the place where it was taken.
    fn from_a_phone() -> Vec<u8> {
        let jpeg = encoded(&two_halves(), ImageFormat::Jpeg);
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08".to_vec();
        let entry = |tag: u16, kind: u16, count: u32, value: [u8; 4]| {
            [&tag.to_be_bytes()[..], &kind.to_be_bytes(), &count.to_be_bytes(), &value].concat()
        };
        exif.extend([0, 2]);
        exif.extend(entry(0x0112, 3, 1, [0, 6, 0, 0]));
        exif.extend(entry(0x8825, 4, 1, 38u32.to_be_bytes()));
        exif.extend([0; 4]);
        exif.extend([0, 2]);
        exif.extend(entry(1, 2, 2, *b"S\0\0\0"));
        exif.extend(entry(2, 5, 3, 68u32.to_be_bytes()));
        exif.extend([0; 4]);
        for number in [6u32, 1, 12, 1, 4321, 100] {
            exif.extend(number.to_be_bytes());
        }
        let length = u16::try_from(exif.len() + 2).unwrap();
        [&jpeg[..2], &[0xFF, 0xE1], &length.to_be_bytes(), &exif, &jpeg[2..]].concat()
    }

    fn read(jpeg: &[u8]) -> RgbImage {
        image::load_from_memory_with_format(jpeg, ImageFormat::Jpeg).unwrap().into_rgb8()
    }

    #[test]
    fn a_photo_is_turned_upright_and_says_nothing_of_where_it_was_taken() {
        let photo = from_a_phone();
        let exif = |bytes: &[u8]| {
            let reader = ImageReader::with_format(Cursor::new(bytes.to_vec()), ImageFormat::Jpeg);
            reader.into_decoder().unwrap().exif_metadata().unwrap()
        };
        assert!(exif(&photo).unwrap().windows(8).any(|found| found == [0, 0, 0, 6, 0, 0, 0, 1]));
        let kept = remake(&photo).unwrap();
        assert_eq!((kept.width, kept.height), (32, 64));
        let (top, bottom) = (*read(&kept.jpeg).get_pixel(16, 8), *read(&kept.jpeg).get_pixel(16, 56));
        assert!(top[0] > 200 && bottom[2] > 200, "{top:?} above {bottom:?}");
        for bytes in [&kept.jpeg, &kept.thumbnail] {
            assert_eq!(exif(bytes), None);
            assert!(!bytes.windows(4).any(|found| found == b"Exif"));
        }
    }

    #[test]
    fn what_was_hidden_behind_or_inside_an_image_is_not_kept() {
        let script = b"<script>alert(1)</script>PK\x03\x04";
        let behind = [&encoded(&two_halves(), ImageFormat::Jpeg)[..], script].concat();
        let mut png = encoded(&two_halves(), ImageFormat::Png);
        png.extend(script);
        let webp = [&encoded(&two_halves(), ImageFormat::WebP)[..], script].concat();
        for sent in [behind, png, webp] {
            let kept = remake(&sent).unwrap();
            for bytes in [kept.jpeg, kept.thumbnail] {
                assert!(bytes.starts_with(&[0xFF, 0xD8]) && bytes.ends_with(&[0xFF, 0xD9]));
                assert!(!bytes.windows(7).any(|found| found == b"<script"));
            }
        }
    }

    #[test]
    fn what_is_no_image_of_the_three_kinds_is_refused() {
        let svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>";
        let gif = b"GIF89a\x01\0\x01\0\0\0\0;";
        for sent in [&svg[..], gif, b"", b"\xFF\xD8\xFF", b"\x89PNG\r\n\x1a\n", b"RIFF\x04\0\0\0WEBP"] {
            assert!(remake(sent).is_err(), "{sent:?}");
        }
    }

    #[test]
    fn no_image_that_is_cut_off_anywhere_is_kept() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let whole = encoded(&two_halves(), format);
            assert!(remake(&whole).is_ok(), "{format:?}");
            for part in 1..8 {
                assert!(remake(&whole[..whole.len() * part / 8]).is_err(), "{format:?} {part}/8");
            }
            // A PNG's last chunk says nothing: its pixels are whole without it.
            let endless = remake(&whole[..whole.len() - 2]).is_err();
            assert!(endless || format == ImageFormat::Png, "{format:?} without its end");
        }
        assert!(remake(&from_a_phone()).is_ok());
    }

    /// A PNG of a few bytes that says how large it is in its head.
    fn claiming(width: u32, height: u32) -> Vec<u8> {
        let mut png = encoded(&DynamicImage::from(RgbImage::new(1, 1)), ImageFormat::Png);
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let mut sum = flate2::Crc::new();
        sum.update(&png[12..29]);
        png[29..33].copy_from_slice(&sum.sum().to_be_bytes());
        png
    }

    #[test]
    fn a_small_file_that_unpacks_to_a_huge_image_is_refused_before_it_is_read() {
        for (width, height) in [(16_000, 16_000), (60_000, 10), (u32::MAX >> 1, u32::MAX >> 1)] {
            assert!(remake(&claiming(width, height)).is_err(), "{width} x {height}");
        }
        let mut zeros = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut zeros);
        encoder.write_image(&vec![0; 9_000 * 9_000], 9_000, 9_000, ExtendedColorType::L8).unwrap();
        assert!(zeros.len() < 500_000);
        assert_eq!(
            remake(&zeros).err().map(|words| words.to_string()).as_deref(),
            Some("has too many pixels")
        );
    }

    #[test]
    fn glass_becomes_white_and_large_pictures_smaller() {
        let glass = DynamicImage::from(RgbaImage::from_pixel(3_000, 30, Rgba([0, 0, 0, 0])));
        let kept = remake(&encoded(&glass, ImageFormat::WebP)).unwrap();
        assert_eq!((kept.width, kept.height), (2_560, 26));
        assert_eq!(read(&kept.jpeg).get_pixel(9, 9).0, [255, 255, 255]);
        assert_eq!(read(&kept.thumbnail).width(), 320);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_spoiled_picture_is_refused_or_made_anew(
            format in prop_oneof![Just(ImageFormat::Jpeg), Just(ImageFormat::Png), Just(ImageFormat::WebP)],
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = encoded(&two_halves(), format);
            for (place, byte) in changes {
                *place.get_mut(&mut bytes) = byte;
            }
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
            must_hold(&bytes);
        }
    }
}
