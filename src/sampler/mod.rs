//! Runs a solver against a network: one compiled to a table ([`Sampler`]), or one that chooses its own steps
//! ([`AdaptiveSampler`]).

mod adaptive;
mod control;
mod evaluator;
mod fixed;
mod integrate;

pub use adaptive::AdaptiveSampler;
pub use control::{Control, Ending, OnStep, Outcome, Progress};
pub(crate) use evaluator::{Evaluator, SLOT};
pub use fixed::Sampler;
pub(crate) use integrate::DormandPrince;
