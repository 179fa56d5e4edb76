//! Finding the noise levels that few-step runs of a model should visit.
//!
//! A run's error is what it leaves of the way to where the probability-flow ODE leads: the mean square distance, over
//! some x_T, between its sample and that of a run with many steps. The times are moved one at a time, by ever smaller
//! amounts, for as long as that falls. (That the best steps can be found so, from the model alone, is the idea of
//! arXiv 2404.14507 and 2402.17376; the objective here is the plain distance of the ends.)

use anyhow::{Context, Result, bail, ensure};
use edgegen::config::FittedStep;
use edgegen::network::{Guided, Preconditioned};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::{Grid, Level, Path, Schedule};
use edgegen::solver::{Prediction, Program, Solver};
use edgegen::{Condition, Model, Network, Settings};
use onnx::pb::{ModelProto, StringStringEntryProto};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Searches a model's best times.
pub struct Tuner<'a> {
    pub(crate) model: &'a Model,
    pub(crate) settings: Settings,
    pub(crate) schedule: Schedule,
    seed: u64,
    /// Where the ODE leads from each x_T.
    pub(crate) ends: Vec<Vec<f32>>,
}

/// The best times that were found for a number of steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// The times, which fall.
    pub times: Vec<f64>,
    /// The root mean square distance from the ODE's end with them.
    pub error: f64,
    /// The same with the model's own spacing.
    pub before: f64,
}

/// The least distance between two times.
const GAP: f64 = 1.0;

impl<'a> Tuner<'a> {
    /// Tunes for `settings`, on `samples` x_T of the run with `seed`, against runs of `reference_steps` steps.
    ///
    /// # Errors
    /// When the settings do not fit the model, or the solver is not deterministic with fixed steps.
    pub fn new(
        model: &'a Model,
        settings: &Settings,
        samples: usize,
        reference_steps: usize,
        seed: u64,
    ) -> Result<Self> {
        ensure!(samples > 0, "tuning needs at least one sample");
        let schedule = Schedule::from_config(model.scheduler_config())?;
        let mut tuner = Tuner { model, settings: settings.clone(), schedule, seed, ends: vec![Vec::new(); samples] };
        if matches!(settings.solver, Solver::Adaptive(_)) || tuner.program(&tuner.start(2)?)?.is_stochastic() {
            bail!("only a deterministic sampler with fixed steps can be tuned");
        }
        let times = tuner.start(reference_steps)?;
        tuner.ends = tuner.run(&times)?;
        Ok(tuner)
    }

    /// The best times for `steps` steps.
    ///
    /// # Errors
    /// When the network fails.
    pub fn tune(&self, steps: usize) -> Result<Tuned> {
        let (first, last) = self.times();
        let mut times = self.start(steps)?;
        let before = self.error(&times)?;
        let mut error = before;
        let mut amount = 0.5 * last / steps as f64;
        while amount >= 2.0 {
            let mut better = false;
            for i in 0..steps {
                for direction in [-1.0, 1.0] {
                    let mut moved = times.clone();
                    moved[i] += direction * amount;
                    let above = if i == 0 { last } else { times[i - 1] - GAP };
                    let below = if i + 1 == steps { first } else { times[i + 1] + GAP };
                    if !(below..=above).contains(&moved[i]) {
                        continue;
                    }
                    let found = self.error(&moved)?;
                    if found < error {
                        (times, error, better) = (moved, found, true);
                    }
                }
            }
            if !better {
                amount /= 2.0;
            }
        }
        Ok(Tuned { times, error, before })
    }

    /// The times of the model's own spacing.
    ///
    /// # Errors
    /// When there are too few or too many steps.
    pub fn start(&self, steps: usize) -> Result<Vec<f64>> {
        let mut settings = self.settings.clone();
        settings.steps = steps;
        let grid = settings.grid(self.model.scheduler_config(), &self.schedule)?;
        Ok(grid.steps().iter().map(|s| s.from.time).collect())
    }

    /// The least and the greatest time of a step. Those of training steps begin at 0, which on a rectified flow is where
    /// there is no noise, and end at the last, before that of pure noise on a flow.
    pub(crate) fn times(&self) -> (f64, f64) {
        let last = (self.schedule.len() - 1) as f64;
        if self.schedule.path() == Path::RectifiedFlow { (GAP, last + 1.0) } else { (0.0, last) }
    }

    fn program(&self, times: &[f64]) -> Result<Program> {
        let levels: Vec<Level> = times.iter().map(|t| self.schedule.level(*t)).chain([Level::CLEAN]).collect();
        let prediction =
            Prediction { kind: self.model.scheduler_config().prediction(), threshold: self.settings.threshold };
        Ok(self.settings.solver.compile(&Grid::new(&levels)?, &self.schedule, prediction)?)
    }

    /// The root mean square distance of the samples with these times from the ODE's ends.
    fn error(&self, times: &[f64]) -> Result<f64> {
        let samples = self.run(times)?;
        let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
        let sum: f64 = samples.iter().zip(&self.ends).flat_map(|(a, b)| a.iter().zip(b)).map(square).sum();
        Ok((sum / samples.iter().map(Vec::len).sum::<usize>() as f64).sqrt())
    }

    /// The samples with these times.
    fn run(&self, times: &[f64]) -> Result<Vec<Vec<f32>>> {
        let program = self.program(times)?;
        let made = self.each(|network, i, made: &mut Vec<(usize, Vec<f32>)>| {
            let (mut x, condition) = self.case(i);
            let mut sampler = Sampler::new(program.clone(), x.len());
            // no noise is drawn on the way
            sampler.run(network, &condition, &mut Noise::new(0, 0), &mut x, &mut Control::default())?;
            made.push((i, x));
            Ok(())
        })?;
        let mut samples = vec![Vec::new(); self.ends.len()];
        made.into_iter().flatten().for_each(|(i, x)| samples[i] = x);
        Ok(samples)
    }

    /// The noise that sample `i` starts from, and what it is conditioned on: the classes in turn.
    pub(crate) fn case(&self, i: usize) -> (Vec<f32>, Condition) {
        let mut x = vec![0.0; self.model.sample_shape().iter().product()];
        Noise::new(self.seed, i as u64).fill(&mut x);
        let classes = self.model.num_classes().filter(|_| self.model.takes_class());
        (x, classes.map_or_else(Condition::default, |n| Condition::class(i % n)))
    }

    /// Does `work` for each sample, on every core, each with a state of its own; gives the states.
    pub(crate) fn each<S: Default + Send>(
        &self,
        work: impl Fn(&mut dyn Network, usize, &mut S) -> Result<()> + Sync,
    ) -> Result<Vec<S>> {
        let (next, count) = (AtomicUsize::new(0), self.ends.len());
        let config = self.model.scheduler_config();
        let on_a_core = || -> Result<S> {
            let mut network = Guided::new(
                Preconditioned::new(self.model.network()?, config.preconditioning()),
                self.settings.guidance,
            )?;
            let mut state = S::default();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok(state);
                }
                work(&mut network, i, &mut state)?;
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(on_a_core)).collect();
            handles.into_iter().map(|h| h.join().unwrap_or_else(|_| bail!("a sampling thread failed"))).collect()
        })
    }
}

/// The ONNX file in `bytes` with these tuned times and fitted steps, by the number of steps, in its configuration,
/// recommending `sampler` and the tuned steps. Those of other numbers of steps stay.
///
/// # Errors
/// When the file is not ONNX, or has no configuration of its own.
pub fn with_steps(
    bytes: &[u8],
    sampler: &str,
    tuned: &BTreeMap<usize, Vec<f64>>,
    fitted: &BTreeMap<usize, Vec<FittedStep>>,
) -> Result<Vec<u8>> {
    let mut model = ModelProto::decode(bytes).context("this is not an ONNX file")?;
    let Some(entry) = model.metadata_props.iter_mut().find(|e| e.key == "edgegen.scheduler") else {
        bail!("the model has no edgegen.scheduler to write the steps into");
    };
    let mut config = edgegen::config::SchedulerConfig::from_json(&entry.value)?;
    // a thousandth of a training step, and a millionth of a sample, are more than any network tells apart
    let round = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
    for (n, times) in tuned {
        config.tuned_timesteps.insert(*n, times.iter().map(|t| round(*t, 3)).collect());
    }
    for (n, steps) in fitted {
        let rounded = |s: &FittedStep| FittedStep {
            time: round(s.time, 3),
            x: round(s.x, 6),
            x0: s.x0.iter().map(|w| round(*w, 6)).collect(),
        };
        config.fitted_steps.insert(*n, steps.iter().map(rounded).collect());
    }
    entry.value = config.to_json();
    for (key, value) in [("edgegen.spacing", "tuned"), ("edgegen.sampler", sampler)] {
        match model.metadata_props.iter_mut().find(|e| e.key == key) {
            Some(entry) => entry.value = value.into(),
            None => model.metadata_props.push(StringStringEntryProto { key: key.into(), value: value.into() }),
        }
    }
    Ok(model.encode_to_vec())
}
