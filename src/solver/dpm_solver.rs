//! DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095), in single- and multistep form, for
//! the ODE and for the SDE.
//!
//! Both solve the linear part of the ODE exactly and expand the rest, ε or x_0, in λ. With
//! `h = λ' - λ` a step is `x' = a x + w_0 D_0 + w_1 D_1 + w_2 D_2 + c z`, where D_k is h^k times the k-th
//! derivative of ε or x_0, by finite differences of the evaluations that there are.

use super::multistep::{check_order, multistep_orders, ring};
use super::table::{Register, SAMPLE, Table};
use crate::schedule::{Grid, Level};
use crate::{Error, Result};

/// Which equation is solved, and what is expanded in λ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// The ODE, expanding ε: DPM-Solver.
    Noise,
    /// The ODE, expanding x_0: DPM-Solver++.
    Data,
    /// The SDE, expanding ε: SDE-DPM-Solver.
    NoiseSde,
    /// The SDE, expanding x_0: SDE-DPM-Solver++, known as DPM++ 2M SDE at order 2.
    DataSde,
}

impl Form {
    fn expands_noise(self) -> bool {
        matches!(self, Form::Noise | Form::NoiseSde)
    }
}

/// Where the derivatives come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stepping {
    /// From the steps before.
    Multistep,
    /// From inside the step: `order` steps of the grid make one step of the method, whose inner
    /// evaluations are at the grid's levels between.
    Singlestep,
}

/// How the first derivative enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecondOrder {
    /// As the midpoint method would have it: by half the weight of the value (the papers' choice at order 2).
    Midpoint,
    /// By its exact weight in the expansion, as Heun's method would have it.
    Heun,
}

/// The weight of the second derivative in multistep methods of order 3.
///
/// Taylor's expansion wants `h² f''`, and the difference of the two latest slopes over half their
/// distance is that. The authors' code, and after it diffusers and k-diffusion, divide by the whole distance
/// instead, which gives half of it and leaves a method of order 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Curvature {
    /// Taylor's: order 3.
    Exact,
    /// As diffusers 0.42 computes it; in the SDE form its constant -½ has the wrong sign too.
    Diffusers,
}

/// A solver of the DPM-Solver family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DpmSolver {
    /// Which equation is solved, and what is expanded.
    pub form: Form,
    /// From 1 to 3.
    pub order: usize,
    /// Where derivatives come from.
    pub stepping: Stepping,
    /// How the first derivative enters: at order 2, and, in a single step, at order 3, where `Midpoint`
    /// leaves out the second derivative.
    pub second_order: SecondOrder,
    /// The weight of the second derivative at order 3, multistep.
    pub curvature: Curvature,
    /// Whether the last steps of fewer than 15 are of lower order.
    pub lower_order_final: bool,
    /// Whether the last step is always of first order.
    pub euler_at_final: bool,
    /// Whether noise is drawn twice in each step but the first and the last, and the first lot thrown away, as CogVideoX's
    /// scheduler does.
    pub discards_noise: bool,
}

impl DpmSolver {
    /// The solver of this form, order and stepping, with the options that are usual.
    pub const fn new(form: Form, order: usize, stepping: Stepping) -> Self {
        DpmSolver {
            form,
            order,
            stepping,
            second_order: SecondOrder::Midpoint,
            curvature: Curvature::Exact,
            lower_order_final: true,
            euler_at_final: false,
            discards_noise: false,
        }
    }
}

pub(super) fn dpm_solver(table: &mut Table, grid: &Grid, options: DpmSolver) -> Result<()> {
    check_order("DPM-Solver", options.order, 3)?;
    if options.form == Form::NoiseSde && options.order == 3 {
        return Err(Error::invalid(
            "SDE-DPM-Solver on the noise goes up to order 2: give 1 or 2, or use the data form",
        ));
    }
    match options.stepping {
        Stepping::Multistep => multistep(table, grid, options),
        Stepping::Singlestep => singlestep(table, grid, options),
    }
    Ok(())
}

/// The weights of a step: of the sample, of D_0, D_1 and D_2, and of fresh noise.
struct Weights {
    x: f64,
    d: [f64; 3],
    noise: f64,
}

impl Weights {
    fn new(form: Form, from: Level, to: Level) -> Self {
        let h = to.lambda() - from.lambda();
        // At an end without noise or without signal (h = ∞), and in a step that stays where it is, there
        // are no derivatives.
        let expands = h.is_finite() && h != 0.0;
        let higher = |d1: f64, d2: f64| if expands { [d1, d2] } else { [0.0; 2] };
        match form {
            Form::Data => {
                let phi = libm::expm1(-h);
                let [d1, d2] = higher(phi / h + 1.0, -((phi + h) / (h * h) - 0.5));
                let x = to.sigma / from.sigma;
                // -γ' (e^{-h} - 1), which stays finite where the way back ends in pure noise
                let d0 = if to.gamma == 0.0 { -from.gamma * x } else { to.gamma * -phi };
                Weights { x, d: [d0, to.gamma * d1, to.gamma * d2], noise: 0.0 }
            }
            Form::Noise => {
                let phi = libm::expm1(h);
                let [d1, d2] = higher(-(phi / h - 1.0), -((phi - h) / (h * h) - 0.5));
                // σ' (e^h - 1), which stays finite at the clean end, and where the way back ends in pure noise
                let d0 = if to.gamma == 0.0 { to.sigma } else { to.gamma * (to.edm_sigma() - from.edm_sigma()) };
                Weights { x: to.gamma / from.gamma, d: [d0, to.sigma * d1, to.sigma * d2], noise: 0.0 }
            }
            Form::DataSde => {
                let phi = libm::expm1(-2.0 * h);
                let [d1, d2] = higher(phi / (2.0 * h) + 1.0, 0.5 - (phi + 2.0 * h) / (4.0 * h * h));
                let x = if h.is_finite() { to.sigma / from.sigma * libm::exp(-h) } else { 0.0 };
                Weights { x, d: [-phi, d1, d2].map(|w| to.gamma * w), noise: to.sigma * (-phi).sqrt() }
            }
            Form::NoiseSde => {
                let phi = libm::expm1(h);
                let [d1, _] = higher(-2.0 * (phi / h - 1.0), 0.0);
                let d0 = 2.0 * to.gamma * (to.edm_sigma() - from.edm_sigma());
                let noise = if to.sigma == 0.0 { 0.0 } else { to.sigma * libm::expm1(2.0 * h).sqrt() };
                Weights { x: to.gamma / from.gamma, d: [d0, to.sigma * d1, 0.0], noise }
            }
        }
    }

    /// Makes the second derivative's weight what diffusers' is.
    fn halve_curvature(&mut self, form: Form, to: Level) {
        if form == Form::DataSde && self.d[2] != 0.0 {
            self.d[2] -= to.gamma;
        }
        self.d[2] *= 0.5;
    }

    /// What multiplies each evaluation, when D_k is the combination `derivatives[k]` of the evaluations.
    fn of_evaluations(&self, derivatives: [Row; 3], second_order: SecondOrder, order: usize) -> Row {
        let [d0, d1, d2] = self.d;
        match (order, second_order) {
            (1, _) => scale(derivatives[0], d0),
            (2, SecondOrder::Midpoint) => add(scale(derivatives[0], d0), scale(derivatives[1], 0.5 * d0)),
            (2, SecondOrder::Heun) => add(scale(derivatives[0], d0), scale(derivatives[1], d1)),
            _ => add(add(scale(derivatives[0], d0), scale(derivatives[1], d1)), scale(derivatives[2], d2)),
        }
    }
}

/// A combination of the three latest evaluations.
type Row = [f64; 3];

fn add(a: Row, b: Row) -> Row {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn scale(a: Row, factor: f64) -> Row {
    // 0 · ∞ is 0 here: a derivative over an infinite step vanishes
    if factor == 0.0 { [0.0; 3] } else { a.map(|v| v * factor) }
}

/// The difference of evaluations `a` and `b`.
fn difference(a: usize, b: usize) -> Row {
    let mut row = [0.0; 3];
    row[a] += 1.0;
    row[b] -= 1.0;
    row
}

/// Registers: the sample, what a group of single steps has come to, x_0 where ε is expanded, and a ring.
const INNER: Register = 1;
const X0: Register = 2;
const RING: Register = 3;

fn evaluate(table: &mut Table, form: Form, input: Register, level: Level, register: Register) {
    match form {
        Form::Data | Form::DataSde => table.evaluate(input, level, register, None),
        Form::Noise | Form::NoiseSde => table.evaluate(input, level, X0, Some(register)),
    }
}

/// The first step of an expansion of ε from pure noise, of which there is no x/γ: to what x_0 and ε say.
fn step_from_noise(table: &mut Table, form: Form, dest: Register, to: Level, eps: Register) {
    match form {
        Form::NoiseSde => table.update(dest, &[(X0, to.gamma)], to.sigma),
        _ => table.update(dest, &[(X0, to.gamma), (eps, to.sigma)], 0.0),
    }
}

fn step(table: &mut Table, dest: Register, weights: &Weights, order: usize, i: usize, evaluations: Row) {
    let terms: Vec<_> = [(SAMPLE, weights.x)].into_iter().chain(ring(RING, order, i).zip(evaluations)).collect();
    table.update(dest, &terms, weights.noise);
}

/// Algorithm 2 of arXiv 2211.01095 and its kin. `r_k` are the widths of the steps before, over h.
fn multistep(table: &mut Table, grid: &Grid, options: DpmSolver) {
    let DpmSolver { form, order, .. } = options;
    let n = grid.steps.len();
    for (i, now) in multistep_orders(grid, order, options.lower_order_final).enumerate() {
        let (from, to) = (grid.steps[i].from, grid.steps[i].to);
        let first_order = to.sigma == 0.0 || to.gamma == 0.0 || (options.euler_at_final && i == n - 1);
        let now = if first_order { 1 } else { now };
        let mut weights = Weights::new(form, from, to);
        let h = to.lambda() - from.lambda();
        if options.curvature == Curvature::Diffusers {
            weights.halve_curvature(form, to);
        }
        let r = |back: usize| (grid.steps[i + 1 - back].from.lambda() - grid.steps[i - back].from.lambda()) / h;
        let derivatives = match now {
            1 => [[1.0, 0.0, 0.0], [0.0; 3], [0.0; 3]],
            2 => [[1.0, 0.0, 0.0], scale(difference(0, 1), 1.0 / r(1)), [0.0; 3]],
            _ => {
                let (r0, r1) = (r(1), r(2));
                let (newer, older) = (scale(difference(0, 1), 1.0 / r0), scale(difference(1, 2), 1.0 / r1));
                let change = add(newer, scale(older, -1.0));
                let d1 = add(newer, scale(change, r0 / (r0 + r1)));
                [[1.0, 0.0, 0.0], d1, scale(change, 2.0 / (r0 + r1))]
            }
        };
        evaluate(table, form, SAMPLE, from, RING + i % order);
        if options.discards_noise && i > 0 && i + 1 < n {
            table.update(INNER, &[], 1.0);
        }
        if from.gamma == 0.0 && form.expands_noise() {
            step_from_noise(table, form, SAMPLE, to, RING + i % order);
        } else {
            step(table, SAMPLE, &weights, order, i, weights.of_evaluations(derivatives, options.second_order, now));
        }
        table.end_step();
    }
}

/// The order of each single step: 1, 2, …, `order`, then from the beginning. The first is a group of its own where it
/// leads from pure noise. The last is 1 in a run that ends clean, or in pure noise on the way back, and if asked for where
/// it would complete a group.
fn singlestep_orders(grid: &Grid, order: usize, lower_order_final: bool) -> Vec<usize> {
    let n = grid.steps.len();
    let infinite = grid.steps.iter().any(|s| s.to.sigma == 0.0 || s.to.gamma == 0.0);
    let before = usize::from(grid.steps[0].from.gamma == 0.0);
    let mut orders: Vec<usize> = (0..n).map(|i| if i < before { 1 } else { (i - before) % order + 1 }).collect();
    if infinite || (lower_order_final && n.is_multiple_of(order)) {
        orders[n - 1] = 1;
    }
    orders
}

/// Algorithms 4 and 5 of arXiv 2206.00927 and algorithm 1 of arXiv 2211.01095, on the grid's own levels.
/// `r_k` are the distances of the inner levels from the group's beginning, over its width h.
fn singlestep(table: &mut Table, grid: &Grid, options: DpmSolver) {
    let DpmSolver { form, order, second_order, .. } = options;
    let orders = singlestep_orders(grid, order, options.lower_order_final);
    for (i, &now) in orders.iter().enumerate() {
        let (base, to) = (grid.steps[i + 1 - now].from, grid.steps[i].to);
        let ends_group = orders.get(i + 1).is_none_or(|&next| next == 1);
        let weights = Weights::new(form, base, to);
        let h = to.lambda() - base.lambda();
        let r = |back: usize| (grid.steps[i - back].from.lambda() - base.lambda()) / h;
        let derivatives = match now {
            1 => [[1.0, 0.0, 0.0], [0.0; 3], [0.0; 3]],
            2 => [[0.0, 1.0, 0.0], scale(difference(0, 1), 1.0 / r(0)), [0.0; 3]],
            _ => {
                let (r0, r1) = (r(0), r(1));
                let (nearer, farther) = (scale(difference(1, 2), 1.0 / r1), scale(difference(0, 2), 1.0 / r0));
                let value = [0.0, 0.0, 1.0];
                match second_order {
                    SecondOrder::Midpoint => [value, farther, [0.0; 3]],
                    SecondOrder::Heun => {
                        let d1 = scale(add(scale(nearer, r0), scale(farther, -r1)), 1.0 / (r0 - r1));
                        [value, d1, scale(add(farther, scale(nearer, -1.0)), 2.0 / (r0 - r1))]
                    }
                }
            }
        };
        evaluate(table, form, if now == 1 { SAMPLE } else { INNER }, grid.steps[i].from, RING + i % order);
        let dest = if ends_group { SAMPLE } else { INNER };
        if base.gamma == 0.0 && form.expands_noise() {
            step_from_noise(table, form, dest, to, RING + i % order);
            table.end_step();
            continue;
        }
        step(table, dest, &weights, order, i, weights.of_evaluations(derivatives, second_order, now));
        if ends_group {
            table.end_step();
        }
    }
}
