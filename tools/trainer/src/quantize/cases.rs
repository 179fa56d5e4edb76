//! What a network is calibrated under: its conditions and, if there are any, samples of its data.

use crate::cli::data::{Data, SequenceArgs};
use crate::data::Condition as Given;
use anyhow::{Context, Result, bail, ensure};
use edgegen::model::{Input, Role};
use edgegen::noise::{Noise, choice};
use edgegen::output::read_npy;
use edgegen::{Condition, Model, Network};
use std::path::Path;

/// The file of the samples in a folder of arrays.
const SAMPLES: &str = "samples.npy";
/// The seed of random conditions.
const SEED: u64 = 0xc0de;
/// The most classes that are looked for where a file does not say how many there are.
const MOST_CLASSES: usize = 4096;

/// Conditions and samples, in the network's units.
pub struct Cases {
    /// Samples, if there is data.
    samples: Vec<Vec<f32>>,
    /// What each is conditioned on: as many as there are samples, if there are any.
    conditions: Vec<Condition>,
    classes: usize,
    random: Vec<(String, usize)>,
}

impl Cases {
    /// Every class in turn, and noise for every other condition.
    ///
    /// # Errors
    /// When a condition is not to be made of noise.
    pub fn of_noise(model: &Model) -> Result<Self> {
        let others: Vec<&Input> = model.inputs().iter().filter(|i| i.role == Role::Condition).collect();
        if let Some(input) = others.iter().find(|i| !i.element_type().starts_with('F')) {
            bail!(
                "the condition {} takes whole numbers, which --noise cannot make: give --data FOLDER with {0}.npy",
                input.name
            );
        }
        let random = others.into_iter().map(|i| (i.name.clone(), i.len())).collect();
        Ok(Cases { samples: Vec::new(), conditions: Vec::new(), classes: classes(model)?, random })
    }

    /// The data in a folder: arrays `samples.npy` and one by each condition's name, with a row for each sample; or what
    /// `train` reads.
    ///
    /// # Errors
    /// When the folder is not there, or what it holds does not fit the model.
    pub fn open(folder: &Path, model: &Model, sequences: &SequenceArgs) -> Result<Self> {
        let found =
            std::fs::metadata(folder).with_context(|| format!("cannot open the data folder {}", folder.display()))?;
        ensure!(found.is_dir(), "{} is not a folder", folder.display());
        let (samples, conditions) = if folder.join(SAMPLES).exists() || !trains(folder) {
            arrays(folder, model)?
        } else {
            of_training(folder, model, sequences)?
        };
        ensure!(!conditions.is_empty(), "{} holds no sample", folder.display());
        for condition in &conditions {
            model.check_condition(condition).with_context(|| format!("the data in {}", folder.display()))?;
        }
        Ok(Cases { samples, conditions, classes: 0, random: Vec::new() })
    }

    /// The condition of run `i`.
    pub fn condition(&self, i: usize) -> Condition {
        if !self.conditions.is_empty() {
            return self.conditions[self.of_run(i)].clone();
        }
        let mut condition = Condition::default();
        if self.classes > 0 {
            condition.class = Some(i % self.classes);
        }
        for (k, (name, len)) in self.random.iter().enumerate() {
            let mut values = vec![0.0; *len];
            Noise::new(SEED + k as u64, i as u64).fill(&mut values);
            condition.named.insert(name.clone(), values);
        }
        condition
    }

    /// The sample of run `i`, if there is data.
    pub fn sample(&self, i: usize) -> Option<&[f32]> {
        if self.samples.is_empty() { None } else { Some(&self.samples[self.of_run(i)]) }
    }

    /// Data sets are sorted by class or by episode: runs are spread over them.
    fn of_run(&self, i: usize) -> usize {
        choice(SEED, i as u64, self.conditions.len())
    }
}

/// Whether a folder is one of those that `train` reads: anything but a folder of arrays alone.
fn trains(folder: &Path) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let npy = |name: &str| name.ends_with(".npy");
    let names: Vec<String> = files.map(|f| f.file_name().to_string_lossy().into_owned()).collect();
    names.iter().any(|name| name == "actions.npy") || !names.iter().any(|name| npy(name))
}

/// The classes that a model knows, counted by asking for them where its file does not say.
fn classes(model: &Model) -> Result<usize> {
    if !model.takes_class() {
        return Ok(0);
    }
    if let Some(count) = model.num_classes() {
        return Ok(count);
    }
    let (mut network, mut condition) = (model.network()?, model.blank_condition());
    let known = |class: &usize| {
        condition.class = Some(*class);
        network.bind(0, &condition).is_ok()
    };
    Ok((0..MOST_CLASSES).take_while(known).count().max(1))
}

/// Rows of an array, each of so many numbers.
fn rows(path: &Path, each: usize, what: &str) -> Result<Vec<Vec<f32>>> {
    let (shape, values) = read_npy(path)?;
    let count = shape.first().copied().unwrap_or(0);
    ensure!(count > 0 && values.len() == count * each, "{} has shape {shape:?}, but {what}", path.display());
    ensure!(values.iter().all(|v| v.is_finite()), "{} holds numbers that are not finite", path.display());
    Ok(values.chunks(each.max(1)).map(<[f32]>::to_vec).collect())
}

/// Samples and conditions from arrays in the data's units.
fn arrays(folder: &Path, model: &Model) -> Result<(Vec<Vec<f32>>, Vec<Condition>)> {
    let shape = model.sample_shape();
    let path = folder.join(SAMPLES);
    let mut samples = Vec::new();
    if path.exists() {
        samples = rows(&path, shape.iter().product(), &format!("the network's samples have shape {shape:?}"))?;
        samples.iter_mut().for_each(|x| model.normalizer().normalize(x));
    }
    let mut conditions = vec![Condition::default(); samples.len()];
    for input in model.inputs().iter().filter(|i| matches!(i.role, Role::Condition | Role::Class)) {
        let path = folder.join(format!("{}.npy", input.name));
        ensure!(
            path.exists(),
            "{} is missing, which the network's input {} is to be given from",
            path.display(),
            input.name
        );
        let is_class = input.role == Role::Class;
        let each = if is_class { 1 } else { input.len() };
        let given = rows(&path, each, &format!("the network's input {} takes {each} numbers a sample", input.name))?;
        if conditions.is_empty() {
            conditions = vec![Condition::default(); given.len()];
        }
        ensure!(
            given.len() == conditions.len(),
            "{} has {} rows, but there are {} samples",
            path.display(),
            given.len(),
            conditions.len()
        );
        for (condition, values) in conditions.iter_mut().zip(given) {
            if is_class {
                ensure!(
                    values[0] >= 0.0 && values[0].fract() == 0.0,
                    "{} holds {}, which is no class",
                    path.display(),
                    values[0]
                );
                condition.class = Some(values[0] as usize);
            } else {
                condition.named.insert(input.name.clone(), values);
            }
        }
    }
    ensure!(!conditions.is_empty(), "{} has no {SAMPLES}, and the network takes no conditions", folder.display());
    conditions.iter_mut().for_each(|condition| model.normalizer().normalize_conditions(&mut condition.named));
    Ok((samples, conditions))
}

/// Samples and conditions as networks are trained on them, which are in the network's units.
fn of_training(folder: &Path, model: &Model, sequences: &SequenceArgs) -> Result<(Vec<Vec<f32>>, Vec<Condition>)> {
    let shape = model.sample_shape();
    let size = if shape.len() == 3 { Some(shape[2]) } else { None };
    let data = Data::open(folder, size, None, sequences)?;
    let data = data.samples();
    ensure!(
        data.sample_shape() == shape,
        "the data's samples have shape {:?}, but the network's have {shape:?}",
        data.sample_shape()
    );
    let condition = model.inputs().iter().find(|i| i.role == Role::Condition);
    // as many as any calibration takes
    let count = data.count().min(4096);
    let chosen = (0..count).map(|i| choice(SEED, i as u64, data.count()));
    let mut cases = (Vec::new(), Vec::new());
    for i in chosen {
        let mut sample = Vec::new();
        data.append(i, &mut sample);
        cases.0.push(sample);
        cases.1.push(match (data.given(i), condition) {
            (Given::Label(class), _) if model.takes_class() => Condition::class(class),
            (Given::Numbers(numbers), Some(input)) => Condition::default().with(&input.name, numbers),
            _ => Condition::default(),
        });
    }
    Ok(cases)
}
