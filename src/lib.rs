//! Generate samples from a diffusion model on the device itself.
#![warn(missing_docs)]

pub mod condition;
pub mod config;
mod error;
pub mod network;
#[cfg(feature = "output")]
pub mod output;
pub mod schedule;

pub use error::{Error, ErrorKind, Result};
