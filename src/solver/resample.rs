//! RePaint's resampling: going back to more noise now and then, and down again.

use super::kinds::Solver;
use super::table::{Added, Prediction, Program, SAMPLE, Term, Update};
use crate::schedule::{Grid, Marginal, Transition};
use crate::{Error, Result};

/// How often a run goes over its steps (RePaint, arXiv 2201.09865, section 4.2): they are taken in blocks of
/// `jump`, counted from the last but one backwards; after a block the sample is noised back to where the block
/// began, and the block is run again, until it was run `times` times. The last step, to the clean sample, is
/// taken once.
///
/// This multiplies the network calls by about `times`. It is of use with a
/// [`Constraint`](crate::constraint::Constraint), which it lets the rest of the sample settle to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resample {
    /// How often each block is run, at least 1.
    pub times: usize,
    /// The steps of a block, at least 1.
    pub jump: usize,
}

impl Resample {
    /// Every step once.
    pub const NONE: Resample = Resample { times: 1, jump: 1 };
}

impl Default for Resample {
    fn default() -> Self {
        Resample::NONE
    }
}

impl Solver {
    /// As [`compile`](Solver::compile), with steps taken again as `resample` says. Multistep solvers begin anew
    /// in each block.
    ///
    /// # Errors
    /// As there, and when `times` or `jump` is 0, or `times` above 1000.
    pub fn compile_resampled(
        &self,
        grid: &Grid,
        marginal: &dyn Marginal,
        prediction: Prediction,
        resample: Resample,
    ) -> Result<Program> {
        let Resample { times, jump } = resample;
        if times == 0 || jump == 0 {
            return Err(Error::invalid("resampling must run each block of steps at least once, of at least one step"));
        }
        // each time is compiled to steps of its own
        if times > 1000 {
            return Err(Error::invalid(format!(
                "resampling can run each block of steps at most 1000 times, not {times}"
            )));
        }
        if times == 1 {
            return self.compile(grid, marginal, prediction);
        }
        let compile = |steps: &[Transition], start: f64| {
            self.compile(&Grid { steps: steps.to_vec(), start, fitted: vec![] }, marginal, prediction)
        };
        let (last, rest) = grid.steps.split_last().expect("a grid has steps");
        let mut whole: Option<Program> = None;
        for block in rest.rchunks(jump).rev() {
            for time in 0..times {
                let first = whole.is_none();
                let mut part = compile(block, if first { grid.start } else { 1.0 })?;
                if time + 1 < times {
                    part.finally(noised(block[block.len() - 1], block[0]));
                }
                whole = Some(match whole {
                    None => part,
                    Some(before) => before.then(part),
                });
            }
        }
        let end = compile(std::slice::from_ref(last), if whole.is_none() { grid.start } else { 1.0 })?;
        Ok(match whole {
            None => end,
            Some(before) => before.then(end),
        })
    }
}

/// From where `end` leads back to where `start` begins: `x ← a x + b z`, so that the marginal there is right.
fn noised(end: Transition, start: Transition) -> Update {
    let scale = start.from.gamma / end.to.gamma;
    let variance = start.from.sigma.powi(2) - (scale * end.to.sigma).powi(2);
    let terms = vec![Term { register: SAMPLE, coefficient: scale as f32 }];
    Update { dest: SAMPLE, terms, noise: Added::Scaled(variance.max(0.0).sqrt() as f32) }
}

impl Program {
    /// Adds an update after the last stage.
    fn finally(&mut self, update: Update) {
        self.stages.last_mut().expect("a program has stages").updates.push(update);
    }

    /// One program after the other, which goes on from where the first ends.
    fn then(mut self, next: Program) -> Program {
        self.stages.extend(next.stages);
        self.registers = self.registers.max(next.registers);
        self
    }
}
