//! Operators written out as others: those that onnxruntime makes of several of ONNX's when it optimises a graph, those that
//! ONNX itself defines by others, and control flow whose way is known before anything runs.
//!
//! Each group of operators is a file, whose `expansion` gives the nodes that stand for a node. They are nodes of ONNX, in the
//! forms that exporters write, so that what recognises group norm or attention in these recognises them here. What a node
//! means may depend on the shapes of what it reads, which [`Known`] tells: so the pass over a graph is run by whoever knows
//! the shape rules.

mod activation;
mod attention;
pub mod control;
mod convolution;
mod einsum;
mod fourier;
mod matrix;
pub mod nchwc;
mod normalization;
mod plain;
mod quantized;
mod recurrent;
mod rotary;
mod sampling;
pub mod sequence;
mod volume;
mod writer;

use crate::Result;
use crate::pb::tensor_proto::DataType;
use crate::pb::{GraphProto, NodeProto, TensorProto};
use crate::signature::called;
pub use quantized::{Multiples, multiples_of_blocks, work_out_blocks};
use std::collections::HashMap;
pub use writer::Writer;

/// What is known of a graph's values before it is run.
pub trait Known {
    /// The version of ONNX's operators that the graph is of.
    fn opset(&self) -> i64;
    /// The shape of a value.
    fn dims(&self, name: &str) -> Option<&[usize]>;
    /// What a value is made of.
    fn element(&self, name: &str) -> Option<DataType>;
    /// A tensor of the file's, as it is stored.
    fn stored(&self, name: &str) -> Option<&TensorProto>;
    /// The whole numbers of a stored tensor, or of what depends on such alone.
    fn integers(&self, name: &str) -> Option<Vec<i64>>;
    /// The floats of a stored tensor, or of what depends on such alone.
    fn floats(&self, name: &str) -> Option<Vec<f32>>;
    /// How many channels lie together in the files of onnxruntime that are made for one kind of CPU.
    fn block(&self) -> Option<usize>;
    /// The node that makes a value.
    fn maker(&self, name: &str) -> Option<&NodeProto>;
}

/// Whether there may be an [`expansion`] of some of a graph's nodes.
pub fn has_candidates(graph: &GraphProto) -> bool {
    let stored: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let dims = |name: &str| stored.get(name).map(|t| t.dims.as_slice());
    let eight_bits = |t: &TensorProto| matches!(DataType::try_from(t.data_type), Ok(DataType::Uint8 | DataType::Int8));
    graph.node.iter().any(|node| match node.op_type.as_str() {
        _ if !crate::signature::is_standard(&node.domain) => true,
        _ if plain::is_candidate(node, dims) || volume::is_candidate(node, graph, dims) => true,
        // weights in 8 bits are read as they are
        "DequantizeLinear" => {
            let weights = node.given(0).and_then(|x| stored.get(x));
            weights.is_some_and(|t| !eight_bits(t)) || node.int("block_size").is_some()
        }
        "Attention" | "RotaryEmbedding" | "SimplifiedLayerNormalization" => true,
        "AffineGrid" | "CastLike" | "CenterCropPad" | "DFT" | "Einsum" | "GatherElements" | "GatherND" | "GRU"
        | "LSTM" | "RNN" => true,
        "MatMulInteger" | "ConvInteger" | "If" | "Loop" | "Scan" => true,
        "ConcatFromSequence" | "SequenceAt" | "SequenceLength" | "SplitToSequence" => true,
        _ => false,
    })
}

/// The nodes that stand for a node; `None` for one that stays as it is.
///
/// # Errors
/// When the node is of an operator that has to be written out, but of a form that is not known: what it is about it.
pub fn expansion(node: &NodeProto, known: &dyn Known) -> Result<Option<Vec<NodeProto>>> {
    let group = match (node.domain.as_str(), node.op_type.as_str()) {
        ("com.microsoft.nchwc", _) => nchwc::expansion,
        ("com.microsoft", "Attention" | "MultiHeadAttention") | ("" | "ai.onnx", "Attention") => attention::expansion,
        (_, "RotaryEmbedding") => rotary::expansion,
        ("com.microsoft", "Gelu" | "FastGelu" | "BiasGelu" | "QuickGelu" | "BiasSplitGelu" | "BiasAdd") => {
            activation::expansion
        }
        ("com.microsoft", "NhwcConv" | "FusedConv") => convolution::expansion,
        ("com.microsoft", "FusedMatMul" | "TransposeMatMul" | "FusedMatMulActivation" | "FusedGemm") => {
            matrix::expansion
        }
        (
            "com.microsoft",
            "GroupNorm" | "SkipGroupNorm" | "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization",
        )
        | (_, "SimplifiedLayerNormalization") => normalization::expansion,
        (
            "com.microsoft",
            "MatMulNBits" | "GatherBlockQuantized" | "DynamicQuantizeMatMul" | "MatMulIntegerToFloat",
        )
        | (_, "Mul" | "QuantizeLinear" | "DequantizeLinear") => quantized::expansion,
        ("" | "ai.onnx", "LSTM" | "GRU" | "RNN") => recurrent::expansion,
        (
            "" | "ai.onnx",
            "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" | "Resize",
        ) => volume::expansion,
        ("" | "ai.onnx", "AffineGrid") => sampling::expansion,
        ("" | "ai.onnx", "DFT") => fourier::expansion,
        ("" | "ai.onnx", "Einsum") => einsum::expansion,
        (
            "" | "ai.onnx",
            "Gemm" | "Sum" | "Mean" | "Max" | "Min" | "MatMul" | "SpaceToDepth" | "GatherElements" | "GatherND"
            | "CastLike" | "CenterCropPad",
        ) => plain::expansion,
        _ => return Ok(None),
    };
    group(node, known).map_err(|reason| format!("{}: {reason}", called(node)))
}

/// What is said of a form of an operator that is not known.
fn unknown(what: &str) -> String {
    format!("{what} is not supported")
}

/// The shape of input `i` of a node.
fn shape<'k>(node: &NodeProto, known: &'k dyn Known, i: usize) -> Result<&'k [usize]> {
    let name = node.given(i).ok_or_else(|| format!("its input {i} is missing"))?;
    known.dims(name).ok_or_else(|| format!("the shape of its input '{}' is not known", crate::signature::shown(name)))
}
