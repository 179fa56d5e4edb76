//! Fixed-step solvers, compiled to a table.
//!
//! With the schedule known, every fixed-step solver is a sequence of stages: evaluate the network on
//! some register at some level, split its prediction into an estimate of the clean sample x_0 and of the
//! noise ε, then form linear combinations of registers, whose coefficients depend on the schedule alone.
//! [`Solver::compile`] computes them all once, in f64. [`Sampler`](crate::sampler::Sampler) runs any of
//! them in fixed buffers.
//!
//! A solver from outside fills a [`Table`] itself: as an [`OwnSolver`] it runs wherever one of these does
//! (`examples/own_solver.rs`).
//!
//! In the solvers' formulas γ and σ are a level's scales of signal and noise, primes mark the level that
//! a step leads to, `λ = ln(γ/σ)`, `s = σ/γ` and `y = x/γ`. In y and s the probability-flow ODE is
//! `dy/ds = ε` (arXiv 2206.00364, eq. 1 and 3).

mod adams;
mod adaptive;
mod ancestral;
mod catalogue;
mod consistency;
mod ddim;
mod distilled;
mod dpm_solver;
mod fitted;
mod kinds;
mod lagrange;
mod multistep;
mod resample;
mod runge_kutta;
mod sa_solver;
mod score_sde;
mod stochastic;
mod table;
mod unipc;

pub use adams::DeisVariable;
pub use adaptive::{ADAPTIVE_SOLVERS, Adaptive, AdaptiveInfo, Method};
pub use ancestral::Variance;
pub use catalogue::{SOLVERS, SolverInfo};
pub use dpm_solver::{Curvature, DpmSolver, Form, SecondOrder, Stepping};
pub use kinds::{OwnSolver, Solver};
pub use resample::Resample;
pub use runge_kutta::Churn;
pub use sa_solver::{SaSolver, Tau};
pub use stochastic::Langevin;
pub(crate) use table::{Added, LangevinStep, Stage, Update};
pub use table::{Prediction, Program, Register, SAMPLE, Table};
pub use unipc::{BFunction, UniPc};
