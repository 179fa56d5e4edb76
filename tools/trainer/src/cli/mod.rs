//! The commands, one file each.

pub mod bench_step;
pub mod data;
pub mod distill;
pub mod dump_forward;
pub mod eval;
pub mod export;
pub mod quantize;
mod run;
pub mod sample;
pub mod train;
pub mod train_classifier;
pub mod tune;
