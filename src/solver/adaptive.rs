//! The solvers that choose their own steps, as data; [`AdaptiveSampler`](crate::sampler::AdaptiveSampler) runs them.

use crate::{Error, Result};

/// How a solver that chooses its own steps takes one, and estimates its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Dormand and Prince's Runge–Kutta pair of orders 5 and 4 on the probability-flow ODE (arXiv 2011.13456, section 4.3).
    RungeKutta45,
    /// DPM-Solver-12 (arXiv 2206.00927, appendix C): orders 2 and 1.
    DpmSolver12,
    /// DPM-Solver-23: orders 3 and 2.
    DpmSolver23,
    /// The reverse SDE by Euler–Maruyama and its stochastic improvement (arXiv 2105.14080, algorithm 1).
    Sde,
}

/// A solver that chooses its own steps so that the error of each stays within `atol + rtol |x|`, or, as
/// their papers have it, within the greater of the two for all but Runge–Kutta.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    /// How a step is taken.
    pub method: Method,
    /// The relative tolerance, positive.
    pub rtol: f64,
    /// The absolute tolerance, positive, in the units of a sample.
    pub atol: f64,
}

impl Adaptive {
    /// Whether the tolerances are ones.
    ///
    /// # Errors
    /// When one is not positive.
    pub fn check(&self) -> Result<()> {
        match [("rtol", self.rtol), ("atol", self.atol)].into_iter().find(|(_, t)| !(*t > 0.0 && t.is_finite())) {
            Some((name, tolerance)) => Err(Error::invalid(format!("{name} must be positive, not {tolerance}"))),
            None => Ok(()),
        }
    }
}

/// What is known of a solver that chooses its own steps.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct AdaptiveInfo {
    /// The name on the command line.
    pub name: &'static str,
    /// The solver, with its usual tolerances.
    pub solver: Adaptive,
    /// The order of what it goes on with; `None` for a stochastic one.
    pub order: Option<usize>,
    /// Network evaluations a step, accepted or not.
    pub nfe_per_step: usize,
    /// Where it comes from.
    pub paper: &'static str,
}

const fn info(
    name: &'static str,
    method: Method,
    [rtol, atol]: [f64; 2],
    order: Option<usize>,
    nfe_per_step: usize,
    paper: &'static str,
) -> AdaptiveInfo {
    AdaptiveInfo { name, solver: Adaptive { method, rtol, atol }, order, nfe_per_step, paper }
}

/// What the papers use for pictures of values from -1 to 1: a step of one of 256 values, and five percent.
const PICTURES: [f64; 2] = [0.05, 0.0078];

/// Every solver that chooses its own steps.
pub const ADAPTIVE_SOLVERS: &[AdaptiveInfo] = &[
    info("rk45", Method::RungeKutta45, [1e-4, 1e-4], Some(5), 6, "arXiv 2011.13456"),
    info("dpm-12", Method::DpmSolver12, PICTURES, Some(2), 2, "arXiv 2206.00927"),
    info("dpm-23", Method::DpmSolver23, PICTURES, Some(3), 3, "arXiv 2206.00927"),
    info("sde", Method::Sde, PICTURES, None, 2, "arXiv 2105.14080"),
];
