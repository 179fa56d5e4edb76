//! Softmax and LogSoftmax.

use super::row_op::RowOperation;
use super::{Operator, same_shape};
use crate::lower::{Lowered, Lowering};
use crate::node::{axis, int};
use kernels::general::RowOp;
use onnx::pb::NodeProto;

pub static OPERATORS: &[Operator] = &[
    row_op("Softmax").lower(|l, i| lower(l, i, RowOp::Softmax)),
    row_op("LogSoftmax").lower(|l, i| lower(l, i, RowOp::LogSoftmax)),
];

const fn row_op(name: &'static str) -> Operator {
    Operator::new(name).attributes(&["axis"]).infer(|n| {
        axis(int(n.node, "axis").unwrap_or(0), n.shape(0)?.len())?;
        same_shape(n)
    })
}

/// The dimension that a Softmax is over. Before opset 13 it is over that and all after it, which is one only if these are 1.
pub fn softmax_axis(l: &Lowering, node: &NodeProto) -> Option<usize> {
    let dims = l.dims(node.input.first()?)?;
    let old = l.graph.opset < 13;
    let at = axis(int(node, "axis").unwrap_or(if old { 1 } else { -1 }), dims.len()).ok()?;
    let longer = |all: &[usize]| all.iter().any(|d| *d != 1);
    match old {
        false => Some(at),
        true if !longer(&dims[at + 1..]) => Some(at),
        true if dims[at..].iter().filter(|d| **d != 1).count() == 1 => (at..dims.len()).find(|i| dims[*i] != 1),
        true => None,
    }
}

fn lower<'a>(l: &Lowering<'a>, i: usize, function: RowOp) -> Option<Lowered<'a>> {
    let node = l.node(i);
    let x = l.value(node, 0)?;
    let rank = l.dims(x)?.len();
    match softmax_axis(l, node) {
        Some(axis) => l.one(i, RowOperation { x, function, axes: vec![axis] }),
        // all dimensions from that on, as one
        None => {
            let first = axis(int(node, "axis").unwrap_or(1), rank).ok()?;
            l.one(i, RowOperation { x, function, axes: (first..rank).collect() })
        }
    }
}
