//! Runge–Kutta methods on the probability-flow ODE, and churn, which makes an SDE of it.
//!
//! They follow the ODE in the coordinates of the schedule's path: y over s, or for a rectified flow x over σ
//! ([`Path::coordinates`]). In both it is `dz/dp = (z - x_0)/p`.

use super::table::{Register, SAMPLE, Table};
use crate::schedule::{Coordinates, Grid, Level, Marginal, Path, Transition};
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
/// `x' = x + ln(γ'/γ) (x - ε/σ)`. On other paths x is scaled to what it is on this one. The first step of a run from
/// pure noise is DDIM's, since there is no ln γ.
pub(super) fn euler_ode(table: &mut Table, grid: &Grid, path: Path) {
    for &Transition { from, to } in &grid.steps {
        table.evaluate(SAMPLE, from, X0, Some(EPS));
        if from.gamma == 0.0 {
            table.update(SAMPLE, &[(X0, to.gamma), (EPS, to.sigma)], 0.0);
        } else {
            let [r, r_to] = [from, to].map(|level| path.spread(level));
            let step = libm::log(to.gamma / r_to / (from.gamma / r));
            let terms = [(SAMPLE, r_to / r * (1.0 + step)), (EPS, -r_to * step * r / from.sigma)];
            table.update(SAMPLE, &terms, 0.0);
        }
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

/// Heun's method in p: an Euler step, then the mean of the slopes at both ends. The step to the clean
/// sample has no slope at its end and stays Euler's. The first step has no churn: there is nothing but
/// noise yet.
pub(super) fn heun(table: &mut Table, grid: &Grid, marginal: &dyn Marginal, churn: Churn) -> Result<()> {
    churn.check()?;
    let (n, path) = (grid.steps.len(), marginal.path());
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
            // z' = z + h/2 (z - x_0)/p + h/2 (z_p - x_0')/p', with h = p' - p; times κ' to be x'
            let [Coordinates { scale, place }, end] = [from, to].map(|level| path.coordinates(level));
            let half = 0.5 * (end.place - place) * end.scale;
            let (slope, slope_next) = (half / place, half / end.place);
            let terms = [
                (SAMPLE, (end.scale + slope) / scale),
                (X0, -slope),
                (PREDICTED, slope_next / end.scale),
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

/// Where the slopes of the classical method go.
const SLOPES: [Register; 4] = [5, 6, 7, 8];

/// The classical method of order 4 in p. The step to the clean sample is Euler's, unless that level has a time at which
/// the network can be evaluated.
pub(super) fn classical(table: &mut Table, grid: &Grid, marginal: &dyn Marginal) {
    let path = marginal.path();
    for &Transition { from, to } in &grid.steps {
        if to.sigma == 0.0 && to.time.is_nan() {
            let (x, x0) = euler_step(from, to);
            table.evaluate(SAMPLE, from, X0, None);
            table.update(SAMPLE, &[(SAMPLE, x), (X0, x0)], 0.0);
            table.end_step();
            continue;
        }
        let [start, end] = [from, to].map(|level| path.coordinates(level));
        let middle = marginal.level_of_edm_sigma(path.ratio_at(0.5 * (start.place + end.place)));
        let mut at = (SAMPLE, from);
        for (i, level) in [middle, middle, to].into_iter().enumerate() {
            table.evaluate_slope(path, at.0, at.1, [X0, SLOPES[i]]);
            let Coordinates { scale, place } = path.coordinates(level);
            let terms = [(SAMPLE, scale / start.scale), (SLOPES[i], scale * (place - start.place))];
            table.update(PREDICTED, &terms, 0.0);
            at = (PREDICTED, level);
        }
        table.evaluate_slope(path, at.0, at.1, [X0, SLOPES[3]]);
        let sixth = end.scale * (end.place - start.place) / 6.0;
        let weights = [1.0, 2.0, 2.0, 1.0].map(|w| w * sixth);
        let terms: Vec<_> =
            [(SAMPLE, end.scale / start.scale)].into_iter().chain(SLOPES.into_iter().zip(weights)).collect();
        table.update(SAMPLE, &terms, 0.0);
        table.end_step();
    }
}

/// The midpoint method in p: an Euler step to the geometric mean of p and p', then a whole step with the
/// slope found there. To the clean sample, where that mean is 0, an Euler step.
pub(super) fn dpm2(table: &mut Table, grid: &Grid, marginal: &dyn Marginal) {
    for &Transition { from, to } in &grid.steps {
        table.evaluate(SAMPLE, from, X0, None);
        if to.sigma == 0.0 {
            let (x, x0) = euler_step(from, to);
            table.update(SAMPLE, &[(SAMPLE, x), (X0, x0)], 0.0);
        } else {
            let path = marginal.path();
            let [start, end] = [from, to].map(|level| path.coordinates(level));
            let middle = marginal.level_of_edm_sigma(path.ratio_at((start.place * end.place).sqrt()));
            let (x, x0) = euler_step(from, middle);
            table.update(PREDICTED, &[(SAMPLE, x), (X0, x0)], 0.0);
            table.evaluate(PREDICTED, middle, X0_NEXT, Some(EPS));
            let h = end.scale * (end.place - start.place);
            let terms = [(SAMPLE, end.scale / start.scale), (EPS, h), (X0_NEXT, path.slope_of_x0() * h)];
            table.update(SAMPLE, &terms, 0.0);
        }
        table.end_step();
    }
}
