//! The reverse SDE itself (arXiv 2011.13456).

use super::{Register, SAMPLE, Table};
use crate::schedule::{Grid, Step};

const X0: Register = 1;
const EPS: Register = 2;

/// Euler–Maruyama on `dx = -½ β [x + 2 s_θ] dt + √β dW` with `s_θ = -ε/σ`. A step's `b = ∫β dt` is
/// `2 ln(γ'/γ)`, so `x' = x + ½ b (x - 2 ε/σ) + √b z`. The step to the clean sample adds no noise.
pub(super) fn euler_maruyama(table: &mut Table, grid: &Grid) {
    for &Step { from, to } in &grid.steps {
        let b = 2.0 * (to.gamma / from.gamma).ln();
        let noise = if to.sigma == 0.0 { 0.0 } else { b.sqrt() };
        table.evaluate(SAMPLE, from, X0, Some(EPS));
        table.update(SAMPLE, &[(SAMPLE, 1.0 + 0.5 * b), (EPS, -b / from.sigma)], noise);
        table.end_step();
    }
}
