//! The execution layer: networks compiled to a plan of a few kinds of steps over one arena.
//!
//! ```text
//! ONNX graph ─ graph.rs ─→ nodes, constants, shapes ─ lower.rs ─→ operations ─ compile/ ─→ draft ─ verify.rs ─→ plan ─→ runs
//!                  └────────────────── ops/: one file an operator ──────────────────┘                        plan.rs, pool.rs
//! ```
//! A plan covers a graph whole or not at all. Images lie with the channels of a pixel together and zeros around them, so
//! that convolutions read them as they are; concatenations are written into place. A run allocates nothing. Threads that
//! share a run each make a part of a step, and begin the next together.
//!
//! A [`Plan`] can only be had from the verifier (`verify.rs`), which proves of every step that what it touches is its own.
//! To add an operator, see `docs/adding-operators.md`.

mod compile;
mod constant;
mod expand;
mod graph;
mod lower;
mod node;
mod ops;
mod place;
mod plan;
mod pool;
mod reason;
mod shapes;
mod step;
#[cfg(test)]
mod testing;
mod verify;

pub use compile::{Inputs, Numbers, ResultShape, Stage, compile};
pub use expand::write_out;
pub use graph::GraphInput;
pub use kernels::Isa;
pub use kernels::arena::Precision;
pub use plan::{At, Plan, StepInfo, Workspace};
pub use reason::Reason;
pub use shapes::{Shapes, has_rules};
