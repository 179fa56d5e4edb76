//! Runge–Kutta methods on the probability-flow ODE, and churn, which makes an SDE of it.

use super::table::{Register, SAMPLE, Table};
use crate::schedule::{Grid, Level, Marginal, Transition};
use crate::{Error, Result};

const X0: Register = 1;
const EPS: Register = 2;
const X0_NEXT: Register = 3;
const PREDICTED: Register = 4;

/// The coefficients of (x, x_0) in an Euler step of y in s, written for x:
/// `x'/γ' = y + (s' - s) (y - x_0)/s`, so `x' = (σ'/σ) x + (γ' - γ σ'/σ) x_0`.
fn euler_step(from: Level, to: Level) -> (f64, f64) {
    let ratio = to.sigma / from.sigma;
    (ratio, to.gamma - from.gamma * ratio)
}

/// Euler's method in s.
pub(super) fn euler(table: &mut Table, grid: &Grid) {
    for &Transition { from, to } in &grid.steps {
        let (x, x0) = euler_step(from, to);
        table.evaluate(SAMPLE, from, X0, None);
        table.update(SAMPLE, &[(SAMPLE, x), (X0, x0)], 0.0);
        table.end_step();
    }
}

/// Euler's method on `dx = -½ β [x + s_θ] dt` with `s_θ = -ε/σ`. Since `-½ β dt = d ln γ`, a step is
/// `x' = x + ln(γ'/γ) (x - ε/σ)`. It starts where there is some signal.
pub(super) fn euler_ode(table: &mut Table, grid: &Grid) {
    for &Transition { from, to } in &grid.steps {
        let step = libm::log(to.gamma / from.gamma);
        table.evaluate(SAMPLE, from, X0, Some(EPS));
        table.update(SAMPLE, &[(SAMPLE, 1.0 + step), (EPS, -step / from.sigma)], 0.0);
        table.end_step();
    }
}

/// Stochastic churn (arXiv 2206.00364, algorithm 2): before a step, noise is added that raises s to
/// `s (1 + min(churn/steps, √2 - 1))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// S_churn: how much noise is added in all; 0 is none.
    pub churn: f64,
    /// S_tmin: the least s at which it is added.
    pub s_min: f64,
    /// S_tmax: the greatest.
    pub s_max: f64,
    /// S_noise: the standard deviation of the noise, 1 or a little more.
    pub noise: f64,
}

impl Churn {
    /// No noise at all.
    pub const NONE: Churn = Churn { churn: 0.0, s_min: 0.0, s_max: f64::INFINITY, noise: 1.0 };

    fn check(&self) -> Result<()> {
        let bad = [("churn", self.churn), ("the noise of churn", self.noise)];
        match bad.into_iter().find(|(_, v)| !(*v >= 0.0 && v.is_finite())) {
            Some((name, value)) => Err(Error::invalid(format!("{name} must be a number from 0 on, not {value}"))),
            None => Ok(()),
        }
    }

    /// s after churn in a run of `steps` steps.
    fn raised(&self, s: f64, steps: usize) -> f64 {
        let gamma = (self.churn / steps as f64).min(std::f64::consts::SQRT_2 - 1.0);
        if (self.s_min..=self.s_max).contains(&s) { s * (1.0 + gamma) } else { s }
    }
}

/// Heun's method in s: an Euler step, then the mean of the slopes at both ends. The step to the clean
/// sample has no slope at its end and stays Euler's. The first step has no churn: there is nothing but
/// noise yet.
pub(super) fn heun(table: &mut Table, grid: &Grid, marginal: &dyn Marginal, churn: Churn) -> Result<()> {
    churn.check()?;
    let n = grid.steps.len();
    let mut from = grid.steps[0].from;
    for (i, step) in grid.steps.iter().enumerate() {
        let to = step.to;
        let (x, x0) = euler_step(from, to);
        table.evaluate(SAMPLE, from, X0, None);
        if to.sigma == 0.0 {
            table.update(SAMPLE, &[(SAMPLE, x), (X0, x0)], 0.0);
        } else {
            table.update(PREDICTED, &[(SAMPLE, x), (X0, x0)], 0.0);
            table.evaluate(PREDICTED, to, X0_NEXT, None);
            // y' = y + h/2 (y - x_0)/s + h/2 (y_p - x_0')/s', with h = s' - s; times γ' to be x'
            let half = 0.5 * (to.edm_sigma() - from.edm_sigma()) * to.gamma;
            let (slope, slope_next) = (half / from.edm_sigma(), half / to.edm_sigma());
            let terms = [
                (SAMPLE, (to.gamma + slope) / from.gamma),
                (X0, -slope),
                (PREDICTED, slope_next / to.gamma),
                (X0_NEXT, -slope_next),
            ];
            table.update(SAMPLE, &terms, 0.0);
        }
        table.end_step();
        if let Some(next) = grid.steps.get(i + 1) {
            from = next.from;
            let (s, raised) = (from.edm_sigma(), churn.raised(from.edm_sigma(), n));
            if raised > s {
                let level = marginal.level_of_edm_sigma(raised);
                let noise = level.gamma * churn.noise * (raised * raised - s * s).sqrt();
                table.update(SAMPLE, &[(SAMPLE, level.gamma / from.gamma)], noise);
                from = level;
            }
        }
    }
    Ok(())
}

/// The midpoint method in s: an Euler step to the geometric mean of s and s', then a whole step with the
/// slope found there. To the clean sample, where that mean is 0, an Euler step.
pub(super) fn dpm2(table: &mut Table, grid: &Grid, marginal: &dyn Marginal) {
    for &Transition { from, to } in &grid.steps {
        table.evaluate(SAMPLE, from, X0, None);
        if to.sigma == 0.0 {
            let (x, x0) = euler_step(from, to);
            table.update(SAMPLE, &[(SAMPLE, x), (X0, x0)], 0.0);
        } else {
            let (s, s_to) = (from.edm_sigma(), to.edm_sigma());
            let middle = marginal.level_of_edm_sigma((s * s_to).sqrt());
            let (x, x0) = euler_step(from, middle);
            table.update(PREDICTED, &[(SAMPLE, x), (X0, x0)], 0.0);
            table.evaluate(PREDICTED, middle, X0_NEXT, Some(EPS));
            table.update(SAMPLE, &[(SAMPLE, to.gamma / from.gamma), (EPS, to.gamma * (s_to - s))], 0.0);
        }
        table.end_step();
    }
}
