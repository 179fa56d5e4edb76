//! Runs of a sampler by edgegen: the network calls of its trajectories, and whole samples.

use super::cases::Cases;
use crate::noise_path::level_at;
use anyhow::{Context, Result};
use edgegen::model::ModelNetwork;
use edgegen::network::{Guided, Preconditioned};
use edgegen::noise::Noise;
use edgegen::sampler::{Control, Sampler};
use edgegen::schedule::{Level, Schedule};
use edgegen::solver::{Prediction, Program, Solver};
use edgegen::{Condition, Model, Network, Settings};

/// What a network was given in one call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The sample as the network saw it.
    pub x: Vec<f32>,
    /// What it was told of the noise.
    pub time: f64,
    /// Where the step led, if that was told.
    pub next: Option<Level>,
    /// The number of the condition.
    pub condition: usize,
}

/// Calls, and the conditions that they were under.
#[derive(Default)]
pub struct Calls {
    /// The calls, those of a condition one after the other.
    pub calls: Vec<Call>,
    /// The conditions.
    pub conditions: Vec<Condition>,
}

/// Seeds of calibration, of the choice of layers, and of the report: no sample of one is in another.
#[derive(Clone, Copy)]
pub enum Purpose {
    Calibration = 0x0ca1,
    Choice = 0x0ca2,
    Report = 0x0ca3,
}

/// The numbers of steps of calibration's runs, in turn, so that all times are seen.
const STEPS: [usize; 3] = [10, 16, 25];
/// The most numbers that recorded samples may have together, 256 MB.
const MOST_NUMBERS: usize = 1 << 26;

/// A sampler that suits the model: its own if that has fixed steps.
fn settings(model: &Model, steps: usize) -> Result<Settings> {
    let mut settings = Settings::of(model)?;
    if matches!(settings.solver, Solver::Adaptive(_)) {
        settings = Settings::with_solver(model, Solver::from_name("dpm++2m")?);
    }
    settings.steps = steps;
    Ok(settings)
}

/// The steps of the model's own runs.
pub fn own_steps(model: &Model) -> Result<usize> {
    Ok(Settings::of(model)?.steps)
}

fn program(model: &Model, settings: &Settings, schedule: &Schedule) -> Result<Program> {
    let config = model.scheduler_config();
    let grid = settings.grid(config, schedule)?;
    let prediction = Prediction { kind: config.prediction(), threshold: settings.threshold };
    Ok(settings.solver.compile(&grid, schedule, prediction)?)
}

/// The calls of `count` runs from noise, under the conditions in turn, and of as many of the data's samples at levels of noise
/// spread over all, where there is data.
///
/// # Errors
/// When the network cannot be run.
pub fn calls(model: &Model, cases: &Cases, count: usize) -> Result<Calls> {
    let schedule = Schedule::from_config(model.scheduler_config())?;
    let guidance = settings(model, STEPS[0])?.guidance;
    let programs = STEPS.map(|steps| program(model, &settings(model, steps)?, &schedule));
    let programs = programs.into_iter().collect::<Result<Vec<_>>>()?;
    let mut calls = Calls::default();
    let recorder = Recorder { network: model.network()?, calls: &mut calls, bound: Vec::new(), next: None };
    let mut network = Guided::new(Preconditioned::new(recorder, model.scheduler_config().preconditioning()), guidance)?;
    let each = network.sample_len();
    let (mut x, mut out) = (vec![0.0; each], vec![0.0; each]);
    for i in 0..count {
        let mut noise = Noise::new(Purpose::Calibration as u64, i as u64);
        noise.fill(&mut x);
        let mut sampler = Sampler::new(programs[i % programs.len()].clone(), each);
        let condition = cases.condition(i);
        sampler
            .run(&mut network, &condition, &mut noise, &mut x, &mut Control::default())
            .context("a calibration run")?;
        if let Some(sample) = cases.sample(i) {
            let level = level_at(&schedule, (i as f64 + 0.5) / count as f64);
            noise.fill(&mut x);
            level.noise(sample, &mut x);
            let time = network.time_of(level);
            network.predict(&x, time, 0, &mut out).context("a call on the data")?;
        }
    }
    drop(network);
    let keep_every = (calls.calls.len() * each).div_ceil(MOST_NUMBERS).max(1);
    calls.calls = calls.calls.into_iter().step_by(keep_every).collect();
    Ok(calls)
}

/// Samples of `count` runs of so many steps from the noise of a purpose.
///
/// # Errors
/// When the network cannot be run.
pub fn samples(model: &Model, cases: &Cases, purpose: Purpose, count: usize, steps: usize) -> Result<Vec<Vec<f32>>> {
    let schedule = Schedule::from_config(model.scheduler_config())?;
    let settings = settings(model, steps)?;
    let program = program(model, &settings, &schedule)?;
    let preconditioned = Preconditioned::new(model.network()?, model.scheduler_config().preconditioning());
    let mut network = Guided::new(preconditioned, settings.guidance)?;
    let len = network.sample_len();
    let of_run = |i: usize| {
        let mut noise = Noise::new(purpose as u64, i as u64);
        let mut x = vec![0.0; len];
        noise.fill(&mut x);
        let mut sampler = Sampler::new(program.clone(), x.len());
        // conditions that calibration has not seen
        let condition = cases.condition(100_000 * purpose as usize + i);
        sampler.run(&mut network, &condition, &mut noise, &mut x, &mut Control::default()).context("a run")?;
        Ok(x)
    };
    (0..count).map(of_run).collect()
}

/// The root mean square distance of samples.
pub fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    let sum: f64 = a.iter().zip(b).flat_map(|(a, b)| a.iter().zip(b)).map(square).sum();
    (sum / a.iter().map(Vec::len).sum::<usize>().max(1) as f64).sqrt()
}

/// The standard deviation of all numbers.
pub fn deviation(samples: &[Vec<f32>]) -> f64 {
    let all = || samples.iter().flatten().map(|v| f64::from(*v));
    let count = all().count().max(1) as f64;
    let mean = all().sum::<f64>() / count;
    (all().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// A network that notes what it is given.
struct Recorder<'r> {
    network: ModelNetwork,
    calls: &'r mut Calls,
    /// The number of the condition in each slot.
    bound: Vec<usize>,
    next: Option<Level>,
}

impl Network for Recorder<'_> {
    fn sample_shape(&self) -> &[usize] {
        self.network.sample_shape()
    }

    fn bind(&mut self, slot: usize, condition: &Condition) -> edgegen::Result<()> {
        let known = self.calls.conditions.iter().rposition(|known| known == condition);
        let number = known.unwrap_or(self.calls.conditions.len());
        if known.is_none() {
            self.calls.conditions.push(condition.clone());
        }
        self.bound.resize(self.bound.len().max(slot + 1), 0);
        self.bound[slot] = number;
        self.network.bind(slot, condition)
    }

    fn time_of(&self, level: Level) -> f64 {
        self.network.time_of(level)
    }

    fn lead_to(&mut self, level: Level) {
        self.next = Some(level);
        self.network.lead_to(level);
    }

    fn variance(&self) -> Option<&[f32]> {
        self.network.variance()
    }

    fn predict(&mut self, x: &[f32], time: f64, slot: usize, out: &mut [f32]) -> edgegen::Result<()> {
        self.calls.calls.push(Call { x: x.to_vec(), time, next: self.next, condition: self.bound[slot] });
        self.network.predict(x, time, slot, out)
    }
}
