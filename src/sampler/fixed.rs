//! Runs a compiled solver against a network, in a workspace made once.

use super::control::{Control, Ending, Outcome, Progress};
use super::evaluator::{Evaluator, SLOT};
use crate::condition::Condition;
use crate::constraint::Constraint;
use crate::network::Network;
use crate::noise::Noise;
use crate::solver::{Program, SAMPLE, Stage, Update};
use crate::{Error, Result};

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
            self.evaluate(index, network, noise, &mut control.constraint)?;
            outcome.nfe += network.calls(SLOT);
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
        noise: &mut Noise,
        constraint: &mut Option<&mut dyn Constraint>,
    ) -> Result<()> {
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
