//! Graphs of quantized operators (QLinearConv and the like) as the float operators they stand for, between
//! QuantizeLinear and DequantizeLinear, which is the form that plans are made of.
//!
//! A quantized tensor is known by its values from then on: nodes that only move numbers about read and write those.

use crate::pb::attribute_proto::AttributeType;
use crate::pb::tensor_proto::DataType;
use crate::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use std::collections::{HashMap, HashSet};

/// Rewrites the graph, if it has such operators. Those of a form that is not known stay as they are, and with them
/// what reads them.
pub fn expand(graph: &mut GraphProto) {
    let quantized = |op: &str| op.starts_with("QLinear") || op == "QGemm";
    if !graph.node.iter().any(|n| quantized(&n.op_type)) {
        return;
    }
    let stored = graph.initializer.iter().map(|t| (t.name.clone(), t.clone())).collect();
    let mut expansion = Expansion {
        stored,
        values: HashMap::new(),
        params: HashMap::new(),
        nodes: Vec::new(),
        made: Vec::new(),
        named: HashSet::new(),
    };
    for node in std::mem::take(&mut graph.node) {
        if expansion.node(&node).is_none() {
            expansion.other(node);
        }
    }
    graph.node = expansion.nodes;
    graph.initializer.extend(expansion.made);
}

struct Expansion {
    stored: HashMap<String, TensorProto>,
    /// The values of quantized tensors.
    values: HashMap<String, String>,
    /// The names of their scales and zero points.
    params: HashMap<String, [String; 2]>,
    nodes: Vec<NodeProto>,
    /// Tensors to be stored.
    made: Vec<TensorProto>,
    /// The names of those.
    named: HashSet<String>,
}

/// A quantized tensor: its name, and those of its scale and its zero point.
type Quantized<'a> = [&'a String; 3];

/// Input `k` of a node, if it has one.
fn given(node: &NodeProto, k: usize) -> Option<&String> {
    node.input.get(k).filter(|name| !name.is_empty())
}

/// The quantized tensor that the inputs from `k` on are.
fn three(node: &NodeProto, k: usize) -> Option<Quantized<'_>> {
    Some([given(node, k)?, given(node, k + 1)?, given(node, k + 2)?])
}

/// What a quantized operator is between its inputs as floats and its result `out` in 8 bits.
fn in_floats(node: &NodeProto, op: &str, input: Vec<String>, out: &str) -> NodeProto {
    let output = vec![format!("{out}/float")];
    NodeProto { op_type: op.into(), domain: String::new(), input, output, ..node.clone() }
}

impl Expansion {
    /// Expands a quantized operator, or says that it is none.
    fn node(&mut self, node: &NodeProto) -> Option<()> {
        let out = node.output.first()?;
        let input = |k: usize| given(node, k);
        let three = |k: usize| three(node, k);
        let float = |op: &str, inputs: Vec<String>| in_floats(node, op, inputs, out);
        match node.op_type.as_str() {
            "QuantizeLinear" if !self.stored.contains_key(input(0)?) => {
                let (scale, zero) = (input(1)?, input(2)?);
                self.nodes.push(node.clone());
                self.known_by_values(out, scale, zero);
            }
            "DequantizeLinear" => {
                let value = self.values.get(input(0)?)?.clone();
                self.nodes.push(plain("Identity", vec![value], out));
            }
            "QLinearConv" => {
                if node.int("channels_last").unwrap_or(0) != 0 {
                    return None;
                }
                let (x, w, y) = (three(0)?, three(3)?, [input(6)?, input(7)?]);
                let mut inputs = vec![self.value(x, 1)?, self.value(w, 0)?];
                if let Some(bias) = input(8) {
                    inputs.push(self.bias(bias, x[1], w[1], 1.0)?);
                }
                self.push(float("Conv", inputs), y, out);
            }
            "QLinearMatMul" => {
                let (a, b, y) = (three(0)?, three(3)?, [input(6)?, input(7)?]);
                let inputs = vec![self.value(a, 1)?, self.value(b, 1)?];
                self.push(float("MatMul", inputs), y, out);
            }
            "QGemm" => self.gemm(node, out)?,
            "QLinearAdd" | "QLinearMul" => {
                let (a, b, y) = (three(0)?, three(3)?, [input(6)?, input(7)?]);
                let inputs = vec![self.value(a, 1)?, self.value(b, 1)?];
                self.push(float(&node.op_type["QLinear".len()..], inputs), y, out);
            }
            "QLinearSigmoid"
            | "QLinearSoftmax"
            | "QLinearLeakyRelu"
            | "QLinearReduceMean"
            | "QLinearAveragePool"
            | "QLinearGlobalAveragePool" => {
                if node.int("channels_last").unwrap_or(0) != 0 {
                    return None;
                }
                let (x, y) = (three(0)?, [input(3)?, input(4)?]);
                let inputs = vec![self.value(x, 1)?];
                let mut float = float(&node.op_type["QLinear".len()..], inputs);
                // what only the quantized operators say; Softmax is another before opset 13
                float.attribute.retain(|a| a.name != "channels_last" && (a.name != "opset" || a.i < 13));
                self.push(float, y, out);
            }
            "QLinearWhere" => {
                let (a, b, y) = (three(1)?, three(4)?, [input(7)?, input(8)?]);
                let inputs = vec![input(0)?.clone(), self.value(a, 1)?, self.value(b, 1)?];
                self.push(float("Where", inputs), y, out);
            }
            "QLinearConcat" => {
                let y = [input(0)?, input(1)?];
                let parts = (2..node.input.len()).step_by(3).map(|k| self.value(three(k)?, 1));
                let parts = parts.collect::<Option<Vec<_>>>()?;
                self.push(float("Concat", parts), y, out);
            }
            _ => return None,
        }
        Some(())
    }

    /// Expands a QGemm, whose result is of floats where it has no zero point.
    fn gemm(&mut self, node: &NodeProto, out: &str) -> Option<()> {
        let (a, b) = (three(node, 0)?, three(node, 3)?);
        let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name);
        let axis = if attribute("transB").is_some_and(|a| a.i != 0) { 0 } else { 1 };
        let alpha = attribute("alpha").map_or(1.0, |a| a.f);
        let mut inputs = vec![self.value(a, 1)?, self.value(b, axis)?];
        if let Some(bias) = given(node, 6) {
            inputs.push(self.bias(bias, a[1], b[1], alpha)?);
        }
        let gemm = in_floats(node, "Gemm", inputs, out);
        match (given(node, 7), given(node, 8)) {
            (Some(scale), Some(zero)) => self.push(gemm, [scale, zero], out),
            _ => self.nodes.push(NodeProto { output: node.output.clone(), ..gemm }),
        }
        Some(())
    }

    /// A node that may move the numbers of quantized tensors about.
    fn other(&mut self, mut node: NodeProto) {
        let mut moved = false;
        let params = node.input.first().and_then(|x| self.params.get(x)).cloned();
        if let Some(params) = params.as_ref().filter(|_| node.op_type == "Pad") {
            self.dequantize_fill(&mut node, params);
        }
        for input in &mut node.input {
            if let Some(value) = self.values.get(input) {
                (*input, moved) = (value.clone(), true);
            }
        }
        if moved {
            for output in node.output.iter_mut().filter(|o| !o.is_empty()) {
                let value = format!("{output}/value");
                let output = std::mem::replace(output, value.clone());
                self.params.extend(params.clone().map(|params| (output.clone(), params)));
                self.values.insert(output, value);
            }
        }
        self.nodes.push(node);
    }

    /// What is put around a quantized tensor is a level, too: 0 where none is given.
    fn dequantize_fill(&mut self, node: &mut NodeProto, [scale, zero]: &[String; 2]) {
        let constant = node.text("mode").is_none_or(|mode| mode == "constant");
        let Some(kind) = self.stored.get(zero).map(|zero| zero.data_type).filter(|_| constant) else { return };
        let out = node.output.first().cloned().unwrap_or_default();
        let fill = node.given(2).map_or_else(|| format!("{out}/fill"), str::to_string);
        if node.given(2).is_none() {
            let raw_data = vec![0].into();
            self.made.push(TensorProto { name: fill.clone(), data_type: kind, raw_data, ..Default::default() });
        }
        let value = format!("{out}/fill/value");
        self.nodes.push(plain("DequantizeLinear", vec![fill, scale.clone(), zero.clone()], &value));
        node.input.resize(node.input.len().max(3), String::new());
        node.input[2] = value;
    }

    /// A float node, and its result quantized as `out`.
    fn push(&mut self, node: NodeProto, [scale, zero]: [&String; 2], out: &str) {
        let inputs = vec![node.output[0].clone(), scale.clone(), zero.clone()];
        self.nodes.push(node);
        self.nodes.push(plain("QuantizeLinear", inputs, out));
        self.known_by_values(out, scale, zero);
    }

    fn known_by_values(&mut self, name: &str, scale: &str, zero: &str) {
        let value = format!("{name}/value");
        self.nodes.push(plain("DequantizeLinear", vec![name.into(), scale.into(), zero.into()], &value));
        self.values.insert(name.into(), value);
        self.params.insert(name.into(), [scale.into(), zero.into()]);
    }

    /// The values of a quantized tensor; a stored one may have a scale for each of what lies along dimension `axis`.
    fn value(&mut self, [name, scale, zero]: Quantized, axis: i64) -> Option<String> {
        if !self.stored.contains_key(name) {
            return self.values.get(name).cloned();
        }
        let value = format!("{name}/value");
        if self.values.insert(name.clone(), value.clone()).is_none() {
            let node = plain("DequantizeLinear", vec![name.clone(), scale.clone(), zero.clone()], &value);
            self.nodes.push(along(node, axis));
        }
        Some(value)
    }

    /// The values of a bias, whose scale is that of the products.
    fn bias(&mut self, bias: &str, input: &str, weights: &str, alpha: f32) -> Option<String> {
        let (input, weights) = (self.floats(input)?, self.floats(weights)?);
        let [input] = input[..] else { return None };
        let (stored, name) = (self.stored.get(bias)?, format!("{bias}/scale"));
        let dims = stored.dims.clone();
        // a scale for each number of the bias, or one for all
        let numbers = dims.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?))?;
        if weights.len() != 1 && weights.len() != numbers {
            return None;
        }
        if self.named.insert(name.clone()) {
            let products = weights.iter().flat_map(|w| (alpha * input * w).to_le_bytes()).collect();
            self.made.push(TensorProto {
                name: name.clone(),
                dims: if weights.len() == 1 { Vec::new() } else { vec![weights.len() as i64] },
                data_type: DataType::Float as i32,
                raw_data: products,
                ..Default::default()
            });
        }
        let value = format!("{bias}/value");
        if self.values.insert(bias.into(), value.clone()).is_none() {
            let node = plain("DequantizeLinear", vec![bias.into(), name], &value);
            self.nodes.push(along(node, dims.len() as i64 - 1));
        }
        Some(value)
    }

    /// The numbers of a stored float tensor.
    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let tensor = self.stored.get(name).filter(|t| t.data_type == DataType::Float as i32)?;
        Some(match tensor.raw_data.as_ref() {
            [] => tensor.float_data.clone(),
            raw => raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        })
    }
}

fn plain(op: &str, input: Vec<String>, output: &str) -> NodeProto {
    NodeProto { op_type: op.into(), name: output.into(), input, output: vec![output.into()], ..Default::default() }
}

/// The node, with scales along this dimension.
fn along(node: NodeProto, axis: i64) -> NodeProto {
    let axis = AttributeProto { name: "axis".into(), i: axis, r#type: AttributeType::Int as i32, ..Default::default() };
    NodeProto { attribute: vec![axis], ..node }
}
