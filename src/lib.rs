//! Generate samples from a diffusion model on the device itself.
#![warn(missing_docs)]

pub mod condition;
pub mod config;
mod error;
pub mod network;
pub mod noise;
#[cfg(feature = "output")]
pub mod output;
pub mod sampler;
pub mod schedule;
pub mod solver;

pub use error::{Error, ErrorKind, Result};
