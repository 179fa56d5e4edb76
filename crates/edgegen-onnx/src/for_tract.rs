//! What tract 0.23.9 gives other numbers for than ONNX says: rewritten in forms that it computes rightly where that is
//! simple, else refused.
//!
//! The random graphs and the table of single rules (`tests/random_graphs.rs`) found these, and hold what is done here
//! against onnxruntime.

use crate::Result;
use crate::pb::attribute_proto::AttributeType;
use crate::pb::tensor_proto::DataType;
use crate::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use crate::signature::{self, called};
use std::collections::{HashMap, HashSet};

/// Rewrites the graph, whose nodes are checked and of this opset, in forms that tract computes rightly.
///
/// # Errors
/// When it has a node for which there is no such form: which.
pub fn prepare(graph: &mut GraphProto, opset: i64) -> Result<()> {
    let types: HashMap<String, DataType> =
        signature::types(graph, opset)?.into_iter().map(|(name, element)| (name.to_string(), element)).collect();
    let element = |name: &str| types.get(name).copied();
    refuse(graph, opset, &element)?;
    let stored: HashSet<String> = graph.initializer.iter().map(|t| t.name.clone()).collect();
    let convolved = behind_convolutions(graph);
    let mut made = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        match node.op_type.as_str() {
            // other modes take no value, but tract takes one for the mode
            "Pad" if attribute(&node, "mode").is_some_and(|a| a.s != b"constant") && node.input.len() > 2 => {
                node.input[2].clear();
            }
            // Resize of opset 10 has no attribute for it, and tract takes the default of later ones
            "Resize" if opset == 10 => node.attribute.push(text("nearest_mode", "floor")),
            _ => {}
        }
        let mut rewriting = Rewriting { node: &node, made: &mut made, initializers: &mut graph.initializer };
        match node.op_type.as_str() {
            // it takes what is subtracted from, or divided, for the other if a convolution makes the other: c - x is
            // c + (-x) to the last bit
            "Sub" if stored.contains(&node.input[0]) => rewriting.in_two("Neg", "Add"),
            "Div" if stored.contains(&node.input[0]) && convolved.contains(&node.input[1]) => {
                rewriting.in_two("Reciprocal", "Mul");
            }
            "Celu" => rewriting.celu(),
            "Softplus" => rewriting.softplus(),
            "Clip" | "HardSigmoid" | "Relu" | "Sigmoid" | "Tanh" if element(&node.input[0]).is_some_and(is_float) => {
                rewriting.keep_what_is_no_number(1);
            }
            "Max" | "Min" if element(&node.input[0]).is_some_and(is_float) => {
                rewriting.keep_what_is_no_number(node.input.len());
            }
            _ => made.push(node),
        }
    }
    graph.node = made;
    Ok(())
}

fn is_float(element: DataType) -> bool {
    matches!(element, DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16)
}

/// Values that convolutions make, or that are such values in other shapes and types.
fn behind_convolutions(graph: &GraphProto) -> HashSet<String> {
    const THE_SAME: [&str; 8] =
        ["Identity", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"];
    let mut found = HashSet::new();
    for node in &graph.node {
        let passed_on = THE_SAME.contains(&node.op_type.as_str()) && found.contains(&node.input[0]);
        if passed_on || ["Conv", "ConvTranspose"].contains(&node.op_type.as_str()) {
            found.extend(node.output.first().cloned());
        }
    }
    found
}

/// A node that is being replaced by others, whose last makes its result.
struct Rewriting<'a> {
    node: &'a NodeProto,
    made: &'a mut Vec<NodeProto>,
    initializers: &'a mut Vec<TensorProto>,
}

impl Rewriting<'_> {
    /// A name for a value on the way, which no value of the file has.
    fn name(&self, part: &str) -> String {
        format!("{}/{part}/for tract", self.node.output[0])
    }

    fn push(&mut self, op: &str, input: &[&str], output: &str) {
        self.made.push(NodeProto {
            op_type: op.into(),
            name: output.into(),
            input: input.iter().map(|s| s.to_string()).collect(),
            output: vec![output.into()],
            ..Default::default()
        });
    }

    /// `second(a, first(b))` of the inputs a and b.
    fn in_two(&mut self, first: &str, second: &str) {
        let between = self.name(first);
        self.push(first, &[&self.node.input[1]], &between);
        self.push(second, &[&self.node.input[0], &between], &self.node.output[0]);
    }

    /// Celu(x) is alpha · Elu(x / alpha), with an Elu whose own alpha is 1. tract takes the alpha for another.
    fn celu(&mut self) {
        let alpha = self.node.attribute.iter().find(|a| a.name == "alpha").map_or(1.0, |a| a.f);
        let [factor, divided, elu] = ["alpha", "divided", "elu"].map(|part| self.name(part));
        self.initializers.push(number(&factor, alpha));
        self.push("Div", &[&self.node.input[0], &factor], &divided);
        self.push("Elu", &[&divided], &elu);
        self.push("Mul", &[&elu, &factor], &self.node.output[0]);
    }

    /// tract's overflows for large numbers, where softplus(x) is x to the last bit.
    fn softplus(&mut self) {
        let [bound, test, small] = ["bound", "test", "small"].map(|part| self.name(part));
        self.initializers.push(number(&bound, 20.0));
        let (x, out) = (&self.node.input[0], &self.node.output[0]);
        self.push("Greater", &[x, &bound], &test);
        self.made.push(NodeProto { name: small.clone(), output: vec![small.clone()], ..self.node.clone() });
        self.push("Where", &[&test, x, &small], out);
    }

    /// tract makes numbers of NaN by cutting it off: where one of the first inputs is NaN, the result is that.
    fn keep_what_is_no_number(&mut self, inputs: usize) {
        let mut result = self.name("cut");
        self.made.push(NodeProto { name: result.clone(), output: vec![result.clone()], ..self.node.clone() });
        for (i, x) in self.node.input[..inputs].iter().enumerate() {
            let (test, last) = (self.name(&format!("test{i}")), i + 1 == inputs);
            let out = if last { self.node.output[0].clone() } else { self.name(&format!("cut{i}")) };
            self.push("IsNaN", &[x], &test);
            self.push("Where", &[&test, x, &result], &out);
            result = out;
        }
    }
}

/// A stored number.
fn number(name: &str, value: f32) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: DataType::Float as i32,
        raw_data: value.to_le_bytes().to_vec().into(),
        ..Default::default()
    }
}

/// Integers, by ONNX's numbers of them, that floats are commonly too large for: of less than 32 bits, and unsigned ones.
const NARROW: [i64; 6] = [
    DataType::Uint8 as i64,
    DataType::Int8 as i64,
    DataType::Uint16 as i64,
    DataType::Int16 as i64,
    DataType::Uint32 as i64,
    DataType::Uint64 as i64,
];

/// Refuses nodes that tract gives other numbers for, and that have no other form here.
fn refuse(graph: &GraphProto, opset: i64, element: &dyn Fn(&str) -> Option<DataType>) -> Result<()> {
    let of_nodes = graph.node.iter().filter(|n| n.op_type == "Constant").filter_map(|n| {
        let tensor = n.attribute.first()?.t.as_ref()?;
        Some((n.output.first()?.as_str(), tensor))
    });
    let stored: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|t| (t.name.as_str(), t)).chain(of_nodes).collect();
    let read: HashSet<&str> = graph.node.iter().flat_map(|n| &n.input).map(String::as_str).collect();
    let convolves = graph.node.iter().any(|n| n.op_type == "Conv");
    for node in &graph.node {
        let says = |name: &str, word: &str| attribute(node, name).is_some_and(|a| a.s == word.as_bytes());
        let int = |name: &str| attribute(node, name).map_or(0, |a| a.i);
        let given = |i: usize| node.input.get(i).filter(|name| !name.is_empty());
        let constant = |i: usize| given(i).and_then(|name| stored.get(name.as_str()).copied());
        let why = match node.op_type.as_str() {
            "Dropout" if node.output.get(1).is_some_and(|mask| read.contains(mask.as_str())) => "its mask",
            "Swish" if attribute(node, "alpha").is_some_and(|a| a.f != 1.0) => "an alpha other than 1",
            "QuantizeLinear" if given(2).is_none() && int("output_dtype") != 0 => {
                "an output_dtype without a zero point"
            }
            "Cast" if element(&node.input[0]).is_some_and(is_float) && NARROW.contains(&int("to")) => {
                "floats that may be out of the range of its type"
            }
            "Mul" if (0..2).any(|i| constant(i).and_then(floats).is_some_and(|all| all.iter().all(|v| *v == 0.0))) => {
                "a stored zero, which need not make zero of what is infinite,"
            }
            // tract moves the steps into a convolution before it, and does not begin where the slice does
            "Slice" if convolves && given(4).is_some() && !constant(4).is_some_and(is_ones) => {
                "steps, in a graph with convolutions,"
            }
            "LogSoftmax" => "numbers that are far from each other",
            "Mod" if int("fmod") == 0 && !constant(1).is_some_and(is_positive) => "a divisor that may be negative",
            "Resize"
                if opset == 10 && !constant(1).and_then(floats).is_some_and(|all| all.iter().all(|s| *s >= 1.0)) =>
            {
                "scales below 1 in opset 10"
            }
            "Resize" if says("coordinate_transformation_mode", "tf_crop_and_resize") => "a region of its own",
            "Resize" if says("coordinate_transformation_mode", "align_corners") && given(3).is_none() => {
                match constant(2).and_then(floats) {
                    Some(scales) if scales.iter().all(|s| s.fract() == 0.0) => continue,
                    _ => "align_corners and scales that are not whole",
                }
            }
            _ => continue,
        };
        return Err(format!("{} with {why} is not supported", called(node)));
    }
    Ok(())
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

fn text(name: &str, value: &str) -> AttributeProto {
    let kind = AttributeType::String as i32;
    AttributeProto { name: name.into(), s: value.into(), r#type: kind, ..Default::default() }
}

/// Whether a stored tensor is of positive integers, all of them.
fn is_positive(tensor: &TensorProto) -> bool {
    all_integers(tensor, |v| v > 0)
}

/// Whether one is of ones.
fn is_ones(tensor: &TensorProto) -> bool {
    all_integers(tensor, |v| v == 1)
}

fn all_integers(tensor: &TensorProto, fits: impl Fn(i64) -> bool) -> bool {
    let all = |mut values: Box<dyn Iterator<Item = i64> + '_>| values.all(&fits);
    let raw = &tensor.raw_data;
    match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int64) if raw.is_empty() => all(Box::new(tensor.int64_data.iter().copied())),
        Ok(DataType::Int64) => all(Box::new(raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)))),
        Ok(DataType::Int32) if raw.is_empty() => all(Box::new(tensor.int32_data.iter().map(|v| i64::from(*v)))),
        Ok(DataType::Int32) => all(Box::new(raw.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))))),
        _ => false,
    }
}

/// The numbers of a stored float tensor.
fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    (tensor.data_type == DataType::Float as i32).then(|| match tensor.raw_data.as_ref() {
        [] => tensor.float_data.clone(),
        raw => raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::type_proto::{self, Value};
    use crate::pb::{TypeProto, ValueInfoProto};

    fn node(op: &str, input: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
        let input = input.iter().map(|s| s.to_string()).collect();
        NodeProto { op_type: op.into(), input, output: vec!["y".into()], attribute: attributes, ..Default::default() }
    }

    fn float(name: &str, f: f32) -> AttributeProto {
        AttributeProto { name: name.into(), f, r#type: AttributeType::Float as i32, ..Default::default() }
    }

    fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto { name: name.into(), i, r#type: AttributeType::Int as i32, ..Default::default() }
    }

    /// What becomes of a node beside a Conv that makes `w` of `x`. Stored are `half`, `two` and `zero` of floats, `minus` and
    /// `plus` of integers; other values are inputs: `i`, `p` and `a` of integers.
    fn prepared(node: NodeProto, opset: i64) -> Result<Vec<NodeProto>> {
        let floats = |name: &str, v: [f32; 2]| TensorProto {
            name: name.into(),
            data_type: DataType::Float as i32,
            float_data: v.into(),
            ..Default::default()
        };
        let integers = |name: &str, v: i64| TensorProto {
            name: name.into(),
            data_type: DataType::Int64 as i32,
            int64_data: vec![1, v],
            ..Default::default()
        };
        let input = |name: &&str| {
            let integer = ["i", "p", "a"].contains(name);
            let elem_type = if integer { DataType::Int64 } else { DataType::Float } as i32;
            let value = Value::TensorType(type_proto::Tensor { elem_type, shape: None });
            ValueInfoProto { name: (*name).into(), r#type: Some(TypeProto { value: Some(value) }) }
        };
        let conv = NodeProto { output: vec!["w".into()], ..self::node("Conv", &["x", "k"], vec![]) };
        let mut graph = GraphProto {
            node: vec![conv, node],
            input: ["x", "k", "s", "v", "i", "p", "a"].iter().map(input).collect(),
            initializer: vec![
                floats("half", [1.0, 1.5]),
                floats("two", [1.0, 2.0]),
                floats("zero", [0.0, 0.0]),
                integers("minus", -1),
                integers("plus", 1),
            ],
            ..Default::default()
        };
        prepare(&mut graph, opset)?;
        Ok(graph.node.split_off(1))
    }

    fn described(node: &NodeProto) -> String {
        let named = |name: &String| name.split('/').nth(1).unwrap_or(name).to_string();
        let inputs: Vec<String> = node.input.iter().map(named).collect();
        format!("{} = {}({})", named(&node.output[0]), node.op_type, inputs.join(","))
    }

    #[test]
    fn nodes_become_what_tract_computes_rightly() {
        let edge = || vec![text("mode", "edge")];
        let cases: &[(NodeProto, &[&str])] = &[
            (node("Sub", &["half", "w"], vec![]), &["Neg = Neg(w)", "y = Add(half,Neg)"]),
            (node("Sub", &["w", "half"], vec![]), &["y = Sub(w,half)"]),
            (node("Div", &["half", "w"], vec![]), &["Reciprocal = Reciprocal(w)", "y = Mul(half,Reciprocal)"]),
            (node("Div", &["half", "x"], vec![]), &["y = Div(half,x)"]),
            (node("Celu", &["x"], vec![]), &["divided = Div(x,alpha)", "elu = Elu(divided)", "y = Mul(elu,alpha)"]),
            (
                node("HardSigmoid", &["x"], vec![]),
                &["cut = HardSigmoid(x)", "test0 = IsNaN(x)", "y = Where(test0,x,cut)"],
            ),
            (node("Pad", &["x", "p", "v", "a"], edge()), &["y = Pad(x,p,,a)"]),
            (node("Pad", &["x", "p", "v"], vec![text("mode", "constant")]), &["y = Pad(x,p,v)"]),
            (node("Mod", &["i", "plus"], vec![]), &["y = Mod(i,plus)"]),
            (node("Mod", &["i", "minus"], vec![int("fmod", 1)]), &["y = Mod(i,minus)"]),
            (
                node("Softplus", &["x"], vec![]),
                &["test = Greater(x,bound)", "small = Softplus(x)", "y = Where(test,x,small)"],
            ),
            (node("Relu", &["x"], vec![]), &["cut = Relu(x)", "test0 = IsNaN(x)", "y = Where(test0,x,cut)"]),
            (node("Clip", &["i", "minus"], vec![]), &["y = Clip(i,minus)"]),
            (
                node("Max", &["x", "v"], vec![]),
                &[
                    "cut = Max(x,v)",
                    "test0 = IsNaN(x)",
                    "cut0 = Where(test0,x,cut)",
                    "test1 = IsNaN(v)",
                    "y = Where(test1,v,cut0)",
                ],
            ),
            (node("Max", &["i", "plus"], vec![]), &["y = Max(i,plus)"]),
            (node("Slice", &["x", "p", "p", "a", "plus"], vec![]), &["y = Slice(x,p,p,a,plus)"]),
            (node("Mul", &["x", "half"], vec![]), &["y = Mul(x,half)"]),
        ];
        for (node, expected) in cases {
            let nodes = prepared(node.clone(), 19).unwrap();
            assert_eq!(nodes.iter().map(described).collect::<Vec<_>>(), *expected);
        }
        let nodes = prepared(node("Resize", &["x", "two"], vec![]), 10).unwrap();
        assert_eq!(nodes[0].attribute, [text("nearest_mode", "floor")]);
    }

    #[test]
    fn what_has_no_such_form_is_refused() {
        let align = || vec![text("coordinate_transformation_mode", "align_corners")];
        let region = || vec![text("coordinate_transformation_mode", "tf_crop_and_resize")];
        let cases: &[(i64, NodeProto, &str)] = &[
            (24, node("Swish", &["x"], vec![float("alpha", 1.5)]), "alpha other than 1"),
            (21, node("QuantizeLinear", &["x", "s"], vec![int("output_dtype", 3)]), "output_dtype"),
            (13, node("Slice", &["x", "p", "p", "a", "minus"], vec![]), "in a graph with convolutions"),
            (13, node("LogSoftmax", &["x"], vec![]), "far from each other"),
            (13, node("Mod", &["i", "minus"], vec![]), "may be negative"),
            (13, node("Mod", &["i", "p"], vec![]), "may be negative"),
            (13, node("Cast", &["x"], vec![int("to", DataType::Uint8 as i64)]), "out of the range"),
            (13, node("Mul", &["zero", "x"], vec![]), "a stored zero"),
            (10, node("Resize", &["x", "v"], vec![]), "below 1 in opset 10"),
            (13, node("Resize", &["x", "", "half"], align()), "not whole"),
            (13, node("Resize", &["x", "", "half"], region()), "region"),
        ];
        for (opset, node, words) in cases {
            let line = prepared(node.clone(), *opset).unwrap_err();
            assert!(line.contains(words), "{line} is not {words}");
        }
        for (scales, opset) in [("two", 13), ("half", 12)] {
            let mode = if scales == "two" { align() } else { vec![] };
            assert!(prepared(node("Resize", &["x", "", scales], mode), opset).is_ok());
        }
    }
}
