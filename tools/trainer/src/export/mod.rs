//! From a checkpoint to ONNX: the graph, and its quantized form.

mod calibrate;
mod graph;
mod quantize;
mod unet;

pub use calibrate::calibrate;
pub use quantize::quantize;
pub use unet::{Recommendation, float_layers, to_onnx};

#[cfg(test)]
mod tests;
