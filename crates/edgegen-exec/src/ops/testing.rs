//! What the operators' tests have in common.

use crate::constant::Constant;
use onnx::pb::tensor_proto::DataType;
use onnx::pb::{AttributeProto, NodeProto};

/// A node with these integer attributes.
pub fn attributes(ints: &[(&str, i64)]) -> NodeProto {
    let attribute = |(name, i): &(&str, i64)| AttributeProto { name: (*name).into(), i: *i, ..Default::default() };
    NodeProto { output: vec!["out".into()], attribute: ints.iter().map(attribute).collect(), ..Default::default() }
}

/// A stored tensor of 0, 1, 2, ….
pub fn counted(dims: &[usize]) -> Constant {
    let len: usize = dims.iter().product();
    Constant::of(dims.to_vec(), (0..len).map(|i| i as f32).collect(), DataType::Float)
}
