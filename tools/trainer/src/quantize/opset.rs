//! A model of an older opset as one of opset 21, which has weights of 4 bits in blocks.

use super::source::called;
use crate::export::graph::{Attribute, node, tensor};
use anyhow::{Result, bail};
use onnx::pb::{ModelProto, tensor_proto::DataType};

/// The opset that DequantizeLinear has blocks since.
pub const BLOCKS: i64 = 21;
/// The opset whose reductions take their axes as an input, and whose Split is told a number of parts.
const AXES_AS_INPUT: i64 = 18;

/// Operators whose meaning changed up to opset 21 in ways that nodes do not show.
const CHANGED: [&str; 2] = ["GroupNormalization", "BatchNormalization"];

/// Raises a model to opset 21. Of the operators that changed since opset 13, the reductions and Split are written anew; others of
/// the same name and attributes mean the same.
///
/// # Errors
/// When it has a node that cannot be written so.
pub fn raise(model: &mut ModelProto) -> Result<()> {
    let opset = onnx::signature::opset(model).map_err(anyhow::Error::msg)?;
    if opset >= BLOCKS {
        return Ok(());
    }
    let Some(graph) = model.graph.as_mut() else { return Ok(()) };
    let mut axes = Vec::new();
    for node in &mut graph.node {
        if !node.domain.is_empty() {
            continue;
        }
        if node.op_type == CHANGED[0] || (node.op_type == CHANGED[1] && opset < 14) {
            bail!(
                "{} is a {} of opset {opset}, which means another in opset {BLOCKS}: export with opset {BLOCKS}",
                called(node),
                node.op_type
            );
        }
        if opset >= AXES_AS_INPUT {
            continue;
        }
        if node.op_type.starts_with("Reduce")
            && let Some(i) = node.attribute.iter().position(|a| a.name == "axes")
        {
            let along = node.attribute.remove(i).ints;
            let name = format!("{}/axes", node.output[0]);
            let raw = along.iter().flat_map(|v| v.to_le_bytes()).collect();
            axes.push(tensor(&name, DataType::Int64, &[along.len()], raw));
            node.input.push(name);
        }
        if node.op_type == "Split"
            && node.input.get(1).is_none_or(String::is_empty)
            && node.attribute.iter().all(|a| a.name != "num_outputs")
        {
            let parts = node.output.len() as i64;
            let told = self::node("Split", &[], "", &[("num_outputs", Attribute::Int(parts))]);
            node.attribute.extend(told.attribute);
        }
    }
    graph.initializer.extend(axes);
    let standard = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    model.opset_import.iter_mut().filter(|o| standard(&o.domain)).for_each(|o| o.version = BLOCKS);
    // the version of the format that opset 21 came with
    model.ir_version = model.ir_version.max(10);
    Ok(())
}
