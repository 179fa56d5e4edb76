//! Runs a compiled solver against a network, in a workspace made once.

pub use crate::adaptive::AdaptiveSampler;
use crate::condition::Condition;
use crate::config::PredictionType;
use crate::constraint::Constraint;
use crate::network::Network;
use crate::noise::Noise;
use crate::schedule::Level;
use crate::solver::{Prediction, Program, SAMPLE, Stage, Threshold, Update};
use crate::{Error, ErrorKind, Result};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How far a run is, for its callback.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Steps done, from 1.
    pub step: usize,
    /// Steps in all; 0 where that is not known beforehand.
    pub steps: usize,
    /// The sample x_t now.
    pub x: &'a [f32],
    /// The estimate of the clean sample from the last evaluation.
    pub x0: &'a [f32],
}

/// Called after every step of a run; `Break` ends it.
pub type OnStep<'a> = dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'a;

/// What watches a run, steers it, and may end it before its last step.
#[derive(Default)]
pub struct Control<'a> {
    /// Called after every step; `Break` ends the run.
    pub on_step: Option<&'a mut OnStep<'a>>,
    /// Ends the run once it is true.
    pub cancel: Option<&'a AtomicBool>,
    /// Ends the run once it is past.
    pub deadline: Option<Instant>,
    /// What the sample must agree with; for solvers with fixed steps.
    pub constraint: Option<&'a mut dyn Constraint>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every step was taken.
    Complete,
    /// The callback asked for it.
    Callback,
    /// The cancel flag was set.
    Cancelled,
    /// The deadline passed.
    Deadline,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why it ended.
    pub ending: Ending,
    /// Steps taken.
    pub steps: usize,
    /// Network calls made.
    pub nfe: usize,
}

/// Calls a network and splits its prediction into estimates of x_0 and ε, in buffers of its own.
pub(crate) struct Evaluator {
    prediction: Prediction,
    output: Vec<f32>,
    /// Room for the magnitudes of x_0, to find their quantile in.
    magnitudes: Vec<f32>,
    /// Room for y = x/γ, if the network takes that.
    scaled: Vec<f32>,
}

impl Evaluator {
    pub fn new(prediction: Prediction, len: usize) -> Self {
        let dynamic = matches!(prediction.threshold, Threshold::Dynamic { .. });
        let buffer = |needed: bool| vec![0.0; if needed { len } else { 0 }];
        Evaluator {
            prediction,
            output: buffer(true),
            magnitudes: buffer(dynamic),
            scaled: buffer(prediction.kind == PredictionType::Denoised),
        }
    }

    #[cfg(feature = "onnx")]
    fn touch(&mut self) {
        [&mut self.output, &mut self.magnitudes, &mut self.scaled].into_iter().for_each(|b| b.fill(1.0));
    }

    #[cfg(feature = "onnx")]
    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.output) + size_of_val(&*self.magnitudes) + size_of_val(&*self.scaled)
    }

    /// The estimates at `level`: x_0 after thresholding, and ε, which follows it there or not, and then what the
    /// constraint makes of x_0, which ε always follows.
    #[allow(clippy::too_many_arguments, reason = "each is another part of one evaluation")]
    pub fn evaluate(
        &mut self,
        network: &mut dyn Network,
        condition: &Condition,
        level: Level,
        x: &[f32],
        x0: &mut [f32],
        eps: Option<(&mut [f32], bool)>,
        constraint: Option<&mut (dyn Constraint + '_)>,
    ) -> Result<()> {
        if self.prediction.kind == PredictionType::Denoised {
            let scale = (1.0 / level.gamma) as f32;
            self.scaled.iter_mut().zip(x).for_each(|(y, x)| *y = scale * x);
            network.predict(&self.scaled, level.edm_sigma(), condition, &mut self.output)?;
        } else {
            network.predict(x, level.time, condition, &mut self.output)?;
        }
        if let Some(i) = self.output.iter().position(|v| !v.is_finite()) {
            return Err(Error::new(
                ErrorKind::NotFinite,
                format!(
                    "the network's prediction at time {} is not finite: element {i} is {}",
                    level.time, self.output[i]
                ),
            ));
        }
        Split::new(self.prediction.kind, level).x0.combine(x, &self.output, x0);
        self.threshold(x0);
        let constrained = constraint.is_some();
        if let Some(constraint) = constraint {
            constraint.correct(level, x0);
        }
        if let Some((eps, follows_x0)) = eps {
            if constrained || (follows_x0 && self.prediction.threshold != Threshold::None) {
                Split::new(PredictionType::Sample, level).eps.combine(x, x0, eps);
            } else {
                Split::new(self.prediction.kind, level).eps.combine(x, &self.output, eps);
            }
        }
        Ok(())
    }

    fn threshold(&mut self, x0: &mut [f32]) {
        match self.prediction.threshold {
            Threshold::None => {}
            Threshold::Static(bound) => {
                let bound = bound as f32;
                x0.iter_mut().for_each(|v| *v = v.clamp(-bound, bound));
            }
            Threshold::Dynamic { ratio, max } => {
                self.magnitudes.iter_mut().zip(&*x0).for_each(|(m, v)| *m = v.abs());
                let s = quantile(&mut self.magnitudes, ratio).clamp(1.0, max as f32);
                x0.iter_mut().for_each(|v| *v = v.clamp(-s, s) / s);
            }
        }
    }
}

/// A compiled solver and the buffers to run it in.
///
/// ```
/// use edgegen::Condition;
/// use edgegen::config::{PredictionType, SchedulerConfig, Spacing};
/// use edgegen::Network;
/// use edgegen::noise::Noise;
/// use edgegen::sampler::{Control, Sampler};
/// use edgegen::schedule::Schedule;
/// use edgegen::solver::{Churn, Prediction, Solver, Threshold};
///
/// /// If the data is one point, the best guess of the clean sample is that point.
/// struct Point;
/// impl Network for Point {
///     fn sample_shape(&self) -> &[usize] {
///         &[2]
///     }
///     fn predict(&mut self, _x: &[f32], _t: f64, _c: &Condition, out: &mut [f32]) -> edgegen::Result<()> {
///         out.copy_from_slice(&[0.25, -0.5]);
///         Ok(())
///     }
/// }
///
/// let schedule = Schedule::from_config(&SchedulerConfig::default())?;
/// let grid = schedule.grid(10, Spacing::Trailing, 0, true)?;
/// let prediction = Prediction { kind: PredictionType::Sample, threshold: Threshold::None };
/// let program = Solver::Heun(Churn::NONE).compile(&grid, &schedule, prediction)?;
///
/// let mut sampler = Sampler::new(program, 2);
/// let mut noise = Noise::new(0, 0);
/// let mut x = [0.0; 2];
/// noise.fill(&mut x);
/// let outcome = sampler.run(&mut Point, &Condition::default(), &mut noise, &mut x, &mut Control::default())?;
/// assert_eq!(outcome.nfe, 19);
/// assert!((x[0] - 0.25).abs() < 1e-6 && (x[1] + 0.5).abs() < 1e-6);
/// # Ok::<(), edgegen::Error>(())
/// ```
pub struct Sampler {
    program: Program,
    len: usize,
    /// All registers, one after the other.
    registers: Vec<f32>,
    evaluator: Evaluator,
}

/// Elements that a linear combination works on at a time: few enough to stay in the first cache.
const BLOCK: usize = 512;

impl Sampler {
    /// The program with buffers for samples of `len` numbers. Nothing is allocated after this.
    pub fn new(program: Program, len: usize) -> Self {
        let registers = vec![0.0; program.registers * len];
        let evaluator = Evaluator::new(program.prediction, len);
        Sampler { program, len, registers, evaluator }
    }

    /// The program that this runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Writes to every buffer, so that the system gives their pages now rather than in the first run.
    #[cfg(feature = "onnx")]
    pub(crate) fn touch(&mut self) {
        // not zero, which memory fresh from the system already is
        self.registers.fill(1.0);
        self.evaluator.touch();
    }

    /// The bytes of the buffers.
    #[cfg(feature = "onnx")]
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.registers) + self.evaluator.memory_bytes()
    }

    /// Turns the noise `x` (x_T, standard normal) into a sample, in place. Stochastic solvers draw from `noise`.
    ///
    /// A run that `control` ends early leaves the best there is by then in `x`: the estimate of the clean
    /// sample, or, before the first evaluation, `x` as it was.
    ///
    /// # Errors
    /// When `x` is not of this sampler's length or not finite, the network fails, or its prediction is not
    /// finite; `x` is then as it was.
    pub fn run(
        &mut self,
        network: &mut dyn Network,
        condition: &Condition,
        noise: &mut Noise,
        x: &mut [f32],
        control: &mut Control,
    ) -> Result<Outcome> {
        if x.len() != self.len {
            return Err(Error::invalid(format!("the noise must have {} numbers, but has {}", self.len, x.len())));
        }
        if let Some(i) = x.iter().position(|v| !v.is_finite()) {
            return Err(Error::new(
                ErrorKind::NotFinite,
                format!("the noise must be finite, but element {i} is {}", x[i]),
            ));
        }
        if let Some(constraint) = &control.constraint
            && constraint.len() != self.len
        {
            return Err(Error::invalid(format!(
                "the constraint is for samples of {} numbers, but these have {}",
                constraint.len(),
                self.len
            )));
        }
        let start = self.program.start;
        self.registers.iter_mut().zip(&*x).for_each(|(r, x)| *r = start * x);
        let total = self.program.steps();
        let mut outcome = Outcome { ending: Ending::Complete, steps: 0, nfe: 0 };
        let mut best = None;
        for index in 0..self.program.stages.len() {
            if let Some(ending) = control.ending() {
                outcome.ending = ending;
                break;
            }
            self.evaluate(index, network, condition, noise, &mut control.constraint)?;
            outcome.nfe += network.calls();
            for update in 0..self.program.stages[index].updates.len() {
                self.update(index, update, noise);
            }
            let stage = &self.program.stages[index];
            best = Some(stage.x0);
            if stage.ends_step {
                outcome.steps += 1;
                if let Some(on_step) = &mut control.on_step {
                    let progress = Progress {
                        step: outcome.steps,
                        steps: total,
                        x: self.register(SAMPLE),
                        x0: self.register(stage.x0),
                    };
                    if on_step(progress).is_break() && outcome.steps < total {
                        outcome.ending = Ending::Callback;
                        break;
                    }
                }
            }
        }
        let result = match (outcome.ending, best) {
            (Ending::Complete, _) | (_, None) => SAMPLE,
            (_, Some(x0)) => x0,
        };
        x.copy_from_slice(self.register(result));
        if let (Some(constraint), Some(_)) = (&mut control.constraint, best) {
            constraint.finish(x);
        }
        Ok(outcome)
    }

    fn register(&self, register: usize) -> &[f32] {
        &self.registers[register * self.len..][..self.len]
    }

    /// Carries out a stage's evaluation.
    fn evaluate(
        &mut self,
        index: usize,
        network: &mut dyn Network,
        condition: &Condition,
        noise: &mut Noise,
        constraint: &mut Option<&mut dyn Constraint>,
    ) -> Result<()> {
        let Stage { level, input, x0, eps, .. } = self.program.stages[index];
        let range = |register: usize| register * self.len..(register + 1) * self.len;
        let distinct = "an evaluation's registers are distinct";
        if let Some(constraint) = constraint {
            constraint.enter(level, &mut self.registers[range(input)], noise);
        }
        let constraint = constraint.as_deref_mut();
        match eps {
            None => {
                let [x, x0] = self.registers.get_disjoint_mut([range(input), range(x0)]).expect(distinct);
                self.evaluator.evaluate(network, condition, level, x, x0, None, constraint)
            }
            Some(eps) => {
                let ranges = [range(input), range(x0), range(eps)];
                let [x, x0, eps] = self.registers.get_disjoint_mut(ranges).expect(distinct);
                let eps = Some((eps, self.program.eps_follows_x0));
                self.evaluator.evaluate(network, condition, level, x, x0, eps, constraint)
            }
        }
    }

    fn update(&mut self, stage: usize, update: usize, noise: &mut Noise) {
        let Update { dest, terms, noise: scale } = &self.program.stages[stage].updates[update];
        let mut sum = [0f32; BLOCK];
        for start in (0..self.len).step_by(BLOCK) {
            let block = start..self.len.min(start + BLOCK);
            let sum = &mut sum[..block.len()];
            sum.fill(0.0);
            for term in terms {
                let register = &self.registers[term.register * self.len..][block.clone()];
                for (s, r) in sum.iter_mut().zip(register) {
                    *s += term.coefficient * r;
                }
            }
            if *scale != 0.0 {
                for s in sum.iter_mut() {
                    *s += scale * noise.sample();
                }
            }
            self.registers[dest * self.len..][block].copy_from_slice(sum);
        }
    }
}

impl Control<'_> {
    pub(crate) fn ending(&self) -> Option<Ending> {
        if self.cancel.is_some_and(|c| c.load(Ordering::Relaxed)) {
            Some(Ending::Cancelled)
        } else if self.deadline.is_some_and(|d| Instant::now() >= d) {
            Some(Ending::Deadline)
        } else {
            None
        }
    }
}

/// The quantile of `values`, interpolated linearly between them in order; reorders them.
fn quantile(values: &mut [f32], ratio: f64) -> f32 {
    let place = ratio * (values.len() - 1) as f64;
    let (_, &mut low, above) = values.select_nth_unstable_by(place as usize, f32::total_cmp);
    let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    low + (place.fract() as f32) * (high - low)
}

/// x_0 and ε as linear functions of (x, prediction) at one level, from `x = γ x_0 + σ ε`.
struct Split {
    x0: Pair,
    eps: Pair,
}

/// The coefficients of x and of the prediction.
struct Pair([f32; 2]);

impl Split {
    fn new(kind: PredictionType, level: Level) -> Self {
        let Level { gamma, sigma, .. } = level;
        let (x0, eps) = match kind {
            PredictionType::Epsilon => ([1.0 / gamma, -sigma / gamma], [0.0, 1.0]),
            PredictionType::V => ([gamma, -sigma], [sigma, gamma]),
            PredictionType::Sample | PredictionType::Denoised => ([0.0, 1.0], [1.0 / sigma, -gamma / sigma]),
        };
        let pair = |c: [f64; 2]| Pair(c.map(|c| c as f32));
        Split { x0: pair(x0), eps: pair(eps) }
    }
}

impl Pair {
    fn combine(self, x: &[f32], prediction: &[f32], out: &mut [f32]) {
        let Pair([a, b]) = self;
        for ((out, x), p) in out.iter_mut().zip(x).zip(prediction) {
            *out = a * x + b * p;
        }
    }
}
