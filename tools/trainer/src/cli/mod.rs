//! The commands, one file each.

pub mod bench_step;
pub mod data;
pub mod dump_forward;
pub mod eval;
pub mod export;
pub mod quantize;
pub mod sample;
pub mod train;
pub mod train_classifier;
pub mod tune;
