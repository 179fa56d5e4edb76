//! Runs a compiled solver against a network, in a workspace made once.

use super::control::{Control, Ending, Outcome, Progress};
use super::evaluator::{Evaluator, SLOT};
use crate::condition::Condition;
use crate::constraint::Constraint;
use crate::network::Network;
use crate::noise::Noise;
use crate::schedule::Level;
use crate::solver::{Added, LangevinStep, Program, SAMPLE, Stage, Update};
use crate::{Error, ErrorKind, Result};

/// A compiled solver and the buffers to run it in.
///
/// ```
/// use edgegen::Condition;
/// use edgegen::config::{PredictionType, SchedulerConfig, Spacing, Threshold};
/// use edgegen::Network;
/// use edgegen::noise::Noise;
/// use edgegen::sampler::{Control, Sampler};
/// use edgegen::schedule::Schedule;
/// use edgegen::solver::{Churn, Prediction, Solver};
///
/// /// If the data is one point, the best guess of the clean sample is that point.
/// struct Point;
/// impl Network for Point {
///     fn sample_shape(&self) -> &[usize] {
///         &[2]
///     }
///     fn predict(&mut self, _x: &[f32], _t: f64, _slot: usize, out: &mut [f32]) -> edgegen::Result<()> {
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
        super::check_noise(x, self.len)?;
        if let Some(constraint) = &control.constraint
            && constraint.len() != self.len
        {
            return Err(Error::invalid(format!(
                "the constraint is for samples of {} numbers, but these have {}",
                constraint.len(),
                self.len
            )));
        }
        network.bind(SLOT, condition)?;
        self.check_variance(network)?;
        let (rows, clean) = control.constraint.as_ref().map_or((0, Level::CLEAN), |constraint| constraint.clean());
        network.hold_clean(rows, clean)?;
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
            let predictions = self.evaluate(index, network, noise, &mut control.constraint)?;
            outcome.nfe += predictions * network.calls(SLOT);
            for update in 0..self.program.stages[index].updates.len() {
                self.update(index, update, network.variance(), noise)?;
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

    /// Carries out a stage's evaluation, and gives how many predictions that took.
    fn evaluate(
        &mut self,
        index: usize,
        network: &mut dyn Network,
        noise: &mut Noise,
        constraint: &mut Option<&mut dyn Constraint>,
    ) -> Result<usize> {
        let Stage { level, to, input, x0, eps, .. } = self.program.stages[index];
        network.lead_to(to);
        let range = |register: usize| register * self.len..(register + 1) * self.len;
        let distinct = "an evaluation's registers are distinct";
        if let Some(constraint) = constraint {
            constraint.enter(level, &mut self.registers[range(input)], noise);
        }
        let constraint = constraint.as_deref_mut();
        match eps {
            None => {
                let [x, x0] = self.registers.get_disjoint_mut([range(input), range(x0)]).expect(distinct);
                self.evaluator.evaluate(network, level, x, x0, None, constraint)
            }
            Some(eps) => {
                let ranges = [range(input), range(x0), range(eps)];
                let [x, x0, eps] = self.registers.get_disjoint_mut(ranges).expect(distinct);
                let eps = Some((eps, self.program.eps_follows_x0));
                self.evaluator.evaluate(network, level, x, x0, eps, constraint)
            }
        }
    }

    /// That a network gives the variance that the program goes by.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn check_variance(&self, network: &dyn Network) -> Result<()> {
        if self.program.reads_variance() && network.variance().is_none_or(|v| v.len() != self.len) {
            return Err(Error::invalid(
                "a learned variance is the second half of a network's output, which this one does not have: give a network of twice the channels, or variance_type fixed_small",
            ));
        }
        Ok(())
    }

    fn update(&mut self, stage: usize, update: usize, variance: Option<&[f32]>, noise: &mut Noise) -> Result<()> {
        let Update { dest, terms, noise: added } = &self.program.stages[stage].updates[update];
        if matches!(added, Added::Learned | Added::LearnedBetween(_)) {
            check_variance(*added, variance.unwrap_or_default())?;
        }
        let [of_eps, of_z] = match added {
            Added::Langevin(step) => langevin_weights(step, &mut self.registers, self.len, noise),
            _ => [0.0; 2],
        };
        let mut sum = [0f32; BLOCK];
        for start in (0..self.len).step_by(BLOCK) {
            let block = start..self.len.min(start + BLOCK);
            let sum = &mut sum[..block.len()];
            sum.fill(0.0);
            let register = |register: usize| &self.registers[register * self.len..][block.clone()];
            for term in terms {
                for (s, r) in sum.iter_mut().zip(register(term.register)) {
                    *s += term.coefficient * r;
                }
            }
            let variance = variance.and_then(|v| v.get(block.clone())).unwrap_or_default();
            match added {
                Added::Scaled(0.0) => {}
                Added::Scaled(scale) => sum.iter_mut().for_each(|s| *s += scale * noise.sample()),
                Added::Learned => sum.iter_mut().zip(variance).for_each(|(s, v)| *s += v.sqrt() * noise.sample()),
                Added::LearnedBetween([small, large]) => {
                    for (s, v) in sum.iter_mut().zip(variance) {
                        let share = 0.5 * (v + 1.0);
                        *s += libm::expf(0.5 * (share * large + (1.0 - share) * small)) * noise.sample();
                    }
                }
                Added::Langevin(LangevinStep { eps, z, .. }) => {
                    let pairs = register(*eps).iter().zip(register(*z));
                    sum.iter_mut().zip(pairs).for_each(|(s, (eps, z))| *s += of_z * z - of_eps * eps);
                }
            }
            self.registers[dest * self.len..][block].copy_from_slice(sum);
        }
        Ok(())
    }
}

/// Whether a variance is one.
fn check_variance(added: Added, variance: &[f32]) -> Result<()> {
    let is_one = |v: f32| v.is_finite() && (added != Added::Learned || v >= 0.0);
    match variance.iter().position(|v| !is_one(*v)) {
        None => Ok(()),
        Some(i) => Err(Error::new(
            ErrorKind::NotFinite,
            format!("the network's variance must be finite, and not negative, but element {i} is {}", variance[i]),
        )),
    }
}

/// Draws the noise of a Langevin step, and gives the weights of ε and of z.
fn langevin_weights(step: &LangevinStep, registers: &mut [f32], len: usize, noise: &mut Noise) -> [f32; 2] {
    noise.fill(&mut registers[step.z * len..][..len]);
    let square =
        |register: usize| registers[register * len..][..len].iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let (eps, z) = (square(step.eps), square(step.z));
    // where there is nothing to follow, there is no step
    let r = if eps > 0.0 { f64::from(step.ratio) * (z / eps).sqrt() } else { 0.0 };
    [2.0 * r * r, 2.0 * r].map(|weight| (weight * f64::from(step.sigma)) as f32)
}
