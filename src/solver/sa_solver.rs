//! SA-Solver (arXiv 2309.05019): stochastic Adams methods, a predictor and a corrector with the noise of the predictor.
//!
//! The equation has as much noise as τ says: the ODE at 0, the reverse SDE at 1. With `k = 1 + τ²` and `h = λ' - λ` a step is
//! `x' = e^{-τ² h} (σ'/σ) x + γ' k ∫ e^{-k (λ' - u)} x_0(u) du + σ' √(1 - e^{-2 τ² h}) z`, or by ε
//! `x' = (γ'/γ) x - σ' k ∫ e^{λ' - u} ε(u) du + τ σ' √(e^{2 h} - 1) z`, where x_0 or ε is the polynomial through the evaluations
//! that there are: of the predictor those before, of the corrector the one at the step's end too.

use super::lagrange;
use super::multistep::{check_order, ring};
use super::table::{Register, SAMPLE, Table};
use crate::schedule::{Grid, Level, Transition};
use crate::{Error, Result};

/// How much noise there is on the way: τ, by the time where a step begins.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Tau {
    /// The same everywhere, from 0 on.
    Constant(f64),
    /// 1 at the times from the first to the second, as the network counts them, and 0 elsewhere.
    Between(f64, f64),
}

impl Tau {
    fn at(self, level: Level) -> f64 {
        match self {
            Tau::Constant(tau) => tau,
            Tau::Between(from, to) => f64::from(u8::from((from..=to).contains(&level.time))),
        }
    }
}

/// SA-Solver and its options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaSolver {
    /// Of the predictor, from 1 to 4: through how many evaluations its polynomial goes.
    pub predictor: usize,
    /// Of the corrector, from 1 to 4.
    pub corrector: usize,
    /// Whether x_0 is what the polynomial stands for, or ε.
    pub predict_x0: bool,
    /// How much noise there is.
    pub tau: Tau,
    /// Whether the orders fall towards the end of the run.
    pub lower_order_final: bool,
}

impl SaSolver {
    /// Predictor and corrector of this order on x_0, along the SDE.
    pub const fn new(order: usize) -> Self {
        let tau = Tau::Constant(1.0);
        SaSolver { predictor: order, corrector: order, predict_x0: true, tau, lower_order_final: true }
    }

    fn check(&self) -> Result<()> {
        check_order("sa-solver's predictor", self.predictor, 4)?;
        check_order("sa-solver's corrector", self.corrector, 4)?;
        match self.tau {
            Tau::Constant(tau) if !(tau >= 0.0 && tau.is_finite()) => {
                Err(Error::invalid(format!("tau of sa-solver must be a number from 0 on, not {tau}")))
            }
            _ => Ok(()),
        }
    }
}

/// Registers: what a step began with and the noise that it drew, for its corrector; x_0 where ε is expanded; a ring.
const LAST: Register = 1;
const NOISE: Register = 2;
const X0: Register = 3;
const RING: Register = 4;

/// Algorithm 1. Each evaluation first corrects the step that led to it and then predicts the next.
pub(super) fn sa_solver(table: &mut Table, grid: &Grid, options: SaSolver) -> Result<()> {
    options.check()?;
    let (steps, n) = (&grid.steps, grid.steps.len());
    let slots = options.predictor.max(options.corrector);
    // where there is noise anywhere, every step draws, whether it adds any or not
    let draws = options.tau != Tau::Constant(0.0);
    let without_signal = steps.iter().take_while(|s| s.from.gamma == 0.0).count();
    for (i, &Transition { from, to }) in steps.iter().enumerate() {
        let now = RING + i % slots;
        if options.predict_x0 {
            table.evaluate(SAMPLE, from, now, None);
        } else {
            table.evaluate(SAMPLE, from, X0, Some(now));
        }
        let there_are = (i + 1).saturating_sub(without_signal).max(1);
        let order = |highest: usize, remaining: usize| {
            highest.min(there_are).min(if options.lower_order_final { remaining } else { highest })
        };
        // of an expansion of ε from pure noise, of which there is no x/γ, nothing is left to correct
        if i > 0 && (options.predict_x0 || steps[i - 1].from.gamma > 0.0) {
            let before = steps[i - 1];
            let nodes = (0..order(options.corrector, n - i + 2)).map(|back| match back {
                0 => before.to,
                _ => steps[i - back].from,
            });
            step(table, options, before, &nodes.collect::<Vec<_>>(), (LAST, slots, i));
        } else {
            table.update(LAST, &[(SAMPLE, 1.0)], 0.0);
        }
        if draws {
            table.update(NOISE, &[], 1.0);
        }
        let ends = to.sigma == 0.0 || to.gamma == 0.0;
        if !options.predict_x0 && (ends || from.gamma == 0.0) {
            let noisy = if options.tau.at(from) > 0.0 { NOISE } else { now };
            table.update(SAMPLE, &[(X0, to.gamma), (noisy, to.sigma)], 0.0);
        } else {
            let order = if ends { 1 } else { order(options.predictor, n - i) };
            let nodes: Vec<Level> = (0..order).map(|back| steps[i - back].from).collect();
            step(table, options, Transition { from, to }, &nodes, (SAMPLE, slots, i));
        }
        table.end_step();
    }
    Ok(())
}

/// A step from [`LAST`] by the evaluations at these levels, the newest first.
fn step(
    table: &mut Table,
    options: SaSolver,
    transition: Transition,
    nodes: &[Level],
    (dest, slots, i): (Register, usize, usize),
) {
    let Weights { x, noise, values } = Weights::new(options, transition, nodes);
    let mut terms = vec![(LAST, x), (NOISE, noise)];
    terms.extend(ring(RING, slots, i).zip(values));
    table.update(dest, &terms, 0.0);
}

/// What the sample, the noise and the evaluations are multiplied by.
struct Weights {
    x: f64,
    noise: f64,
    values: Vec<f64>,
}

impl Weights {
    fn new(options: SaSolver, Transition { from, to }: Transition, nodes: &[Level]) -> Weights {
        let tau = options.tau.at(from);
        let k = 1.0 + tau * tau;
        let h = to.lambda() - from.lambda();
        let places: Vec<f64> = nodes.iter().map(|node| node.lambda() - to.lambda()).collect();
        let power = |m: usize| (-h).powi(m as i32);
        if !options.predict_x0 {
            // ∫ e^{-u} u^m du from -h to 0, by parts
            let mut moments = vec![libm::expm1(h)];
            for m in 1..nodes.len() {
                moments.push(libm::exp(h) * power(m) + m as f64 * moments[m - 1]);
            }
            let values = lagrange::weights(&places, &moments).into_iter().map(|w| -k * to.sigma * w).collect();
            let noise = if tau == 0.0 { 0.0 } else { tau * to.sigma * libm::expm1(2.0 * h).max(0.0).sqrt() };
            return Weights { x: to.gamma / from.gamma, noise, values };
        }
        let ratio = to.sigma / from.sigma;
        if to.gamma == 0.0 {
            // the way back, which ends in pure noise
            return Weights { x: ratio, noise: 0.0, values: vec![-from.gamma * ratio] };
        }
        // k ∫ e^{k u} u^m du from -h to 0, by parts
        let mut moments = vec![-libm::expm1(-k * h)];
        for m in 1..nodes.len() {
            moments.push(-power(m) * libm::exp(-k * h) - m as f64 / k * moments[m - 1]);
        }
        let mut values = lagrange::weights(&places, &moments);
        if let [newest, other] = nodes {
            // of the third order in h, by which the authors' method of order 2 is that of UniPC where τ is 0
            let more = 0.5 * h * h - (k * h + libm::expm1(-k * h)) / (k * k);
            let slope = k * more / (newest.lambda() - other.lambda());
            values[0] += slope;
            values[1] -= slope;
        }
        values.iter_mut().for_each(|w| *w *= to.gamma);
        let (kept, noise) = match tau {
            0.0 => (1.0, 0.0),
            _ => (libm::exp(-tau * tau * h), (-libm::expm1(-2.0 * tau * tau * h)).max(0.0).sqrt()),
        };
        Weights { x: kept * ratio, noise: to.sigma * noise, values }
    }
}
