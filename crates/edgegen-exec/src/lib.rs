//! The execution layer: networks compiled to a plan of a few kinds of steps over one arena.
//!
//! ```text
//! ONNX graph ─ graph.rs ─→ nodes, constants, shapes ─ lower.rs ─→ operations ─ compile/ ──→ plan ─ plan.rs ─→ runs
//!              constant.rs                                        (fusions, places)                  kernels
//! ```
//! A plan covers a graph whole or not at all: a graph with anything that is not known runs through tract instead.
//! Pictures lie with the channels of a pixel together and zeros around them, so that convolutions read them as they
//! are; concatenations are written into place. A run allocates nothing. Threads that share a run (`pool.rs`) each make
//! a part of a step, and begin the next together.
//!
//! To add an operator: tell its shape in `graph.rs`, recognise it in `lower.rs` as an operation, give it a step in
//! `compile/` and `plan.rs`, and the step a kernel in `edgegen-kernels`, which has the one place that decides by CPU.

mod compile;
mod constant;
mod describe;
mod graph;
mod lower;
mod plan;
mod pool;

pub use compile::{Inputs, compile};
pub use constant::TOO_LARGE;
pub use describe::StepInfo;
pub use graph::GraphInput;
pub use kernels::Isa;
pub use plan::{At, Plan, Workspace};
