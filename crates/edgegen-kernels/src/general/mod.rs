//! What works on values of any shape and strides, in plain loops that compilers turn into vectors: each is inlined into
//! an entry point that enables the CPU's features.

mod binary;
mod convert;
mod functions;
mod loops;
mod matmul;
mod rows;
#[cfg(test)]
mod testing;
mod unary;

pub use binary::Binary;
pub(crate) use binary::{binary, choose};
pub(crate) use convert::convert;
pub use loops::{RANK, StridedLoops};
pub use matmul::MatMul;
pub(crate) use matmul::matmul;
pub use rows::RowOp;
pub(crate) use rows::rows;
pub use unary::Unary;
pub(crate) use unary::unary;

/// Numbers that are worked on at a time: a length known when compiled is what makes loops whole vectors.
const CHUNK: usize = 16;
