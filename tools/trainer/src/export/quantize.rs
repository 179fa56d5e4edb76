//! From a float graph to int8 in QDQ form: activations as u8 with one scale a tensor, weights as s8 with
//! one scale an output channel, around Conv, MatMul and Gemm.
//!
//! Some layers have int8 weights but float activations: those that see only the time and the label (Gemm
//! here), since they cost nothing and 8 bits cannot tell a thousand time steps apart; and those that the caller
//! names, because they pass the sample itself on.

use super::calibrate::{Range, Ranges};
use super::graph::{Attribute::Int, node, tensor, tensor_f32};
use anyhow::{Context, Result, ensure};
use onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use std::collections::{BTreeMap, BTreeSet};

/// The tensors that a quantized form of `graph` rounds: inputs and outputs of its convolutions and matrix
/// products that are computed at run time, but for the layers in `float`.
pub fn activations(graph: &GraphProto, float: &[String]) -> BTreeSet<String> {
    let stored: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs = graph.node.iter().filter(|n| is_integer(n, float)).flat_map(|n| n.input.iter().take(2));
    let outputs = graph.node.iter().filter(|n| is_integer(n, float)).flat_map(|n| &n.output);
    inputs.chain(outputs).filter(|name| !stored.contains(name.as_str())).cloned().collect()
}

/// Whether a node's weights are quantized.
fn has_weights(node: &NodeProto) -> bool {
    matches!(node.op_type.as_str(), "Conv" | "MatMul" | "Gemm")
}

/// Whether a node computes in integers once quantized.
fn is_integer(node: &NodeProto, float: &[String]) -> bool {
    matches!(node.op_type.as_str(), "Conv" | "MatMul") && !float.contains(&node.name)
}

/// `model` in QDQ form, its activations rounded within `ranges`; the layers in `float` have int8 weights only.
///
/// # Errors
/// When a range or a weight is missing.
pub fn quantize(model: &ModelProto, ranges: &Ranges, float: &[String]) -> Result<ModelProto> {
    let mut model = model.clone();
    let graph = model.graph.as_mut().context("a model without a graph")?;
    let rounded = activations(graph, float);
    let mut weights: BTreeMap<String, usize> = BTreeMap::new();
    for node in graph.node.iter().filter(|n| has_weights(n)) {
        if let Some(i) = graph.initializer.iter().position(|t| t.name == node.input[1]) {
            weights.insert(node.input[1].clone(), i);
        }
    }
    let mut stored: Vec<TensorProto> = Vec::new();
    let mut before: Vec<NodeProto> = Vec::new();
    for tensor in std::mem::take(&mut graph.initializer) {
        if weights.contains_key(&tensor.name) {
            quantize_weight(&tensor, &mut stored, &mut before)?;
        } else {
            stored.push(tensor);
        }
    }
    let made: BTreeSet<String> =
        graph.node.iter().filter(|n| is_integer(n, float)).flat_map(|n| n.output.clone()).collect();
    let outputs: BTreeSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let mut nodes = before;
    for input in &graph.input {
        if rounded.contains(&input.name) {
            round_activation(&input.name, ranges, &mut stored, &mut nodes)?;
        }
    }
    for mut node in std::mem::take(&mut graph.node) {
        // What a convolution made is rounded for everyone; any other tensor for those who round it.
        let integer = is_integer(&node, float);
        for input in &mut node.input {
            if rounded.contains(input) && (integer || made.contains(input)) {
                *input = dequantized(input);
            }
        }
        let names = node.output.clone();
        nodes.push(node);
        for name in names.iter().filter(|n| rounded.contains(*n)) {
            ensure!(!outputs.contains(name), "the graph's output {name} cannot be rounded");
            round_activation(name, ranges, &mut stored, &mut nodes)?;
        }
    }
    graph.node = nodes;
    graph.initializer = stored;
    Ok(model)
}

fn dequantized(name: &str) -> String {
    format!("{name}/dequantized")
}

/// Adds the pair of nodes that rounds the tensor `name` to 8 bits.
fn round_activation(
    name: &str,
    ranges: &Ranges,
    stored: &mut Vec<TensorProto>,
    nodes: &mut Vec<NodeProto>,
) -> Result<()> {
    let range = ranges.get(name).with_context(|| format!("no range was measured for {name}"))?;
    let (scale, zero_point) = affine(*range);
    let [scale_name, zero_name, quantized] = ["scale", "zero_point", "quantized"].map(|s| format!("{name}/{s}"));
    stored.push(tensor_f32(&scale_name, &[], &[scale]));
    stored.push(tensor(&zero_name, DataType::Uint8, &[], vec![zero_point]));
    nodes.push(node("QuantizeLinear", &[name, &scale_name, &zero_name], &quantized, &[]));
    nodes.push(node("DequantizeLinear", &[&quantized, &scale_name, &zero_name], &dequantized(name), &[]));
    Ok(())
}

/// The scale and zero point of u8 over a range, which is widened to hold 0 exactly.
pub fn affine(range: Range) -> (f32, u8) {
    let (low, high) = (range.low.min(0.0), range.high.max(0.0));
    let scale = ((high - low) / 255.0).max(1e-8);
    (scale, (-low / scale).round().clamp(0.0, 255.0) as u8)
}

/// Stores a weight `[out, …]` as s8 with a scale an output channel, and adds the node that reads it.
fn quantize_weight(weight: &TensorProto, stored: &mut Vec<TensorProto>, nodes: &mut Vec<NodeProto>) -> Result<()> {
    let shape: Vec<usize> = weight.dims.iter().map(|d| *d as usize).collect();
    let values: Vec<f32> =
        weight.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
    ensure!(
        values.len() == shape.iter().product::<usize>() && shape.len() >= 2,
        "weight {} is not a float matrix",
        weight.name
    );
    let (mut scales, mut levels) = (Vec::new(), Vec::with_capacity(values.len()));
    for channel in values.chunks_exact(values.len() / shape[0]) {
        let greatest = channel.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = (greatest / 127.0).max(1e-12);
        scales.push(scale);
        levels.extend(channel.iter().map(|v| (v / scale).round().clamp(-127.0, 127.0) as i8 as u8));
    }
    let name = &weight.name;
    let [levels_name, scale_name, zero_name] = ["quantized", "scale", "zero_point"].map(|s| format!("{name}/{s}"));
    stored.push(tensor(&levels_name, DataType::Int8, &shape, levels));
    stored.push(tensor_f32(&scale_name, &[shape[0]], &scales));
    stored.push(tensor(&zero_name, DataType::Int8, &[shape[0]], vec![0; shape[0]]));
    nodes.push(node("DequantizeLinear", &[&levels_name, &scale_name, &zero_name], name, &[("axis", Int(0))]));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_a_level_of_every_range() {
        for (low, high) in [(-0.2785f32, 5.0f32), (0.0, 1.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)] {
            let (scale, zero) = affine(Range { low, high });
            assert!(scale > 0.0);
            let least = (0.0 - f32::from(zero)) * scale;
            let greatest = (255.0 - f32::from(zero)) * scale;
            assert!(least <= low.min(0.0) + scale && greatest >= high.max(0.0) - scale, "{low}..{high}");
        }
    }

    #[test]
    fn weights_are_off_by_at_most_half_a_level() {
        let values: Vec<f32> =
            (0..40).map(|i| ((i * 37 % 41) as f32 - 20.0) * if i < 20 { 0.01 } else { 3.0 }).collect();
        let weight = tensor_f32("w", &[2, 20], &values);
        let (mut stored, mut nodes) = (Vec::new(), Vec::new());
        quantize_weight(&weight, &mut stored, &mut nodes).unwrap();
        let scales: Vec<f32> =
            stored[1].raw_data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        for (i, v) in values.iter().enumerate() {
            let scale = scales[i / 20];
            let back = f32::from(stored[0].raw_data[i] as i8) * scale;
            assert!((back - v).abs() <= 0.5001 * scale, "{v} came back as {back}");
        }
    }
}
