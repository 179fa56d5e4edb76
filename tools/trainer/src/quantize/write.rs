//! The quantized network: the float one with layers in QDQ form, and everything else of the file as it was.

use super::fit::{Fitted, FittedLayer};
use super::layers::Layer;
use super::smooth::{Edit, Fold};
use super::source::{drop_unread, floats};
use crate::export::graph::{Attribute, node, tensor, tensor_f32};
use anyhow::{Context, Result};
use onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use std::collections::{HashMap, HashSet};

/// The nodes that are added to a graph, each before the one of a number, and names that are free.
pub struct Writer {
    before: HashMap<usize, Vec<NodeProto>>,
    names: HashSet<String>,
    /// The graph, whose nodes keep their numbers until it is finished.
    pub graph: GraphProto,
}

impl Writer {
    /// Over a graph.
    pub fn new(graph: GraphProto) -> Self {
        let nodes = graph.node.iter().flat_map(|n| n.output.iter().chain(std::iter::once(&n.name)));
        let names = nodes.chain(graph.initializer.iter().map(|t| &t.name)).chain(graph.input.iter().map(|i| &i.name));
        Writer { before: HashMap::new(), names: names.cloned().collect(), graph }
    }

    /// A name that nothing has.
    pub fn name(&mut self, wanted: String) -> String {
        let mut name = wanted;
        while !self.names.insert(name.clone()) {
            name.push('\'');
        }
        name
    }

    /// Adds a node before another.
    pub fn add(
        &mut self,
        before: usize,
        op: &str,
        inputs: &[&str],
        wanted: String,
        attributes: &[(&str, Attribute)],
    ) -> String {
        let name = self.name(wanted);
        self.before.entry(before).or_default().push(node(op, inputs, &name, attributes));
        name
    }

    /// Stores a tensor.
    pub fn store(&mut self, wanted: String, make: impl FnOnce(&str) -> TensorProto) -> String {
        let name = self.name(wanted);
        self.graph.initializer.push(make(&name));
        name
    }

    /// The graph with the nodes that were added, without what nothing reads any more.
    pub fn finish(mut self) -> GraphProto {
        let mut nodes = Vec::new();
        for (i, node) in std::mem::take(&mut self.graph.node).into_iter().enumerate() {
            nodes.extend(self.before.remove(&i).unwrap_or_default());
            nodes.push(node);
        }
        self.graph.node = nodes;
        drop_unread(&mut self.graph);
        self.graph
    }
}

/// `model` with these layers in 8 bits, and the weights of those that only have their weights rounded.
///
/// # Errors
/// When a stored tensor is not what was read before.
pub fn write(model: &ModelProto, fitted: &[&Fitted]) -> Result<ModelProto> {
    let mut model = model.clone();
    let mut writer = Writer::new(model.graph.take().context("the file holds no graph")?);
    for group in fitted {
        let first = group.layers.iter().map(|l| l.layer.node).min().context("a value that nothing reads")?;
        let mut input = group.input.clone();
        if let Some((by, fold)) = &group.smoothing {
            input = divide(&mut writer, &input, by, fold, first)?;
        }
        if let Some(levels) = group.levels {
            let scale = writer.store(format!("{}/scale", group.input), |name| tensor_f32(name, &[], &[levels.scale]));
            let zero = writer.store(format!("{}/zero_point", group.input), |name| {
                tensor(name, DataType::Uint8, &[], vec![levels.zero])
            });
            let of = |what: &str| format!("{}/{what}", group.input);
            let rounded = writer.add(first, "QuantizeLinear", &[&input, &scale, &zero], of("quantized"), &[]);
            input = writer.add(first, "DequantizeLinear", &[&rounded, &scale, &zero], of("dequantized"), &[]);
        }
        for layer in &group.layers {
            writer.graph.node[layer.layer.node].input[0] = input.clone();
            write_weights(&mut writer, layer);
            shift(&mut writer, &layer.layer, &layer.shift);
        }
    }
    model.graph = Some(writer.finish());
    Ok(model)
}

/// Divides the channels of a value, and gives its name then.
fn divide(writer: &mut Writer, input: &str, by: &[f32], fold: &Fold, first: usize) -> Result<String> {
    let inverse: Vec<f32> = by.iter().map(|s| 1.0 / s).collect();
    let Fold::Into(edits) = fold else {
        let scales = writer.store(format!("{input}/smoothing"), |name| tensor_f32(name, &[by.len()], &inverse));
        return Ok(writer.add(first, "Mul", &[input, &scales], format!("{input}/smooth"), &[]));
    };
    for Edit { node, input } in edits {
        let read = writer.graph.node[*node].input[*input].clone();
        let stored = writer.graph.initializer.iter().find(|t| t.name == read);
        let divided = match stored {
            Some(t) => {
                let values = floats(t).with_context(|| format!("{read} is not of floats"))?;
                let dims: Vec<usize> = t.dims.iter().map(|d| *d as usize).collect();
                let of_row = |row: &[f32]| -> Vec<f32> { row.iter().zip(&inverse).map(|(v, s)| v * s).collect() };
                let values: Vec<f32> = values.chunks(by.len()).flat_map(of_row).collect();
                writer.store(format!("{read}/smooth"), |name| tensor_f32(name, &dims, &values))
            }
            None => {
                let scales = writer.store(format!("{read}/smoothing"), |name| tensor_f32(name, &[by.len()], &inverse));
                writer.add(*node, "Mul", &[&read, &scales], format!("{read}/smooth"), &[])
            }
        };
        writer.graph.node[*node].input[*input] = divided;
    }
    Ok(input.into())
}

/// Stores a layer's weights as s8 with a scale an output, and has it read those.
pub fn write_weights(writer: &mut Writer, FittedLayer { layer, rounded, .. }: &FittedLayer) {
    let dims: Vec<usize> = stored_dims(&writer.graph, layer);
    let levels: Vec<u8> = layer.stored(&rounded.levels).into_iter().map(|v| v as u8).collect();
    let of = |what: &str| format!("{}/{what}", layer.weights);
    let quantized = writer.store(of("quantized"), |name| tensor(name, DataType::Int8, &dims, levels));
    let scale = writer.store(of("scale"), |name| tensor_f32(name, &[layer.outputs], &rounded.scales));
    let zeros = vec![0; layer.outputs];
    let zero = writer.store(of("zero_point"), |name| tensor(name, DataType::Int8, &[layer.outputs], zeros));
    let axis = [("axis", Attribute::Int(layer.axis as i64))];
    let read = writer.add(layer.node, "DequantizeLinear", &[&quantized, &scale, &zero], of("dequantized"), &axis);
    writer.graph.node[layer.node].input[1] = read;
}

/// The dimensions of a layer's stored weights.
pub fn stored_dims(graph: &GraphProto, layer: &Layer) -> Vec<usize> {
    let found = graph.initializer.iter().find(|t| t.name == layer.weights);
    found.map(|t| t.dims.iter().map(|d| *d as usize).collect()).unwrap_or_default()
}

/// Adds numbers to a layer's bias, or to the sum that follows it.
pub fn shift(writer: &mut Writer, layer: &Layer, by: &[f32]) {
    if by.iter().all(|s| *s == 0.0) {
        return;
    }
    let node = &writer.graph.node[layer.node];
    let (at, input) = if node.op_type == "MatMul" {
        let made = &node.output[0];
        let mut readers = writer.graph.node.iter().enumerate().filter(|(_, n)| n.input.contains(made));
        let (Some((i, add)), None) = (readers.next(), readers.next()) else { return };
        let stored = |k: &usize| {
            writer.graph.initializer.iter().any(|t| t.name == add.input[*k] && t.dims == [layer.outputs as i64])
        };
        let Some(k) = [0, 1].into_iter().find(stored).filter(|_| add.op_type == "Add") else { return };
        (i, k)
    } else {
        (layer.node, 2)
    };
    let read = writer.graph.node[at].input.get(input).cloned().unwrap_or_default();
    let before = if read.is_empty() {
        Some(vec![0.0; by.len()])
    } else {
        writer.graph.initializer.iter().find(|t| t.name == read).and_then(floats).filter(|v| v.len() == by.len())
    };
    let Some(before) = before else { return };
    let values: Vec<f32> = before.iter().zip(by).map(|(b, s)| b + s).collect();
    let wanted = if read.is_empty() { format!("{}/bias", layer.weights) } else { format!("{read}/corrected") };
    let name = writer.store(wanted, |name| tensor_f32(name, &[by.len()], &values));
    let inputs = &mut writer.graph.node[at].input;
    inputs.resize(inputs.len().max(input + 1), String::new());
    inputs[input] = name;
}
