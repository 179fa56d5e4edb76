//! The float network that is to be quantized: its file read and checked, with all weights in it.

use anyhow::{Context, Result, bail, ensure};
use edgegen::model::Input;
use exec::GraphInput;
use onnx::budget::Budget;
use onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Operators of networks that are quantized already.
const QUANTIZED: [&str; 17] = [
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "GatherBlockQuantized",
    "MatMulBnb4",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "QLinearAdd",
    "QLinearMul",
    "QuantizeLinear",
    "DynamicQuantizeLSTM",
];

/// The opsets whose DequantizeLinear has a scale for each channel.
const LEAST_OPSET: i64 = 13;

/// Reads the file of a float network: its functions written out, its nodes in order, and its weights in it.
///
/// # Errors
/// When it is no ONNX file that can be quantized: why not, and what would be right.
pub fn open(path: &Path) -> Result<ModelProto> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut model = ModelProto::decode(bytes.as_slice())
        .map_err(|_| anyhow::anyhow!("{} is not an ONNX file, or one cut short", path.display()))?;
    onnx::functions::inline(&mut model).map_err(anyhow::Error::msg)?;
    let opset = onnx::signature::opset(&model).map_err(anyhow::Error::msg)?;
    ensure!(opset >= LEAST_OPSET, "the file is of opset {opset}: export the network with opset {LEAST_OPSET} or later");
    let graph = model.graph.as_mut().context("the file holds no graph")?;
    if let Some(node) = graph.node.iter().find(|n| QUANTIZED.contains(&n.op_type.as_str())) {
        bail!(
            "the network is quantized already: its node {} is a {}; give the float network",
            called(node),
            node.op_type
        );
    }
    onnx::order::sort(graph).map_err(anyhow::Error::msg)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let budget = Budget::new(usize::MAX);
    onnx::external::load_external_data(graph, Some(folder), &budget).map_err(anyhow::Error::msg)?;
    store_constants(graph);
    check_weights(graph)?;
    Ok(model)
}

/// What a node is called in messages: its name, or that of what it makes.
pub fn called(node: &NodeProto) -> &str {
    let made = node.output.first().map_or("", String::as_str);
    if node.name.is_empty() { made } else { &node.name }
}

/// Makes stored tensors of what exporters write as Constant nodes, and of stored tensors that an Identity passes on or a
/// Transpose turns: weights are then found where they are read.
fn store_constants(graph: &mut GraphProto) {
    let mut stored: HashMap<String, usize> =
        graph.initializer.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
    let outputs: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let made = node.output.first().filter(|name| node.output.len() == 1 && !outputs.contains(*name)).cloned();
        let from = node.input.first().and_then(|name| stored.get(name)).map(|i| &graph.initializer[*i]);
        let tensor = match (node.op_type.as_str(), from) {
            ("Constant", _) => node.attribute.iter().find(|a| a.name == "value").and_then(|a| a.t.clone()),
            ("Identity", Some(tensor)) => Some(tensor.clone()),
            ("Transpose", Some(tensor)) => {
                transposed(tensor, node.attribute.iter().find(|a| a.name == "perm").map(|a| &*a.ints))
            }
            _ => None,
        };
        match made.zip(tensor) {
            Some((name, tensor)) => {
                stored.insert(name.clone(), graph.initializer.len());
                graph.initializer.push(TensorProto { name, ..tensor });
            }
            None => nodes.push(node),
        }
    }
    graph.node = nodes;
    drop_unread(graph);
}

/// Leaves out stored tensors that no node reads.
pub fn drop_unread(graph: &mut GraphProto) {
    let mut read: HashSet<&str> = graph.node.iter().flat_map(onnx::order::reads).collect();
    read.extend(graph.output.iter().map(|o| o.name.as_str()));
    let unread: HashSet<String> =
        graph.initializer.iter().filter(|t| !read.contains(t.name.as_str())).map(|t| t.name.clone()).collect();
    graph.initializer.retain(|t| !unread.contains(&t.name));
    graph.input.retain(|i| !unread.contains(&i.name));
}

/// A stored matrix of floats, turned.
fn transposed(tensor: &TensorProto, perm: Option<&[i64]>) -> Option<TensorProto> {
    let &[rows, columns] = tensor.dims.as_slice() else { return None };
    let values = floats(tensor).filter(|_| perm.is_none_or(|perm| perm == [1, 0]))?;
    let (r, c) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
    let turned = (0..c)
        .flat_map(|j| (0..r).map(move |i| (i, j)))
        .flat_map(|(i, j)| values[i * c + j].to_le_bytes())
        .collect::<Vec<u8>>();
    Some(TensorProto {
        data_type: DataType::Float as i32,
        dims: vec![columns, rows],
        raw_data: turned.into(),
        ..Default::default()
    })
}

/// The numbers of a stored tensor of f32; nothing of another type, or if they are not as many as it says.
pub fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type != DataType::Float as i32 {
        return None;
    }
    let count = tensor.dims.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?))?;
    let values: Vec<f32> = match tensor.raw_data.as_ref() {
        [] => tensor.float_data.clone(),
        raw => raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    };
    (values.len() == count).then_some(values)
}

/// That all stored floats are numbers.
fn check_weights(graph: &GraphProto) -> Result<()> {
    for tensor in &graph.initializer {
        let Some(values) = floats(tensor) else {
            ensure!(
                tensor.data_type != DataType::Float as i32,
                "the stored tensor {} has not as many numbers as its shape {:?} says",
                tensor.name,
                tensor.dims
            );
            continue;
        };
        // masks are made of infinities
        if let Some(at) = values.iter().position(|v| v.is_nan()) {
            let reader = graph.node.iter().find(|n| n.input.contains(&tensor.name));
            bail!("number {at} of the weights {} is NaN, which node {} reads", tensor.name, reader.map_or("", called));
        }
    }
    Ok(())
}

/// The shapes of a graph's values for the inputs of a model, by their names.
///
/// # Errors
/// When the graph contradicts itself.
pub fn shapes(model: &ModelProto, inputs: &[Input]) -> Result<HashMap<String, Vec<usize>>> {
    let mut model = model.clone();
    onnx::signature::check(&mut model).map_err(anyhow::Error::msg)?;
    let opset = onnx::signature::opset(&model).map_err(anyhow::Error::msg)?;
    let graph = model.graph.as_mut().context("the file holds no graph")?;
    onnx::mend::mend(graph);
    let shaped: Vec<GraphInput> = inputs
        .iter()
        .map(|i| GraphInput {
            name: &i.name,
            dims: i.shape.clone(),
            integer: i.element_type().starts_with(['I', 'U', 'B']),
        })
        .collect();
    let budget = Budget::new(usize::MAX);
    let known = exec::Shapes::new(graph, opset, &shaped, &budget).map_err(|reason| anyhow::anyhow!("{reason}"))?;
    let names = graph.node.iter().flat_map(|n| &n.output).chain(inputs.iter().map(|i| &i.name));
    Ok(names.filter_map(|name| Some((name.clone(), known.of(name)?.to_vec()))).collect())
}
