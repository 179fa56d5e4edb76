//! Exponential integrators: the linear part of the probability-flow ODE is solved exactly.

use super::{Register, SAMPLE, Table};
use crate::schedule::Level;

/// Estimates of x_0 alternate between two registers, so that the one before is still there.
const X0: [Register; 2] = [1, 2];

/// DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2). With `λ = ln(γ/σ)` and `h = λ' - λ`,
/// `x' = (σ'/σ) x - γ' (e^{-h} - 1) D`, where D extrapolates x_0 from this step's estimate and the last's:
/// `D = (1 + 1/(2r)) x_0 - 1/(2r) x_0⁻`, `r = h⁻/h`. The first step has no estimate before it, and in the
/// step to the clean sample (h = ∞) D is the estimate itself.
pub(super) fn dpm_solver_pp_2m(table: &mut Table, levels: &[Level]) {
    let lambda = |l: Level| 0.5 * l.log_snr();
    for i in 0..levels.len() - 1 {
        let (now, next) = (levels[i], levels[i + 1]);
        let [current, before] = [X0[i % 2], X0[(i + 1) % 2]];
        let h = lambda(next) - lambda(now);
        let weight = -next.gamma * (-h).exp_m1();
        let h_before = if i > 0 { lambda(now) - lambda(levels[i - 1]) } else { f64::INFINITY };
        let extrapolation = if h.is_finite() && h_before.is_finite() { h / (2.0 * h_before) } else { 0.0 };
        table.evaluate(SAMPLE, now, current, None);
        let terms = [
            (SAMPLE, next.sigma / now.sigma),
            (current, weight * (1.0 + extrapolation)),
            (before, -weight * extrapolation),
        ];
        table.update(SAMPLE, &terms, 0.0);
        table.end_step();
    }
}
