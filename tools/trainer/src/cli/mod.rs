//! The commands, one file each.

pub mod bench_step;
pub mod export;
pub mod sample;
pub mod train;
