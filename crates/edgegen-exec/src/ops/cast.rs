//! Conversions between types. All numbers are f32 here: what is left of a conversion is that fractions are cut off.

use super::unary::UnaryOperation;
use super::{Operator, same_shape};
use crate::constant::{Constant, is_integer};
use crate::graph::Graph;
use crate::lower::{Lowered, Lowering};
use crate::node::int;
use crate::reason::Reason;
use kernels::general::Unary;
use onnx::pb::NodeProto;
use onnx::pb::tensor_proto::DataType;

pub static OPERATORS: &[Operator] = &[
    Operator::new("Cast")
        .infer(same_shape)
        .integer(|n| target(n.node).is_some_and(is_integer))
        .fold(fold)
        .lower(truncate),
    Operator::new("CastLike").fold(|_, input| match *input {
        [Some(a), Some(b)] => Ok(Some(vec![Constant { kind: b.kind, ..a.clone() }])),
        _ => Ok(None),
    }),
];

/// The type that a Cast makes.
fn target(node: &NodeProto) -> Option<DataType> {
    int(node, "to").and_then(|kind| DataType::try_from(i32::try_from(kind).ok()?).ok())
}

/// Whether a Cast of `x` leaves its numbers as they are.
pub fn changes_nothing(graph: &Graph, node: &NodeProto, x: &str) -> bool {
    target(node).is_some_and(|to| graph.is_integer(x) || !is_integer(to))
}

fn fold(node: &NodeProto, input: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Reason> {
    let &[Some(a)] = input else { return Ok(None) };
    let kind = target(node).unwrap_or(DataType::Float);
    if !is_integer(kind) && !a.is_integer() {
        return Ok(Some(vec![Constant { kind, levels: None, ..a.clone() }]));
    }
    let cut = is_integer(kind) && !a.is_integer();
    let cast = a.map(|v| if cut { v.trunc() } else { v });
    Ok(Some(vec![Constant { kind, ..cast }]))
}

/// Floats to whole numbers: other conversions are no steps.
fn truncate<'a>(l: &Lowering<'a>, i: usize) -> Option<Lowered<'a>> {
    l.one(i, UnaryOperation { f: Unary::Truncate, x: l.value(l.node(i), 0)? })
}
