//! Pictures from files: whole ones, of sizes that can be.

use image::{DynamicImage, ImageFormat, ImageReader};
use std::io::Cursor;

/// The most pixels of a picture: those of a camera of 64 megapixels.
const MOST_PIXELS: u64 = 1 << 26;

/// The picture in the bytes of a PNG, JPEG or GIF file.
///
/// # Errors
/// What is wrong with it. Its size is checked before its pixels are allocated.
pub(crate) fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    let reader = || ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string());
    let (width, height) = reader()?.into_dimensions().map_err(|e| e.to_string())?;
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(format!("it has {width}x{height} pixels, and at most {MOST_PIXELS} can be read"));
    }
    let reader = reader()?;
    // the decoder fills what is missing with grey
    if reader.format() == Some(ImageFormat::Jpeg) && !is_whole_jpeg(bytes) {
        return Err("the JPEG file is cut short".into());
    }
    reader.decode().map_err(|e| e.to_string())
}

/// Whether a JPEG file goes on until the marker of its end. Other markers are passed over with their segments, which may
/// hold pictures of their own; the compressed pixels hold no marker but those that restart them.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let Some(at) = rest.windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0 | 1 | 0xd0..=0xd8 | 0xff)) {
        if rest[at + 1] == 0xd9 {
            return true;
        }
        let len = rest.get(at + 2..at + 4).map_or(usize::MAX, |len| usize::from(u16::from_be_bytes([len[0], len[1]])));
        rest = rest.get((at + 2).saturating_add(len)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{ExtendedColorType, GrayImage, ImageEncoder};

    #[test]
    fn jpeg_files_that_are_cut_short_are_refused() {
        let picture = GrayImage::from_fn(40, 30, |x, y| image::Luma([(x * y) as u8]));
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 90).write_image(&picture, 40, 30, ExtendedColorType::L8).unwrap();
        assert_eq!(decode(&bytes).unwrap().width(), 40);
        // a thumbnail in a segment has an end of its own
        let thumbnail = [&[0xff, 0xe1], &6u16.to_be_bytes()[..], &[0xff, 0xd9, 0, 0]].concat();
        let with = [&bytes[..2], &thumbnail, &bytes[2..]].concat();
        assert!(is_whole_jpeg(&with) && !is_whole_jpeg(&with[..with.len() - 2]));
        for cut in 2..bytes.len() {
            assert!(!is_whole_jpeg(&bytes[..cut]), "cut at {cut} of {}", bytes.len());
            assert!(decode(&bytes[..cut]).is_err());
        }
    }
}
