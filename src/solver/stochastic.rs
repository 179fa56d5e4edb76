//! The reverse SDE itself, and Langevin dynamics (arXiv 2011.13456, 1907.05600).

use super::table::{Register, SAMPLE, Table};
use crate::schedule::{Grid, Level, Path, Transition};
use crate::{Error, Result};

const X0: Register = 1;
const EPS: Register = 2;

/// Euler–Maruyama on `dx = -½ β [x + 2 s_θ] dt + √β dW` with `s_θ = -ε/σ`. A step's `b = ∫β dt` is
/// `2 ln(γ'/γ)`, so `x' = x + ½ b (x - 2 ε/σ) + √b z`. The step to the clean sample adds no noise. On other paths than
/// the variance-preserving one x is scaled to what it is there. Pure noise tells nothing of the sample: the first step
/// from there is to fresh noise.
pub(super) fn euler_maruyama(table: &mut Table, grid: &Grid, path: Path) {
    for &step in &grid.steps {
        euler_maruyama_step(table, step, path);
        table.end_step();
    }
}

fn euler_maruyama_step(table: &mut Table, Transition { from, to }: Transition, path: Path) {
    table.evaluate(SAMPLE, from, X0, Some(EPS));
    if from.gamma == 0.0 {
        table.update(SAMPLE, &[(X0, to.gamma)], to.sigma);
        return;
    }
    let [r, r_to] = [from, to].map(|level| path.spread(level));
    let b = 2.0 * libm::log(to.gamma / r_to / (from.gamma / r));
    let noise = if to.sigma == 0.0 { 0.0 } else { r_to * b.sqrt() };
    table.update(SAMPLE, &[(SAMPLE, r_to / r * (1.0 + 0.5 * b)), (EPS, -r_to * b * r / from.sigma)], noise);
}

/// Langevin dynamics at one level: `x ← x + a s_θ + √(2a) z`, so many times, with `a = (r σ)²`.
///
/// The papers set a by the ratio of the norms of z and the score; ε being σ times the score and as long as
/// z on average, that ratio is σ, and a step depends on the level alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Langevin {
    /// r, the signal-to-noise ratio of a step.
    pub ratio: f64,
    /// How many at each level.
    pub corrections: usize,
}

impl Langevin {
    fn check(&self) -> Result<()> {
        if self.ratio > 0.0 && self.ratio <= 1.0 {
            return Ok(());
        }
        Err(Error::invalid(format!("the ratio of Langevin steps must be above 0 and at most 1, not {}", self.ratio)))
    }

    fn correct(&self, table: &mut Table, level: Level) {
        let a = (self.ratio * level.sigma).powi(2);
        for _ in 0..self.corrections {
            table.evaluate(SAMPLE, level, X0, Some(EPS));
            table.update(SAMPLE, &[(SAMPLE, 1.0), (EPS, -a / level.sigma)], (2.0 * a).sqrt());
        }
    }
}

/// Predictor–corrector sampling (arXiv 2011.13456, algorithms 3 and 5): an Euler–Maruyama step, then
/// Langevin corrections where it led.
pub(super) fn predictor_corrector(table: &mut Table, grid: &Grid, path: Path, langevin: Langevin) -> Result<()> {
    langevin.check()?;
    for &step in &grid.steps {
        euler_maruyama_step(table, step, path);
        if step.to.sigma > 0.0 {
            langevin.correct(table, step.to);
        }
        table.end_step();
    }
    Ok(())
}

/// Annealed Langevin dynamics (arXiv 1907.05600, algorithm 1): corrections alone, at level after level, and
/// the estimate of x_0 at the end if that is clean. Between levels only the scale changes: in y nothing does.
pub(super) fn annealed_langevin(table: &mut Table, grid: &Grid, langevin: Langevin) -> Result<()> {
    langevin.check()?;
    if langevin.corrections == 0 {
        return Err(Error::invalid("annealed Langevin dynamics needs at least one step at each level"));
    }
    for &Transition { from, to } in &grid.steps {
        langevin.correct(table, from);
        if from.gamma == 0.0 {
            // there is no y: the ODE's way
            table.evaluate(SAMPLE, from, X0, Some(EPS));
            table.update(SAMPLE, &[(X0, to.gamma), (EPS, to.sigma)], 0.0);
        } else if to.sigma > 0.0 {
            table.update(SAMPLE, &[(SAMPLE, to.gamma / from.gamma)], 0.0);
        } else {
            table.evaluate(SAMPLE, from, X0, None);
            table.update(SAMPLE, &[(X0, 1.0)], 0.0);
        }
        table.end_step();
    }
    Ok(())
}
