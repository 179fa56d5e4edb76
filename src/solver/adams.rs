//! Linear multistep methods: on the slope `dz/dp` of the path's coordinates ([`Path::coordinates`]), which is ε in y and s
//! and the velocity for a rectified flow, `z' = z + Σ c_j slope_j` over the latest evaluations; and DEIS, which is on ε
//! for every path.

use super::lagrange;
use super::multistep::{check_order, multistep_orders, ring};
use super::table::{Register, SAMPLE, Table};
use crate::Result;
use crate::schedule::{Coordinates, Grid, Level, Marginal, Path, Transition};

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

/// The slopes, or values of ε, go round the registers from here on.
const EPS: Register = 3;

/// p at the end of a step less that at its beginning.
fn width(path: Path, from: Level, to: Level) -> f64 {
    path.coordinates(to).place - path.coordinates(from).place
}

/// `x' = κ' (x/κ + Σ c_j slope_j)`.
fn transfer(
    table: &mut Table,
    path: Path,
    dest: Register,
    (from, to): (Level, Level),
    slopes: impl Iterator<Item = (Register, f64)>,
) {
    let [Coordinates { scale, .. }, end] = [from, to].map(|level| path.coordinates(level));
    let terms: Vec<_> =
        [(SAMPLE, end.scale / scale)].into_iter().chain(slopes.map(|(e, c)| (e, end.scale * c))).collect();
    table.update(dest, &terms, 0.0);
}

/// The latest evaluations' values of `variable`, the newest first, less the newest.
fn nodes(grid: &Grid, i: usize, order: usize, variable: impl Fn(Level) -> f64) -> Vec<f64> {
    let newest = variable(grid.steps[i].from);
    (0..order).map(|back| variable(grid.steps[i - back].from) - newest).collect()
}

/// LMS (k-diffusion): the slope is a polynomial in p.
pub(super) fn lms(table: &mut Table, grid: &Grid, path: Path, order: usize) -> Result<()> {
    check_order("lms", order, 4)?;
    for (i, now) in multistep_orders(grid, order, false).enumerate() {
        let Transition { from, to } = grid.steps[i];
        let h = width(path, from, to);
        let moments: Vec<f64> = (1..=now as i32).map(|k| h.powi(k) / f64::from(k)).collect();
        let c = lagrange::weights(&nodes(grid, i, now, |l| path.coordinates(l).place), &moments);
        table.evaluate_slope(path, SAMPLE, from, [X0, EPS + i % order]);
        transfer(table, path, SAMPLE, (from, to), ring(EPS, order, i).zip(c));
        table.end_step();
    }
    Ok(())
}

/// DEIS (arXiv 2204.13902, eq. 15): ε is a polynomial in `variable`, integrated over s. Of pure noise there is no y, and
/// the step from there is DDIM's.
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
        if from.gamma == 0.0 {
            table.evaluate(SAMPLE, from, X0, Some(EPS + i % order));
            table.update(SAMPLE, &[(X0, to.gamma), (EPS + i % order, to.sigma)], 0.0);
            table.end_step();
            continue;
        }
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
        let terms = ring(EPS, order, i).zip(c).map(|(eps, c)| (eps, to.gamma * c));
        let terms: Vec<_> = [(SAMPLE, to.gamma / from.gamma)].into_iter().chain(terms).collect();
        table.update(SAMPLE, &terms, 0.0);
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

/// PNDM (arXiv 2202.09778, algorithms 1 and 2): the transfer φ is DDIM's step with a mean slope, and the mean
/// is that of a Runge–Kutta or Adams–Bashforth step of even width. Without warm-up (PLMS) the first step
/// is Heun's, and the orders rise from there.
pub(super) fn pndm(table: &mut Table, grid: &Grid, marginal: &dyn Marginal, warm_up: bool) {
    table.eps_follows_x0(false);
    let (n, path) = (grid.steps.len(), marginal.path());
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
            table.evaluate_slope(path, SAMPLE, from, [X0, eps]);
            let h = width(path, from, to);
            transfer(table, path, SAMPLE, (from, to), ring(EPS, 4, i).zip(weights.iter().map(|w| w * h)));
        }
        table.end_step();
    }
}

/// The same weights with no warm-up at all. Of pure noise diffusers takes the noise alone for the sample that it predicts,
/// and so does this.
pub(super) fn improved_pndm(table: &mut Table, grid: &Grid, path: Path) {
    for (i, &Transition { from, to }) in grid.steps.iter().enumerate() {
        let eps = EPS + i % 4;
        table.evaluate_slope(path, SAMPLE, from, [X0, eps]);
        if from.gamma == 0.0 {
            table.update(SAMPLE, &[(eps, to.sigma)], 0.0);
        } else {
            let h = width(path, from, to);
            let weights = ADAMS_BASHFORTH[i.min(3)].iter().map(|w| w * h);
            transfer(table, path, SAMPLE, (from, to), ring(EPS, 4, i).zip(weights));
        }
        table.end_step();
    }
}

/// Where the slopes of the inner evaluations go, past the four of the ring.
const INNER: [Register; 3] = [EPS + 4, EPS + 5, EPS + 6];

/// φ of the sample with one slope, into the register of predictions.
fn predict(table: &mut Table, path: Path, from: Level, to: Level, slope: Register) {
    transfer(table, path, PREDICTED, (from, to), [(slope, width(path, from, to))].into_iter());
}

/// Step `i` by the pseudo Runge–Kutta method (eq. 12).
fn pseudo_runge_kutta(table: &mut Table, grid: &Grid, marginal: &dyn Marginal, i: usize, eps: Register) {
    let (Transition { from, to }, end, path) = (grid.steps[i], grid.steps[i + 1].from, marginal.path());
    let half = half_width(from.time, to.time);
    let [before, after] = [marginal.level(from.time - half), marginal.level(end.time + half)];
    table.evaluate_slope(path, SAMPLE, from, [X0, eps]);
    predict(table, path, from, before, eps);
    table.evaluate_slope(path, PREDICTED, after, [X0, INNER[0]]);
    predict(table, path, from, after, INNER[0]);
    table.evaluate_slope(path, PREDICTED, after, [X0, INNER[1]]);
    predict(table, path, from, end, INNER[1]);
    table.evaluate_slope(path, PREDICTED, end, [X0, INNER[2]]);
    let h = width(path, from, end);
    let mean = [(eps, h / 6.0), (INNER[0], h / 3.0), (INNER[1], h / 3.0), (INNER[2], h / 6.0)];
    transfer(table, path, SAMPLE, (from, end), mean.into_iter());
}

/// Half the time of a step, a whole number of training steps where the step's ends are.
fn half_width(from: f64, to: f64) -> f64 {
    let half = 0.5 * (from - to);
    if half >= 1.0 && from.fract() == 0.0 && to.fract() == 0.0 { half.floor() } else { half }
}

/// The first step by the mean of the slopes at both ends. The second evaluation is not kept: the next step begins
/// with one at the same level, on a better sample.
fn pseudo_heun(table: &mut Table, grid: &Grid, marginal: &dyn Marginal, eps: Register) {
    let (Transition { from, to }, end, path) = (grid.steps[0], grid.steps[1].from, marginal.path());
    table.evaluate_slope(path, SAMPLE, from, [X0, eps]);
    predict(table, path, from, to, eps);
    table.evaluate_slope(path, PREDICTED, end, [X0, INNER[0]]);
    // one step's time before the end: where the run began, unless the grid's steps leave gaps
    let from = if to == end { from } else { marginal.level(end.time + from.time - to.time) };
    let half = 0.5 * width(path, from, end);
    transfer(table, path, SAMPLE, (from, end), [(eps, half), (INNER[0], half)].into_iter());
}
