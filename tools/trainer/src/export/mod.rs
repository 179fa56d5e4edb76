//! From a checkpoint to ONNX: the graph, and its quantized form.

mod calibrate;
pub mod graph;
mod layers;
mod model;
mod quantize;
mod sequence;
mod unet;

pub use calibrate::{Range, calibrate};
pub use model::{Recommendation, float_layers, to_onnx};
pub use quantize::{affine, quantize};

#[cfg(test)]
mod tests;
