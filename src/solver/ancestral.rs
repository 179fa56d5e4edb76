//! Ancestral sampling: DDPM (arXiv 2006.11239), on any subset of the training steps, and k-diffusion's
//! form of it.

use super::table::{Added, Register, SAMPLE, Table};
use crate::schedule::{Grid, Level, Marginal, Path, Transition};

const X0: Register = 1;

/// The variance of an ancestral step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Variance {
    /// That of the posterior q(x' | x, x_0).
    Small,
    /// β of the step: an upper bound.
    Large,
    /// What the network gives beside its prediction.
    Learned,
    /// Between the logarithms of the first two, as the network says (arXiv 2102.09672, eq. 15).
    LearnedRange,
}

/// Algorithm 2 with the posterior mean of equation 7: with β the variance that the step takes away,
/// `1 - γ²/γ'²` in the paper, the mean is `(γ' β/σ²) x_0 + (γ/γ') (σ'²/σ²) x`.
pub(super) fn ddpm(table: &mut Table, grid: &Grid, path: Path, variance: Variance) {
    for &Transition { from, to } in &grid.steps {
        let alpha = (from.gamma / to.gamma).powi(2);
        let beta = path.added_variance(from, to);
        let shrink = (to.sigma / from.sigma).powi(2);
        let small = shrink * beta;
        // No noise is added on the way to the clean sample.
        let noise = match variance {
            _ if to.sigma == 0.0 => Added::Scaled(0.0),
            Variance::Small => Added::Scaled(small.sqrt() as f32),
            Variance::Large => Added::Scaled(beta.sqrt() as f32),
            Variance::Learned => Added::Learned,
            Variance::LearnedRange => Added::LearnedBetween([small, beta].map(|v| libm::log(v.max(1e-20)) as f32)),
        };
        table.evaluate(SAMPLE, from, X0, None);
        let terms = [(X0, to.gamma * beta / from.sigma.powi(2)), (SAMPLE, alpha.sqrt() * shrink)];
        table.update_adding(SAMPLE, &terms, noise);
        table.end_step();
    }
}

/// The deviation of the noise of an ancestral step, and the level that it goes down to first, in s.
fn up_and_down(from: Level, to: Level) -> (f64, f64) {
    let (s, s_to) = (from.edm_sigma(), to.edm_sigma());
    let up = s_to * (1.0 - (s_to / s).powi(2)).sqrt();
    (up, (s_to * s_to - up * up).sqrt())
}

/// The midpoint method in y and s down to `s_down`, the middle at the geometric mean, then noise of deviation `s_up`. To the
/// clean sample, an Euler step; from pure noise to fresh noise.
pub(super) fn dpm2(table: &mut Table, grid: &Grid, marginal: &dyn Marginal) {
    const X0_MIDDLE: Register = 2;
    const MIDDLE: Register = 3;
    const EPS: Register = 4;
    for &Transition { from, to } in &grid.steps {
        table.evaluate(SAMPLE, from, X0, None);
        if to.sigma == 0.0 || from.gamma == 0.0 {
            table.update(SAMPLE, &[(X0, to.gamma)], to.sigma);
        } else {
            let (up, down) = up_and_down(from, to);
            let s = from.edm_sigma();
            let middle = marginal.level_of_edm_sigma((s * down).sqrt());
            let ratio = middle.sigma / from.sigma;
            table.update(MIDDLE, &[(SAMPLE, ratio), (X0, middle.gamma - from.gamma * ratio)], 0.0);
            table.evaluate(MIDDLE, middle, X0_MIDDLE, Some(EPS));
            table.update(SAMPLE, &[(SAMPLE, to.gamma / from.gamma), (EPS, to.gamma * (down - s))], to.gamma * up);
        }
        table.end_step();
    }
}

/// An Euler step in s down to `s_down`, then noise of deviation `s_up`, where `s_up² + s_down² = s'²` and
/// `s_up² = s'² (s² - s'²)/s²` is the posterior's variance.
pub(super) fn euler_ancestral(table: &mut Table, grid: &Grid) {
    for &Transition { from, to } in &grid.steps {
        let (s, s_to) = (from.edm_sigma(), to.edm_sigma());
        let s_up = s_to * (1.0 - (s_to / s).powi(2)).sqrt();
        // s_down/s: the part of y - x_0 that is left
        let ratio = (s_to / s).powi(2);
        table.evaluate(SAMPLE, from, X0, None);
        table.update(
            SAMPLE,
            // nothing of a sample without signal is left
            &[(SAMPLE, if ratio == 0.0 { 0.0 } else { to.gamma * ratio / from.gamma }), (X0, to.gamma * (1.0 - ratio))],
            to.gamma * s_up,
        );
        table.end_step();
    }
}
