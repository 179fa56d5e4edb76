//! Judging a model's samples: are they recognised as what was asked for, and how far are their features from real
//! pictures'?

use crate::classifier::{Classifier, accuracy};
use crate::data::Dataset;
use crate::frechet::{Moments, distance};
use anyhow::{Context, Result, bail, ensure};
use edgegen::{Generator, Model, Request, Settings};
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How good a set of pictures is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// The share recognised as their class.
    pub accuracy: f64,
    /// That share, for each class.
    pub accuracy_by_class: Vec<f64>,
    /// The Fréchet distance of their features to the training pictures'.
    pub frechet: f64,
}

/// What pictures are judged against.
pub struct Judge {
    classifier: Classifier,
    reference: Moments,
}

impl Judge {
    /// Judges by `classifier`, and by its features of the pictures in `train`.
    ///
    /// # Errors
    /// When the classifier was made for other pictures.
    pub fn new(classifier: Classifier, train: &Dataset) -> Result<Self> {
        let header = &classifier.header;
        ensure!(
            header.shape == train.shape && header.class_names.len() == train.class_names.len(),
            "the classifier is for samples of shape {:?} in {} classes, but the data has {:?} in {}",
            header.shape,
            header.class_names.len(),
            train.shape,
            train.class_names.len()
        );
        ensure!(train.len() >= 2, "the data has {} pictures; two are the least", train.len());
        let reference = Moments::of(&classifier.judge(&train.pixels)?.features, Classifier::FEATURES);
        Ok(Judge { classifier, reference })
    }

    /// Judges pictures, given as bytes one after the other, that should be of the classes `labels`.
    ///
    /// # Errors
    /// When there are fewer than two.
    pub fn scores(&self, pixels: &[u8], labels: &[usize]) -> Result<Scores> {
        ensure!(labels.len() >= 2, "a distance needs at least two samples");
        let verdict = self.classifier.judge(pixels)?;
        let of_class = |class: usize| {
            let of = |all: &[usize]| all.iter().zip(labels).filter(|(_, l)| **l == class).map(|(v, _)| *v).collect();
            let found: Vec<usize> = of(&verdict.classes);
            accuracy(&found, &vec![class; found.len()])
        };
        Ok(Scores {
            accuracy: accuracy(&verdict.classes, labels),
            accuracy_by_class: (0..self.classifier.header.class_names.len()).map(of_class).collect(),
            frechet: distance(&Moments::of(&verdict.features, Classifier::FEATURES), &self.reference),
        })
    }

    /// Checks that `model` makes what this judges.
    ///
    /// # Errors
    /// When its samples are of another shape, or it knows other classes.
    pub fn check(&self, model: &Model) -> Result<()> {
        let header = &self.classifier.header;
        ensure!(
            model.sample_shape() == header.shape,
            "the model's samples have shape {:?}, but the classifier is for {:?}",
            model.sample_shape(),
            header.shape
        );
        let classes = model.num_classes().unwrap_or(0);
        ensure!(
            model.takes_class() && classes == header.class_names.len(),
            "the model knows {classes} classes, but the classifier {}",
            header.class_names.len()
        );
        Ok(())
    }
}

/// The classes of `count` samples: each in turn.
pub fn labels(count: usize, classes: usize) -> Vec<usize> {
    (0..count).map(|i| i % classes).collect()
}

/// Makes a sample for each of `labels`, on every core, as bytes: rounded as in a written picture. `done` is called
/// after each.
///
/// # Errors
/// When the settings do not fit the model, or the network fails.
pub fn generate(
    model: &Model,
    settings: &Settings,
    labels: &[usize],
    seed: u64,
    done: impl Fn() + Sync,
) -> Result<Vec<u8>> {
    let len: usize = model.sample_shape().iter().product();
    let (low, high) = model.metadata().value_range.unwrap_or((-1.0, 1.0));
    let pixels = Mutex::new(vec![0u8; labels.len() * len]);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = |mut generator: Generator| -> Result<()> {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= labels.len() || failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let made = generator.run(&Request::new(seed, i as u64).class(labels[i]));
            let made = made.inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            let bytes = made.sample.iter().map(|v| ((v - low) / (high - low) * 255.0).round() as u8);
            let mut pixels = pixels.lock().expect("no thread panics holding it");
            pixels[i * len..][..len].iter_mut().zip(bytes).for_each(|(p, b)| *p = b);
            drop(pixels);
            done();
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let generators = (0..threads).map(|_| Generator::new(model, settings)).collect::<Result<Vec<_>, _>>()?;
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let handles: Vec<_> = generators.into_iter().map(|g| scope.spawn(|| work(g))).collect();
        handles.into_iter().map(|h| h.join().unwrap_or_else(|_| bail!("a sampling thread failed"))).collect()
    });
    results.into_iter().collect::<Result<()>>().context("sampling")?;
    Ok(pixels.into_inner().expect("no thread panics holding it"))
}
