//! Linear multistep methods on `dy/ds = ε`: `y' = y + Σ c_j ε_j` over the latest evaluations.

use super::lagrange;
use super::multistep::{check_order, multistep_orders, ring};
use super::table::{Register, SAMPLE, Table};
use crate::Result;
use crate::schedule::{Grid, Level, Marginal, Transition};

const X0: Register = 1;
const PREDICTED: Register = 2;
/// The variable of DEIS's extrapolating polynomial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeisVariable {
    /// The network's time: tAB-DEIS, the paper's choice.
    Time,
    /// ln s: what diffusers does.
    LogRho,
}

/// The values of ε go round the registers from here on.
const EPS: Register = 3;

/// `x' = γ' (x/γ + Σ c_j ε_j)` into the sample.
fn transfer(table: &mut Table, from: Level, to: Level, eps: impl Iterator<Item = (Register, f64)>) {
    let terms: Vec<_> =
        [(SAMPLE, to.gamma / from.gamma)].into_iter().chain(eps.map(|(e, c)| (e, to.gamma * c))).collect();
    table.update(SAMPLE, &terms, 0.0);
}

/// The latest evaluations' values of `variable`, the newest first, less the newest.
fn nodes(grid: &Grid, i: usize, order: usize, variable: impl Fn(Level) -> f64) -> Vec<f64> {
    let newest = variable(grid.steps[i].from);
    (0..order).map(|back| variable(grid.steps[i - back].from) - newest).collect()
}

/// LMS (k-diffusion): ε is a polynomial in s.
pub(super) fn lms(table: &mut Table, grid: &Grid, order: usize) -> Result<()> {
    check_order("lms", order, 4)?;
    for (i, now) in multistep_orders(grid, order, false).enumerate() {
        let Transition { from, to } = grid.steps[i];
        let h = to.edm_sigma() - from.edm_sigma();
        let moments: Vec<f64> = (1..=now as i32).map(|k| h.powi(k) / f64::from(k)).collect();
        let c = lagrange::weights(&nodes(grid, i, now, |l| l.edm_sigma()), &moments);
        table.evaluate(SAMPLE, from, X0, Some(EPS + i % order));
        transfer(table, from, to, ring(EPS, order, i).zip(c));
        table.end_step();
    }
    Ok(())
}

/// DEIS (arXiv 2204.13902, eq. 15): ε is a polynomial in `variable`, integrated over s.
pub(super) fn deis(
    table: &mut Table,
    grid: &Grid,
    marginal: &dyn Marginal,
    order: usize,
    variable: DeisVariable,
    lower_order_final: bool,
) -> Result<()> {
    check_order("deis", order, 4)?;
    for (i, now) in multistep_orders(grid, order, lower_order_final).enumerate() {
        let Transition { from, to } = grid.steps[i];
        let c = match variable {
            _ if now == 1 => vec![to.edm_sigma() - from.edm_sigma()],
            DeisVariable::LogRho => {
                lagrange::weights(&nodes(grid, i, now, |l| -l.lambda()), &log_rho_moments(from, to, now))
            }
            DeisVariable::Time => {
                lagrange::weights(&nodes(grid, i, now, |l| l.time), &time_moments(marginal, from, to, now))
            }
        };
        table.evaluate(SAMPLE, from, X0, Some(EPS + i % order));
        transfer(table, from, to, ring(EPS, order, i).zip(c));
        table.end_step();
    }
    Ok(())
}

/// `∫ u^k ds` with `u = ln(s/s_from)`: with U at the step's end, `I_0 = e^U - 1` and
/// `I_k = U^k e^U - k I_{k-1}`, times s_from. At the clean end, where U is -∞, `U^k e^U` is 0.
fn log_rho_moments(from: Level, to: Level, count: usize) -> Vec<f64> {
    let (s, u) = (from.edm_sigma(), from.lambda() - to.lambda());
    let mut integral = libm::expm1(u);
    let mut moments = vec![s * integral];
    for k in 1..count as i32 {
        let end = if u == f64::NEG_INFINITY { 0.0 } else { u.powi(k) * libm::exp(u) };
        integral = end - f64::from(k) * integral;
        moments.push(s * integral);
    }
    moments
}

/// `∫ u^k ds` with `u = t - t_from`, by the midpoint rule in t: s(t) has no closed form for a discrete
/// schedule. Below the schedule's first time, on the way to the clean sample, t stays what it is there.
fn time_moments(marginal: &dyn Marginal, from: Level, to: Level, count: usize) -> Vec<f64> {
    const PANELS: usize = 512;
    let clean = to.sigma == 0.0;
    let end = if clean { marginal.time_of_log_snr(f64::INFINITY) } else { to.time };
    let width = (end - from.time) / PANELS as f64;
    let mut moments = vec![0.0; count];
    let mut add = |u: f64, ds: f64| moments.iter_mut().enumerate().for_each(|(k, m)| *m += u.powi(k as i32) * ds);
    let mut s = from.edm_sigma();
    for panel in 1..=PANELS {
        let next = match panel {
            PANELS if !clean => to.edm_sigma(),
            _ => marginal.level(from.time + width * panel as f64).edm_sigma(),
        };
        add(width * (panel as f64 - 0.5), next - s);
        s = next;
    }
    if clean {
        add(end - from.time, -s);
    }
    moments
}

/// Adams–Bashforth's weights for even steps, the newest first.
const ADAMS_BASHFORTH: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// PNDM (arXiv 2202.09778, algorithms 1 and 2): the transfer φ is DDIM's step with a mean ε, and the mean
/// is that of a Runge–Kutta or Adams–Bashforth step of even width. Without warm-up (PLMS) the first step
/// is Heun's, and the orders rise from there.
pub(super) fn pndm(table: &mut Table, grid: &Grid, marginal: &dyn Marginal, warm_up: bool) {
    table.eps_follows_x0(false);
    let n = grid.steps.len();
    // A Runge–Kutta step evaluates at its end, which the last one's may be clean for.
    let warm = if warm_up { 3.min(n - 1) } else { 0 };
    for i in 0..n {
        let eps = EPS + i % 4;
        if i < warm {
            pseudo_runge_kutta(table, grid, marginal, i, eps);
        } else if i == 0 && n > 1 {
            pseudo_heun(table, grid, marginal, eps);
        } else {
            let Transition { from, to } = grid.steps[i];
            let weights = ADAMS_BASHFORTH[i.min(3)];
            table.evaluate(SAMPLE, from, X0, Some(eps));
            let h = to.edm_sigma() - from.edm_sigma();
            transfer(table, from, to, ring(EPS, 4, i).zip(weights.iter().map(|w| w * h)));
        }
        table.end_step();
    }
}

/// Where ε of the inner evaluations goes, past the four of the ring.
const INNER: [Register; 3] = [EPS + 4, EPS + 5, EPS + 6];

/// φ of the sample with one ε, into the register of predictions.
fn predict(table: &mut Table, from: Level, to: Level, eps: Register) {
    let h = to.edm_sigma() - from.edm_sigma();
    table.update(PREDICTED, &[(SAMPLE, to.gamma / from.gamma), (eps, to.gamma * h)], 0.0);
}

/// Step `i` by the pseudo Runge–Kutta method (eq. 12).
fn pseudo_runge_kutta(table: &mut Table, grid: &Grid, marginal: &dyn Marginal, i: usize, eps: Register) {
    let (Transition { from, to }, end) = (grid.steps[i], grid.steps[i + 1].from);
    let half = half_width(from.time, to.time);
    let [before, after] = [marginal.level(from.time - half), marginal.level(end.time + half)];
    table.evaluate(SAMPLE, from, X0, Some(eps));
    predict(table, from, before, eps);
    table.evaluate(PREDICTED, after, X0, Some(INNER[0]));
    predict(table, from, after, INNER[0]);
    table.evaluate(PREDICTED, after, X0, Some(INNER[1]));
    predict(table, from, end, INNER[1]);
    table.evaluate(PREDICTED, end, X0, Some(INNER[2]));
    let h = end.edm_sigma() - from.edm_sigma();
    let mean = [(eps, h / 6.0), (INNER[0], h / 3.0), (INNER[1], h / 3.0), (INNER[2], h / 6.0)];
    transfer(table, from, end, mean.into_iter());
}

/// Half the time of a step, a whole number of training steps where the step's ends are.
fn half_width(from: f64, to: f64) -> f64 {
    let half = 0.5 * (from - to);
    if half >= 1.0 && from.fract() == 0.0 && to.fract() == 0.0 { half.floor() } else { half }
}

/// The first step by the mean of ε at both ends. The second evaluation is not kept: the next step begins
/// with one at the same level, on a better sample.
fn pseudo_heun(table: &mut Table, grid: &Grid, marginal: &dyn Marginal, eps: Register) {
    let (Transition { from, to }, end) = (grid.steps[0], grid.steps[1].from);
    table.evaluate(SAMPLE, from, X0, Some(eps));
    predict(table, from, to, eps);
    table.evaluate(PREDICTED, end, X0, Some(INNER[0]));
    // one step's time before the end: where the run began, unless the grid's steps leave gaps
    let from = if to == end { from } else { marginal.level(end.time + from.time - to.time) };
    let half = 0.5 * (end.edm_sigma() - from.edm_sigma());
    transfer(table, from, end, [(eps, half), (INNER[0], half)].into_iter());
}
