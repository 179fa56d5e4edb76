//! Runge–Kutta methods on the probability-flow ODE.
//!
//! In `y = x/γ` and `s = σ/γ` the ODE is `dy/ds = ε = (y - x_0)/s` (arXiv 2206.00364, eq. 1 and 3).

use super::{Register, SAMPLE, Table};
use crate::schedule::Level;

const X0: Register = 1;
const EPS: Register = 2;
const X0_NEXT: Register = 3;
const PREDICTED: Register = 4;

/// The coefficients of (x, x_0) in an Euler step of y in s from `now` to `next`, written for x:
/// `x'/γ' = y + (s' - s) (y - x_0)/s`, so `x' = (σ'/σ) x + (γ' - γ σ'/σ) x_0`.
fn euler_step(now: Level, next: Level) -> (f64, f64) {
    let ratio = next.sigma / now.sigma;
    (ratio, next.gamma - now.gamma * ratio)
}

/// Euler's method in s.
pub(super) fn euler(table: &mut Table, levels: &[Level]) {
    for pair in levels.windows(2) {
        let (x, x0) = euler_step(pair[0], pair[1]);
        table.evaluate(SAMPLE, pair[0], X0, None);
        table.update(SAMPLE, &[(SAMPLE, x), (X0, x0)], 0.0);
        table.end_step();
    }
}

/// Euler's method on `dx = -½ β [x + s_θ] dt` with `s_θ = -ε/σ`. Since `-½ β dt = d ln γ`, a step is
/// `x' = x + ln(γ'/γ) (x - ε/σ)`. It starts where there is some signal.
pub(super) fn euler_ode(table: &mut Table, levels: &[Level]) {
    for pair in levels.windows(2) {
        let [now, next] = [pair[0], pair[1]];
        let step = (next.gamma / now.gamma).ln();
        table.evaluate(SAMPLE, now, X0, Some(EPS));
        table.update(SAMPLE, &[(SAMPLE, 1.0 + step), (EPS, -step / now.sigma)], 0.0);
        table.end_step();
    }
}

/// Heun's method in s (arXiv 2206.00364, algorithm 1): an Euler step, then the mean of the slopes at both
/// ends. The step to the clean sample has no slope at its end and stays Euler's.
pub(super) fn heun(table: &mut Table, levels: &[Level]) {
    for pair in levels.windows(2) {
        let [now, next] = [pair[0], pair[1]];
        let (x, x0) = euler_step(now, next);
        table.evaluate(SAMPLE, now, X0, None);
        if next.sigma == 0.0 {
            table.update(SAMPLE, &[(SAMPLE, x), (X0, x0)], 0.0);
        } else {
            table.update(PREDICTED, &[(SAMPLE, x), (X0, x0)], 0.0);
            table.evaluate(PREDICTED, next, X0_NEXT, None);
            // y' = y + h/2 (y - x_0)/s + h/2 (y_p - x_0')/s', with h = s' - s; times γ' to be x'
            let half = 0.5 * (next.edm_sigma() - now.edm_sigma()) * next.gamma;
            let (slope, slope_next) = (half / now.edm_sigma(), half / next.edm_sigma());
            let terms = [
                (SAMPLE, (next.gamma + slope) / now.gamma),
                (X0, -slope),
                (PREDICTED, slope_next / next.gamma),
                (X0_NEXT, -slope_next),
            ];
            table.update(SAMPLE, &terms, 0.0);
        }
        table.end_step();
    }
}
