//! The samplers of score-based SDEs (arXiv 2011.13456) as diffusers has them.

use super::table::{Added, LangevinStep, Register, SAMPLE, Table};
use crate::schedule::{Grid, Transition, VpSde};
use crate::{Error, Result};

const X0: Register = 1;
const EPS: Register = 2;
const Z: Register = 3;

/// Where variance explodes, the predictor–corrector (algorithms 2 and 4): at each level first `corrections` steps of Langevin
/// dynamics, whose length goes by the norms of noise and score, then `y' = y - (s² - s'²) ε/σ + √(s² - s'²) z`, the last without
/// noise. s is where the step before led, and σ what the network is told: a little more.
pub(super) fn variance_exploding(table: &mut Table, grid: &Grid, ratio: f64, corrections: usize) -> Result<()> {
    if !(ratio > 0.0 && ratio.is_finite()) {
        return Err(Error::invalid(format!("snr must be a positive number, not {ratio}")));
    }
    let mut s = grid.steps[0].from.edm_sigma();
    for (i, &Transition { from, to }) in grid.steps.iter().enumerate() {
        for _ in 0..corrections {
            table.evaluate(SAMPLE, from, X0, Some(EPS));
            let step = LangevinStep { eps: EPS, z: Z, ratio: ratio as f32, sigma: from.sigma as f32 };
            table.update_adding(SAMPLE, &[(SAMPLE, 1.0)], Added::Langevin(step));
        }
        table.evaluate(SAMPLE, from, X0, Some(EPS));
        // x is y in the scale of the level at which the network sees it next
        let gamma = grid.steps.get(i + 1).map_or(to.gamma, |next| next.from.gamma);
        let s_to = to.edm_sigma();
        let variance = s * s - s_to * s_to;
        let noise = if to.sigma == 0.0 { 0.0 } else { gamma * variance.max(0.0).sqrt() };
        table.update(SAMPLE, &[(SAMPLE, gamma / from.gamma), (EPS, -gamma * variance / from.edm_sigma())], noise);
        table.end_step();
        s = s_to;
    }
    Ok(())
}

/// Where variance is preserved, Euler and Maruyama's method on the reverse SDE in steps of 1/n of the time,
/// `x' = x + β/n (½ x - ε/σ) + √(β/n) z`, wherever the next begins. The last adds no noise.
pub(super) fn variance_preserving(table: &mut Table, grid: &Grid, sde: VpSde) {
    let n = grid.steps.len();
    for (i, &Transition { from, .. }) in grid.steps.iter().enumerate() {
        let b = sde.beta(from.time) / n as f64;
        table.evaluate(SAMPLE, from, X0, Some(EPS));
        let noise = if i + 1 == n { 0.0 } else { b.sqrt() };
        table.update(SAMPLE, &[(SAMPLE, 1.0 + 0.5 * b), (EPS, -b / from.sigma)], noise);
        table.end_step();
    }
}
