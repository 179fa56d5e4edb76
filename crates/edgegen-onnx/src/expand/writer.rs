//! Nodes as they are written one after the other.

use super::Known;
use crate::pb::attribute_proto::AttributeType;
use crate::pb::tensor_proto::DataType;
use crate::pb::{AttributeProto, NodeProto, TensorProto};
use std::collections::HashMap;

/// An integer attribute.
pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: AttributeType::Int as i32, ..Default::default() }
}

/// A float attribute.
pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f, r#type: AttributeType::Float as i32, ..Default::default() }
}

/// An attribute that is a list of integers.
pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: ints.to_vec(), r#type: AttributeType::Ints as i32, ..Default::default() }
}

/// A text attribute.
pub fn text(name: &str, text: &str) -> AttributeProto {
    AttributeProto { name: name.into(), s: text.into(), r#type: AttributeType::String as i32, ..Default::default() }
}

/// The nodes that will stand for a node.
pub struct Writer<'k> {
    known: &'k dyn Known,
    /// What names of values on the way begin with, which no value of the file has.
    prefix: String,
    /// How many nodes there were.
    count: usize,
    nodes: Vec<NodeProto>,
}

impl<'k> Writer<'k> {
    /// For the nodes that stand for `node`.
    pub fn new(node: &NodeProto, known: &'k dyn Known) -> Self {
        let name = node.output.iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
        Writer { known, prefix: format!("{name}/written out"), count: 0, nodes: Vec::new() }
    }

    /// The version of ONNX's operators that the nodes are of.
    pub fn opset(&self) -> i64 {
        self.known.opset()
    }

    /// Adds a node, and gives the name of its result.
    pub fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.with(op, inputs, vec![])
    }

    /// Adds a node with attributes.
    pub fn with(&mut self, op: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let name = format!("{}/{}", self.prefix, self.count);
        self.count += 1;
        self.nodes.push(NodeProto {
            op_type: op.into(),
            name: name.clone(),
            input: inputs.iter().map(|s| s.to_string()).collect(),
            output: vec![name.clone()],
            attribute,
            ..Default::default()
        });
        name
    }

    /// Adds a node whose result has a name of its own.
    pub fn named(&mut self, op: &str, inputs: &[&str], name: &str) {
        self.op(op, inputs);
        self.nodes.last_mut().expect("it was added").output[0] = name.into();
    }

    /// Adds a node of several results, and gives their names.
    pub fn several<const N: usize>(&mut self, op: &str, inputs: &[&str]) -> [String; N] {
        let first = self.op(op, inputs);
        let names: [String; N] = std::array::from_fn(|i| if i == 0 { first.clone() } else { format!("{first}/{i}") });
        self.nodes.last_mut().expect("it was added").output = names.to_vec();
        names
    }

    /// Adds a stored tensor.
    pub fn tensor(&mut self, tensor: TensorProto) -> String {
        let value = AttributeProto {
            name: "value".into(),
            t: Some(tensor),
            r#type: AttributeType::Tensor as i32,
            ..Default::default()
        };
        self.with("Constant", &[], vec![value])
    }

    /// Adds a stored list of whole numbers.
    pub fn list(&mut self, values: &[i64]) -> String {
        self.integers(&[values.len()], values)
    }

    /// Adds a stored tensor of whole numbers.
    pub fn integers(&mut self, dims: &[usize], values: &[i64]) -> String {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(stored(dims, DataType::Int64, raw))
    }

    /// Adds a stored tensor of floats.
    pub fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(stored(dims, DataType::Float, raw))
    }

    /// Adds a stored number.
    pub fn number(&mut self, value: f32) -> String {
        self.floats(&[], &[value])
    }

    /// The same numbers in another shape.
    pub fn reshape(&mut self, x: &str, dims: &[usize]) -> String {
        let shape = self.list(&signed(dims));
        self.op("Reshape", &[x, &shape])
    }

    /// With the dimensions in another order. What a node turned the other way before is taken as it was before that.
    pub fn transpose(&mut self, x: &str, perm: &[usize]) -> String {
        let before = self.known.maker(x).filter(|maker| maker.op_type == "Transpose");
        if let Some((before, first)) = before.and_then(|maker| Some((maker.given(0)?, maker.ints("perm")?)))
            && perm.len() == first.len()
            && perm.iter().enumerate().all(|(i, p)| first.get(*p).is_some_and(|f| *f == i as i64))
        {
            return before.to_string();
        }
        self.with("Transpose", &[x], vec![ints("perm", &signed(perm))])
    }

    /// `x` without what is not from `start` to `end` of a dimension.
    pub fn slice(&mut self, x: &str, axis: usize, start: usize, end: usize) -> String {
        if self.known.opset() < 10 {
            let attributes =
                vec![ints("axes", &[axis as i64]), ints("starts", &[start as i64]), ints("ends", &[end as i64])];
            return self.with("Slice", &[x], attributes);
        }
        let [start, end, axis] = [start, end, axis].map(|v| self.list(&[v as i64]));
        self.op("Slice", &[x, &start, &end, &axis])
    }

    /// `x` with dimensions of length one.
    pub fn unsqueeze(&mut self, x: &str, axis: usize) -> String {
        if self.known.opset() < 13 {
            return self.with("Unsqueeze", &[x], vec![ints("axes", &[axis as i64])]);
        }
        let axes = self.list(&[axis as i64]);
        self.op("Unsqueeze", &[x, &axes])
    }

    /// x · sigmoid(alpha · x).
    pub fn swish(&mut self, x: &str, alpha: f32) -> String {
        let scaled = if alpha == 1.0 {
            x.to_string()
        } else {
            let alpha = self.number(alpha);
            self.op("Mul", &[x, &alpha])
        };
        let sigmoid = self.op("Sigmoid", &[&scaled]);
        self.op("Mul", &[x, &sigmoid])
    }

    /// GELU, as x · (1 + erf(x / √2)) · ½.
    pub fn gelu(&mut self, x: &str) -> String {
        let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|v| self.number(v));
        let divided = self.op("Div", &[x, &root]);
        let erf = self.op("Erf", &[&divided]);
        let sum = self.op("Add", &[&erf, &one]);
        let product = self.op("Mul", &[x, &sum]);
        self.op("Mul", &[&product, &half])
    }

    /// The nodes up to here.
    pub fn take(&mut self) -> Vec<NodeProto> {
        std::mem::take(&mut self.nodes)
    }

    /// The nodes, of which some make the results of `node`: which value is which of its results. Values without a name are
    /// not there.
    pub fn finish(mut self, node: &NodeProto, results: &[(usize, String)]) -> Vec<NodeProto> {
        let mut renamed: HashMap<&str, &str> = HashMap::new();
        for (i, value) in results {
            let Some(name) = node.result(*i).filter(|_| !value.is_empty()) else { continue };
            let made = self.nodes.iter_mut().find(|made| made.output[0] == *value);
            match made.filter(|_| !renamed.contains_key(value.as_str())) {
                Some(made) => {
                    made.output[0] = name.into();
                    let read = self.nodes.iter_mut().flat_map(|made| &mut made.input).filter(|input| *input == value);
                    read.for_each(|input| *input = name.into());
                    renamed.insert(value, name);
                }
                // a value of the graph's as it is, or one that is another result, too
                None => {
                    let same = renamed.get(value.as_str()).copied().unwrap_or(value);
                    self.with("Identity", &[same], vec![]);
                    self.nodes.last_mut().expect("it was added").output[0] = name.into();
                }
            }
        }
        self.nodes
    }

    /// The nodes, of which one makes the only result of `node`.
    pub fn finish_one(self, node: &NodeProto, result: String) -> Vec<NodeProto> {
        self.finish(node, &[(0, result)])
    }
}

/// A stored tensor of these bytes.
pub fn stored(dims: &[usize], kind: DataType, raw: Vec<u8>) -> TensorProto {
    TensorProto { dims: signed(dims), data_type: kind as i32, raw_data: raw.into(), ..Default::default() }
}

/// Sizes as files have them.
pub fn signed(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect()
}
