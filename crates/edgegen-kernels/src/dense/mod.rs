//! What is done to pictures number by number, group normalization, and matrices times vectors.

mod functions;
mod map;
mod matrix;
mod norm;
#[cfg(any(target_arch = "aarch64", test, feature = "emulate-halves"))]
mod norm_half;

pub(crate) use functions::exp;
pub use map::{Affine, Map, Output};
pub(crate) use map::{map, scale, upsample};
pub use matrix::Matrix;
pub(crate) use matrix::matrix_vector;
pub use norm::GroupNorm;
pub(crate) use norm::norm;
#[cfg(any(target_arch = "aarch64", test, feature = "emulate-halves"))]
pub(crate) use norm_half::norm_half;
