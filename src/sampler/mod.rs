//! Runs a solver against a network: one compiled to a table ([`Sampler`]), or one that chooses its own steps
//! ([`AdaptiveSampler`]).

mod adaptive;
mod control;
mod evaluator;
mod fixed;
mod integrate;

pub use adaptive::AdaptiveSampler;
pub(crate) use adaptive::FIRST_RATIO;
pub use control::{Control, Ending, OnStep, Outcome, Progress};
pub(crate) use evaluator::{Evaluator, SLOT};
pub use fixed::Sampler;
pub(crate) use integrate::DormandPrince;

/// Whether a run can begin with this noise: so many numbers, all of them finite.
fn check_noise(x: &[f32], len: usize) -> crate::Result<()> {
    if x.len() != len {
        return Err(crate::Error::invalid(format!("the noise must have {len} numbers, but has {}", x.len())));
    }
    match x.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => Err(crate::Error::new(
            crate::ErrorKind::NotFinite,
            format!("the noise must be finite, but element {i} is {}", x[i]),
        )),
    }
}
