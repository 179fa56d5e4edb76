//! An ONNX graph as the plan's compiler reads it: constants by name, and who uses what.

use std::collections::HashMap;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// A stored tensor.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its numbers.
    pub values: Vec<f32>,
    /// What it is stored as.
    pub kind: DataType,
    /// If it was stored in 8 bits around zero with a scale for each of its first dimension (or one): those.
    pub levels: Option<(Vec<i8>, Vec<f32>)>,
}

/// Why a graph has no plan: what in it is not known.
pub type Reason = String;

/// A graph with its constants read.
pub struct Graph<'a> {
    /// Nodes in an order in which they can run.
    pub nodes: Vec<&'a NodeProto>,
    constants: HashMap<&'a str, Constant>,
    consumers: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Graph<'a> {
    /// Reads the constants of `graph`, those that DequantizeLinear makes of stored int8 too.
    pub fn new(graph: &'a GraphProto) -> Result<Self, Reason> {
        let mut constants = HashMap::new();
        for tensor in &graph.initializer {
            if let Some(values) = numbers(tensor) {
                let dims = tensor.dims.iter().map(|d| *d as usize).collect();
                let kind = DataType::try_from(tensor.data_type).unwrap_or(DataType::Undefined);
                constants.insert(tensor.name.as_str(), Constant { dims, values, kind, levels: None });
            }
        }
        let mut nodes = Vec::new();
        for node in &graph.node {
            let is_stored = |i: usize| node.input.get(i).is_some_and(|n| constants.contains_key(n.as_str()));
            if node.op_type == "DequantizeLinear" && is_stored(0) {
                let constant = dequantize(node, &constants)?;
                constants.insert(&node.output[0], constant);
            } else {
                nodes.push(node);
            }
        }
        let mut consumers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, node) in nodes.iter().enumerate() {
            node.input.iter().for_each(|name| consumers.entry(name).or_default().push(i));
        }
        Ok(Graph { nodes, constants, consumers })
    }

    /// The stored tensor of this name.
    pub fn constant(&self, name: &str) -> Option<&Constant> {
        self.constants.get(name)
    }

    /// The stored tensor that is input `i` of `node`.
    pub fn constant_input(&self, node: &NodeProto, i: usize) -> Option<&Constant> {
        self.constant(node.input.get(i)?)
    }

    /// The one node that reads `name`, if it is one.
    pub fn sole_consumer(&self, name: &str) -> Option<(usize, &'a NodeProto)> {
        match self.consumers.get(name)?.as_slice() {
            [one] => Some((*one, self.nodes[*one])),
            _ => None,
        }
    }
}

fn dequantize(node: &NodeProto, constants: &HashMap<&str, Constant>) -> Result<Constant, Reason> {
    let input = |i: usize| node.input.get(i).and_then(|n| constants.get(n.as_str()));
    let unknown = || format!("DequantizeLinear {} of an unknown form", node.name);
    let (levels, scale) = (input(0).ok_or_else(unknown)?, input(1).ok_or_else(unknown)?);
    let axis = int(node, "axis").unwrap_or(1);
    let axis = usize::try_from(axis).ok().filter(|a| *a < levels.dims.len().max(1)).ok_or_else(unknown)?;
    let each: usize = levels.dims.iter().skip(axis + 1).product();
    let groups = scale.values.len();
    if groups != 1 && levels.dims.get(axis) != Some(&groups) {
        return Err(unknown());
    }
    let zeros: Vec<f32> = input(2).map_or_else(|| vec![0.0], |z| z.values.clone());
    if zeros.len() != 1 && zeros.len() != groups {
        return Err(unknown());
    }
    let mut values = levels.values.clone();
    for (i, run) in values.chunks_mut(if groups == 1 { levels.values.len().max(1) } else { each.max(1) }).enumerate() {
        let (scale, zero) = (scale.values[i % groups], zeros[i % zeros.len()]);
        run.iter_mut().for_each(|v| *v = (*v - zero) * scale);
    }
    let around_zero = levels.kind == DataType::Int8 && zeros.iter().all(|z| *z == 0.0);
    let by_row = groups == 1 || axis == 0;
    let as_stored =
        (around_zero && by_row).then(|| (levels.values.iter().map(|v| *v as i8).collect(), scale.values.clone()));
    Ok(Constant { dims: levels.dims.clone(), values, kind: DataType::Float, levels: as_stored })
}

/// A stored tensor's numbers as f32, if it holds numbers of a kind that weights and shapes are made of.
fn numbers(tensor: &TensorProto) -> Option<Vec<f32>> {
    let raw = &tensor.raw_data;
    macro_rules! read {
        ($t:ty, $size:literal) => {
            raw.chunks_exact($size).map(|b| <$t>::from_le_bytes(b.try_into().expect("whole chunks")) as f32).collect()
        };
    }
    let len: usize = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).product::<Option<usize>>()?;
    let values: Vec<f32> = match DataType::try_from(tensor.data_type).ok()? {
        DataType::Float if raw.is_empty() => tensor.float_data.clone(),
        DataType::Float => read!(f32, 4),
        DataType::Float16 if !raw.is_empty() => {
            raw.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        DataType::Int64 if raw.is_empty() => tensor.int64_data.iter().map(|v| *v as f32).collect(),
        DataType::Int64 => read!(i64, 8),
        DataType::Int8 if !raw.is_empty() => raw.iter().map(|b| f32::from(*b as i8)).collect(),
        DataType::Uint8 if !raw.is_empty() => raw.iter().map(|b| f32::from(*b)).collect(),
        DataType::Int32 | DataType::Int8 | DataType::Uint8 if raw.is_empty() => {
            tensor.int32_data.iter().map(|v| *v as f32).collect()
        }
        DataType::Int32 => read!(i32, 4),
        _ => return None,
    };
    (values.len() == len).then_some(values)
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// An integer attribute.
pub fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(|a| a.i)
}

/// A float attribute.
pub fn float(node: &NodeProto, name: &str) -> Option<f32> {
    attribute(node, name).map(|a| a.f)
}

/// A list of integers.
pub fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|a| a.ints.as_slice())
}

/// A text attribute.
pub fn text<'a>(node: &'a NodeProto, name: &str) -> Option<&'a str> {
    attribute(node, name).and_then(|a| std::str::from_utf8(&a.s).ok())
}
