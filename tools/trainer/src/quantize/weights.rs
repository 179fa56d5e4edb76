//! Networks whose weights alone are smaller: in 16 bits, or in 4 and 8.

use super::few_bits::{BLOCK, FourBits, channels_first, packed};
use super::fit::FittedLayer;
use super::layers::{Kind, Layer};
use super::opset;
use super::source::floats;
use super::write::{Writer, shift, stored_dims, write_weights};
use crate::export::graph::{Attribute, tensor, tensor_f32};
use anyhow::{Context, Result};
use half::f16;
use onnx::pb::{ModelProto, OperatorSetIdProto, tensor_proto::DataType};

/// The domain of onnxruntime's own operators.
const ONNXRUNTIME: &str = "com.microsoft";

/// `model` with the weights of these layers in 16 bits, and how many of them 16 bits do not hold, which stay.
///
/// # Errors
/// When the model holds no graph.
pub fn sixteen_bits(model: &ModelProto, layers: &[Layer]) -> Result<(ModelProto, usize)> {
    let mut model = model.clone();
    let mut writer = Writer::new(model.graph.take().context("the file holds no graph")?);
    let mut kept = 0;
    for layer in layers {
        let dims = stored_dims(&writer.graph, layer);
        let values = writer.graph.initializer.iter().find(|t| t.name == layer.weights).and_then(floats);
        let halves: Vec<f16> = values.context("weights that are not floats")?.into_iter().map(f16::from_f32).collect();
        if halves.iter().any(|v| !v.is_finite()) {
            kept += 1;
            continue;
        }
        let raw = halves.iter().flat_map(|v| v.to_le_bytes()).collect();
        let of = |what: &str| format!("{}/{what}", layer.weights);
        let stored = writer.store(of("half"), |name| tensor(name, DataType::Float16, &dims, raw));
        let to = [("to", Attribute::Int(DataType::Float as i64))];
        let read = writer.add(layer.node, "Cast", &[&stored], of("widened"), &to);
        writer.graph.node[layer.node].input[1] = read;
    }
    model.graph = Some(writer.finish());
    Ok((model, kept))
}

/// `model` with the weights of these layers in 4 bits, and of those in 8.
///
/// # Errors
/// When it has a node that opset 21 has no like of.
pub fn few_bits(model: &ModelProto, four: &[&FourBits], eight: &[&FittedLayer]) -> Result<ModelProto> {
    let mut model = model.clone();
    if four.iter().any(|f| matches!(f.layer.kind, Kind::Conv(_))) {
        opset::raise(&mut model)?;
    }
    if four.iter().any(|f| matches!(f.layer.kind, Kind::Linear { .. }))
        && model.opset_import.iter().all(|o| o.domain != ONNXRUNTIME)
    {
        model.opset_import.push(OperatorSetIdProto { domain: ONNXRUNTIME.into(), version: 1 });
    }
    let mut writer = Writer::new(model.graph.take().context("the file holds no graph")?);
    for layer in eight {
        write_weights(&mut writer, layer);
        shift(&mut writer, &layer.layer, &layer.shift);
    }
    for fitted in four {
        // before the node is another's, which has its bias elsewhere
        shift(&mut writer, &fitted.layer, &fitted.shift);
        match fitted.layer.kind {
            Kind::Conv(_) => convolution(&mut writer, fitted),
            _ => linear(&mut writer, fitted),
        }
    }
    model.graph = Some(writer.finish());
    Ok(model)
}

/// Stores a convolution's weights in blocks of its channels.
fn convolution(writer: &mut Writer, FourBits { layer, rounded, .. }: &FourBits) {
    let dims = stored_dims(&writer.graph, layer);
    let (c, taps) = (layer.channels(), layer.inputs / layer.channels());
    let levels = packed(&channels_first(&rounded.levels, taps, c), 0);
    let mut of_scales = dims.clone();
    of_scales[1] = c / BLOCK;
    let scales = channels_first(&rounded.scales, taps, c / BLOCK);
    let of = |what: &str| format!("{}/{what}", layer.weights);
    let quantized = writer.store(of("quantized"), |name| tensor(name, DataType::Int4, &dims, levels));
    let scale = writer.store(of("scale"), |name| tensor_f32(name, &of_scales, &scales));
    let blocks = [("axis", Attribute::Int(1)), ("block_size", Attribute::Int(BLOCK as i64))];
    let read = writer.add(layer.node, "DequantizeLinear", &[&quantized, &scale], of("dequantized"), &blocks);
    writer.graph.node[layer.node].input[1] = read;
}

/// Makes a MatMul or Gemm onnxruntime's MatMulNBits.
fn linear(writer: &mut Writer, FourBits { layer, rounded, .. }: &FourBits) {
    let (k, n) = (layer.inputs, layer.outputs);
    let of = |what: &str| format!("{}/{what}", layer.weights);
    let bytes = packed(&rounded.levels, 8);
    let quantized =
        writer.store(of("quantized"), |name| tensor(name, DataType::Uint8, &[n, k / BLOCK, BLOCK / 2], bytes));
    let scale = writer.store(of("scale"), |name| tensor_f32(name, &[n * k / BLOCK], &rounded.scales));
    let node = &mut writer.graph.node[layer.node];
    let bias = node.input.get(2).filter(|_| node.op_type == "Gemm").filter(|name| !name.is_empty()).cloned();
    node.input = vec![node.input[0].clone(), quantized, scale];
    if let Some(bias) = bias {
        node.input.extend([String::new(), String::new(), bias]);
    }
    let number = |v: usize| Attribute::Int(v as i64);
    let sizes = [("K", number(k)), ("N", number(n)), ("bits", number(4)), ("block_size", number(BLOCK))];
    node.attribute = crate::export::graph::node("MatMulNBits", &[], "", &sizes).attribute;
    (node.op_type, node.domain) = ("MatMulNBits".into(), ONNXRUNTIME.into());
}
