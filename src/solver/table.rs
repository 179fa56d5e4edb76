//! The table that a fixed-step solver is compiled to.

use crate::config::{PredictionType, Threshold};
use crate::schedule::{Grid, Level, Path};
use crate::{Error, Result};
use std::collections::BTreeSet;

/// A buffer for one sample, by its number. They are numbered from 0, which is [`SAMPLE`]; the others are scratch.
pub type Register = usize;

/// The register of the sample: the noise x_T when a run begins, and the result when it ends.
pub const SAMPLE: Register = 0;

/// A term `coefficient · register` of a linear combination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Term {
    /// What is read.
    pub register: Register,
    /// What it is multiplied by.
    pub coefficient: f32,
}

/// `dest ← Σ terms + noise`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    /// What is written.
    pub dest: Register,
    /// The terms of the sum.
    pub terms: Vec<Term>,
    /// What is added to it.
    pub noise: Added,
}

/// The noise of an update, with z a fresh standard normal number for each element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Added {
    /// z times this; 0 draws none.
    Scaled(f32),
    /// z times the root of the variance that the network gives.
    Learned,
    /// `e^{½ l} z`, with l between these two as the network's variance v lies between -1 and 1 (arXiv 2102.09672, eq. 15).
    LearnedBetween([f32; 2]),
    /// A step of Langevin dynamics whose length goes by norms: `σ (2 r z - 2 r² ε)` with `r = ratio ‖z‖/‖ε‖`.
    Langevin(LangevinStep),
}

/// See [`Added::Langevin`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LangevinStep {
    /// Where ε is.
    pub eps: Register,
    /// Where z is kept while its norm is taken.
    pub z: Register,
    /// The signal-to-noise ratio of a step.
    pub ratio: f32,
    /// σ of the level.
    pub sigma: f32,
}

impl Added {
    fn draws(self) -> bool {
        self != Added::Scaled(0.0)
    }

    fn is_finite(self) -> bool {
        match self {
            Added::Scaled(scale) => scale.is_finite(),
            Added::Learned => true,
            Added::LearnedBetween(ends) => ends.iter().all(|e| e.is_finite()),
            Added::Langevin(LangevinStep { ratio, sigma, .. }) => ratio.is_finite() && sigma.is_finite(),
        }
    }
}

/// One network evaluation and what is made of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stage {
    /// Where the network is evaluated.
    pub level: Level,
    /// Where the step leads that this is part of.
    pub to: Level,
    /// On what.
    pub input: Register,
    /// Where the estimate of the clean sample goes, after thresholding.
    pub x0: Register,
    /// Where the estimate of the noise goes, if anything reads it.
    pub eps: Option<Register>,
    /// What is then formed, in this order.
    pub updates: Vec<Update>,
    /// Whether this is the last stage of a solver's step.
    pub ends_step: bool,
}

/// A solver compiled for a schedule: the table that [`Sampler`](crate::sampler::Sampler) runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub(crate) stages: Vec<Stage>,
    pub(crate) registers: usize,
    pub(crate) prediction: Prediction,
    /// Whether ε follows the thresholding of x_0, or stays what the network says.
    pub(crate) eps_follows_x0: bool,
    /// What x_T, standard normal, is multiplied by.
    pub(crate) start: f32,
}

impl Program {
    /// The number of network evaluations.
    pub fn nfe(&self) -> usize {
        self.stages.len()
    }

    /// The number of solver steps.
    pub fn steps(&self) -> usize {
        self.stages.iter().filter(|s| s.ends_step).count()
    }

    /// Whether the program draws noise of its own, beyond x_T.
    pub fn is_stochastic(&self) -> bool {
        self.stages.iter().flat_map(|s| &s.updates).any(|u| u.noise.draws())
    }

    /// Whether the program goes by a variance that the network gives beside its prediction.
    pub(crate) fn reads_variance(&self) -> bool {
        let learned = |noise: Added| matches!(noise, Added::Learned | Added::LearnedBetween(_));
        self.stages.iter().flat_map(|s| &s.updates).any(|u| learned(u.noise))
    }

    /// The level at which a run begins.
    pub fn first_level(&self) -> Level {
        self.stages[0].level
    }

    /// The times at which the network is evaluated.
    pub fn times(&self) -> impl Iterator<Item = f64> + '_ {
        self.stages.iter().map(|s| s.level.time)
    }
}

/// What a solver makes of the network's prediction before it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// What the network predicts.
    pub kind: PredictionType,
    /// What is done to the estimate of x_0.
    pub threshold: Threshold,
}

impl Prediction {
    /// Whether nothing is known of the sample where there is no signal.
    pub(crate) fn needs_signal(&self) -> bool {
        self.kind == PredictionType::Epsilon || self.kind.takes_sigma()
    }

    pub(super) fn check(&self, grid: &Grid) -> Result<()> {
        if self.needs_signal() && grid.steps[0].from.gamma == 0.0 {
            return Err(Error::invalid(
                "a network that predicts the noise, or takes x/γ, cannot start from zero SNR: use a v-prediction network, or a spacing that leaves the last step out",
            ));
        }
        match self.threshold {
            Threshold::Static(bound) if !(bound > 0.0 && bound.is_finite()) => {
                Err(Error::invalid(format!("the bound that x_0 is clipped to must be positive, not {bound}")))
            }
            Threshold::Dynamic { ratio, .. } if !(ratio > 0.0 && ratio <= 1.0) => Err(Error::invalid(format!(
                "the ratio of dynamic thresholding must be above 0 and at most 1, not {ratio}"
            ))),
            Threshold::Dynamic { max, .. } if !(max >= 1.0 && max.is_finite()) => {
                Err(Error::invalid(format!("the greatest threshold must be at least 1, not {max}")))
            }
            _ => Ok(()),
        }
    }
}

/// A table being filled, in the order in which it will run: an [evaluation](Table::evaluate), what is
/// [formed](Table::update) of it, and after each step of the solver its [end](Table::end_step).
///
/// What cannot be run is told by [`finish`](Table::finish).
pub struct Table {
    stages: Vec<Stage>,
    eps_follows_x0: bool,
    /// The first thing that was wrong.
    wrong: Option<&'static str>,
}

impl Default for Table {
    fn default() -> Self {
        Table { stages: Vec::new(), eps_follows_x0: true, wrong: None }
    }
}

impl Table {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether ε follows the thresholding of x_0 (as it does if this is not called), or stays what the network says.
    pub fn eps_follows_x0(&mut self, follows: bool) {
        self.eps_follows_x0 = follows;
    }

    /// Adds the evaluation of `input` at `level`, and its estimates into `x0` and, if wanted, `eps`.
    pub fn evaluate(&mut self, input: Register, level: Level, x0: Register, eps: Option<Register>) {
        if input == x0 || eps.is_some_and(|eps| eps == input || eps == x0) {
            self.wrong.get_or_insert("an evaluation needs registers of their own for its input and its estimates");
        }
        // where the step leads is known once the table is finished
        let to = Level::CLEAN;
        self.stages.push(Stage { level, to, input, x0, eps, updates: Vec::new(), ends_step: false });
    }

    /// Adds an evaluation, of whose estimates it makes `dz/dp` in the path's coordinates, into the register `slope`.
    pub(super) fn evaluate_slope(&mut self, path: Path, input: Register, level: Level, [x0, slope]: [Register; 2]) {
        self.evaluate(input, level, x0, Some(slope));
        if path.slope_of_x0() != 0.0 {
            self.update(slope, &[(slope, 1.0), (x0, path.slope_of_x0())], 0.0);
        }
    }

    /// Adds `dest ← Σ coefficient · register + noise · z` after the last evaluation.
    pub fn update(&mut self, dest: Register, terms: &[(Register, f64)], noise: f64) {
        self.update_adding(dest, terms, Added::Scaled(noise as f32));
    }

    /// The same with noise of another kind.
    pub(super) fn update_adding(&mut self, dest: Register, terms: &[(Register, f64)], noise: Added) {
        let terms = terms
            .iter()
            .filter(|(_, c)| *c != 0.0)
            .map(|&(register, c)| Term { register, coefficient: c as f32 })
            .collect();
        match self.stages.last_mut() {
            Some(stage) => stage.updates.push(Update { dest, terms, noise }),
            None => _ = self.wrong.get_or_insert("a table begins with an evaluation"),
        }
    }

    /// Marks the last evaluation as the end of a step.
    pub fn end_step(&mut self) {
        match self.stages.last_mut() {
            Some(stage) => stage.ends_step = true,
            None => _ = self.wrong.get_or_insert("a table begins with an evaluation"),
        }
    }

    /// The program that this table is, for a run through the steps of `grid`.
    ///
    /// # Errors
    /// When the table is empty, a register is read before it is written, or many before the last are not used; when a
    /// coefficient is not finite; when it adds noise on the way from a sample to noise.
    pub fn finish(self, grid: &Grid, prediction: Prediction) -> Result<Program> {
        let registers = self.registers()?;
        let mut updates = self.stages.iter().flat_map(|s| &s.updates);
        let rises = grid.steps.iter().any(|s| s.to.sigma > s.from.sigma);
        if rises && updates.clone().any(|u| u.noise.draws()) {
            return Err(Error::invalid("a sampler that adds noise cannot go back from a sample to noise"));
        }
        if !updates.all(|u| u.noise.is_finite() && u.terms.iter().all(|t| t.coefficient.is_finite())) {
            return Err(Error::invalid(if grid.steps[0].from.gamma == 0.0 {
                "this sampler cannot start from zero SNR: use ddim, or a spacing that leaves the last step out"
            } else {
                "the run's steps are too close together for this sampler: use fewer steps"
            }));
        }
        let (mut stages, mut step) = (self.stages, 0);
        for stage in &mut stages {
            stage.to = grid.steps.get(step).or(grid.steps.last()).map_or(Level::CLEAN, |step| step.to);
            step += usize::from(stage.ends_step);
        }
        Ok(Program { stages, registers, prediction, eps_follows_x0: self.eps_follows_x0, start: grid.start as f32 })
    }

    /// The number of registers, each of which is written before it is read.
    fn registers(&self) -> Result<usize> {
        if let Some(wrong) = self.wrong {
            return Err(Error::invalid(format!("the solver's table cannot be run: {wrong}")));
        }
        if !self.stages.last().is_some_and(|s| s.ends_step) {
            return Err(Error::invalid("the solver's table cannot be run: it must end with the end of a step"));
        }
        let mut written = BTreeSet::from([SAMPLE]);
        for stage in &self.stages {
            check_written(&written, stage.input)?;
            written.extend([stage.x0].into_iter().chain(stage.eps));
            for update in &stage.updates {
                update.terms.iter().try_for_each(|t| check_written(&written, t.register))?;
                if let Added::Langevin(step) = update.noise {
                    check_written(&written, step.eps)?;
                    written.insert(step.z);
                }
                written.insert(update.dest);
            }
        }
        // a run that is shorter than a solver's order leaves some of its registers out
        let last = written.last().copied().unwrap_or(SAMPLE);
        if last >= written.len() + MOST_LEFT_OUT {
            return Err(Error::invalid(format!(
                "the solver's table cannot be run: register {last} leaves too many before it unused"
            )));
        }
        Ok(last + 1)
    }
}

/// The most registers that are not used: each takes the memory of a sample.
const MOST_LEFT_OUT: usize = 16;

fn check_written(written: &BTreeSet<Register>, register: Register) -> Result<()> {
    if written.contains(&register) {
        return Ok(());
    }
    Err(Error::invalid(format!("the solver's table cannot be run: register {register} is read before it is written")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SchedulerConfig, Spacing};
    use crate::schedule::Schedule;

    /// What becomes of a table that `fill` fills.
    fn finished(fill: impl Fn(&mut Table, Level)) -> Result<Program> {
        let schedule = Schedule::from_config(&SchedulerConfig::default()).unwrap();
        let grid = schedule.grid(2, Spacing::Trailing, 0, true).unwrap();
        let mut table = Table::new();
        fill(&mut table, grid.steps()[0].from);
        table.finish(&grid, Prediction { kind: PredictionType::Epsilon, threshold: Threshold::None })
    }

    #[test]
    fn a_table_that_cannot_be_run_is_refused() {
        let told = |fill: &dyn Fn(&mut Table, Level)| finished(fill).unwrap_err().to_string();
        assert!(told(&|_, _| {}).contains("must end with the end of a step"));
        assert!(told(&|t, _| t.end_step()).contains("begins with an evaluation"));
        assert!(told(&|t, _| t.update(SAMPLE, &[(SAMPLE, 1.0)], 0.0)).contains("begins with an evaluation"));
        let evaluated = |input: Register, x0: Register, eps: Option<Register>, terms: &[(Register, f64)]| {
            finished(|t, level| {
                t.evaluate(input, level, x0, eps);
                t.update(SAMPLE, terms, 0.0);
                t.end_step();
            })
        };
        assert_eq!(evaluated(SAMPLE, 1, Some(2), &[(1, 0.5), (2, 0.5)]).unwrap().registers, 3);
        for (wrong, words) in [
            (evaluated(SAMPLE, SAMPLE, None, &[]), "registers of their own"),
            (evaluated(SAMPLE, 1, Some(1), &[]), "registers of their own"),
            (evaluated(3, 1, Some(2), &[]), "register 3 is read before it is written"),
            (evaluated(SAMPLE, 1, None, &[(2, 1.0)]), "register 2 is read before it is written"),
            (evaluated(SAMPLE, 1, Some(1 << 40), &[]), "leaves too many before it unused"),
            (evaluated(SAMPLE, 1, None, &[(1, f64::NAN)]), "too close together"),
        ] {
            let error = wrong.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
