//! A small convolutional classifier, to judge samples by: is what was asked for recognised, and how far are the
//! samples' features from real pictures' features?
//!
//! Four 3×3 convolutions with SiLU, the second and the third with stride 2, all but the last with group norm; a
//! linear layer with SiLU makes the features of them, and another the class scores.

use crate::checkpoint::write_atomically;
use crate::data::{Dataset, to_unit};
use crate::network::Tensors;
use crate::ops::{conv2d, group_norm};
use crate::optimizer::{AdamW, BETAS, tensors};
use anyhow::{Context, Result, ensure};
use candle_core::{D, Device, Tensor, Var};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Channels of the convolutions.
const CHANNELS: [usize; 4] = [24, 48, 64, 32];
const STRIDES: [usize; 4] = [1, 2, 2, 1];
const GROUPS: usize = 8;
/// Samples that are classified at a time.
const BATCH: usize = 250;
const HEADER: &str = "edgegen-classifier";

/// What a classifier's file says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// One sample's shape, `[C, H, W]`.
    pub shape: [usize; 3],
    /// The classes' names.
    pub class_names: Vec<String>,
    /// The share of held-out pictures that it recognised.
    pub test_accuracy: f64,
    /// How it was trained.
    pub options: Options,
}

/// How a classifier is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Times that every picture is seen.
    pub epochs: usize,
    /// Pictures a step.
    pub batch: usize,
    /// The greatest learning rate; it falls to nothing along a cosine.
    pub rate: f64,
    /// Whether pictures are mirrored at random.
    pub flip: bool,
    /// What all random numbers come from.
    pub seed: u64,
}

/// A trained classifier.
pub struct Classifier {
    /// What it is.
    pub header: Header,
    parameters: Tensors,
}

/// What a classifier makes of pictures.
pub struct Verdict {
    /// The class of the greatest score, a picture.
    pub classes: Vec<usize>,
    /// The features, one picture after the other.
    pub features: Vec<f32>,
}

impl Classifier {
    /// Features a picture.
    pub const FEATURES: usize = 64;

    /// Trains a classifier on `train` and measures it on `test`. `report` is told of the epoch, from 1, and its
    /// mean loss.
    ///
    /// # Errors
    /// When an option is out of range, the parts of the data do not fit together, or the loss is not finite.
    pub fn train(train: &Dataset, test: &Dataset, options: &Options, report: impl Fn(usize, f64)) -> Result<Self> {
        ensure!(options.epochs > 0, "--epochs must be at least 1");
        ensure!(options.batch > 0, "--batch must be at least 1");
        ensure!(options.rate > 0.0 && options.rate.is_finite(), "--rate must be a positive number");
        ensure!(train.shape == test.shape, "training and test pictures are of different sizes");
        let classes = train.class_names.len();
        let mut rng = Pcg64::new(options.seed.into(), 0xc1a5);
        let variables = init(train.shape, classes, &mut rng)?;
        let zeros = || -> Result<Tensors> { variables.iter().map(|(n, v)| Ok((n.clone(), v.zeros_like()?))).collect() };
        let mut optimizer = AdamW { mean: zeros()?, square: zeros()?, weight_decay: 0.01, clip: 1.0, betas: BETAS };
        let steps = (train.len().div_ceil(options.batch) * options.epochs) as f64;
        let mut order: Vec<usize> = (0..train.len()).collect();
        let mut step = 0u64;
        for epoch in 1..=options.epochs {
            order.shuffle(&mut rng);
            let mut sum = 0.0;
            for batch in order.chunks(options.batch) {
                let (x, y) = augmented(train, batch, options.flip, &mut rng)?;
                let scores = scores(&tensors(&variables), &features(&tensors(&variables), &x)?)?;
                let loss = candle_nn::loss::cross_entropy(&scores, &y)?;
                let value = f64::from(loss.to_scalar::<f32>()?);
                ensure!(value.is_finite(), "the loss is no longer finite: use a lower --rate");
                sum += value * batch.len() as f64;
                let rate = options.rate * 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps).cos());
                step += 1;
                optimizer.step(&variables, &loss.backward()?, step, rate)?;
            }
            report(epoch, sum / train.len() as f64);
        }
        let header = Header {
            shape: train.shape,
            class_names: train.class_names.clone(),
            test_accuracy: 0.0,
            options: options.clone(),
        };
        let mut classifier = Classifier { header, parameters: tensors(&variables) };
        let verdict = classifier.judge(&test.pixels)?;
        classifier.header.test_accuracy = accuracy(&verdict.classes, &test.labels);
        Ok(classifier)
    }

    /// What it makes of pictures, given one after the other as bytes.
    ///
    /// # Errors
    /// When the device fails.
    pub fn judge(&self, pixels: &[u8]) -> Result<Verdict> {
        let [c, h, w] = self.header.shape;
        let mut verdict = Verdict { classes: Vec::new(), features: Vec::new() };
        for batch in pixels.chunks(BATCH * c * h * w) {
            let x: Vec<f32> = batch.iter().map(|p| to_unit(*p)).collect();
            let x = Tensor::from_vec(x, (batch.len() / (c * h * w), c, h, w), &Device::Cpu)?;
            let features = features(&self.parameters, &x)?;
            let best: Vec<u32> = scores(&self.parameters, &features)?.argmax(D::Minus1)?.to_vec1()?;
            verdict.classes.extend(best.into_iter().map(|c| c as usize));
            verdict.features.extend(features.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(verdict)
    }

    /// Writes the classifier to a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut bytes = BTreeMap::new();
        for (name, t) in &self.parameters {
            let raw: Vec<u8> = t.flatten_all()?.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect();
            bytes.insert(name, (t.dims().to_vec(), raw));
        }
        let views = bytes
            .iter()
            .map(|(name, (shape, raw))| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), raw)?)))
            .collect::<Result<Vec<_>>>()?;
        let metadata = HashMap::from([(HEADER.to_string(), serde_json::to_string(&self.header)?)]);
        write_atomically(path, &safetensors::serialize(views, Some(metadata))?)
    }

    /// Reads a classifier.
    ///
    /// # Errors
    /// When the file cannot be read or is not a whole classifier.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read the classifier {}", path.display()))?;
        let not_one = || format!("{} is not a classifier of this trainer, or is damaged", path.display());
        let (_, metadata) = SafeTensors::read_metadata(&bytes).with_context(not_one)?;
        let json = metadata.metadata().as_ref().and_then(|m| m.get(HEADER)).with_context(not_one)?;
        let header: Header = serde_json::from_str(json).with_context(not_one)?;
        let file = SafeTensors::deserialize(&bytes).with_context(not_one)?;
        let mut parameters = Tensors::new();
        for (name, shape, _) in layout(header.shape, header.class_names.len()) {
            let view = file.tensor(&name).with_context(not_one)?;
            ensure!(view.dtype() == Dtype::F32 && view.shape() == shape, not_one());
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
            parameters.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
        }
        Ok(Classifier { header, parameters })
    }
}

/// The share of `found` that is as `wanted`.
pub fn accuracy(found: &[usize], wanted: &[usize]) -> f64 {
    found.iter().zip(wanted).filter(|(a, b)| a == b).count() as f64 / found.len().max(1) as f64
}

/// Every parameter's name, shape and the bound that it starts within.
fn layout([channels, h, w]: [usize; 3], classes: usize) -> Vec<(String, Vec<usize>, f32)> {
    let mut all = Vec::new();
    let (mut from, mut pixels) = (channels, [h, w]);
    for (i, (to, stride)) in CHANNELS.into_iter().zip(STRIDES).enumerate() {
        all.push((format!("c{i}.w"), vec![to, from, 3, 3], (3.0 / (from * 9) as f32).sqrt()));
        all.push((format!("c{i}.b"), vec![to], 0.0));
        if i + 1 < CHANNELS.len() {
            all.push((format!("n{i}.w"), vec![to], 0.0));
            all.push((format!("n{i}.b"), vec![to], 0.0));
        }
        (from, pixels) = (to, pixels.map(|n| n.div_ceil(stride)));
    }
    let mut linear = |name: &str, from: usize, to: usize| {
        all.push((format!("{name}.w"), vec![to, from], 1.0 / (from as f32).sqrt()));
        all.push((format!("{name}.b"), vec![to], 0.0));
    };
    linear("features", from * pixels[0] * pixels[1], Classifier::FEATURES);
    linear("out", Classifier::FEATURES, classes);
    all
}

fn init(shape: [usize; 3], classes: usize, rng: &mut Pcg64) -> Result<BTreeMap<String, Var>> {
    let start = |name: &str, len: usize, bound: f32, rng: &mut Pcg64| -> Vec<f32> {
        if name.starts_with('n') && name.ends_with(".w") {
            return vec![1.0; len];
        }
        (0..len).map(|_| rng.random_range(-1.0f32..1.0) * bound).collect()
    };
    layout(shape, classes)
        .into_iter()
        .map(|(name, shape, bound)| {
            let values = start(&name, shape.iter().product(), bound, rng);
            Ok((name, Var::from_vec(values, shape, &Device::Cpu)?))
        })
        .collect()
}

/// A batch of pictures, shifted by up to a pixel and mirrored at random, and their labels.
fn augmented(data: &Dataset, indices: &[usize], flip: bool, rng: &mut Pcg64) -> Result<(Tensor, Tensor)> {
    let [c, h, w] = data.shape;
    let mut x = Vec::with_capacity(indices.len() * data.sample_len());
    for &i in indices {
        let mut shift = || rng.random_range(-1..=1i32) as isize;
        let (dx, dy) = (shift(), shift());
        let mirror = flip && rng.random_bool(0.5);
        for plane in data.sample(i).chunks_exact(h * w) {
            for y in 0..h {
                let row = &plane[y.saturating_add_signed(dy).min(h - 1) * w..][..w];
                x.extend((0..w).map(|x| {
                    let x = x.saturating_add_signed(dx).min(w - 1);
                    to_unit(row[if mirror { w - 1 - x } else { x }])
                }));
            }
        }
    }
    let labels: Vec<u32> = indices.iter().map(|&i| data.labels[i] as u32).collect();
    let n = indices.len();
    Ok((Tensor::from_vec(x, (n, c, h, w), &Device::Cpu)?, Tensor::from_vec(labels, n, &Device::Cpu)?))
}

fn features(p: &Tensors, x: &Tensor) -> candle_core::Result<Tensor> {
    let mut h = x.clone();
    for (i, stride) in STRIDES.into_iter().enumerate() {
        h = conv2d(&h, &p[&format!("c{i}.w")], &p[&format!("c{i}.b")], stride, [1, 1], i > 0)?;
        h = match p.get(&format!("n{i}.w")) {
            Some(scale) => group_norm(&h, scale, &p[&format!("n{i}.b")], GROUPS, true)?,
            None => h.silu()?,
        };
    }
    linear(p, "features", &h.flatten_from(1)?)?.silu()
}

fn scores(p: &Tensors, features: &Tensor) -> candle_core::Result<Tensor> {
    linear(p, "out", features)
}

fn linear(p: &Tensors, name: &str, x: &Tensor) -> candle_core::Result<Tensor> {
    x.matmul(&p[&format!("{name}.w")].t()?)?.broadcast_add(&p[&format!("{name}.b")])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8×8 pictures with a bright half: the left one for class 0, the right one for class 1.
    fn halves(n: usize) -> Dataset {
        let pixels = (0..n * 64)
            .map(|i| {
                let (picture, x) = (i / 64, i % 8);
                let bright = (x >= 4) == (picture % 2 == 1);
                (if bright { 160 } else { 40 }) + ((i * 37) % 50) as u8
            })
            .collect();
        let class_names = vec!["left".to_string(), "right".into()];
        Dataset { pixels, shape: [1, 8, 8], labels: (0..n).map(|i| i % 2).collect(), class_names }
    }

    const OPTIONS: Options = Options { epochs: 6, batch: 10, rate: 3e-3, flip: false, seed: 3 };

    #[test]
    fn it_learns_and_survives_being_saved() {
        let (train, test) = (halves(200), halves(40));
        let classifier = Classifier::train(&train, &test, &OPTIONS, |_, _| ()).unwrap();
        assert_eq!(classifier.header.test_accuracy, 1.0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        classifier.save(&path).unwrap();
        let again = Classifier::load(&path).unwrap();
        assert_eq!(again.header, classifier.header);
        let (a, b) = (again.judge(&test.pixels).unwrap(), classifier.judge(&test.pixels).unwrap());
        assert_eq!((a.classes, a.features), (b.classes, b.features));
        std::fs::write(&path, &std::fs::read(&path).unwrap()[..999]).unwrap();
        assert!(Classifier::load(&path).err().unwrap().to_string().contains("not a classifier"));
    }

    #[test]
    fn the_same_seed_trains_the_same_classifier() {
        let data = halves(30);
        let options = Options { epochs: 1, ..OPTIONS };
        let train = || Classifier::train(&data, &data, &options, |_, _| ()).unwrap().judge(&data.pixels).unwrap();
        assert_eq!(train().features, train().features);
    }
}
