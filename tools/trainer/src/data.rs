//! Training data: pictures as bytes, with class labels.
//!
//! Read from IDX files (MNIST's format, gzipped or not), from a folder of pictures with one folder a
//! class, or from CIFAR-10's binary batches.

use anyhow::{Context, Result, bail, ensure};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A data set in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Pixels, 0 to 255, `[N, C, H, W]`.
    pub pixels: Vec<u8>,
    /// One sample's shape, `[C, H, W]`.
    pub shape: [usize; 3],
    /// The class of each sample.
    pub labels: Vec<usize>,
    /// The classes' names.
    pub class_names: Vec<String>,
}

/// What a network is trained on: samples in the network's range, and what each is conditioned on.
pub trait Samples: Sync {
    /// The number of samples.
    fn count(&self) -> usize;
    /// One sample's shape.
    fn sample_shape(&self) -> &[usize];
    /// Adds sample `i`, in the network's range, to `out`.
    fn append(&self, i: usize, out: &mut Vec<f32>);
    /// What sample `i` is conditioned on.
    fn given(&self, i: usize) -> Condition<'_>;
}

/// What one sample is conditioned on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition<'a> {
    /// Its class.
    Label(usize),
    /// Numbers, which may be none.
    Numbers(&'a [f32]),
}

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What one trains on.
    Train,
    /// What is held out.
    Test,
}

const FASHION_MNIST: [&str; 10] =
    ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
const CIFAR10: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

impl Dataset {
    /// Reads the data set in the folder `path`: IDX files, CIFAR-10 batches or a folder a class, told by
    /// what is there. `size` is the side that pictures of a folder are scaled to. `names` replaces the
    /// classes' names.
    ///
    /// # Errors
    /// When the folder holds none of these, or a file is not what its name says.
    pub fn open(path: &Path, split: Split, size: Option<usize>, names: Option<&[String]>) -> Result<Self> {
        let folder =
            std::fs::metadata(path).with_context(|| format!("cannot open the data folder {}", path.display()))?;
        ensure!(folder.is_dir(), "{} is not a folder", path.display());
        let mut data = if let Some(files) = idx_files(path, split) {
            read_idx_pair(&files.0, &files.1, path)?
        } else if path.join("data_batch_1.bin").exists() {
            read_cifar10(path, split)?
        } else {
            read_folders(path, split, size.unwrap_or(32))?
        };
        if let Some(names) = names {
            let classes = data.class_names.len();
            ensure!(
                names.len() == classes,
                "{} class names were given, but the data has {classes} classes",
                names.len()
            );
            data.class_names = names.to_vec();
        }
        Ok(data)
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The number of pixels of one sample, all channels.
    pub fn sample_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The pixels of sample `i`.
    pub fn sample(&self, i: usize) -> &[u8] {
        &self.pixels[i * self.sample_len()..][..self.sample_len()]
    }
}

impl Samples for Dataset {
    fn count(&self) -> usize {
        self.len()
    }

    fn sample_shape(&self) -> &[usize] {
        &self.shape
    }

    fn append(&self, i: usize, out: &mut Vec<f32>) {
        out.extend(self.sample(i).iter().map(|pixel| to_unit(*pixel)));
    }

    fn given(&self, i: usize) -> Condition<'_> {
        Condition::Label(self.labels[i])
    }
}

/// A pixel in the network's range, [-1, 1].
pub fn to_unit(pixel: u8) -> f32 {
    f32::from(pixel) / 127.5 - 1.0
}

fn idx_files(folder: &Path, split: Split) -> Option<(PathBuf, PathBuf)> {
    let prefix = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    let find = |kind: &str| {
        ["", ".gz"].into_iter().map(|gz| folder.join(format!("{prefix}-{kind}-ubyte{gz}"))).find(|p| p.exists())
    };
    Some((find("images-idx3")?, find("labels-idx1")?))
}

fn read_idx_pair(images: &Path, labels: &Path, folder: &Path) -> Result<Dataset> {
    let (shape, pixels) = read_idx(images)?;
    let (label_shape, labels_read) = read_idx(labels)?;
    ensure!(shape.len() == 3, "{} holds an array of {} dimensions, not pictures", images.display(), shape.len());
    ensure!(
        label_shape == [shape[0]],
        "{} holds {} labels for {} pictures",
        labels.display(),
        labels_read.len(),
        shape[0]
    );
    let classes = labels_read.iter().max().map_or(0, |m| usize::from(*m) + 1);
    let fashion = folder.components().any(|c| c.as_os_str().to_string_lossy().to_lowercase().contains("fashion"));
    let class_names = if fashion && classes == 10 {
        FASHION_MNIST.map(String::from).to_vec()
    } else {
        (0..classes).map(|c| c.to_string()).collect()
    };
    Ok(Dataset {
        pixels,
        shape: [1, shape[1], shape[2]],
        labels: labels_read.into_iter().map(usize::from).collect(),
        class_names,
    })
}

/// An IDX file of bytes: its shape and its content.
fn read_idx(path: &Path) -> Result<(Vec<usize>, Vec<u8>)> {
    let not_idx = || format!("{} is not an IDX file of bytes", path.display());
    let raw = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bytes = if raw.starts_with(&[0x1f, 0x8b]) {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&raw[..])
            .read_to_end(&mut bytes)
            .with_context(|| format!("{} is gzipped but damaged", path.display()))?;
        bytes
    } else {
        raw
    };
    ensure!(bytes.len() >= 4 && bytes[..3] == [0, 0, 8], not_idx());
    let header = 4 + 4 * usize::from(bytes[3]);
    ensure!(bytes.len() >= header, not_idx());
    let shape: Vec<usize> = bytes[4..header]
        .chunks_exact(4)
        .map(|d| u32::from_be_bytes(d.try_into().expect("four bytes")) as usize)
        .collect();
    let promised = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let content = bytes.len() - header;
    ensure!(
        promised == Some(content),
        "{} is cut short or damaged: it says {shape:?} but holds {content} bytes",
        path.display()
    );
    Ok((shape, bytes[header..].to_vec()))
}

fn read_cifar10(folder: &Path, split: Split) -> Result<Dataset> {
    const RECORD: usize = 1 + 3 * 32 * 32;
    let files: Vec<String> = match split {
        Split::Train => (1..=5).map(|i| format!("data_batch_{i}.bin")).collect(),
        Split::Test => vec!["test_batch.bin".into()],
    };
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        let path = folder.join(file);
        if split == Split::Train && !path.exists() {
            continue;
        }
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let whole = !bytes.is_empty() && bytes.len().is_multiple_of(RECORD);
        ensure!(whole, "{} is not a whole number of CIFAR-10 records of {RECORD} bytes", path.display());
        for record in bytes.chunks_exact(RECORD) {
            ensure!(record[0] < 10, "{} holds the label {}, but CIFAR-10 has 10 classes", path.display(), record[0]);
            labels.push(usize::from(record[0]));
            pixels.extend_from_slice(&record[1..]);
        }
    }
    Ok(Dataset { pixels, shape: [3, 32, 32], labels, class_names: CIFAR10.map(String::from).to_vec() })
}

/// Of a folder of pictures, every tenth is held out for testing.
const HELD_OUT: usize = 10;

fn read_folders(folder: &Path, split: Split, size: usize) -> Result<Dataset> {
    let list = |path: &Path| -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        let mut paths = entries.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    let is_picture = |p: &PathBuf| {
        let ending = p.extension().map(|e| e.to_string_lossy().to_lowercase());
        ending.is_some_and(|e| ["png", "jpg", "jpeg", "gif", "bmp"].contains(&e.as_str()))
    };
    let mut data = Dataset { pixels: Vec::new(), shape: [3, size, size], labels: Vec::new(), class_names: Vec::new() };
    let mut grey = true;
    for class in list(folder)?.into_iter().filter(|p| p.is_dir()) {
        let label = data.class_names.len();
        let pictures: Vec<PathBuf> = list(&class)?.into_iter().filter(is_picture).collect();
        if pictures.is_empty() {
            continue;
        }
        data.class_names.push(class.file_name().unwrap_or_default().to_string_lossy().into_owned());
        for (i, path) in pictures.iter().enumerate() {
            if (i % HELD_OUT == HELD_OUT - 1) != (split == Split::Test) {
                continue;
            }
            let picture = image::open(path).with_context(|| format!("cannot read the picture {}", path.display()))?;
            grey &= !picture.color().has_color();
            let rgb = picture.resize_to_fill(size as u32, size as u32, image::imageops::FilterType::Lanczos3).to_rgb8();
            for channel in 0..3 {
                data.pixels.extend(rgb.pixels().map(|p| p.0[channel]));
            }
            data.labels.push(label);
        }
    }
    if data.labels.is_empty() {
        bail!(
            "{} holds no data: give a folder with IDX files (train-images-idx3-ubyte[.gz] …), CIFAR-10's data_batch_*.bin, or one folder of pictures a class",
            folder.display()
        );
    }
    if grey {
        let plane = size * size;
        data.pixels = data.pixels.chunks_exact(3 * plane).flat_map(|p| &p[..plane]).copied().collect();
        data.shape[0] = 1;
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn idx(shape: &[u32], content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        bytes.extend(shape.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend(content);
        bytes
    }

    #[test]
    fn idx_files_are_read_gzipped_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let images = idx(&[2, 1, 3], &[0, 1, 2, 253, 254, 255]);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(&images).unwrap();
        std::fs::write(folder.path().join("train-images-idx3-ubyte.gz"), gz.finish().unwrap()).unwrap();
        std::fs::write(folder.path().join("train-labels-idx1-ubyte"), idx(&[2], &[1, 0])).unwrap();
        let data = Dataset::open(folder.path(), Split::Train, None, None).unwrap();
        assert_eq!((data.shape, data.len(), data.sample(1)), ([1, 1, 3], 2, &[253, 254, 255][..]));
        assert_eq!(
            (data.labels.as_slice(), data.class_names.as_slice()),
            (&[1, 0][..], &["0".to_string(), "1".into()][..])
        );
    }

    #[test]
    fn a_damaged_file_is_named_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train-labels-idx1-ubyte"), idx(&[2], &[1, 0])).unwrap();
        let images = folder.path().join("train-images-idx3-ubyte");
        let open = || Dataset::open(folder.path(), Split::Train, None, None).unwrap_err().to_string();
        std::fs::write(&images, idx(&[2, 1, 3], &[0, 1, 2])).unwrap();
        assert!(open().contains("cut short"), "{}", open());
        std::fs::write(&images, b"hello, I am text").unwrap();
        assert!(open().contains("not an IDX file"), "{}", open());
        std::fs::write(&images, idx(&[3, 1, 1], &[0, 1, 2])).unwrap();
        assert!(open().contains("2 labels for 3 pictures"), "{}", open());
    }

    #[test]
    fn cifar_batches_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let record: Vec<u8> = std::iter::once(7).chain((0..3072).map(|i| (i / 1024) as u8)).collect();
        std::fs::write(folder.path().join("data_batch_1.bin"), record.repeat(2)).unwrap();
        let data = Dataset::open(folder.path(), Split::Train, None, None).unwrap();
        assert_eq!((data.shape, data.len(), data.labels[1]), ([3, 32, 32], 2, 7));
        assert_eq!((data.sample(1)[0], data.sample(1)[1024], data.sample(1)[2048]), (0, 1, 2));
        std::fs::write(folder.path().join("data_batch_1.bin"), &record[1..]).unwrap();
        assert!(Dataset::open(folder.path(), Split::Train, None, None).is_err());
    }

    #[test]
    fn a_folder_a_class_is_read_and_split() {
        let folder = tempfile::tempdir().unwrap();
        for (class, level) in [("cats", 10u8), ("dogs", 200)] {
            std::fs::create_dir(folder.path().join(class)).unwrap();
            for i in 0..10 {
                let picture = image::RgbImage::from_pixel(6, 4, image::Rgb([level, 0, i]));
                picture.save(folder.path().join(class).join(format!("{i}.png"))).unwrap();
            }
        }
        let train = Dataset::open(folder.path(), Split::Train, Some(4), None).unwrap();
        let test = Dataset::open(folder.path(), Split::Test, Some(4), None).unwrap();
        assert_eq!((train.len(), test.len(), train.shape), (18, 2, [3, 4, 4]));
        assert_eq!((train.class_names.as_slice(), train.sample(9)[0]), (&["cats".to_string(), "dogs".into()][..], 200));
        assert_eq!(test.sample(0)[32], 9, "the tenth picture is the one held out");
        let names = ["a".to_string()];
        assert!(Dataset::open(folder.path(), Split::Train, None, Some(&names)).is_err());
    }

    #[test]
    fn an_empty_folder_says_what_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let error = Dataset::open(folder.path(), Split::Train, None, None).unwrap_err().to_string();
        assert!(error.contains("one folder of pictures a class"), "{error}");
    }
}
