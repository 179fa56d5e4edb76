//! From ONNX nodes to the few operations that a plan is made of: the forms that exporters write for group norm, SiLU
//! and attention are recognised as what they are.

use super::graph::{Constant, Graph, Reason, float, int, ints, text};
use super::kernels::conv8::Levels;
use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

/// An operation on named values. Values are pictures, or vectors that depend on time and class alone.
#[derive(Clone, Debug)]
pub enum Op<'a> {
    Convolution { x: &'a str, weights: &'a Constant, bias: Option<&'a Constant>, stride: usize, padding: usize },
    Norm { x: &'a str, groups: usize, epsilon: f32, scale: &'a Constant, shift: &'a Constant },
    Silu { x: &'a str },
    Add { a: &'a str, b: &'a str },
    Scale { x: &'a str, by: &'a Constant },
    Sin { x: &'a str },
    Cos { x: &'a str },
    Matrix { x: &'a str, weights: &'a Constant, bias: Option<&'a Constant> },
    Row { table: &'a Constant, index: &'a str },
    Concat { parts: Vec<&'a str> },
    Upsample { x: &'a str },
    Attention { x: &'a str },
    Squares { x: &'a str, block: usize },
    Same { x: &'a str },
    Round { x: &'a str, levels: Levels },
}

/// An operation and the name of its result.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    pub op: Op<'a>,
    pub out: &'a str,
}

impl<'a> Op<'a> {
    /// The values that it reads.
    pub fn inputs(&self) -> Vec<&'a str> {
        match self {
            Op::Convolution { x, .. }
            | Op::Norm { x, .. }
            | Op::Silu { x }
            | Op::Scale { x, .. }
            | Op::Sin { x }
            | Op::Cos { x }
            | Op::Matrix { x, .. }
            | Op::Upsample { x }
            | Op::Attention { x }
            | Op::Squares { x, .. }
            | Op::Same { x }
            | Op::Round { x, .. } => vec![x],
            Op::Add { a, b } => vec![a, b],
            Op::Row { index, .. } => vec![index],
            Op::Concat { parts } => parts.clone(),
        }
    }
}

/// The operations of a graph, in an order in which they can run.
///
/// # Errors
/// The first node that is not known.
pub fn lower<'a>(graph: &'a Graph<'a>) -> Result<Vec<Named<'a>>, Reason> {
    let mut done = vec![false; graph.nodes.len()];
    let mut ops = Vec::new();
    for i in 0..graph.nodes.len() {
        if !done[i] {
            let (named, covered) = lower_node(graph, i).ok_or_else(|| {
                let node = graph.nodes[i];
                format!("{} {} is of a form that is not known", node.op_type, node.name)
            })?;
            covered.into_iter().for_each(|j| done[j] = true);
            ops.push(named);
        }
    }
    Ok(ops)
}

type Lowered<'a> = (Named<'a>, Vec<usize>);

fn lower_node<'a>(graph: &'a Graph<'a>, i: usize) -> Option<Lowered<'a>> {
    let node = graph.nodes[i];
    let value = |k: usize| node.input.get(k).map(String::as_str).filter(|n| graph.constant(n).is_none());
    let constant = |k: usize| graph.constant_input(node, k);
    let op = match node.op_type.as_str() {
        "Conv" => convolution(graph, node)?,
        "Gemm" => {
            let plain = float(node, "alpha").unwrap_or(1.0) == 1.0 && float(node, "beta").unwrap_or(1.0) == 1.0;
            let as_stored = int(node, "transB") == Some(1) && int(node, "transA").unwrap_or(0) == 0;
            (plain && as_stored).then_some(Op::Matrix { x: value(0)?, weights: constant(1)?, bias: constant(2) })?
        }
        "GroupNormalization" => Op::Norm {
            x: value(0)?,
            groups: usize::try_from(int(node, "num_groups")?).ok()?,
            epsilon: float(node, "epsilon").unwrap_or(1e-5),
            scale: constant(1)?,
            shift: constant(2)?,
        },
        "Reshape" => return group_norm(graph, i).or_else(|| attention(graph, i)),
        "Sigmoid" => return silu(graph, i),
        "QuantizeLinear" => return rounding(graph, i),
        "Add" => Op::Add { a: value(0)?, b: value(1)? },
        "Mul" => match (value(0), value(1)) {
            (Some(x), None) => Op::Scale { x, by: constant(1)? },
            (None, Some(x)) => Op::Scale { x, by: constant(0)? },
            _ => return None,
        },
        "Sin" => Op::Sin { x: value(0)? },
        "Cos" => Op::Cos { x: value(0)? },
        "Gather" => {
            (int(node, "axis").unwrap_or(0) == 0).then_some(Op::Row { table: constant(0)?, index: value(1)? })?
        }
        "Concat" => {
            let parts = (0..node.input.len()).map(value).collect::<Option<Vec<_>>>()?;
            (int(node, "axis") == Some(1)).then_some(Op::Concat { parts })?
        }
        "Resize" => {
            let doubles = constant(2)?.values == [1.0, 1.0, 2.0, 2.0];
            let nearest = text(node, "mode").unwrap_or("nearest") == "nearest"
                && text(node, "coordinate_transformation_mode") == Some("asymmetric")
                && text(node, "nearest_mode") == Some("floor");
            (doubles && nearest).then_some(Op::Upsample { x: value(0)? })?
        }
        "DepthToSpace" => {
            let block = usize::try_from(int(node, "blocksize")?).ok()?;
            (text(node, "mode") == Some("CRD")).then_some(Op::Squares { x: value(0)?, block })?
        }
        // vectors have no dimensions but their length
        "Unsqueeze" | "Identity" => Op::Same { x: value(0)? },
        _ => return None,
    };
    Some((Named { op, out: node.output.first()? }, vec![i]))
}

fn convolution<'a>(graph: &'a Graph<'a>, node: &'a NodeProto) -> Option<Op<'a>> {
    let weights = graph.constant_input(node, 1)?;
    let [_, _, kh, kw] = *weights.dims.as_slice() else { return None };
    let same = |name: &str, default: i64| -> Option<usize> {
        let all = ints(node, name).unwrap_or(&[]);
        let first = all.first().copied().unwrap_or(default);
        all.iter().all(|v| *v == first).then_some(usize::try_from(first).ok()?)
    };
    let plain = int(node, "group").unwrap_or(1) == 1
        && same("dilations", 1)? == 1
        && kh == kw
        && text(node, "auto_pad").is_none_or(|p| p == "NOTSET");
    let bias = match node.input.get(2).filter(|n| !n.is_empty()) {
        Some(name) => Some(graph.constant(name)?),
        None => None,
    };
    plain.then_some(Op::Convolution {
        x: node.input.first()?,
        weights,
        bias,
        stride: same("strides", 1)?,
        padding: same("pads", 0)?,
    })
}

/// The node that alone reads the result of `node`, if it is of this kind.
fn then<'a>(graph: &'a Graph<'a>, node: &'a NodeProto, op: &str) -> Option<(usize, &'a NodeProto)> {
    graph.sole_consumer(node.output.first()?).filter(|(_, n)| n.op_type == op)
}

/// The stored operand of a node that has one of each.
fn stored_operand<'a>(graph: &'a Graph<'a>, node: &'a NodeProto) -> Option<&'a Constant> {
    graph.constant_input(node, 1).or_else(|| graph.constant_input(node, 0))
}

/// Reshape `[0, groups, -1]`, InstanceNormalization, Reshape, Mul, Add.
fn group_norm<'a>(graph: &'a Graph<'a>, i: usize) -> Option<Lowered<'a>> {
    let reshape = graph.nodes[i];
    let shape = &graph.constant_input(reshape, 1)?.values;
    let [_, groups, -1.0] = shape[..] else { return None };
    let (j, unit) = then(graph, reshape, "InstanceNormalization")?;
    let plain = graph.constant_input(unit, 1)?.values.iter().all(|v| *v == 1.0)
        && graph.constant_input(unit, 2)?.values.iter().all(|v| *v == 0.0);
    let (k, back) = then(graph, unit, "Reshape")?;
    let (l, scaled) = then(graph, back, "Mul")?;
    let (m, shifted) = then(graph, scaled, "Add")?;
    let (scale, shift) = (stored_operand(graph, scaled)?, stored_operand(graph, shifted)?);
    let op = Op::Norm {
        x: reshape.input.first()?,
        groups: groups as usize,
        epsilon: float(unit, "epsilon").unwrap_or(1e-5),
        scale,
        shift,
    };
    plain.then_some((Named { op, out: shifted.output.first()? }, vec![i, j, k, l, m]))
}

/// x · sigmoid(x).
fn silu<'a>(graph: &'a Graph<'a>, i: usize) -> Option<Lowered<'a>> {
    let sigmoid = graph.nodes[i];
    let (j, product) = then(graph, sigmoid, "Mul")?;
    let x = sigmoid.input.first()?;
    product.input.contains(x).then_some((Named { op: Op::Silu { x }, out: product.output.first()? }, vec![i, j]))
}

/// QuantizeLinear, DequantizeLinear.
fn rounding<'a>(graph: &'a Graph<'a>, i: usize) -> Option<Lowered<'a>> {
    let quantize = graph.nodes[i];
    let (j, back) = then(graph, quantize, "DequantizeLinear").filter(|(_, n)| n.input[1..] == quantize.input[1..])?;
    let (scale, zero) = (graph.constant_input(quantize, 1)?, graph.constant_input(quantize, 2)?);
    let ([scale], [zero]) = (scale.values.as_slice(), [(zero.values.as_slice(), zero.kind)]) else { return None };
    let zero = match zero {
        ([zero], DataType::Uint8) => *zero as u8,
        // the same values, with every level 128 higher
        ([zero], DataType::Int8) => (*zero + 128.0) as u8,
        _ => return None,
    };
    let op = Op::Round { x: quantize.input.first()?, levels: Levels { scale: *scale, zero } };
    Some((Named { op, out: back.output.first()? }, vec![i, j]))
}

/// Reshape to `[N, 3C, pixels]`, Split, qᵀk, Softmax, v · weightsᵀ, Reshape.
fn attention<'a>(graph: &'a Graph<'a>, i: usize) -> Option<Lowered<'a>> {
    let swaps = |n: &NodeProto| ints(n, "perm") == Some(&[0, 2, 1]);
    let (j, split) = then(graph, graph.nodes[i], "Split")?;
    let [q, k, v] = split.output.as_slice() else { return None };
    let even = graph.constant_input(split, 1)?.values.windows(2).all(|w| w[0] == w[1]);
    let (l, rows) = graph.sole_consumer(q).filter(|(_, n)| n.op_type == "Transpose" && swaps(n))?;
    let (m, scores) = then(graph, rows, "MatMul").filter(|(_, n)| n.input.get(1) == Some(k))?;
    let (n, weights) = then(graph, scores, "Softmax").filter(|(_, n)| matches!(int(n, "axis"), Some(-1 | 2) | None))?;
    let (o, columns) = then(graph, weights, "Transpose").filter(|(_, n)| swaps(n))?;
    let (p, mixed) = then(graph, columns, "MatMul").filter(|(_, n)| n.input.first() == Some(v))?;
    let (r, back) = then(graph, mixed, "Reshape")?;
    let x = graph.nodes[i].input.first()?;
    let covered = vec![i, j, l, m, n, o, p, r];
    (even && int(split, "axis") == Some(1))
        .then_some((Named { op: Op::Attention { x }, out: back.output.first()? }, covered))
}
