//! A model: what its file says of itself, and how it is opened and run.

mod locate;
mod metadata;
mod onnx;
mod roles;
#[cfg_attr(not(feature = "tract"), path = "without_tract.rs")]
mod tract;

pub use crate::normalization::{Normalization, Scaling, Scalings, Statistics};
pub use exec::StepInfo;
pub use metadata::Metadata;
pub use onnx::{Input, Model, ModelOptions, OnnxNetwork};
pub use roles::Role;
