//! The kernels, and the one place that decides which of them a CPU gets.
//!
//! Each kernel makes a [`Part`] of a step's output in [`Memory`] that threads may share. Values lie there as [`arena`] says.
//!
//! This is a crate of its own since to compile it takes longer than the rest of edgegen.
#![allow(clippy::len_without_is_empty, reason = "part of edgegen, which never asks")]

pub mod arena;
pub mod attention;
pub mod conv;
pub mod conv8;
pub mod dense;
pub mod depthwise;
mod dispatch;
pub mod general;
pub mod grid;
mod isa;
mod memory;
mod pointer;
pub mod pool;
pub mod reduce;
pub mod resample;
mod simd;
pub mod weights;
pub mod winograd;

pub use dispatch::{
    attend, binary, choose, convert, convolve, convolve_depthwise, convolve8, convolve8_by_range, map, matmul,
    multiply, normalize, pool, reduce, resample, rows, sample_grid, scale_channels, unary, upsample,
};
pub use isa::Isa;
pub use memory::{Memory, Part};

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;
