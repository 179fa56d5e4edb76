//! Samples to files and back: PNG, JPEG, GIF, npy and csv.
//!
//! Every file is written whole or not at all: into a temporary file in the same folder, which is then
//! renamed. What is not a plain file (a device, a pipe) is written in place.

use crate::{Error, ErrorKind, Result, file, image_file, npy};
use image::codecs::{gif, jpeg::JpegEncoder, png::PngEncoder};
use image::{Delay, DynamicImage, ExtendedColorType, Frame, GrayImage, ImageEncoder, Rgb, RgbImage};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file format, told by the file name's ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// 8-bit PNG.
    Png,
    /// JPEG at quality 95.
    Jpeg,
    /// An animated GIF.
    Gif,
    /// The raw float32 samples, `[N, …shape]`.
    Npy,
    /// The raw samples as text, one sample a line.
    Csv,
}

impl Format {
    /// The format that a file name's ending, or a bare `png`, names.
    ///
    /// # Errors
    /// When the ending is not one that is known.
    pub fn from_path(path: &Path) -> Result<Self> {
        let ending = path.extension().unwrap_or(path.as_os_str()).to_string_lossy().to_lowercase();
        match ending.as_str() {
            "png" => Ok(Format::Png),
            "jpg" | "jpeg" => Ok(Format::Jpeg),
            "gif" => Ok(Format::Gif),
            "npy" => Ok(Format::Npy),
            "csv" => Ok(Format::Csv),
            _ => Err(Error::invalid(format!(
                "cannot tell the output's format from '{}': the name must end in .png, .jpg, .gif, .npy or .csv",
                path.display()
            ))),
        }
    }

    /// What it is called, as in a file name's ending.
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpg",
            Format::Gif => "gif",
            Format::Npy => "npy",
            Format::Csv => "csv",
        }
    }

    /// Whether the format holds pictures rather than raw numbers.
    pub fn is_picture(self) -> bool {
        matches!(self, Format::Png | Format::Jpeg | Format::Gif)
    }
}

/// A picture as files hold it, grey or in colours.
#[derive(Clone, Debug, PartialEq)]
pub struct Image(DynamicImage);

impl Image {
    /// A picture of these levels of grey, row by row.
    ///
    /// # Errors
    /// When there are not as many as pixels.
    pub fn from_grey(width: usize, height: usize, levels: Vec<u8>) -> Result<Self> {
        let [w, h] = sides(width, height)?;
        let grey = GrayImage::from_raw(w, h, levels).map(DynamicImage::ImageLuma8);
        grey.map(Image)
            .ok_or_else(|| Error::invalid(format!("a picture of {width}x{height} needs a level for each pixel")))
    }

    /// A picture of these levels of red, green and blue, pixel by pixel, row by row.
    ///
    /// # Errors
    /// When there are not three for each pixel.
    pub fn from_rgb(width: usize, height: usize, levels: Vec<u8>) -> Result<Self> {
        let [w, h] = sides(width, height)?;
        let colours = RgbImage::from_raw(w, h, levels).map(DynamicImage::ImageRgb8);
        let wrong = || Error::invalid(format!("a picture of {width}x{height} needs three levels for each pixel"));
        colours.map(Image).ok_or_else(wrong)
    }

    /// The same with every pixel a square of so many a side, at least 1.
    ///
    /// # Errors
    /// When a side gets more pixels than can be counted.
    pub fn enlarged(&self, times: usize) -> Result<Self> {
        let [width, height] = [self.width(), self.height()].map(|side| side.saturating_mul(times.max(1)));
        let [width, height] = sides(width, height)?;
        Ok(Image(self.0.resize_exact(width, height, image::imageops::FilterType::Nearest)))
    }

    /// The pixels of a row.
    pub fn width(&self) -> usize {
        self.0.width() as usize
    }

    /// The number of rows.
    pub fn height(&self) -> usize {
        self.0.height() as usize
    }

    /// Whether any pixel is not grey.
    pub fn has_colours(&self) -> bool {
        self.0.color().has_color() && self.0.to_rgb8().pixels().any(|p| p.0[0] != p.0[1] || p.0[1] != p.0[2])
    }

    /// A level of grey for each pixel, row by row.
    pub fn to_grey(&self) -> Vec<u8> {
        self.0.to_luma8().into_raw()
    }

    /// Levels of red, green and blue for each pixel, row by row.
    pub fn to_rgb(&self) -> Vec<u8> {
        self.0.to_rgb8().into_raw()
    }
}

fn sides(width: usize, height: usize) -> Result<[u32; 2]> {
    let side = |n: usize| u32::try_from(n).map_err(|_| Error::invalid(format!("no picture has {n} pixels a side")));
    Ok([side(width)?, side(height)?])
}

/// How samples become pictures: their shape `[C, H, W]` with 1 or 3 channels, and the range of values
/// that black and white stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picture {
    channels: usize,
    height: usize,
    width: usize,
    range: (f32, f32),
}

impl Picture {
    /// Pictures of samples of `shape`, with values from `range.0` (black) to `range.1` (white).
    ///
    /// # Errors
    /// When the shape is not that of a picture, or the range is empty.
    pub fn new(shape: &[usize], range: (f32, f32)) -> Result<Self> {
        let (lo, hi) = range;
        if !(lo.is_finite() && hi.is_finite() && lo < hi) {
            return Err(Error::invalid(format!(
                "a range of values must go from a lesser number to a greater, not from {lo} to {hi}"
            )));
        }
        match *shape {
            [channels @ (1 | 3), height, width] => Ok(Picture { channels, height, width, range }),
            _ => Err(Error::invalid(format!(
                "samples of shape {shape:?} are not pictures ([1 or 3, height, width]): write them as .npy or .csv"
            ))),
        }
    }

    fn level(&self, value: f32) -> u8 {
        let (lo, hi) = self.range;
        // `as` saturates, so values out of the range become black or white.
        ((value - lo) / (hi - lo) * 255.0).round() as u8
    }

    /// Lays `samples` out in rows of `columns`, first sample at the top left.
    ///
    /// # Panics
    /// When a sample is not of this picture's shape.
    pub fn grid(&self, samples: &[&[f32]], columns: usize) -> Image {
        let columns = columns.clamp(1, samples.len().max(1));
        let rows = samples.len().div_ceil(columns);
        let mut grid = RgbImage::new((columns * self.width) as u32, (rows * self.height) as u32);
        let plane = self.height * self.width;
        for (i, sample) in samples.iter().enumerate() {
            assert_eq!(sample.len(), self.channels * plane);
            let (left, top) = (i % columns * self.width, i / columns * self.height);
            for y in 0..self.height {
                for x in 0..self.width {
                    let channel = |c: usize| self.level(sample[c % self.channels * plane + y * self.width + x]);
                    let pixel = Rgb([channel(0), channel(1), channel(2)]);
                    grid.put_pixel((left + x) as u32, (top + y) as u32, pixel);
                }
            }
        }
        let grid = DynamicImage::ImageRgb8(grid);
        Image(if self.channels == 1 { grid.to_luma8().into() } else { grid })
    }
}

impl Picture {
    /// The sample that `image` shows: the way back from [`grid`](Picture::grid) for a single one.
    ///
    /// # Errors
    /// When the image is not of this size.
    pub fn sample(&self, image: &Image) -> Result<Vec<f32>> {
        let size = (image.width(), image.height());
        if size != (self.width, self.height) {
            return Err(Error::invalid(format!(
                "a picture of the model's has {}x{} pixels, but this one has {}x{}",
                self.width, self.height, size.0, size.1
            )));
        }
        let (lo, hi) = self.range;
        let value = |level: u8| lo + f32::from(level) / 255.0 * (hi - lo);
        if self.channels == 1 {
            return Ok(image.to_grey().into_iter().map(value).collect());
        }
        let rgb = image.to_rgb();
        Ok((0..3).flat_map(|c| rgb.iter().skip(c).step_by(3).map(|level| value(*level))).collect())
    }
}

/// The picture in a PNG, JPEG or GIF file.
///
/// # Errors
/// When the file cannot be read or is none of these.
pub fn read_picture(path: &Path) -> Result<Image> {
    let failed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Io, format!("cannot read {}: {e}", path.display()));
    let bytes = file::read(path, u64::MAX).map_err(|e| failed(&e))?;
    image_file::decode(&bytes).map(Image).map_err(|e| failed(&e))
}

/// A picture in `format`, which must be PNG, JPEG or (as a single frame) GIF.
///
/// # Errors
/// When the format is none of these, or the encoder fails.
pub fn encode_picture(picture: &Image, format: Format) -> Result<Vec<u8>> {
    let (mut bytes, raw) = (Vec::new(), picture.0.as_bytes());
    let (width, height) = (picture.0.width(), picture.0.height());
    let colour: ExtendedColorType = picture.0.color().into();
    let encoded = match format {
        Format::Png => PngEncoder::new(&mut bytes).write_image(raw, width, height, colour),
        Format::Jpeg => JpegEncoder::new_with_quality(&mut bytes, 95).write_image(raw, width, height, colour),
        Format::Gif => return encode_animation(std::slice::from_ref(picture), 100),
        Format::Npy | Format::Csv => return Err(Error::invalid("raw samples are not encoded as a picture")),
    };
    encoded.map_err(|e| Error::new(ErrorKind::Io, format!("cannot encode the picture: {e}")))?;
    Ok(bytes)
}

/// An endless GIF that shows `frames` in turn, `milliseconds` each and the last one ten times as long.
///
/// # Errors
/// When the encoder fails.
pub fn encode_animation(frames: &[Image], milliseconds: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let failed = |e| Error::new(ErrorKind::Io, format!("cannot encode the animation: {e}"));
    let mut encoder = gif::GifEncoder::new_with_speed(&mut bytes, 10);
    encoder.set_repeat(gif::Repeat::Infinite).map_err(failed)?;
    for (i, frame) in frames.iter().enumerate() {
        let time = milliseconds * if i + 1 == frames.len() { 10 } else { 1 };
        let frame = Frame::from_parts(frame.0.to_rgba8(), 0, 0, Delay::from_numer_denom_ms(time, 1));
        encoder.encode_frame(frame).map_err(failed)?;
    }
    drop(encoder);
    Ok(bytes)
}

/// `samples`, each of `shape`, as a float32 npy array `[N, …shape]`.
///
/// # Errors
/// When a sample is not of this shape.
pub fn encode_npy(samples: &[&[f32]], shape: &[usize]) -> Result<Vec<u8>> {
    let len: usize = shape.iter().product();
    if let Some(other) = samples.iter().find(|s| s.len() != len) {
        return Err(Error::invalid(format!("a sample of shape {shape:?} has {len} numbers, not {}", other.len())));
    }
    let shape: Vec<usize> = std::iter::once(samples.len()).chain(shape.iter().copied()).collect();
    Ok(npy::encode(&shape, samples.iter().copied().flatten()))
}

/// `samples` as text, one a line, numbers separated by commas in the samples' own order.
pub fn encode_csv(samples: &[&[f32]]) -> Vec<u8> {
    let mut text = String::new();
    for sample in samples {
        let line: Vec<String> = sample.iter().map(f32::to_string).collect();
        text += &line.join(",");
        text.push('\n');
    }
    text.into_bytes()
}

/// An array read from an npy file: its shape and its numbers in C order.
///
/// # Errors
/// When the file cannot be read, is not npy, or does not hold bools, integers or floats in C order.
pub fn read_npy(path: &Path) -> Result<(Vec<usize>, Vec<f32>)> {
    let failed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Io, format!("cannot read {}: {e}", path.display()));
    let bytes = file::read(path, u64::MAX).map_err(|e| failed(&e))?;
    npy::decode(&bytes).map_err(|e| failed(&e))
}

/// Writes `bytes` to `path`, whole or not at all; `-` is the standard output.
///
/// # Errors
/// When the file cannot be written; what was there before is then still there.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::Io, format!("cannot write {}: {e}", path.display()));
    if path == Path::new("-") {
        let mut out = std::io::stdout().lock();
        return out.write_all(bytes).and_then(|()| out.flush()).map_err(failed);
    }
    let target = linked(path);
    if std::fs::metadata(&target).is_ok_and(|m| !m.is_file()) {
        let file = std::fs::OpenOptions::new().write(true).open(&target).map_err(failed)?;
        let mut file = BufWriter::new(file);
        return file.write_all(bytes).and_then(|()| file.flush()).map_err(failed);
    }
    replace_file(&target, bytes).map_err(failed)
}

/// Where a path leads through links, so that links stay and what they lead to is replaced, or made if it is not there yet.
fn linked(path: &Path) -> PathBuf {
    let mut target = path.to_path_buf();
    // as many as systems follow
    for _ in 0..40 {
        let Ok(link) = std::fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(Path::new("")).join(link);
    }
    target
}

fn replace_file(target: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".edgegen-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // as an ordinary new file, less the umask
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(target).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_comes_back_from_its_picture() {
        for shape in [[1, 2, 3], [3, 2, 3]] {
            let picture = Picture::new(&shape, (-1.0, 1.0)).unwrap();
            let sample: Vec<f32> = (0..shape.iter().product()).map(|i| -1.0 + 2.0 * (i * 11) as f32 / 255.0).collect();
            let back = picture.sample(&picture.grid(&[&sample], 1)).unwrap();
            assert!(sample.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-6), "{back:?}");
            assert!(
                picture.sample(&Image::from_grey(3, 3, vec![0; 9]).unwrap()).unwrap_err().to_string().contains("3x3")
            );
        }
    }

    #[test]
    fn formats_are_told_by_the_ending() {
        for (name, format) in
            [("a.png", Format::Png), ("b.JPG", Format::Jpeg), ("c.d/e.npy", Format::Npy), ("csv", Format::Csv)]
        {
            assert_eq!(Format::from_path(Path::new(name)).unwrap(), format);
        }
        assert!(Format::from_path(Path::new("out.bmp")).is_err());
        assert!(Format::from_path(Path::new("out")).is_err());
    }

    #[test]
    fn levels_cover_the_range_and_saturate() {
        let picture = Picture::new(&[1, 1, 5], (-1.0, 1.0)).unwrap();
        let grid = picture.grid(&[&[-2.0, -1.0, 0.0, 1.0, 7.0]], 1);
        assert_eq!(grid.to_grey(), [0, 0, 128, 255, 255]);
    }

    #[test]
    fn an_enlarged_picture_has_squares_for_pixels() {
        let picture = Picture::new(&[1, 1, 2], (0.0, 255.0)).unwrap().grid(&[&[7.0, 9.0]], 1);
        let large = picture.enlarged(3).unwrap();
        assert_eq!((large.width(), large.height(), large.to_grey()), (6, 3, [7, 7, 7, 9, 9, 9].repeat(3)));
        assert_eq!(picture.enlarged(1).unwrap(), picture);
        assert!(picture.enlarged(usize::MAX).is_err());
    }

    #[test]
    fn a_grid_is_filled_row_by_row() {
        let picture = Picture::new(&[3, 1, 1], (0.0, 255.0)).unwrap();
        let samples: [&[f32]; 3] = [&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0], &[7.0, 8.0, 9.0]];
        let grid = picture.grid(&samples, 2);
        assert_eq!((grid.width(), grid.height()), (2, 2));
        assert_eq!(grid.to_rgb(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0]);
    }

    #[test]
    fn pictures_come_back_from_their_files() {
        let picture = Picture::new(&[3, 2, 2], (0.0, 255.0)).unwrap();
        let sample: Vec<f32> = (0..12).map(|i| i as f32 * 20.0).collect();
        let grid = picture.grid(&[&sample], 1);
        let png = encode_picture(&grid, Format::Png).unwrap();
        assert_eq!(image::load_from_memory(&png).unwrap().as_bytes(), grid.to_rgb());
        for format in [Format::Jpeg, Format::Gif] {
            let bytes = encode_picture(&grid, format).unwrap();
            assert_eq!(image::load_from_memory(&bytes).unwrap().width(), 2);
        }
    }

    #[test]
    fn arrays_come_back_from_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let samples: [&[f32]; 2] = [&[1.5, -2.0, 3.0], &[0.25, f32::MIN_POSITIVE, 6.0]];
        write_file(&path, &encode_npy(&samples, &[3, 1]).unwrap()).unwrap();
        let (shape, numbers) = read_npy(&path).unwrap();
        assert_eq!(shape, [2, 3, 1]);
        assert_eq!(numbers, samples.concat());
    }

    #[test]
    fn an_npy_header_that_promises_too_much_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let mut bytes = encode_npy(&[&[1.0, 2.0]], &[2]).unwrap();
        bytes.truncate(bytes.len() - 5);
        std::fs::write(&path, &bytes).unwrap();
        assert!(read_npy(&path).is_err());
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        write_file(&path, b"old").unwrap();
        write_file(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(write_file(&folder.path().join("none/a.csv"), b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
