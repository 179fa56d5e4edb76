//! From ONNX nodes to the operations that a plan is made of: the forms that exporters write for group norm, SiLU,
//! GELU, Mish, linear layers and attention are recognised as what they are.

use super::constant::{self, Constant};
use super::graph::{Graph, Reason, Window, einsum, float, int, text};
use kernels::arena::row_major;
use kernels::conv8::Levels;
use kernels::general::{Binary, Reduction, Unary};
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;
use std::collections::HashMap;

/// What an operation reads: a value, or a stored tensor.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// A value that a run computes.
    Value(&'a str),
    /// A stored tensor.
    Stored(&'a Constant),
}

/// A value read as a stack of matrices: its dimensions in the order batch…, row, column.
#[derive(Clone, Debug)]
pub struct Matrices<'a> {
    pub x: Operand<'a>,
    pub order: Vec<usize>,
}

/// How the numbers of a value are read anew.
#[derive(Clone, Debug)]
pub enum Rearrange {
    /// With the dimensions of the result, in the same order.
    Reshape,
    /// With its dimensions in this order.
    Permute(Vec<usize>),
    /// Some of them: for each dimension the first and the step.
    Slice(Vec<(usize, usize)>),
    /// One index of a dimension, which is left out.
    Pick(usize, usize),
    /// With numbers that stand for many.
    Expand,
    /// Each dimension so many times.
    Repeat(Vec<usize>),
    /// Channels of a pixel as squares of pixels: the side, and whether channels come first (CRD).
    Squares(usize, bool),
}

/// An operation on named values.
#[derive(Clone, Debug)]
pub enum Op<'a> {
    /// With weights `[C_out, C_in, kernel…]`.
    Convolution {
        x: &'a str,
        weights: &'a Constant,
        bias: Option<&'a Constant>,
        stride: usize,
        padding: [usize; 2],
    },
    /// A transposed convolution, with weights `[C_in, C_out, kernel…]`.
    Transposed {
        x: &'a str,
        weights: &'a Constant,
        bias: Option<&'a Constant>,
        stride: [usize; 2],
        padding: [usize; 2],
    },
    /// A matrix `[N, K]`, or `[K, N]` if `by_column`, times the last dimension.
    Linear {
        x: &'a str,
        weights: &'a Constant,
        by_column: bool,
        bias: Option<&'a Constant>,
    },
    /// Group normalisation with a scale and a shift for each channel.
    Norm {
        x: &'a str,
        groups: usize,
        epsilon: f32,
        scale: Vec<f32>,
        shift: Vec<f32>,
    },
    /// Normalisation over the last dimension.
    Layer {
        x: &'a str,
        epsilon: f32,
        scale: Vec<f32>,
        shift: Vec<f32>,
    },
    Unary {
        f: Unary,
        x: &'a str,
    },
    Binary {
        f: Binary,
        a: Operand<'a>,
        b: Operand<'a>,
    },
    /// Products of matrices; the result's dimensions in the order batch…, row, column are `order`.
    Product {
        a: Matrices<'a>,
        b: Matrices<'a>,
        order: Vec<usize>,
    },
    /// softmax(scale · q kᵀ + mask) v; the mask has a number for each query and key, those of a query together. The
    /// result's dimensions in the order batch…, query, channel are `order`.
    Attention {
        q: Matrices<'a>,
        k: Matrices<'a>,
        v: Matrices<'a>,
        scale: f32,
        mask: Option<Vec<f32>>,
        order: Vec<usize>,
    },
    /// Over the last dimension.
    Softmax {
        x: &'a str,
    },
    Alias {
        x: &'a str,
        how: Rearrange,
    },
    Concat {
        parts: Vec<Operand<'a>>,
        axis: usize,
    },
    /// Rows of a stored table.
    Rows {
        table: &'a Constant,
        index: &'a str,
    },
    Reduce {
        x: &'a str,
        f: Reduction,
        axes: Vec<usize>,
    },
    /// Every pixel as many times.
    Upsample {
        x: &'a str,
        factors: [usize; 2],
    },
    /// Means of windows of pixels.
    Pool {
        x: &'a str,
        kernel: [usize; 2],
        stride: [usize; 2],
    },
    /// Zeros around: how many before each dimension.
    Pad {
        x: &'a str,
        before: Vec<usize>,
    },
    Round {
        x: &'a str,
        levels: Levels,
    },
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
        let value = |o: &Operand<'a>| if let Operand::Value(name) = o { Some(*name) } else { None };
        match self {
            Op::Convolution { x, .. }
            | Op::Transposed { x, .. }
            | Op::Linear { x, .. }
            | Op::Norm { x, .. }
            | Op::Layer { x, .. }
            | Op::Unary { x, .. }
            | Op::Softmax { x }
            | Op::Alias { x, .. }
            | Op::Rows { index: x, .. }
            | Op::Reduce { x, .. }
            | Op::Upsample { x, .. }
            | Op::Pool { x, .. }
            | Op::Pad { x, .. }
            | Op::Round { x, .. } => vec![x],
            Op::Binary { a, b, .. } => [a, b].into_iter().filter_map(value).collect(),
            Op::Product { a, b, .. } => [&a.x, &b.x].into_iter().filter_map(value).collect(),
            Op::Attention { q, k, v, .. } => [&q.x, &k.x, &v.x].into_iter().filter_map(value).collect(),
            Op::Concat { parts, .. } => parts.iter().filter_map(value).collect(),
        }
    }
}

/// The operations of a graph, in an order in which they can run.
///
/// # Errors
/// The first node that is not known.
pub fn lower<'a>(graph: &'a Graph<'a>) -> Result<Vec<Named<'a>>, Reason> {
    let mut lowering = Lowering { graph, same: HashMap::new() };
    let mut done = vec![false; graph.nodes.len()];
    // an operation takes the place of the last of the nodes that it stands for, after all that it reads
    let mut waiting: HashMap<usize, Vec<Named>> = HashMap::new();
    let mut ops = Vec::new();
    for i in 0..graph.nodes.len() {
        if !done[i] {
            let node = graph.nodes[i];
            if let Some(x) = lowering.unchanged(node) {
                lowering.same.insert(&node.output[0], x);
                continue;
            }
            let lowered = lowering
                .node(i)
                .ok_or_else(|| format!("{} {} is of a form that is not known", node.op_type, node.name))?;
            let last = lowered.covered.iter().copied().max().unwrap_or(i);
            lowered.covered.iter().for_each(|j| done[*j] = true);
            waiting.entry(last).or_default().extend(lowered.ops);
        }
        ops.extend(waiting.remove(&i).unwrap_or_default());
    }
    Ok(ops)
}

/// The name that a graph's output is known by after nodes that change nothing.
pub fn resolve<'a>(graph: &'a Graph<'a>, name: &'a str) -> &'a str {
    let lowering = Lowering { graph, same: HashMap::new() };
    let made = |name: &str| graph.nodes.iter().find(|n| n.output.first().is_some_and(|o| o == name)).copied();
    let mut name = name;
    while let Some(x) = made(name).and_then(|node| lowering.unchanged(node)) {
        name = x;
    }
    name
}

struct Lowering<'g, 'a> {
    graph: &'g Graph<'a>,
    /// Values that are others unchanged.
    same: HashMap<&'a str, &'a str>,
}

struct Lowered<'a> {
    ops: Vec<Named<'a>>,
    covered: Vec<usize>,
}

/// A product of matrices: its operands as such, and its result's dimensions in the order batch…, row, column.
struct Product<'a> {
    a: Matrices<'a>,
    b: Matrices<'a>,
    order: Vec<usize>,
}

impl<'g: 'a, 'a> Lowering<'g, 'a> {
    fn same(&self, name: &'a str) -> &'a str {
        self.same.get(name).copied().unwrap_or(name)
    }

    /// The value that a node passes on as it is.
    fn unchanged(&self, node: &'a NodeProto) -> Option<&'a str> {
        let x = node.input.first().map(String::as_str).filter(|n| self.graph.constant(n).is_none())?;
        let nothing = match node.op_type.as_str() {
            "Identity" | "Dropout" => true,
            "Cast" => {
                let to = int(node, "to").and_then(|k| DataType::try_from(k as i32).ok())?;
                self.graph.is_integer(x) || !constant::is_integer(to)
            }
            _ => false,
        };
        nothing.then(|| self.same(x))
    }

    fn value(&self, node: &'a NodeProto, k: usize) -> Option<&'a str> {
        let name = node.input.get(k).map(String::as_str).filter(|n| !n.is_empty())?;
        self.graph.constant(name).is_none().then(|| self.same(name))
    }

    fn constant(&self, node: &NodeProto, k: usize) -> Option<&'g Constant> {
        self.graph.constant_input(node, k)
    }

    /// The stored tensor that is input `k` of a node, which may be left out.
    fn optional(&self, node: &NodeProto, k: usize) -> Option<Option<&'g Constant>> {
        match node.input.get(k).filter(|n| !n.is_empty()) {
            Some(_) => self.constant(node, k).map(Some),
            None => Some(None),
        }
    }

    fn operand(&self, node: &'a NodeProto, k: usize) -> Option<Operand<'a>> {
        match self.constant(node, k) {
            Some(c) => Some(Operand::Stored(c)),
            None => self.value(node, k).map(Operand::Value),
        }
    }

    fn dims(&self, name: &str) -> Option<&'g [usize]> {
        self.graph.dims(name)
    }

    /// The node that alone reads the result of `node`, if it is of this kind.
    fn then(&self, node: &NodeProto, op: &str) -> Option<(usize, &'a NodeProto)> {
        self.graph.sole_consumer(node.output.first()?).filter(|(_, n)| n.op_type == op)
    }

    fn node(&self, i: usize) -> Option<Lowered<'a>> {
        let node = self.graph.nodes[i];
        let value = |k: usize| self.value(node, k);
        let unary = |f: Unary| Some(Op::Unary { f, x: value(0)? });
        let binary = |f: Binary| Some(Op::Binary { f, a: self.operand(node, 0)?, b: self.operand(node, 1)? });
        let op = match node.op_type.as_str() {
            "Conv" => self.convolution(node)?,
            "ConvTranspose" => self.transposed(node)?,
            "Gemm" => {
                let plain = float(node, "alpha").unwrap_or(1.0) == 1.0
                    && float(node, "beta").unwrap_or(1.0) == 1.0
                    && int(node, "transA").unwrap_or(0) == 0;
                let bias = self.optional(node, 2)?;
                let weights = self.constant(node, 1)?;
                let by_column = int(node, "transB").unwrap_or(0) == 0;
                plain.then_some(Op::Linear { x: value(0)?, weights, by_column, bias })?
            }
            "MatMul" => return self.linear(i).or_else(|| self.attention(i)).or_else(|| self.product(i)),
            "Einsum" => return self.attention(i).or_else(|| self.product(i)),
            "GroupNormalization" => self.group_normalization(node)?,
            "LayerNormalization" => {
                let x = value(0)?;
                let dims = self.dims(x)?;
                let last = constant::axis(int(node, "axis").unwrap_or(-1), dims.len()).ok()? == dims.len() - 1;
                let length = *dims.last()?;
                let of = |k: usize, default: f32| match node.input.get(k).filter(|n| !n.is_empty()) {
                    Some(_) => self.constant(node, k).filter(|c| c.values.len() == length).map(|c| c.values.to_vec()),
                    None => Some(vec![default; length]),
                };
                let epsilon = float(node, "epsilon").unwrap_or(1e-5);
                last.then_some(Op::Layer { x, epsilon, scale: of(1, 1.0)?, shift: of(2, 0.0)? })?
            }
            "Reshape" => return self.group_norm(i).or_else(|| self.alias(i, Rearrange::Reshape)),
            "Unsqueeze" | "Squeeze" | "Flatten" => return self.alias(i, Rearrange::Reshape),
            "Expand" => return self.alias(i, Rearrange::Expand),
            "Tile" => {
                let times = self.constant(node, 1)?.integers();
                let times = times.into_iter().map(|t| usize::try_from(t).ok()).collect::<Option<_>>()?;
                return self.alias(i, Rearrange::Repeat(times));
            }
            "Transpose" => {
                let perm = constant::permutation(node, self.dims(&node.input[0])?.len()).ok()?;
                return self.alias(i, Rearrange::Permute(perm));
            }
            "Slice" => {
                let input: Vec<Option<&Constant>> = (0..node.input.len()).map(|k| self.constant(node, k)).collect();
                let parts = constant::slice(node, self.dims(&node.input[0])?, &input).ok()?;
                let forward = parts.iter().map(|(first, step, _)| Some((*first, usize::try_from(*step).ok()?)));
                return self.alias(i, Rearrange::Slice(forward.collect::<Option<_>>()?));
            }
            "Split" => return self.split(i),
            "DepthToSpace" => {
                let block = usize::try_from(int(node, "blocksize")?).ok()?;
                return self.alias(i, Rearrange::Squares(block, text(node, "mode") == Some("CRD")));
            }
            "QuantizeLinear" => return self.rounding(i),
            "Sigmoid" => return self.silu(i).or_else(|| self.one(i, unary(Unary::Sigmoid)?)),
            "Softplus" => return self.mish(i).or_else(|| self.one(i, unary(Unary::Softplus)?)),
            "Div" | "Mul" => {
                return self.gelu(i).or_else(|| {
                    self.one(i, binary(if node.op_type == "Div" { Binary::Divide } else { Binary::Multiply })?)
                });
            }
            "Tanh" => unary(Unary::Tanh)?,
            "Relu" => unary(Unary::Relu)?,
            "Erf" => unary(Unary::Erf)?,
            "Sqrt" => unary(Unary::Sqrt)?,
            "Exp" => unary(Unary::Exp)?,
            "Log" => unary(Unary::Log)?,
            "Sin" => unary(Unary::Sin)?,
            "Cos" => unary(Unary::Cos)?,
            "Neg" => unary(Unary::Negate)?,
            "Reciprocal" => unary(Unary::Reciprocal)?,
            "Abs" => unary(Unary::Absolute)?,
            "Floor" => unary(Unary::Floor)?,
            // what is left of them after `unchanged` makes floats whole
            "Cast" => unary(Unary::Truncate)?,
            "Mish" => unary(Unary::Mish)?,
            "Swish" if float(node, "alpha").unwrap_or(1.0) == 1.0 => unary(Unary::Silu)?,
            "Gelu" => unary(if text(node, "approximate") == Some("tanh") { Unary::GeluTanh } else { Unary::Gelu })?,
            "Clip" => {
                let bound = |k: usize, none: f32| match node.input.get(k).filter(|n| !n.is_empty()) {
                    Some(_) => self.constant(node, k)?.values.first().copied(),
                    None => Some(none),
                };
                unary(Unary::Clamp(bound(1, f32::MIN)?, bound(2, f32::MAX)?))?
            }
            "Add" => binary(Binary::Add)?,
            "Sub" => binary(Binary::Subtract)?,
            "Min" => binary(Binary::Least)?,
            "Max" => binary(Binary::Greatest)?,
            "Pow" => match self.constant(node, 1).and_then(Constant::uniform) {
                Some(2.0) => unary(Unary::Square)?,
                Some(3.0) => unary(Unary::Cube)?,
                Some(0.5) => unary(Unary::Sqrt)?,
                _ => return None,
            },
            "Softmax" => {
                let x = value(0)?;
                let rank = self.dims(x)?.len();
                let last = constant::axis(int(node, "axis").unwrap_or(-1), rank).ok()? + 1 == rank;
                last.then_some(Op::Softmax { x })?
            }
            "ReduceMean" | "ReduceSum" => {
                let x = value(0)?;
                let rank = self.dims(x)?.len();
                let axes = constant::axes(node, self.constant(node, 1)).unwrap_or_else(|| (0..rank as i64).collect());
                let axes = axes.into_iter().map(|a| constant::axis(a, rank).ok()).collect::<Option<Vec<_>>>()?;
                let f = if node.op_type == "ReduceMean" { Reduction::Mean } else { Reduction::Sum };
                Op::Reduce { x, f, axes }
            }
            "Gather" => return self.gather(i),
            "Concat" => {
                let parts = (0..node.input.len()).map(|k| self.operand(node, k)).collect::<Option<Vec<_>>>()?;
                let axis = constant::axis(int(node, "axis")?, self.dims(&node.output[0])?.len()).ok()?;
                Op::Concat { parts, axis }
            }
            "Resize" | "Upsample" => self.resize(node)?,
            "AveragePool" => {
                let x = value(0)?;
                let window = Window::of(node, self.dims(x)?)?;
                let plain = window.before.iter().chain(&window.after).all(|p| *p == 0);
                plain.then_some(Op::Pool { x, kernel: pair(&window.kernel, 1)?, stride: pair(&window.strides, 1)? })?
            }
            "Pad" => {
                let zero = text(node, "mode").is_none_or(|m| m == "constant")
                    && self.constant(node, 2).is_none_or(|c| c.uniform() == Some(0.0));
                let pads = self.constant(node, 1)?.integers();
                let before = pads.iter().map(|p| usize::try_from(*p).ok()).collect::<Option<Vec<_>>>()?;
                zero.then_some(Op::Pad { x: value(0)?, before: before[..pads.len() / 2].to_vec() })?
            }
            _ => return None,
        };
        self.one(i, op)
    }

    fn one(&self, i: usize, op: Op<'a>) -> Option<Lowered<'a>> {
        Some(Lowered { ops: vec![Named { op, out: self.graph.nodes[i].output.first()? }], covered: vec![i] })
    }

    fn alias(&self, i: usize, how: Rearrange) -> Option<Lowered<'a>> {
        self.one(i, Op::Alias { x: self.value(self.graph.nodes[i], 0)?, how })
    }

    fn split(&self, i: usize) -> Option<Lowered<'a>> {
        let node = self.graph.nodes[i];
        let x = self.value(node, 0)?;
        let dims = self.dims(x)?;
        let axis = constant::axis(int(node, "axis").unwrap_or(0), dims.len()).ok()?;
        let mut first = 0;
        let mut ops = Vec::new();
        for (out, size) in node.output.iter().zip(constant::split(node, dims[axis], self.constant(node, 1)).ok()?) {
            let mut parts = vec![(0, 1); dims.len()];
            parts[axis].0 = first;
            ops.push(Named { op: Op::Alias { x, how: Rearrange::Slice(parts) }, out });
            first += size;
        }
        Some(Lowered { ops, covered: vec![i] })
    }

    /// Rows of a stored table by a computed index, or a part of a value by a stored one.
    fn gather(&self, i: usize) -> Option<Lowered<'a>> {
        let node = self.graph.nodes[i];
        let rank = self.dims(&node.input[0])?.len();
        let axis = constant::axis(int(node, "axis").unwrap_or(0), rank).ok()?;
        if let (Some(table), Some(index)) = (self.constant(node, 0), self.value(node, 1)) {
            return if axis == 0 { self.one(i, Op::Rows { table, index }) } else { None };
        }
        let (x, index) = (self.value(node, 0)?, self.constant(node, 1)?);
        let [at] = index.integers()[..] else { return None };
        let length = self.dims(x)?[axis] as i64;
        let at = usize::try_from(if at < 0 { at + length } else { at }).ok().filter(|a| *a < length as usize)?;
        if index.dims.is_empty() {
            return self.alias(i, Rearrange::Pick(axis, at));
        }
        let mut parts = vec![(0, 1); rank];
        parts[axis].0 = at;
        self.alias(i, Rearrange::Slice(parts))
    }

    fn convolution(&self, node: &'a NodeProto) -> Option<Op<'a>> {
        let weights = self.constant(node, 1)?;
        let window = Window::of(node, &weights.dims)?;
        let stride = *window.strides.first()?;
        let even = window.strides.iter().all(|s| *s == stride);
        let plain = window.group == 1 && window.before == window.after && window.kernel.len() <= 2 && even;
        let bias = self.optional(node, 2)?;
        let x = self.value(node, 0)?;
        let fits = bias.is_none_or(|b| b.values.len() == weights.dims[0]);
        (plain && fits).then_some(Op::Convolution { x, weights, bias, stride, padding: pair(&window.before, 0)? })
    }

    fn transposed(&self, node: &'a NodeProto) -> Option<Op<'a>> {
        let weights = self.constant(node, 1)?;
        let window = Window::of(node, &weights.dims)?;
        let inside = window.before.iter().zip(&window.kernel).all(|(p, k)| p < k);
        let plain = window.group == 1
            && window.before == window.after
            && window.output_padding.iter().zip(&window.before).all(|(o, p)| o <= p)
            && inside;
        let bias = self.optional(node, 2)?;
        let (stride, padding) = (pair(&window.strides, 1)?, pair(&window.before, 0)?);
        let fits = bias.is_none_or(|b| b.values.len() == weights.dims[1]);
        (plain && fits).then_some(Op::Transposed { x: self.value(node, 0)?, weights, bias, stride, padding })
    }

    /// MatMul by a stored matrix, with the Add of a stored vector that may follow.
    fn linear(&self, i: usize) -> Option<Lowered<'a>> {
        let node = self.graph.nodes[i];
        let (x, weights) = (self.value(node, 0)?, self.constant(node, 1).filter(|c| c.dims.len() == 2)?);
        let length = weights.dims[1];
        let bias = self.then(node, "Add").and_then(|(j, add)| {
            let bias = self.constant(add, 1).or_else(|| self.constant(add, 0))?;
            let last = bias.values.len() == length && bias.dims.last() == Some(&length);
            last.then_some((j, add, bias))
        });
        let op = |bias| Op::Linear { x, weights, by_column: true, bias };
        match bias {
            Some((j, add, bias)) => {
                Some(Lowered { ops: vec![Named { op: op(Some(bias)), out: &add.output[0] }], covered: vec![i, j] })
            }
            None => self.one(i, op(None)),
        }
    }

    fn group_normalization(&self, node: &'a NodeProto) -> Option<Op<'a>> {
        let x = self.value(node, 0)?;
        let channels = *self.dims(x)?.get(1)?;
        let groups = usize::try_from(int(node, "num_groups")?).ok()?;
        let groups = Some(groups).filter(|g| *g > 0 && channels.is_multiple_of(*g))?;
        // one for each channel, or, before opset 21, for each group
        let each = |k: usize| -> Option<Vec<f32>> {
            let values = &self.constant(node, k)?.values;
            match values.len() {
                n if n == channels => Some(values.to_vec()),
                n if n == groups => Some((0..channels).map(|c| values[c / (channels / groups)]).collect()),
                _ => None,
            }
        };
        let epsilon = float(node, "epsilon").unwrap_or(1e-5);
        Some(Op::Norm { x, groups, epsilon, scale: each(1)?, shift: each(2)? })
    }

    /// Reshape to `[1, groups, …]`, InstanceNormalization, Reshape back, and the Mul and Add of a number a channel
    /// that may follow.
    fn group_norm(&self, i: usize) -> Option<Lowered<'a>> {
        let reshape = self.graph.nodes[i];
        let x = self.value(reshape, 0)?;
        let (dims, cut) = (self.dims(x)?, self.dims(&reshape.output[0])?);
        let (j, unit) = self.then(reshape, "InstanceNormalization")?;
        let (k, back) = self.then(unit, "Reshape")?;
        let channels = *dims.get(1)?;
        let groups = *cut.get(1)?;
        let fits = dims[0] == 1 && cut[0] == 1 && groups > 0 && channels.is_multiple_of(groups);
        if !fits || self.dims(&back.output[0])? != dims {
            return None;
        }
        let of_group = |k: usize| -> Option<Vec<f32>> {
            let values = &self.constant(unit, k)?.values;
            (values.len() == groups).then(|| (0..channels).map(|c| values[c / (channels / groups)]).collect())
        };
        let (mut scale, mut shift) = (of_group(1)?, of_group(2)?);
        let (mut covered, mut last) = (vec![i, j, k], back);
        let of_channel = |node: &'a NodeProto| -> Option<&'g Constant> {
            let c = self.constant(node, 1).or_else(|| self.constant(node, 0))?;
            // its first dimension but those of one is the channels', and the others are one
            let place = c.dims.len() + 1 == dims.len() || c.dims.len() == dims.len();
            let at = c.dims.len().checked_sub(dims.len() - 1)?;
            (place && c.values.len() == channels && c.dims.get(at) == Some(&channels)).then_some(c)
        };
        if let Some((l, node)) = self.then(last, "Mul")
            && let Some(c) = of_channel(node)
        {
            scale.iter_mut().zip(c.values.iter()).for_each(|(s, c)| *s *= c);
            shift.iter_mut().zip(c.values.iter()).for_each(|(s, c)| *s *= c);
            covered.push(l);
            last = node;
        }
        if let Some((l, node)) = self.then(last, "Add")
            && let Some(c) = of_channel(node)
        {
            shift.iter_mut().zip(c.values.iter()).for_each(|(s, c)| *s += c);
            covered.push(l);
            last = node;
        }
        let epsilon = float(unit, "epsilon").unwrap_or(1e-5);
        let op = Op::Norm { x, groups, epsilon, scale, shift };
        Some(Lowered { ops: vec![Named { op, out: &last.output[0] }], covered })
    }

    /// x · sigmoid(x).
    fn silu(&self, i: usize) -> Option<Lowered<'a>> {
        let sigmoid = self.graph.nodes[i];
        let (j, product) = self.then(sigmoid, "Mul")?;
        self.times(sigmoid.input.first()?, Unary::Silu, product, vec![i, j])
    }

    /// x · tanh(softplus(x)).
    fn mish(&self, i: usize) -> Option<Lowered<'a>> {
        let softplus = self.graph.nodes[i];
        let (j, tanh) = self.then(softplus, "Tanh")?;
        let (k, product) = self.then(tanh, "Mul")?;
        self.times(softplus.input.first()?, Unary::Mish, product, vec![i, j, k])
    }

    /// x · (1 + erf(x / √2)) · ½.
    fn gelu(&self, i: usize) -> Option<Lowered<'a>> {
        let first = self.graph.nodes[i];
        let by = self.constant(first, 1)?.uniform()?;
        let root = if first.op_type == "Div" { by } else { 1.0 / by };
        let (j, erf) = self.then(first, "Erf").filter(|_| (root - std::f32::consts::SQRT_2).abs() < 1e-4)?;
        let number =
            |node: &'a NodeProto| self.constant(node, 1).or_else(|| self.constant(node, 0)).and_then(Constant::uniform);
        let (k, add) = self.then(erf, "Add").filter(|(_, n)| number(n) == Some(1.0))?;
        let (l, product) = self.then(add, "Mul")?;
        let x = first.input.first()?;
        let (m, half) = self.then(product, "Mul").filter(|(_, n)| number(n) == Some(0.5))?;
        if !product.input.contains(x) {
            return None;
        }
        let op = Op::Unary { f: Unary::Gelu, x: self.same(x) };
        Some(Lowered { ops: vec![Named { op, out: &half.output[0] }], covered: vec![i, j, k, l, m] })
    }

    fn times(&self, x: &'a String, f: Unary, product: &'a NodeProto, covered: Vec<usize>) -> Option<Lowered<'a>> {
        let named = Named { op: Op::Unary { f, x: self.same(x) }, out: product.output.first()? };
        product.input.contains(x).then_some(Lowered { ops: vec![named], covered })
    }

    /// QuantizeLinear, DequantizeLinear.
    fn rounding(&self, i: usize) -> Option<Lowered<'a>> {
        let quantize = self.graph.nodes[i];
        let back = self.then(quantize, "DequantizeLinear");
        let (j, back) = back.filter(|(_, n)| n.input[1..] == quantize.input[1..])?;
        let (scale, zero) = (self.constant(quantize, 1)?, self.constant(quantize, 2)?);
        let ([scale], [zero], kind) = (scale.values.as_slice(), zero.values.as_slice(), zero.kind) else { return None };
        let zero = match kind {
            DataType::Uint8 => *zero as u8,
            // the same values, with every level 128 higher
            DataType::Int8 => (*zero + 128.0) as u8,
            _ => return None,
        };
        let op = Op::Round { x: self.value(quantize, 0)?, levels: Levels { scale: *scale, zero } };
        Some(Lowered { ops: vec![Named { op, out: back.output.first()? }], covered: vec![i, j] })
    }

    fn resize(&self, node: &'a NodeProto) -> Option<Op<'a>> {
        let x = self.value(node, 0)?;
        let (from, to) = (self.dims(x)?, self.dims(&node.output[0])?);
        if from.len() < 3 || to.len() != from.len() {
            return None;
        }
        let whole = from.iter().zip(to).all(|(f, t)| *f > 0 && t.is_multiple_of(*f)) && from[..2] == to[..2];
        let factors = pair(&from[2..].iter().zip(&to[2..]).map(|(f, t)| t / f).collect::<Vec<_>>(), 1)?;
        let coordinates = text(node, "coordinate_transformation_mode").unwrap_or("half_pixel");
        let rounding = text(node, "nearest_mode").unwrap_or("round_prefer_floor");
        let floors = match (coordinates, rounding) {
            ("asymmetric", "floor") => true,
            // for a factor of two both come to the same
            ("half_pixel", "round_prefer_floor") => factors.iter().all(|f| *f <= 2),
            _ => node.op_type == "Upsample",
        };
        let nearest = text(node, "mode").unwrap_or("nearest") == "nearest";
        (whole && nearest && floors).then_some(Op::Upsample { x, factors })
    }

    /// A MatMul or Einsum of two operands as a product of stacks of matrices.
    fn as_product(&self, node: &'a NodeProto) -> Option<Product<'a>> {
        let operands = [self.operand(node, 0)?, self.operand(node, 1)?];
        let rank = |k: usize| self.dims(&node.input[k]).map(<[usize]>::len);
        match node.op_type.as_str() {
            "MatMul" => {
                // the batch of one of the two may be left out, or stand for all
                let [a, b] = [0, 1].map(|k| rank(k).map(|r| Matrices { x: operands[k], order: (0..r).collect() }));
                let order = (0..self.dims(&node.output[0])?.len()).collect();
                Some(Product { a: a?, b: b?, order })
            }
            "Einsum" => {
                let (terms, result) = einsum(node)?;
                let [x, y] = terms.as_slice() else { return None };
                let place = |t: &[char], c: char| t.iter().position(|o| *o == c);
                let only = |t: &[char], with: &[&[char]], without: &[&[char]]| -> Vec<char> {
                    let fits = |c: &char| with.iter().all(|w| w.contains(c)) && !without.iter().any(|w| w.contains(c));
                    t.iter().copied().filter(fits).collect()
                };
                let batch = only(x, &[y, &result], &[]);
                let [row] = only(x, &[&result], &[y])[..] else { return None };
                let [column] = only(y, &[&result], &[x])[..] else { return None };
                let [inner] = only(x, &[y], &[&result])[..] else { return None };
                let order = |t: &[char], last: [char; 2]| -> Option<Vec<usize>> {
                    batch.iter().copied().chain(last).map(|c| place(t, c)).collect()
                };
                let whole = x.len() == batch.len() + 2 && y.len() == x.len() && result.len() == x.len();
                whole.then_some(Product {
                    a: Matrices { x: operands[0], order: order(x, [row, inner])? },
                    b: Matrices { x: operands[1], order: order(y, [inner, column])? },
                    order: order(&result, [row, column])?,
                })
            }
            _ => None,
        }
    }

    fn product(&self, i: usize) -> Option<Lowered<'a>> {
        let node = self.graph.nodes[i];
        if node.op_type == "Einsum" && node.input.len() == 1 {
            let (terms, result) = einsum(node)?;
            let perm = result.iter().map(|c| terms[0].iter().position(|o| o == c)).collect::<Option<Vec<_>>>()?;
            return if perm.len() == terms[0].len() { self.alias(i, Rearrange::Permute(perm)) } else { None };
        }
        let Product { a, b, order } = self.as_product(node)?;
        self.one(i, Op::Product { a, b, order })
    }

    /// A product, its scaling, a stored mask that it is added to or that fills some of it, softmax over one of its dimensions, and a product that sums over that dimension.
    fn attention(&self, i: usize) -> Option<Lowered<'a>> {
        let first = self.graph.nodes[i];
        let scores = self.as_product(first)?;
        let (mut covered, mut last, mut scale, mut mask) = (vec![i], first, 1.0, None);
        while let Some((j, node)) = self.graph.sole_consumer(&last.output[0]) {
            let by = |k: usize| self.constant(node, k).and_then(Constant::uniform);
            match node.op_type.as_str() {
                "Mul" if mask.is_none() => scale *= by(1).or_else(|| by(0))?,
                "Div" if mask.is_none() => scale /= by(1)?,
                "Add" | "Where" if mask.is_none() && self.dims(&node.output[0]) == self.dims(&last.output[0]) => {
                    mask = Some((j, node));
                }
                _ => break,
            }
            covered.push(j);
            last = node;
        }
        let (j, softmax) = self.then(last, "Softmax")?;
        covered.push(j);
        let rank = scores.order.len();
        let mut over = constant::axis(int(softmax, "axis").unwrap_or(-1), rank).ok()?;
        let scores_order = scores.order;
        // keys are what the weights are over
        let (queries, keys) = match scores_order.iter().position(|o| *o == over)? {
            p if p == rank - 1 => (scores.a, swapped(scores.b)),
            p if p == rank - 2 => (swapped(scores.b), scores.a),
            _ => return None,
        };
        let mask = match mask {
            Some((_, node)) => {
                let query = *scores_order[rank - 2..].iter().find(|d| **d != over)?;
                Some(self.mask(node, query, over)?)
            }
            None => None,
        };
        last = softmax;
        let mut turn: Vec<usize> = (0..rank).collect();
        if let Some((j, node)) = self.then(last, "Transpose") {
            turn = constant::permutation(node, rank).ok()?;
            over = turn.iter().position(|p| *p == over)?;
            covered.push(j);
            last = node;
        }
        let (j, node) = self.graph.sole_consumer(&last.output[0])?;
        let Product { a, b, order } = self.as_product(node)?;
        covered.push(j);
        let weights_first = node.input[0] == last.output[0];
        let (weights, values, order) = if weights_first {
            (a, b, order)
        } else {
            // the transpose of the product: (v wᵀ)ᵀ = w vᵀ
            (swapped(b), swapped(a), swap(order))
        };
        // its columns must be the keys, and its batch that of the scores
        let batch_is = |m: &[usize]| m.len() == rank && (0..rank - 2).all(|d| turn[m[d]] == scores_order[d]);
        if weights.order.last() != Some(&over) || !batch_is(&weights.order) || values.order.len() != rank {
            return None;
        }
        let of_rank = |m: &Matrices| m.order.len() == rank;
        if !of_rank(&queries) || !of_rank(&keys) {
            return None;
        }
        let op = Op::Attention { q: queries, k: keys, v: values, scale, mask, order };
        Some(Lowered { ops: vec![Named { op, out: &node.output[0] }], covered })
    }
}

impl<'g: 'a, 'a> Lowering<'g, 'a> {
    /// What a node adds to scores whose queries and keys are these dimensions, for each query and key, if it is the same
    /// for all of the batch: a stored tensor, or numbers that scores are replaced by and so small that no weight is left.
    fn mask(&self, node: &'a NodeProto, query: usize, key: usize) -> Option<Vec<f32>> {
        let dims = self.dims(&node.output[0])?;
        let (queries, keys) = (dims[query], dims[key]);
        let spread = |k: usize| -> Option<Vec<f32>> {
            let c = self.constant(node, k)?;
            let strides = constant::broadcast_strides(&c.dims, &row_major(&c.dims), dims);
            let shared = (0..dims.len()).all(|d| d == query || d == key || strides[d] == 0 || dims[d] == 1);
            let at = |i: usize| c.values[i / keys * strides[query] + i % keys * strides[key]];
            shared.then(|| (0..queries * keys).map(at).collect())
        };
        if node.op_type == "Add" {
            return spread(0).or_else(|| spread(1));
        }
        let (which, least) = (spread(0)?, -1e4);
        let kept = |replaced: bool| -> Vec<bool> { which.iter().map(|w| (*w != 0.0) != replaced).collect() };
        let (kept, by) = spread(1).map(|by| (kept(true), by)).or_else(|| spread(2).map(|by| (kept(false), by)))?;
        let small = kept.iter().zip(&by).all(|(kept, v)| *kept || *v <= least);
        // where nothing is kept, the numbers themselves would have a say
        let some = kept.chunks(keys).all(|line| line.contains(&true));
        let mask = kept.iter().map(|kept| if *kept { 0.0 } else { f32::NEG_INFINITY });
        (small && some).then(|| mask.collect())
    }
}

fn swap(mut order: Vec<usize>) -> Vec<usize> {
    let n = order.len();
    order.swap(n - 1, n - 2);
    order
}

fn swapped(m: Matrices) -> Matrices {
    Matrices { x: m.x, order: swap(m.order) }
}

/// One or two sides as two; a sequence is a picture of one row.
pub fn pair(sides: &[usize], row: usize) -> Option<[usize; 2]> {
    match *sides {
        [w] => Some([row, w]),
        [h, w] => Some([h, w]),
        _ => None,
    }
}
