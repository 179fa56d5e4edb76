//! UniPC (arXiv 2302.04867): a multistep predictor of the DPM-Solver kind, and a corrector that uses the
//! evaluation at the predicted sample and so raises the order by one at no further cost.

use super::lagrange;
use super::multistep::{check_order, multistep_orders, ring};
use super::table::{Register, SAMPLE, Table};
use crate::Result;
use crate::schedule::{Grid, Level};

/// B(h), the function that UniPC leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BFunction {
    /// B_1(h) = h.
    Bh1,
    /// B_2(h) = e^h - 1.
    Bh2,
}

/// UniPC and its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniPc {
    /// Of the predictor, from 1 to 3. The corrector's is one more.
    pub order: usize,
    /// B(h).
    pub b: BFunction,
    /// Whether x_0 is expanded in λ, or ε.
    pub predict_x0: bool,
    /// Whether the last steps of fewer than 15 are of lower order.
    pub lower_order_final: bool,
    /// How many steps from the first on are left without the corrector.
    pub uncorrected: usize,
}

impl UniPc {
    /// UniPC of this order with B_2, as diffusers sets it up.
    pub const fn new(order: usize) -> Self {
        UniPc { order, b: BFunction::Bh2, predict_x0: true, lower_order_final: true, uncorrected: 0 }
    }
}

/// Where the sample that a step began with is kept for its corrector.
const LAST: Register = 1;
const X0: Register = 2;
const RING: Register = 3;

/// Algorithms 1 and 2. Each evaluation first corrects the step that led to it and then predicts the next.
pub(super) fn unipc(table: &mut Table, grid: &Grid, options: UniPc) -> Result<()> {
    check_order("unipc", options.order, 3)?;
    // the predictor's evaluations, and the corrector's one more
    let slots = options.order + 1;
    let steps = &grid.steps;
    let orders: Vec<usize> = orders(grid, options);
    for (i, step) in steps.iter().enumerate() {
        let (from, now) = (step.from, RING + i % slots);
        if options.predict_x0 {
            table.evaluate(SAMPLE, from, now, None);
        } else {
            table.evaluate(SAMPLE, from, X0, Some(now));
        }
        // an expansion of ε from pure noise, of which there is no x/γ, is to what x_0 and ε say
        let from_noise = |level: Level| level.gamma == 0.0 && !options.predict_x0;
        if i > options.uncorrected && !from_noise(steps[i - 1].from) {
            let r = Expansion::new(grid, i - 1, orders[i - 1], options);
            let terms: Vec<_> = [(LAST, r.x)].into_iter().chain(ring(RING, slots, i).zip(r.corrector())).collect();
            table.update(LAST, &terms, 0.0);
        } else {
            table.update(LAST, &[(SAMPLE, 1.0)], 0.0);
        }
        if from_noise(from) {
            table.update(SAMPLE, &[(X0, step.to.gamma), (now, step.to.sigma)], 0.0);
        } else {
            let r = Expansion::new(grid, i, orders[i], options);
            let terms: Vec<_> = [(LAST, r.x)].into_iter().chain(ring(RING, slots, i).zip(r.predictor())).collect();
            table.update(SAMPLE, &terms, 0.0);
        }
        table.end_step();
    }
    Ok(())
}

/// As for every multistep method, but in diffusers UniPC's orders fall at the end of a run of any length.
fn orders(grid: &Grid, options: UniPc) -> Vec<usize> {
    let n = grid.steps.len();
    let remaining = |i: usize| if options.lower_order_final { n - i } else { options.order };
    let cleanly = |i: usize, order: usize| {
        let to = grid.steps[i].to;
        if to.sigma == 0.0 || to.gamma == 0.0 { 1 } else { order }
    };
    multistep_orders(grid, options.order, false)
        .enumerate()
        .map(|(i, order)| cleanly(i, order.min(remaining(i))))
        .collect()
}

/// A step's expansion: `x' = a x + w_0 m_0 + w B(h) Σ ρ_k D_k`, where m are values of x_0 or ε, and
/// `D_k = (m_k - m_0)/r_k` with `r_k = (λ_k - λ)/h`.
struct Expansion {
    /// a.
    x: f64,
    /// w_0.
    value: f64,
    /// w B(h).
    differences: f64,
    /// r_k of the evaluations before, and 1, the step's end.
    r: Vec<f64>,
    /// `b_k = φ_{k+1}(h) k! h^…/B(h)`, the right-hand side of equation 10.
    b: Vec<f64>,
}

impl Expansion {
    fn new(grid: &Grid, i: usize, order: usize, options: UniPc) -> Self {
        let (from, to) = (grid.steps[i].from, grid.steps[i].to);
        let h = to.lambda() - from.lambda();
        let lambda_before = |back: usize| grid.steps[i - back].from.lambda();
        let r = (1..order).map(|back| (lambda_before(back) - from.lambda()) / h).chain([1.0]).collect();
        let signed = if options.predict_x0 { -h } else { h };
        let (x, value, scale) = if options.predict_x0 {
            let x = to.sigma / from.sigma;
            // finite where the way back ends in pure noise, too
            let value = if to.gamma == 0.0 { -from.gamma * x } else { -to.gamma * libm::expm1(-h) };
            (x, value, to.gamma)
        } else {
            (to.gamma / from.gamma, noise_value(from, to), to.sigma)
        };
        let b_h = match options.b {
            BFunction::Bh1 => signed,
            BFunction::Bh2 => libm::expm1(signed),
        };
        // φ_{k+1}(h) by recurrence from φ_1 = (e^h - 1)/h
        let mut phi = libm::expm1(signed) / signed - 1.0;
        let mut factorial = 1.0;
        let mut b = Vec::with_capacity(order);
        for k in 1..=order {
            b.push(phi * factorial / b_h);
            factorial *= (k + 1) as f64;
            phi = phi / signed - 1.0 / factorial;
        }
        Expansion { x, value, differences: -scale * b_h, r, b }
    }

    /// The weights of m_0, m_1, … in the prediction.
    fn predictor(&self) -> Vec<f64> {
        let order = self.r.len();
        let rho = match order {
            1 => vec![],
            2 => vec![0.5],
            _ => lagrange::solve(self.vandermonde(order - 1), self.b[..order - 1].to_vec()),
        };
        self.weights(&rho)
    }

    /// The weights of the evaluation at the prediction and of m_0, m_1, … in the correction.
    fn corrector(&self) -> Vec<f64> {
        let order = self.r.len();
        let rho = match order {
            1 => vec![0.5],
            _ => lagrange::solve(self.vandermonde(order), self.b.clone()),
        };
        let (end, before) = rho.split_last().expect("an order is at least 1");
        let mut weights = self.weights(before);
        weights[0] -= self.differences * end;
        weights.insert(0, self.differences * end);
        weights
    }

    /// `w_0 m_0 + w B(h) Σ ρ_k (m_k - m_0)/r_k` by evaluations.
    fn weights(&self, rho: &[f64]) -> Vec<f64> {
        let mut weights = vec![self.value];
        for (rho, r) in rho.iter().zip(&self.r) {
            let weight = self.differences * rho / r;
            weights[0] -= weight;
            weights.push(weight);
        }
        weights
    }

    /// R_n: row k holds the k-th powers of r.
    fn vandermonde(&self, n: usize) -> Vec<Vec<f64>> {
        (0..n).map(|k| self.r[..n].iter().map(|r| r.powi(k as i32)).collect()).collect()
    }
}

/// `-σ' (e^h - 1)`, written so that it stays finite at the clean end, and where the way back ends in pure noise.
fn noise_value(from: Level, to: Level) -> f64 {
    if to.gamma == 0.0 { to.sigma } else { to.gamma * (to.edm_sigma() - from.edm_sigma()) }
}
