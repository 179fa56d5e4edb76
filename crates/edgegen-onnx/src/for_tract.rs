//! What tract 0.23.9 gives other numbers for than ONNX says, and what it computes rightly when it is written otherwise: that
//! is done here. What has no such form is not sent to tract; the list of that, and of all else that is kept from it, is edgegen's
//! `model/gate`.
//!
//! The random graphs and the table of single rules (`tests/random_graphs.rs`) found these, and hold what is done here
//! against onnxruntime.

use crate::Result;
use crate::pb::attribute_proto::AttributeType;
use crate::pb::tensor_proto::DataType;
use crate::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use crate::signature;
use std::collections::{HashMap, HashSet};

/// Rewrites the graph, whose nodes are checked and of this opset, in forms that tract computes rightly.
///
/// # Errors
/// When a node is not as the opset says.
pub fn prepare(graph: &mut GraphProto, opset: i64) -> Result<()> {
    let types: HashMap<String, DataType> =
        signature::types(graph, opset)?.into_iter().map(|(name, element)| (name.to_string(), element)).collect();
    let element = |name: &str| types.get(name).copied();
    let fixed = independent_of_inputs(graph);
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
            "Sub" if fixed.contains(&node.input[0]) => rewriting.in_two("Neg", "Add"),
            "Div" if fixed.contains(&node.input[0]) && convolved.contains(&node.input[1]) => {
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

/// Stored tensors, and what is made of these alone.
fn independent_of_inputs(graph: &GraphProto) -> HashSet<String> {
    let mut fixed: HashSet<String> = graph.initializer.iter().map(|t| t.name.clone()).collect();
    for node in &graph.node {
        if node.input.iter().all(|name| name.is_empty() || fixed.contains(name)) {
            fixed.extend(node.output.iter().cloned());
        }
    }
    fixed
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

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

fn text(name: &str, value: &str) -> AttributeProto {
    let kind = AttributeType::String as i32;
    AttributeProto { name: name.into(), s: value.into(), r#type: kind, ..Default::default() }
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

    fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto { name: name.into(), i, r#type: AttributeType::Int as i32, ..Default::default() }
    }

    /// What becomes of a node beside a Conv that makes `w` of `x`. Stored are `half` and `two` of floats, `minus` and `plus` of
    /// integers, and `made` is the negative of `half`; other values are inputs: `i`, `p` and `a` of integers.
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
        let made = NodeProto { output: vec!["made".into()], ..self::node("Neg", &["half"], vec![]) };
        let mut graph = GraphProto {
            node: vec![conv, made, node],
            input: ["x", "k", "s", "v", "i", "p", "a"].iter().map(input).collect(),
            initializer: vec![
                floats("half", [1.0, 1.5]),
                floats("two", [1.0, 2.0]),
                integers("minus", -1),
                integers("plus", 1),
            ],
            ..Default::default()
        };
        prepare(&mut graph, opset)?;
        Ok(graph.node.split_off(2))
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
            (node("Sub", &["made", "w"], vec![]), &["Neg = Neg(w)", "y = Add(made,Neg)"]),
            (node("Sub", &["w", "half"], vec![]), &["y = Sub(w,half)"]),
            (node("Sub", &["v", "w"], vec![]), &["y = Sub(v,w)"]),
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
        ];
        for (node, expected) in cases {
            let nodes = prepared(node.clone(), 19).unwrap();
            assert_eq!(nodes.iter().map(described).collect::<Vec<_>>(), *expected);
        }
        let nodes = prepared(node("Resize", &["x", "two"], vec![]), 10).unwrap();
        assert_eq!(nodes[0].attribute, [text("nearest_mode", "floor")]);
    }
}
